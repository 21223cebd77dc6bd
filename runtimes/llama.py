"""The policy engine: many sequences per decode over llama.cpp, continuous batching, shared prefixes.

One owner thread holds the context. Callers put requests into a queue, from any thread, and iterate over step
events. Each tick evaluates one token of every running sequence, and prompt tokens while the batch has room. A
stream that becomes free takes the next waiting request at once, whoever sent it.
:mod:`edge_tts.runtimes.streams` decides which request runs in which KV stream.
"""

from __future__ import annotations

import math
import queue
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_tts.cancellation import Cancellation
from edge_tts.core import (
    ModelInfo,
    Request,
    SpecialToken,
    StepEvents,
    StopReason,
)
from edge_tts.errors import BackendError, EdgeError, InputError
from edge_tts.runtimes import saved_prefix
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama_native import GivenUpError, NativeModel, NativeSampler
from edge_tts.runtimes.shortlist import shortlist
from edge_tts.runtimes.streams import Call, Job, Stream, Streams
from edge_tts.runtimes.token_tree import Node, TokenTree

KEPT_TREES = 4
"""Searches whose evaluated prefixes are kept between their calls; each takes up to 2.5 MB."""


@dataclass(frozen=True)
class Prefix:
    """Tokens that many prompts begin with."""

    tokens: tuple[int, ...]
    file: Path


