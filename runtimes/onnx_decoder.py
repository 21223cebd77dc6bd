"""The verifier over an exported causal reward model.

Keys and values of scored steps stay in a cache, so a search round evaluates its new steps only. What
several traces share is evaluated once; rows of like length go together, padded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_tts.core import Scored
from edge_tts.runtimes.onnx_graph import DECODER_FORMAT, GraphVerifier, batches, finite
from edge_tts.runtimes.onnx_session import Device
from edge_tts.runtimes.prefix_cache import Key, PrefixCache

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Span:
    """The tokens that one step (or the question) adds to a trace."""

    ids: tuple[int, ...]
    """Token ids of the whole trace up to the span's end."""
    parent: Key | None
    """The span before it; None where its tokens do not continue those of the step before, and for a question."""
    start: int
    """Position of its first token."""
    score: float = 0.0
    """In [0, 1]; of no meaning for a question."""
    kv: NDArray[Any] | None = None
    """Keys and values, (2 x layers, heads, tokens, head size); None until evaluated."""


@dataclass
class _Plan:
    """Spans that some traces need: each trace's path, what it adds to the work, and the spans not known yet."""

    paths: list[list[Key]] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    missing: dict[Key, Span] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(self.costs)


class DecoderVerifier(GraphVerifier):
    """A :class:`~edge_tts.core.Verifier` over a causal reward model; its scores depend on earlier steps only."""

    format = DECODER_FORMAT

    def __init__(
        self,
        model_path: Path,
        tokenizer_path: Path,
        device: Device = "auto",
        threads: int | None = None,
        cache_mb: int = 256,
        pass_tokens: int = 512,
    ) -> None:
        """``cache_mb`` bounds the kept keys and values, in MiB; the rest is as for every verifier here."""
        super().__init__(model_path, tokenizer_path, device, threads, pass_tokens)
        inputs = {node.name: node.type for node in self._session.get_inputs()}
        self._kv_type = np.float16 if inputs["past_key_values.0.key"] == "tensor(float16)" else np.float32
        self._cache = PrefixCache[Span](cache_mb * 2**20, _bytes)

    def _forget(self) -> None:
        self._cache.clear()

    def _score(self, question: str, traces: list[tuple[str, ...]]) -> Iterator[Scored]:
        while traces:
            plan = self._plan(question, traces)
            fresh = self._evaluate(plan.missing)
            for path, cost, steps in zip(plan.paths, plan.costs, traces, strict=False):
                scores = [(fresh.get(key) or self._cache[key]).score for key in path[1:]]
                yield Scored(tuple(scores + scores[-1:] * (len(steps) - len(scores))), cost)
            self._cache.keep(fresh, plan.paths)
            traces = traces[len(plan.paths) :]

    def _plan(self, question: str, traces: list[tuple[str, ...]]) -> _Plan:
        """Take traces until there is work for a pass."""
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
        return Span(ids, None, 0)  # the tokenizer reads across the border: nothing before it can be reused

    def _evaluate(self, missing: dict[Key, Span]) -> dict[Key, Span]:
        """Evaluate all ``missing`` spans, parents first; the spans with their scores."""
        fresh: dict[Key, Span] = {}
        while len(fresh) < len(missing):
            runs = self._runs(missing, fresh)
            lengths = {i: len(missing[run[-1]].ids) - missing[run[0]].start for i, run in enumerate(runs)}
            for batch in batches(lengths, self._pass_tokens):
                fresh.update(self._run_batch([runs[i] for i in batch], missing, fresh))
        return fresh

    def _runs(self, missing: dict[Key, Span], fresh: dict[Key, Span]) -> list[list[Key]]:
        """Spans that can be evaluated now, each followed by those after it up to a branch: a run is one row."""
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
        """Evaluate one row for each run; its spans with scores, keys and values."""
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
                score = finite(scores[row, end - 1])
                yield (
                    key,
                    Span(span.ids, span.parent, span.start, score, np.stack([p[row, :, at:end] for p in present])),
                )

    def _copy_past(self, key: Key | None, fresh: dict[Key, Span], into: NDArray[Any]) -> None:
        """Copy keys and values of the span ``key`` and those before it into (2 x layers, heads, past, head size)."""
        while key is not None:
            span = fresh.get(key) or self._cache[key]
            into[:, :, span.start : len(span.ids)] = span.kv
            key = span.parent


def _bytes(span: Span) -> int:
    return 0 if span.kv is None else span.kv.nbytes
