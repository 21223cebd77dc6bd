"""KV streams and the jobs that run in them: prefixes are reused, equal sequences merged, gaps closed.

A stream remembers the tokens whose keys and values it holds. A job starts from the longest prefix of its tokens that
any stream holds: in the same stream if that is idle and ends there, else in another one that gets a copy.

Jobs with equal tokens share a stream, so that a prompt, and often the first steps, are evaluated once for many
samples. Each job draws with its own sampler; one that draws another token than the others moves to a stream of its
own. Equal tokens are charged once to each call, so that the cost of a call does not depend on other callers. A job
that begins later draws from stored logits (:mod:`edge_tts.runtimes.token_tree`) and needs a stream only once it draws
something new.

llama.cpp evaluates sequences with consecutive numbers together and begins a new part of the batch at every gap
(``llama_batch_allocr::split_equal``), which about doubles the cost for eight sequences with gaps. So running streams
are kept next to each other: copying a stream costs a fraction of that.

When more jobs wait than fit, the call with the fewest running jobs is next, and among equals the one served longest
ago: a call of one job does not wait for all jobs of a call of hundreds.
"""

from __future__ import annotations

import queue
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_tts.core import Request, StepEvent, StopReason
from edge_tts.errors import EdgeError
from edge_tts.runtimes.common_prefix import common_prefix
from edge_tts.runtimes.llama_native import NativeSampler
from edge_tts.runtimes.token_tree import Branches, TokenTree

WAIT_FOR_PREFIX = 8
"""A request waits for a tick if a running stream will then hold this many more of its tokens."""
FEW_TOKENS = 8
"""A stream with at most this many waiting tokens evaluates them one a tick while others run ..."""
CROWD = 4
"""... if at least this many streams run."""
MIN_FORK = 16
"""A common prefix shorter than this is evaluated again: copying a stream costs more."""


@dataclass(eq=False)
class Call:
    """One ``generate`` call."""

    deadline: float | None
    tree: TokenTree
    events: queue.SimpleQueue[StepEvent | EdgeError | None] = field(default_factory=queue.SimpleQueue)
    """What the caller reads; None tells it that the call was cancelled."""
    cancelled: bool = False
    dropped: set[int] = field(default_factory=set)
    """Indices of requests that are not wanted any more."""
    served: int = 0
    """Number of the latest admission of one of its jobs."""