class LlamaPolicy:
    """A :class:`edge_tts.core.Policy` over llama.cpp."""

    def __init__(self, path: Path, config: EngineConfig, parameters: int | None = None) -> None:
        """Load a GGUF policy. Raises PackError or BackendError.

        ``parameters``: weights that a forward pass multiplies, where that is not all (embeddings that are looked up).
        """
        self._native = NativeModel(path, config)
        self._streams = Streams(config.width, self._native.fork)
        self._inbox: queue.SimpleQueue[Job | Call | Prefix | None] = queue.SimpleQueue()
        self._evaluating: list[tuple[int, list[Job]]] = []
        """For each stream in the batch under way, how many of its tokens are in it and the jobs they are for."""
        self._preparing = False
        """Whether a prefix is evaluated, which is for no job."""
        self._evaluating_lock = threading.Lock()
        """While a batch is under way, whoever holds it may end jobs."""
        self._trees: OrderedDict[tuple[int | None, int, float], TokenTree] = OrderedDict()
        self._trees_lock = threading.Lock()
        self._ticks = 0
        self._closed = False
        self._failure: EdgeError | None = None
        if "cannot use it" in self._native.reason:
            warnings.warn(self._native.reason, RuntimeWarning, stacklevel=2)
        native = self._native
        multiplied = parameters or native.parameters
        self.info = ModelInfo(path.stem, multiplied, native.context_length, native.device, native.reason)
        self.chat_model = self._native.chat_model
        self.width = config.width
        self.busy_seconds = 0.0
        """Time spent decoding and sampling since loading."""
        self._thread = threading.Thread(target=self._run, name="llama-owner", daemon=True)
        self._thread.start()

    def special(self, token: int) -> SpecialToken | None:
        return self._native.special(token)

    def tokenize(self, text: str, special: bool = False) -> tuple[int, ...]:
        return self._native.tokenize(text, special)

    def generate(
        self, requests: Sequence[Request], deadline: float | None = None, cancel: Cancellation | None = None
    ) -> StepEvents:
        """See :meth:`edge_tts.core.Policy.generate`."""
        for request in requests:
            if not 0 < len(request.tokens) < self.info.context_length:
                raise InputError(
                    f"a prompt of {len(request.tokens)} tokens does not fit the context of "
                    f"{self.info.context_length}; shorten the question or give more memory"
                )
        if self._closed:
            raise BackendError("the policy is closed; load it again")
        if self._failure:
            raise self._failure
        call = Call(deadline, self._tree(requests))
        running = len(requests)
        with (cancel or Cancellation()).telling(partial(self._end, call)), self._at(deadline):
            for index, request in enumerate(requests):
                job = Job(call, index, request, list(request.tokens), request.delimiter.encode())
                job.branches, job.branch = call.tree.roots, request.tokens
                self._inbox.put(job)
            if self._failure:  # the owner thread may have ended before it could see these
                raise self._failure
            try:
                while running:
                    event = call.events.get()
                    if call.cancelled or event is None:
                        return
                    if isinstance(event, EdgeError):
                        raise event
                    running -= event.stop is not None
                    call.dropped.update((yield event) or ())
            finally:
                self._end(call)

    @contextmanager
    def _at(self, deadline: float | None) -> Iterator[None]:
        """While this is open, late jobs are ended at ``deadline``."""
        if deadline is None:
            yield
            return
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._end_late)
        timer.daemon = True
        try:
            timer.start()
            yield
        finally:
            timer.cancel()

    def keep_prefix(self, tokens: tuple[int, ...], file: Path) -> None:
        """Evaluate ``tokens`` before anything else, or read what that gave from ``file``; it is written there then.

        Every process goes on from the same keys and values, so the file makes no difference to what is drawn.
        """
        if len(tokens) < self.info.context_length:
            self._inbox.put(Prefix(tokens, file))

    def _tree(self, requests: Sequence[Request]) -> TokenTree:
        """What samples of these requests share; the tree of earlier calls where they belong to one family."""
        kinds = {(r.family, r.sampling.top_k, max(1.0, r.sampling.temperature)) for r in requests}
        if len(kinds) != 1:
            return TokenTree(0)
        (kind,) = kinds
        if kind[0] is None:
            return TokenTree(len(requests))
        with self._trees_lock:
            tree = self._trees.setdefault(kind, TokenTree(math.inf))
            self._trees.move_to_end(kind)
            if len(self._trees) > KEPT_TREES:
                self._trees.popitem(last=False)
        return tree

    def _end(self, call: Call) -> None:
        """End ``call``: wake its caller, free its streams, and give up the batch under way if most of it is for it."""
        call.cancelled = True
        call.events.put(None)
        self._inbox.put(call)
        with self._evaluating_lock:
            self._give_up_unwanted()

    def _give_up_unwanted(self) -> None:
        """Abandon the batch under way if fewer than half of its tokens are still wanted.

        Evaluating those again takes less time than waiting for the batch to end.
        """
        tokens = sum(count for count, _ in self._evaluating)
        wanted = sum(count for count, jobs in self._evaluating if not all(job.unwanted for job in jobs))
        if 2 * wanted < tokens:
            self._native.give_up()

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
                self._streams.admit([job for job in self._streams.due() if self._follow(job)])
                self._streams.close_gaps()
                self._tick()
            self._failure = BackendError("the policy was closed while it was working")
        except EdgeError as error:
            self._failure = error
        except Exception as error:
            self._failure = BackendError(f"the policy engine failed: {error!r}")
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, Job):
                self._streams.waiting.append(item)
        jobs = self._streams.jobs
        for job in jobs:
            if job.sampler:
                job.sampler.close()
        for call in {id(job.call): job.call for job in jobs}.values():
            call.events.put(self._failure)

    def _receive(self) -> bool:
        """Read what callers sent; sleep while there is nothing to do. Returns False when the policy is closed."""
        while True:
            if self._inbox.empty() and self._streams.jobs:
                return True
            item = self._inbox.get()
            if item is None:
                return False
            if isinstance(item, Job):
                self._streams.waiting.append(item)
            elif isinstance(item, Prefix):
                self._prepare(item)

    def _prepare(self, prefix: Prefix) -> None:
        """Put the prefix into an idle stream."""
        stream = next((stream for stream in self._streams.all if not stream.jobs), None)
        if stream is None:
            return
        self._native.trim(stream.id, 0)
        stream.tokens = []
        with saved_prefix.read(prefix.file, prefix.tokens) as state:
            known = state is not None and self._native.restore(stream.id, state)
        if not known:
            self._evaluate(prefix, stream)
            saved_prefix.write(prefix.file, prefix.tokens, self._native.state(stream.id))
        stream.tokens = list(prefix.tokens)

    def _evaluate(self, prefix: Prefix, stream: Stream) -> None:
        """Evaluate the prefix in ``stream``, to its end: later processes need it. Deadlines end calls meanwhile."""
        with self._evaluating_lock:
            self._preparing = True
        self._end_late()
        size = self._native.batch_size
        try:
            for start in range(0, len(prefix.tokens), size):
                part = prefix.tokens[start : start + size]
                self._native.decode([(token, start + i, stream.id, False) for i, token in enumerate(part)])
        finally:
            with self._evaluating_lock:
                self._preparing = False

    def _drop_ended(self) -> None:
        """End the jobs whose caller left, and those whose deadline has passed."""
        running, now = self._streams.running, time.monotonic()

        def ended(job: Job) -> bool:
            return job.unwanted or (job.call.deadline is not None and now > job.call.deadline)

        for stream in running:
            for job in filter(ended, list(stream.jobs)):
                stream.leave(job)
                self._cancel(job)
        for job in filter(ended, list(self._streams.waiting)):
            self._streams.waiting.remove(job)
            self._cancel(job)

    def _cancel(self, job: Job) -> None:
        """Tell the caller of ``job`` that it has ended, once."""
        if not job.ended:
            job.call.tree.unbegun -= job.sampler is None
            self._emit(job, "cancelled")
            job.ended = True

    def _tick(self) -> None:
        """Evaluate one batch and draw the next token of every sequence whose prefix is complete."""
        rows: list[tuple[int, int, int, bool]] = []
        drawing: list[Stream] = []
        self._ticks += 1
        room = self._streams.room(self._native.batch_size)
        taken = {stream: stream.pending[:count] for stream, count in room if count}
        for stream, tokens in taken.items():
            start = len(stream.tokens)
            rows += [(token, start + i, stream.id, False) for i, token in enumerate(tokens)]
            if len(tokens) == len(stream.pending):
                rows[-1] = (*rows[-1][:3], True)
                drawing.append(stream)
        if not rows:
            return
        begun = time.monotonic()
        try:
            with self._giving_up(taken):
                logits = self._native.decode(rows)
        except GivenUpError:
            for stream in taken:
                self._native.trim(stream.id, len(stream.tokens))
            return
        for stream, tokens in taken.items():
            stream.tokens += tokens
            stream.pending = stream.pending[len(tokens) :]
            stream.used = self._ticks
        if drawing:
            self._draw(drawing, logits)
        self.busy_seconds += time.monotonic() - begun

    @contextmanager
    def _giving_up(self, taken: Mapping[Stream, Sequence[int]]) -> Iterator[None]:
        """While this is open, deadlines end calls, and callers that leave may give up the batch of ``taken``."""
        with self._evaluating_lock:
            self._evaluating = [(len(tokens), list(stream.jobs)) for stream, tokens in taken.items()]
        self._end_late()
        try:
            yield
        finally:
            with self._evaluating_lock:
                self._evaluating = []
                self._native.give_up(False)

    def _end_late(self) -> None:
        """End the jobs whose deadline has passed, and give up the batch under way if most of it is for nobody.

        A batch that is mostly for others goes on. Between batches the owner thread looks at deadlines itself.
        """
        with self._evaluating_lock:
            if not self._evaluating and not self._preparing:
                return
            for _ in range(self._inbox.qsize()):  # the owner thread is in the batch and does not read it
                item = self._inbox.get()
                if isinstance(item, Job):
                    self._streams.waiting.append(item)
                else:
                    self._inbox.put(item)
            now = time.monotonic()
            for job in self._streams.jobs:
                if not job.unwanted and job.call.deadline is not None and job.call.deadline <= now:
                    self._cancel(job)
            self._give_up_unwanted()

    def _draw(self, drawing: list[Stream], logits: NDArray[np.float32]) -> None:
        """Draw a token for every job of the streams ``drawing``; ``logits`` has a row for each stream, in order."""
        samplings = [job.request.sampling for stream in drawing for job in stream.jobs]
        top_k = max(sampling.top_k or self._native.vocabulary for sampling in samplings)
        hottest = max(sampling.temperature for sampling in samplings)
        for stream, node in zip(drawing, shortlist(logits, top_k, hottest), strict=True):
            charged: set[Call] = set()
            for job in list(stream.jobs):
                if job.ended:
                    stream.leave(job)
                    continue
                if job.call in charged:
                    job.shared += job.fresh
                charged.add(job.call)
                if not self._sample(job, node):
                    stream.leave(job)
            staying = next((job.tokens for job in stream.jobs if not job.known), [])
            stream.pending = staying[len(stream.tokens) :]
            self._streams.part(stream, [job for job in stream.jobs if job.known or job.tokens != staying])

    def _follow(self, job: Job) -> bool:
        """Let a waiting job draw from stored logits of its call as far as they reach; False if that ends it."""
        while job.branches is not None and (node := job.branches.get(job.branch)):
            job.shared += job.fresh
            if not self._sample(job, node):
                self._streams.waiting.remove(job)
                return False
        return True

    def _sample(self, job: Job, node: Node) -> bool:
        """Draw the next token of ``job``; False if that ends it."""
        if job.sampler is None:
            job.sampler = NativeSampler(job.request.sampling, job.request.seed)
            job.call.tree.unbegun -= 1
        kept = job.call.tree.keep(node, job.branches, job.branch)
        token = job.sampler.sample(node.ids, node.logits)
        job.branches, job.branch = (kept.branches, token) if kept else (None, token)
        return self._take(job, token, node.logprob(token))

    def _take(self, job: Job, token: int, logprob: float) -> bool:
        """Add a drawn token to ``job`` and end its step or the job itself where due; False if the job ended."""
        job.logprob += logprob
        new = [token]
        ended = self._native.is_end(token) and not job.request.sampling.ignore_end
        if not ended:
            job.text += self._native.piece(token)
            new += self._written(job)
            ended = job.cut_at_stop_text()
        job.tokens = job.tokens + new
        job.fresh = len(new)
        job.step += new
        job.produced += len(new)
        stop: StopReason | None = None
        at_delimiter = job.delimiter in job.text
        if ended:
            stop = "end"
        elif at_delimiter and job.steps + 1 == job.request.max_steps:
            stop = "step"
        elif job.produced >= job.request.sampling.max_tokens or len(job.tokens) >= self._native.context_length:
            stop = "length"
        if stop or at_delimiter:
            self._emit(job, stop)
        return stop is None

    def _written(self, job: Job) -> Sequence[int]:
        """Tokens that the request has written behind the step so far."""
        writes = job.request.writes
        text = writes(job.text.decode("utf-8", errors="replace")) if writes else None
        if text is None:
            return ()
        tokens = self._native.tokenize(text)
        job.text += text.encode()
        job.forced += len(tokens)
        return tokens

    def _emit(self, job: Job, stop: StopReason | None) -> None:
        job.call.events.put(job.end_step(stop))
        if stop and job.sampler:
            job.sampler.close()
            job.sampler = None
