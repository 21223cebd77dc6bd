"""The policy engine: many sequences per decode over llama.cpp, continuous batching, forked KV.

One owner thread holds the context. Callers, from any thread, hand it requests through a queue and
iterate over step events. Every tick evaluates one token of each running sequence, plus waiting
prompt tokens while the batch has room; a slot that falls free is refilled at once with waiting
work of any caller.

KV reuse needs no handles: each slot remembers the tokens it holds, and a request is placed on the
slot with the longest common prefix, in place where that slot is idle and ends there, else on a
forked copy. A prompt asked for sixteen times is so evaluated once.
"""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_tts.calculator import written_result
from edge_tts.core import EngineConfig, ModelInfo, Request, StepEvent, StopReason
from edge_tts.errors import BackendError, EdgeError, InputError
from edge_tts.prompts import CalculatorFormat, PromptFormat
from edge_tts.runtimes.llama_native import GivenUp, NativeModel, NativeSampler, shortlist

WAIT_FOR_PREFIX = 8
"""A request waits a tick when a running slot is about to hold this many more of its tokens."""
MIN_FORK = 16
"""A shorter common prefix is evaluated again: copying a stream costs more."""
FEW_TOKENS = 8
"""Up to so many tokens are evaluated one a tick while a crowd runs ..."""
CROWD = 4
"""... which is so many sequences."""
TICK_MARGIN = 1.3
"""A tick is not started when this many times its predicted duration would pass the deadline."""


@dataclass(eq=False)
class _Call:
    """One ``generate`` call: where its events go, and when it ends."""

    deadline: float | None
    events: queue.SimpleQueue[StepEvent | EdgeError] = field(default_factory=queue.SimpleQueue)
    cancelled: bool = False


@dataclass(eq=False)
class _Job:
    """One request on its way: waiting, or running in a slot."""

    call: _Call
    index: int
    request: Request
    pending: list[int] = field(default_factory=list)
    """Tokens to evaluate next; logits are wanted after the last."""
    step: list[int] = field(default_factory=list)
    text: bytes = b""
    logprob: float = 0.0
    prefill: int = 0
    forced: int = 0
    produced: int = 0
    steps: int = 0
    sampler: NativeSampler | None = None


@dataclass(eq=False)
class _Slot:
    """One KV stream: the tokens it holds, and the job that runs in it."""

    id: int
    tokens: list[int] = field(default_factory=list)
    job: _Job | None = None
    used: int = 0
    """Tick of last use; the idle slot used longest ago is overwritten first."""

    def about_to_hold(self) -> list[int]:
        return self.tokens + self.job.pending if self.job else self.tokens


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix, by bisection over slice comparisons."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