@dataclass(eq=False)
class Job:
    """One request, waiting or running in a stream."""

    call: Call
    index: int
    request: Request
    tokens: list[int]
    """What its stream has to hold before it draws; kept up to date while it waits."""
    delimiter: bytes = b"\n"
    """What ends a step."""
    fresh: int = 1
    """How many tokens at the end of ``tokens`` are charged as new text; 1 for the first draw of a request."""
    step: list[int] = field(default_factory=list)
    text: bytes = b""
    """Of the step under way."""
    before: bytes = b""
    """The end of the text before this step, as far as a stop text may begin in it."""
    logprob: float = 0.0
    prefill: int = 0
    shared: int = 0
    forced: int = 0
    produced: int = 0
    steps: int = 0
    ended: bool = False
    """Whether its caller has been told that it was cancelled."""
    sampler: NativeSampler | None = None
    """There from the first draw to the end of the job."""
    branches: Branches | None = None
    """The part of its call's token tree in which ``branch`` is looked up; None beyond the tree."""
    branch: int | tuple[int, ...] = 0

    def cut_at_stop_text(self) -> bool:
        """Cut the step where the first stop text begins; False where there is none."""
        stops = self.request.sampling.stop
        whole = self.before + self.text
        begins = [at for stop in stops if (at := whole.find(stop.encode())) >= 0]
        if not begins:
            return False
        self.text = whole[len(self.before) : max(min(begins), len(self.before))]
        return True

    def end_step(self, stop: StopReason | None) -> StepEvent:
        """The event of the step under way; the next one begins with what follows the delimiter."""
        text, _, rest = self.text.partition(self.delimiter)
        while rest.startswith(self.delimiter):
            rest = rest.removeprefix(self.delimiter)
        event = StepEvent(
            self.index,
            text.decode("utf-8", errors="replace"),
            tuple(self.step),
            self.logprob,
            self.prefill,
            self.forced,
            stop,
            self.shared,
        )
        self._begin_step(rest)
        return event

    def _begin_step(self, text: bytes) -> None:
        """Begin the next step with ``text``, the end of this one's; keep what a stop text in it may begin with."""
        longest = max((len(stop.encode()) for stop in self.request.sampling.stop), default=1)
        self.before = (self.before + self.text.removesuffix(text))[1 - longest :] if longest > 1 else b""
        self.text, self.step, self.logprob = text, [], 0.0
        self.prefill = self.forced = self.shared = 0
        self.steps += 1

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for what it draws next."""
        return self.ended or self.call.cancelled or self.index in self.call.dropped

    @property
    def known(self) -> bool:
        """Whether the next token can be drawn from stored logits."""
        return self.branches is not None and self.branch in self.branches


@dataclass(eq=False)
class Stream:
    """One KV stream, and the jobs that run in it; their tokens are all equal."""

    id: int
    tokens: list[int] = field(default_factory=list)
    """The tokens it holds."""
    pending: list[int] = field(default_factory=list)
    """Tokens to evaluate next; the logits after the last one are wanted."""
    jobs: list[Job] = field(default_factory=list)
    used: int = 0
    """Tick of the last use; the idle stream used longest ago is overwritten first."""

    def leave(self, job: Job) -> None:
        """Take out ``job``, which ended or drew another token."""
        self.jobs.remove(job)
        if not self.jobs:
            self.pending = []


class Streams:
    """All streams of a context, and the jobs that wait for one. At most one job for each stream runs at a time."""

    def __init__(self, count: int, fork: Callable[[int, int, int], None]) -> None:
        """``fork(source, target, length)`` copies the first tokens of a stream to another, or trims a stream."""
        self.all = [Stream(i) for i in range(count)]
        self.waiting: deque[Job] = deque()
        """Jobs without a stream; those that have run before come first."""
        self._fork = fork
        self._admissions = 0

    @property
    def running(self) -> list[Stream]:
        """Streams with jobs, in order."""
        return [stream for stream in self.all if stream.jobs]

    def room(self, left: int) -> list[tuple[Stream, int]]:
        """How many tokens of each running stream go into a batch of ``left``; those with fewest waiting come first.

        llama.cpp cuts a batch into parts of equally long sequences, and each part costs most of a whole
        tick. So streams stay in order, and a few waiting tokens, such as a calculator's, go in one a tick
        while other streams run.
        """
        running, room = self.running, {}
        for stream in sorted(running, key=lambda stream: len(stream.pending)):
            pending = len(stream.pending)
            wanted = 1 if pending <= FEW_TOKENS and len(running) >= CROWD else pending
            room[stream] = min(left, wanted)
            left -= room[stream]
        return [(stream, room[stream]) for stream in running]

    @property
    def jobs(self) -> list[Job]:
        """Every job that has not ended."""
        return [*(job for stream in self.all for job in stream.jobs), *self.waiting]

    def part(self, stream: Stream, jobs: Sequence[Job]) -> None:
        """Make ``jobs`` of ``stream`` wait for streams of their own, ahead of jobs that have not run yet."""
        for job in jobs:
            stream.leave(job)
        self.waiting.extendleft(reversed(jobs))

    def admit(self, due: Sequence[Job]) -> None:
        """Give streams to jobs that are :meth:`due`, each on the longest prefix that a stream holds."""
        needed = {source.id for source, _ in map(self._source, due) if source}
        for job in due:
            if self._join(job) or self._place(job, needed):
                self.waiting.remove(job)

    def due(self) -> list[Job]:
        """The waiting jobs that may run now, those that have run before first."""
        if not self.waiting:
            return []
        due = [job for job in self.waiting if job.sampler is not None]
        started = Counter(job.call for job in (*(job for stream in self.all for job in stream.jobs), *due))
        room = len(self.all) - started.total()
        fresh: dict[Call, deque[Job]] = defaultdict(deque)
        for job in self.waiting if room else ():
            if job.sampler is None:
                fresh[job.call].append(job)
        while fresh and room:
            room -= 1
            call = min(fresh, key=lambda call: (started[call], call.served))
            self._admissions += 1
            call.served = self._admissions
            started[call] += 1
            due.append(fresh[call].popleft())
            if not fresh[call]:
                del fresh[call]
        return due

    def _join(self, job: Job) -> bool:
        """Add ``job`` to a running stream with equal tokens, which have been charged; False if there is none."""
        for stream in self.all:
            held = len(stream.tokens)
            if (
                stream.jobs
                and len(job.tokens) == held + len(stream.pending)
                and job.tokens[held:] == stream.pending
                and job.tokens[:held] == stream.tokens
            ):
                stream.jobs.append(job)
                return True
        return False

    def _place(self, job: Job, needed: set[int]) -> bool:
        """Give ``job`` a stream; False if it should wait for a prefix that is being evaluated."""
        source, length = self._source(job)
        if source is None and length:
            return False
        if source and not source.jobs and len(source.tokens) == length:
            stream = source
        else:
            idle = [stream for stream in self.all if not stream.jobs]
            stream = min([s for s in idle if s.id not in needed] or idle, key=self._cost_of_using)
            source = source or stream
            self._fork(source.id, stream.id, length)
            stream.tokens = source.tokens[:length]
        stream.jobs, stream.pending = [job], job.tokens[length:]
        job.prefill += len(stream.pending) - job.fresh
        return True

    def _cost_of_using(self, stream: Stream) -> tuple[bool, int]:
        """Prefer idle streams next to running ones, then those used longest ago.

        A stream elsewhere would have to be moved; one used lately may hold a prefix that is asked for again.
        """
        ids = [s.id for s in self.running]
        near = not ids or ids[0] - 1 <= stream.id <= ids[-1] + 1
        return not near, stream.used

    def _source(self, job: Job) -> tuple[Stream | None, int]:
        """The stream that holds the longest prefix of the job's tokens, and the length of that prefix.

        (None, n) with n above 0 asks to wait: a running stream will hold n of the tokens after this tick.
        """
        target = job.tokens[:-1]
        best, length, coming = None, 0, 0
        for stream in self.all:
            has = common_prefix(stream.tokens, target)
            # Among equals, an idle stream that ends there needs no copy.
            if has > length or (has == length and best and not stream.jobs and len(stream.tokens) == has):
                best, length = stream, has
            if stream.jobs and has == len(stream.tokens):
                coming = max(coming, common_prefix(stream.tokens + stream.pending, target))
        if coming >= length + WAIT_FOR_PREFIX:
            return None, coming
        return (best, length) if length >= MIN_FORK else (None, 0)

    def close_gaps(self) -> None:
        """Move running streams, with as few copies as possible, so that their numbers are consecutive."""
        running = self.running
        count = len(running)
        if not count or running[-1].id - running[0].id == count - 1:
            return
        starts = range(len(self.all) - count + 1)
        first = max(starts, key=lambda start: sum(bool(s.jobs) for s in self.all[start : start + count]))
        outside = [s for s in running if not first <= s.id < first + count]
        holes = [s for s in self.all[first : first + count] if not s.jobs]
        for source, target in zip(outside, holes, strict=True):
            self._fork(source.id, target.id, len(source.tokens))
            target.tokens = list(source.tokens)
            target.jobs, target.pending, target.used = source.jobs, source.pending, source.used
            source.jobs, source.pending = [], []
