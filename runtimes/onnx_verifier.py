"""Step scores from an exported causal process reward model, by ONNX Runtime.

The keys and values of scored steps stay in a cache, so a search round evaluates only its new steps. A prefix that
several traces share is evaluated once. Rows of similar length form a batch and are padded to the longest.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edge_tts.cancellation import Cancellation
from edge_tts.core import ModelInfo, Scored
from edge_tts.errors import BackendError, PackError
from edge_tts.runtimes.graph_metadata import VERIFIER_FORMAT, read_metadata
from edge_tts.runtimes.onnx_session import Device, load_tokenizer, open_session, require_tokenizer
from edge_tts.runtimes.prefix_cache import Key, PrefixCache
from edge_tts.runtimes.step_layout import StepEncoder, StepLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

GPU_BUCKET = 64
"""On CUDA, lengths are padded to multiples of this: otherwise every new length would grow the memory arena."""
WAIT_SECONDS = 0.02
"""A call that waits for another one checks this often whether it was cancelled."""

K = TypeVar("K")


@dataclass(frozen=True)
class Span:
    """The tokens that one step (or the question) adds to a trace."""

    ids: tuple[int, ...]
    """Token ids of the whole trace up to the end of this span."""
    parent: Key | None
    """The span that this one continues. None for a question, and where the tokenizer merged text across the border."""
    start: int
    """Position of the first new token."""
    score: float = 0.0
    """In [0, 1], or whatever a faulty model gives; of no meaning for a question."""
    kv: NDArray[Any] | None = None
    """Keys and values, (2 x layers, heads, tokens, head size); None until evaluated."""


@dataclass
class _Plan:
    """What one pass has to evaluate."""

    paths: list[list[Key]] = field(default_factory=list)
    """For each trace, its spans from the question on."""
    costs: list[int] = field(default_factory=list)
    """For each trace, the tokens that no earlier trace of the call evaluates."""
    missing: dict[Key, Span] = field(default_factory=dict)
    """The spans without a score, parents before children."""

    @property
    def tokens(self) -> int:
        return sum(self.costs)


class _StoppedError(Exception):
    """A pass was cancelled."""


class OnnxVerifier:
    """A :class:`~edge_tts.core.Verifier` over an exported PRM. Thread-safe: calls take turns.

    A step's score depends only on the question and the steps before it, not on what else is in the call or the cache.
    A question beyond 1024 tokens (or half of the model's positions) keeps its last ones, a step beyond 256 (or a
    quarter) its first ones. Steps beyond the last position repeat the last score before them.

    Raises PackError for a damaged model or tokenizer, or a tokenizer that the model was not exported with;
    BackendError when ONNX Runtime fails.
    """

    def __init__(
        self,
        model_path: Path,
        tokenizer_path: Path,
        device: Device = "auto",
        threads: int | None = None,
        cache_mb: int = 256,
        pass_tokens: int = 512,
    ) -> None:
        """``threads``: None means one per physical core. ``cache_mb``: at most so many MiB of keys and values are kept.

        ``pass_tokens``: about the most new tokens of one pass.
        """
        self._sizes, layout = _checked(read_metadata(model_path), model_path, tokenizer_path)
        self._positions, parameters = self._sizes["positions"], self._sizes["parameters"]
        self._encoder = StepEncoder(layout, load_tokenizer(tokenizer_path), self._positions)
        self._pass_tokens = pass_tokens
        self._cache = PrefixCache[Span](cache_mb * 2**20, _bytes)
        self._lock = threading.Lock()
        self._session, chosen, reason = open_session(model_path, device, threads)
        try:
            inputs = {node.name: node.type for node in self._session.get_inputs()}
            self._kv_type = np.float16 if inputs["past_key_values.0.key"] == "tensor(float16)" else np.float32
        except (KeyError, UnicodeDecodeError) as error:  # its names may be any bytes
            raise PackError(
                f"{model_path} is not a process reward model this runtime can use ({error!r}); "
                "verify or reinstall the pack, or export the model again"
            ) from error
        self._bucket = GPU_BUCKET if chosen == "cuda" else 1
        # Recent cost, as a token-weighted moving average; the first guess is 2 x parameters at 10 GFLOP/s.
        self._spent_seconds, self._spent_tokens = 200 * parameters / 5e9, 200.0
        self._info = ModelInfo(model_path.stem, parameters, self._positions, chosen, reason)
        self.busy_seconds = 0.0
        """Time spent in the model since loading."""

    @property
    def info(self) -> ModelInfo:
        return self._info

    def score(self, question: str, traces: Sequence[Sequence[str]], cancel: Cancellation | None = None) -> list[Scored]:
        """Scores of every step of every trace, in order; a cancelled call returns those of the first traces.

        A faulty model's scores, which may be no numbers, are given as they are. ``tokens`` of shared work are charged
        to the first trace that needs it.
        """
        cancel = cancel or Cancellation()
        results: list[Scored] = []
        while not self._lock.acquire(timeout=WAIT_SECONDS):
            if cancel.requested:
                return results
        try:
            if self._session is None:
                raise BackendError("the verifier is closed; open a new one to score traces")
            if cancel.requested:
                return results
            self._options = _run_options()
            with cancel.telling(partial(setattr, self._options, "terminate", True)), suppress(_StoppedError):
                results.extend(self._score(question, [tuple(steps) for steps in traces]))
        finally:
            self._lock.release()
        return results

    def seconds(self, tokens: int) -> float:
        """Predicted wall time of evaluating ``tokens`` more tokens, from the passes so far."""
        return tokens * self._spent_seconds / self._spent_tokens

    def close(self) -> None:
        """Release the model; idempotent. Waits for a call under way."""
        with self._lock:
            self._session = None
            self._cache.clear()

    def _score(self, question: str, traces: list[tuple[str, ...]]) -> Iterator[Scored]:
        """Scores of the traces, in order, pass by pass; called with the lock held."""
        while traces:
            plan = self._plan(question, traces)
            fresh = self._evaluate(plan.missing)
            for path, cost, steps in zip(plan.paths, plan.costs, traces, strict=False):
                scores = [(fresh.get(key) or self._cache[key]).score for key in path[1:]]
                yield Scored(tuple(scores + scores[-1:] * (len(steps) - len(scores))), cost)
            self._cache.keep(fresh, plan.paths)
            traces = traces[len(plan.paths) :]

    def _plan(self, question: str, traces: list[tuple[str, ...]]) -> _Plan:
        """Take traces until there is enough work for a pass."""
        plan = _Plan()
        for steps in traces:
            if plan.tokens >= self._pass_tokens:
                break
            path: list[Key] = []
            cost, before = 0, None
            for count in range(len(steps) + 1 if steps else 0):
                key = (question, steps[:count])
                span = plan.missing.get(key) or self._cache.get(key)
                if span is None:
                    span = self._new_span(key, before, path)
                    if len(span.ids) > self._positions:
                        break
                    plan.missing[key] = span
                    cost += len(span.ids) - span.start
                path.append(key)
                before = span
            plan.paths.append(path)
            plan.costs.append(cost)
        return plan

    def _new_span(self, key: Key, before: Span | None, path: Sequence[Key]) -> Span:
        question, steps = key
        if before is None:
            return Span(self._encoder.question(question), None, 0)
        ids = self._encoder.extended(question, steps, before.ids)
        if ids[: len(before.ids)] == before.ids:
            return Span(ids, path[-1], len(before.ids))
        return Span(ids, None, 0)  # a token spans the border between the steps: nothing before it can be reused

    def _evaluate(self, missing: dict[Key, Span]) -> dict[Key, Span]:
        """Evaluate all ``missing`` spans, parents first; returns them with their scores."""
        fresh: dict[Key, Span] = {}
        while len(fresh) < len(missing):
            runs = self._runs(missing, fresh)
            lengths = {i: len(missing[run[-1]].ids) - missing[run[0]].start for i, run in enumerate(runs)}
            for batch in _batches(lengths, self._pass_tokens):
                fresh.update(self._run_batch([runs[i] for i in batch], missing, fresh))
        return fresh

    def _runs(self, missing: dict[Key, Span], fresh: dict[Key, Span]) -> list[list[Key]]:
        """The rows that can be evaluated now: each a span whose parent is known, and its descendants up to a branch."""
        children: dict[Key, list[Key]] = defaultdict(list)
        for key, span in missing.items():
            if span.parent is not None:
                children[span.parent].append(key)
        runs = []
        for key, span in missing.items():
            if key in fresh or (span.parent in missing and span.parent not in fresh):
                continue
            run = [key]
            while len(after := children[run[-1]]) == 1:
                if len(missing[after[0]].ids) - span.start > self._pass_tokens:
                    break
                run.append(after[0])
            runs.append(run)
        return runs

    def _run_batch(
        self, batch: list[list[Key]], missing: dict[Key, Span], fresh: dict[Key, Span]
    ) -> Iterator[tuple[Key, Span]]:
        """Evaluate one row for each run; yields its spans with scores, keys and values."""
        news = [missing[run[-1]].ids[missing[run[0]].start :] for run in batch]
        starts = [missing[run[0]].start for run in batch]
        width, past = self._padded(max(map(len, news))), self._padded(max(starts))
        ids, positions = np.zeros((len(batch), width), np.int64), np.zeros((len(batch), width), np.int64)
        mask = np.zeros((len(batch), past + width), np.int64)
        shape = (2 * self._sizes["layers"], len(batch), self._sizes["kv_heads"], past, self._sizes["head_dim"])
        cached = np.zeros(shape, self._kv_type)
        for row, (run, new, start) in enumerate(zip(batch, news, starts, strict=True)):
            ids[row, : len(new)] = new
            positions[row, : len(new)] = np.arange(start, start + len(new))
            mask[row, :start] = mask[row, past : past + len(new)] = 1
            self._copy_past(missing[run[0]].parent, fresh, cached[:, row])
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        for i in range(self._sizes["layers"]):
            feed[f"past_key_values.{i}.key"] = cached[2 * i]
            feed[f"past_key_values.{i}.value"] = cached[2 * i + 1]
        scores, *present = self._run(feed, sum(map(len, news)))
        for row, (run, start) in enumerate(zip(batch, starts, strict=True)):
            for key in run:
                span = missing[key]
                at, end = span.start - start, len(span.ids) - start
                kv = np.stack([part[row, :, at:end] for part in present])
                yield key, replace(span, score=float(scores[row, end - 1]), kv=kv)

    def _copy_past(self, key: Key | None, fresh: dict[Key, Span], into: NDArray[Any]) -> None:
        """Copy the keys and values of span ``key`` and its ancestors into (2 x layers, heads, past, head size)."""
        while key is not None:
            span = fresh.get(key) or self._cache[key]
            into[:, :, span.start : len(span.ids)] = span.kv
            key = span.parent

    def _run(self, feed: dict[str, NDArray[Any]], tokens: int) -> list[NDArray[Any]]:
        """The graph's outputs; ``tokens`` of the feed are not padding."""
        began = time.perf_counter()
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, feed, self._options)
        except Exception as error:  # onnxruntime's errors share no public base
            if self._options.terminate:
                raise _StoppedError from error
            raise BackendError(f"ONNX Runtime failed while scoring {tokens} tokens: {error}") from error
        seconds = time.perf_counter() - began
        self.busy_seconds += seconds
        self._spent_seconds = 0.8 * self._spent_seconds + seconds
        self._spent_tokens = 0.8 * self._spent_tokens + tokens
        return outputs

    def _padded(self, tokens: int) -> int:
        return -(-tokens // self._bucket) * self._bucket


def _checked(meta: dict[str, str], model_path: Path, tokenizer_path: Path) -> tuple[dict[str, int], StepLayout]:
    """Sizes and layout of a PRM, once its format is known to be right and the tokenizer to be its own."""
    try:
        if meta.get("format") != VERIFIER_FORMAT:
            raise ValueError(f"its format is {meta.get('format')!r}, not {VERIFIER_FORMAT!r}")
        names = ("layers", "hidden", "kv_heads", "head_dim", "positions", "parameters")
        sizes = {name: int(meta[name]) for name in names}
        layout = StepLayout.from_json(meta["layout"])
        expected = meta["tokenizer_sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise PackError(
            f"{model_path} is not a process reward model this runtime can use ({error}); "
            "verify or reinstall the pack, or export the model again"
        ) from error
    require_tokenizer(model_path, tokenizer_path, expected)
    return sizes, layout


def _batches(rows: Mapping[K, int], pass_tokens: int) -> Iterator[list[K]]:
    """The keys of ``rows`` (key to new tokens), shortest first, in batches of at most ``pass_tokens`` with padding.

    A row longer than that is a batch of its own.
    """
    batch: list[K] = []
    for key in sorted(rows, key=rows.__getitem__):
        if batch and (len(batch) + 1) * rows[key] > pass_tokens:
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


def _bytes(span: Span) -> int:
    return 0 if span.kv is None else span.kv.nbytes


def _run_options() -> Any:
    from edge_tts.runtimes.privacy import import_onnxruntime

    onnxruntime = import_onnxruntime()

    return onnxruntime.RunOptions()
