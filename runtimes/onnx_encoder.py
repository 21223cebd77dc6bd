"""The verifier over an exported bidirectional reward model: each new trace is evaluated whole, once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_tts.core import Scored
from edge_tts.runtimes.onnx_graph import ENCODER_FORMAT, GraphVerifier, batches, finite
from edge_tts.runtimes.onnx_session import Device

REMEMBERED_TRACES = 4096
"""Traces whose scores are kept."""


class EncoderVerifier(GraphVerifier):
    """A :class:`~edge_tts.core.Verifier` over a bidirectional model: a step's score may change as the trace grows."""

    format = ENCODER_FORMAT

    def __init__(
        self,
        model_path: Path,
        tokenizer_path: Path,
        device: Device = "auto",
        threads: int | None = None,
        pass_tokens: int = 512,
    ) -> None:
        super().__init__(model_path, tokenizer_path, device, threads, pass_tokens)
        self._known: OrderedDict[tuple[str, tuple[str, ...]], tuple[float, ...]] = OrderedDict()

    def _forget(self) -> None:
        self._known.clear()

    def _score(self, question: str, traces: list[tuple[str, ...]]) -> Iterator[Scored]:
        known: dict[tuple[str, ...], tuple[float, ...]] = {(): ()}
        rows: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
        for steps in dict.fromkeys(traces):
            if (question, steps) in self._known:
                known[steps] = self._known[question, steps]
            elif steps:
                rows[steps] = self._encoder.prefixes(question, steps)
        costs = {steps: len(prefixes[-1]) for steps, prefixes in rows.items()}
        for batch in batches(costs, self._pass_tokens):
            for steps, scores in zip(batch, self._run_batch([rows[steps] for steps in batch]), strict=True):
                known[steps] = scores + scores[-1:] * (len(steps) - len(scores))
        for steps in dict.fromkeys(traces):
            self._known[question, steps] = known[steps]
            self._known.move_to_end((question, steps))
        while len(self._known) > REMEMBERED_TRACES:
            self._known.popitem(last=False)
        yield from (Scored(known[steps], costs.pop(steps, 0)) for steps in traces)

    def _run_batch(self, rows: list[list[tuple[int, ...]]]) -> Iterator[tuple[float, ...]]:
        width = self._padded(max(len(prefixes[-1]) for prefixes in rows))
        ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
        for row, prefixes in enumerate(rows):
            ids[row, : len(prefixes[-1])] = prefixes[-1]
            mask[row, : len(prefixes[-1])] = 1
        [scores] = self._run({"input_ids": ids, "attention_mask": mask}, int(mask.sum()))
        for row, prefixes in enumerate(rows):
            yield tuple(finite(scores[row, len(ids) - 1]) for ids in prefixes[1:])