class LlamaPolicy:
    """A :class:`edge_tts.core.Policy` over llama.cpp."""

    def __init__(
        self,
        path: Path,
        config: EngineConfig,
        prompts: PromptFormat | None = None,
        calculator: CalculatorFormat | None = None,
        adapters: Sequence[tuple[Path, float]] = (),
    ) -> None:
        """Load a GGUF policy.

        ``adapters`` are LoRA GGUF files with scales. With ``calculator``, results of opened
        expressions are written by the runtime. Raises PackError or BackendError.
        """
        prompts = prompts or PromptFormat()
        self._native = NativeModel(path, config, adapters)
        self._delimiter = prompts.step_delimiter.encode()
        self._calculator = calculator
        self._slots = [_Slot(i) for i in range(config.width)]
        self._inbox: queue.SimpleQueue[_Job | _Call | None] = queue.SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._tick_seconds: dict[int, float] = {}
        self._ticks = 0
        self._closed = False
        self._failure: EdgeError | None = None
        device = "cuda" if self._native.gpu_layers else "cpu"
        if "cannot use it" in self._native.reason:
            warnings.warn(self._native.reason, RuntimeWarning, stacklevel=2)
        self.info = ModelInfo(
            path.stem, self._native.parameters, self._native.context_length, device, self._native.reason
        )
        self.width = config.width
        self._weights = np.empty((config.width, self._native.vocabulary), np.float32)
        self.busy_seconds = 0.0
        """Time spent decoding and sampling since loading."""
        self._thread = threading.Thread(target=self._run, name="llama-owner", daemon=True)
        self._thread.start()

    def tokenize(self, text: str) -> tuple[int, ...]:
        return self._native.tokenize(text)

    def generate(self, requests: Sequence[Request], deadline: float | None = None) -> Generator[StepEvent, None, None]:
        """See :meth:`edge_tts.core.Policy.generate`."""
        for request in requests:
            if not 0 < len(request.tokens) < self.info.context_length:
                raise InputError(
                    f"a prompt of {len(request.tokens)} tokens does not fit the context of "
                    f"{self.info.context_length}; shorten the question or give more memory"
                )
        if self._failure or self._closed:
            raise self._failure or BackendError("the policy is closed; load it again")
        call = _Call(deadline)
        for index, request in enumerate(requests):
            self._inbox.put(_Job(call, index, request))
        running = len(requests)
        try:
            while running:
                event = call.events.get()
                if isinstance(event, EdgeError):
                    raise event
                running -= event.stop is not None
                yield event
        finally:
            call.cancelled = True
            self._inbox.put(call)

    def close(self) -> None:
        """Stop the owner thread and free the native parts; calls under way end with BackendError."""
        if self._closed:
            return
        self._closed = True
        self._inbox.put(None)
        self._thread.join()
        self._native.close()

    # --- owner thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._receive():
                self._drop_ended()
                self._admit()
                self._tick()
            failure: EdgeError = BackendError("the policy was closed while it was working")
        except EdgeError as error:
            self._failure = failure = error
        except Exception as error:
            self._failure = failure = BackendError(f"the policy engine failed: {error!r}")
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, _Job):
                self._waiting.append(item)
        jobs = [slot.job for slot in self._slots if slot.job] + list(self._waiting)
        for job in jobs:
            if job.sampler:
                job.sampler.close()
        for call in {id(job.call): job.call for job in jobs}.values():
            call.events.put(failure)

    def _receive(self) -> bool:
        """Take in what callers sent; sleeps while there is nothing to do. False means close."""
        while True:
            idle = not self._waiting and not any(slot.job for slot in self._slots)
            if self._inbox.empty() and not idle:
                return True
            item = self._inbox.get()
            if item is None:
                return False
            if isinstance(item, _Job):
                self._waiting.append(item)

    def _drop_ended(self) -> None:
        """End the jobs whose caller left or whose deadline the next tick would pass."""
        now = time.monotonic() + TICK_MARGIN * self._predicted(sum(len(s.job.pending) for s in self._slots if s.job))

        def ended(job: _Job) -> bool:
            return job.call.cancelled or (job.call.deadline is not None and now > job.call.deadline)

        for slot in self._slots:
            if slot.job and ended(slot.job):
                self._emit(slot.job, "cancelled")
                slot.job = None
        for job in [job for job in self._waiting if ended(job)]:
            self._waiting.remove(job)
            self._emit(job, "cancelled")

    def _admit(self) -> None:
        """Place waiting jobs on free slots, each on the longest prefix it can have."""
        free = [slot for slot in self._slots if slot.job is None]
        if not free or not self._waiting:
            return
        candidates = [self._waiting[i] for i in range(min(len(free), len(self._waiting)))]
        needed = {source.id for source, _ in map(self._source, candidates) if source}
        for job in candidates:
            source, length = self._source(job)
            if source is None and length:
                continue  # its prefix is being evaluated in another slot
            if source in free and len(source.tokens) == length:
                slot = source
            else:
                spare = [s for s in free if s.id not in needed] or free
                slot = min(spare, key=lambda s: s.used)
            self._waiting.remove(job)
            free.remove(slot)
            self._place(job, slot, source or slot, length)

    def _source(self, job: _Job) -> tuple[_Slot | None, int]:
        """The slot that holds most of the job's prefix and how much of it.

        (None, n > 0) asks to wait: a running slot will hold n tokens of it after this tick.
        """
        target = list(job.request.tokens[:-1])
        best, length, coming = None, 0, 0
        for slot in self._slots:
            has = _common(slot.tokens, target)
            # Among equals prefer an idle slot that ends right there: no copy is needed.
            if has > length or (has == length and best and slot.job is None and len(slot.tokens) == has):
                best, length = slot, has
            if slot.job:
                coming = max(coming, _common(slot.about_to_hold(), target))
        if coming >= length + WAIT_FOR_PREFIX:
            return None, coming
        return (best, length) if length >= MIN_FORK else (None, 0)

    def _place(self, job: _Job, slot: _Slot, source: _Slot, length: int) -> None:
        self._native.fork(source.id, slot.id, length)
        slot.tokens = source.tokens[:length]
        slot.job = job
        job.pending = list(job.request.tokens[length:])
        job.prefill = len(job.pending) - 1
        job.sampler = NativeSampler(job.request.sampling, job.request.seed)

    def _tick(self) -> None:
        """Evaluate one batch and draw the next token of every sequence whose prefix is complete."""
        rows: list[tuple[int, int, int, bool]] = []
        drawing: list[_Slot] = []
        self._ticks += 1
        room = self._room()
        for slot in self._slots:
            if slot.job is None or not room[slot.id]:
                continue
            taken = slot.job.pending[: room[slot.id]]
            start = len(slot.tokens)
            rows += [(token, start + i, slot.id, False) for i, token in enumerate(taken)]
            if len(taken) == len(slot.job.pending):
                rows[-1] = (*rows[-1][:3], True)
                drawing.append(slot)
        if not rows:
            return
        begun = time.monotonic()
        try:
            logits = self._native.decode(rows, self._next_deadline())
        except GivenUp:
            for slot in self._slots:
                self._native.trim(slot.id, len(slot.tokens))
            return
        self._observe(len(rows), time.monotonic() - begun)
        for slot in self._slots:
            if slot.job and room[slot.id]:
                slot.tokens += slot.job.pending[: room[slot.id]]
                slot.job.pending = slot.job.pending[room[slot.id] :]
                slot.used = self._ticks
        if drawing:
            self._draw(drawing, logits)
        self.busy_seconds += time.monotonic() - begun

    def _next_deadline(self) -> float | None:
        deadlines = [slot.job.call.deadline for slot in self._slots if slot.job]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _room(self) -> dict[int, int]:
        """How many tokens of each running slot go into the batch; those that wait for least come first.

        llama.cpp cuts a batch into parts of equally long, ascending sequences
        (llama_batch_allocr::split_equal), and each part costs most of a whole tick. So the batch is in
        the order of slots, and a few tokens, such as a calculator's, go in one by one where others run.
        """
        running = {slot.id: len(slot.job.pending) for slot in self._slots if slot.job}
        left, room = self._native.batch_size, {}
        for slot, pending in sorted(running.items(), key=lambda item: item[1]):
            wanted = 1 if pending <= FEW_TOKENS and len(running) >= CROWD else pending
            room[slot] = min(left, wanted)
            left -= room[slot]
        return room

    def _draw(self, drawing: list[_Slot], logits: NDArray[np.float32]) -> None:
        """Draw one token for each slot from ``logits``, one row each in the same order."""
        samplings = [slot.job.request.sampling for slot in drawing if slot.job]
        top_k = max(s.top_k or len(logits[0]) for s in samplings)
        drawn = [
            slot.job.sampler.sample(ids, row[ids])
            for slot, row, ids in zip(drawing, logits, shortlist(logits, top_k), strict=True)
            if slot.job and slot.job.sampler
        ]
        peak = logits.max(axis=1, keepdims=True)
        weights = self._weights[: len(drawn)]  # in place: new arrays of this size would cost more than the arithmetic
        np.exp(np.subtract(logits, peak, out=weights), out=weights)
        logprobs = logits[np.arange(len(drawn)), drawn] - peak[:, 0] - np.log(weights.sum(axis=1))
        for slot, token, logprob in zip(drawing, drawn, logprobs.tolist(), strict=True):
            self._take(slot, token, logprob)

    def _take(self, slot: _Slot, token: int, logprob: float) -> None:
        """Add a drawn token to its job; end the step or the job where it is due."""
        job = slot.job
        assert job is not None
        job.logprob += logprob
        new = [token]
        ended = self._native.is_end(token) and not job.request.sampling.ignore_end
        if not ended:
            job.text += self._native.piece(token)
            new += self._calculated(job)
        job.pending = new
        job.step += new
        job.produced += len(new)
        stop: StopReason | None = None
        at_delimiter = self._delimiter in job.text
        if ended:
            stop = "end"
        elif at_delimiter and job.steps + 1 == job.request.max_steps:
            stop = "step"
        elif job.produced >= job.request.sampling.max_tokens or (
            len(slot.tokens) + len(new) >= self._native.context_length
        ):
            stop = "length"
        if stop or at_delimiter:
            self._emit(job, stop)
        if stop:
            slot.job = None

    def _calculated(self, job: _Job) -> list[int]:
        """Tokens the calculator writes after the step so far; empty where it does not apply."""
        if self._calculator is None or not job.text.endswith(b"="):
            return []
        line = job.text.decode("utf-8", errors="replace")
        result = written_result(line, self._calculator.open, self._calculator.close)
        if result is None:
            return []
        tokens = self._native.tokenize(result)
        job.text += result.encode()
        job.forced += len(tokens)
        return list(tokens)

    def _emit(self, job: _Job, stop: StopReason | None) -> None:
        text, _, rest = job.text.partition(self._delimiter)
        job.call.events.put(
            StepEvent(
                job.index,
                text.decode("utf-8", errors="replace"),
                tuple(job.step),
                job.logprob,
                job.prefill,
                job.forced,
                stop,
            )
        )
        job.text, job.step, job.logprob, job.prefill, job.forced = rest.strip(self._delimiter), [], 0.0, 0, 0
        job.steps += 1
        if stop and job.sampler:
            job.sampler.close()
            job.sampler = None

    # --- tick prediction ---------------------------------------------------------------------

    def _observe(self, tokens: int, seconds: float) -> None:
        bucket = tokens.bit_length()
        known = self._tick_seconds.get(bucket, seconds)
        self._tick_seconds[bucket] = 0.7 * known + 0.3 * seconds

    def _predicted(self, tokens: int) -> float:
        """Seconds of a tick over about ``tokens`` tokens, from those seen so far; 0 before any."""
        bucket = min(max(tokens, 1), self._native.batch_size).bit_length()
        if bucket in self._tick_seconds:
            return self._tick_seconds[bucket]
        nearest = min(self._tick_seconds, key=lambda b: abs(b - bucket), default=None)
        return self._tick_seconds[nearest] if nearest is not None else 0.0
