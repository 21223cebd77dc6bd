"""The verifier: step scores from a block-causal process reward model, by ONNX Runtime.

Keys and values of scored steps stay in a cache, so a search round evaluates its new steps only, all
of them in one packed pass without padding (see :mod:`edge_tts.runtimes.chunks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_tts.core import Scored
from edge_tts.errors import BackendError, PackError
from edge_tts.runtimes.chunks import MASKED, MAX_QUESTION_TOKENS, MAX_STEP_TOKENS, question_chunk, step_chunk, tree_mask
from edge_tts.runtimes.graph_metadata import read_metadata
from edge_tts.runtimes.onnx_session import Device, SessionVerifier, load_tokenizer, require_tokenizer
from edge_tts.runtimes.prefix_cache import Key, PrefixCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "block-causal-2"
"""Graph inputs, mask and chunk layout this module speaks; an exported model declares the same."""


@dataclass(frozen=True)
class Chunk:
    """A scored chunk."""

    score: float
    """In [0, 1]; of no meaning for a question."""
    end: int
    """Position after its last token."""
    kv: NDArray[np.float32]
    """Keys and values, (layers, 2, 1, tokens, hidden)."""


@dataclass
class _Pass:
    """Chunks that one run of the graph will evaluate, and the cached ones they attend to."""

    known: dict[Key, Chunk] = field(default_factory=dict)
    new: dict[Key, tuple[list[int], int]] = field(default_factory=dict)
    """Token ids and first position."""
    tokens: int = 0


class OnnxVerifier(SessionVerifier):
    """A verifier over this project's PRM.

    The step scores of a trace do not depend on the other traces of a call, nor on what is cached,
    but for float rounding (which an int8 model amplifies to about 0.01). A question beyond 384
    tokens keeps its last ones, a step beyond 96 its first; steps past the model's last position
    repeat the last score before them.

    Raises PackError for a damaged model or tokenizer, or a tokenizer the model was not made with;
    BackendError when ONNX Runtime fails.
    """

    def __init__(
        self,
        model_path: Path,
        tokenizer_path: Path,
        device: Device = "auto",
        threads: int | None = None,
        cache_mb: int = 16,
        pass_tokens: int = 128,
    ) -> None:
        """``cache_mb`` bounds the cached keys and values, in MiB; ``pass_tokens``, about, the new tokens of one pass:
        the attention buffers grow with its square.
        """
        self._tokenizer = load_tokenizer(tokenizer_path)
        self._layers, self._hidden, self._positions, parameters = _metadata(model_path, tokenizer_path)
        super().__init__(model_path, parameters, self._positions, device, threads, first_speed=2000)
        self._cache = PrefixCache[Chunk](cache_mb * 2**20, lambda chunk: chunk.kv.nbytes)
        self._pass_tokens = pass_tokens

    def _forget(self) -> None:
        self._cache.clear()

    def _score(self, question: str, traces: list[tuple[str, ...]]) -> Iterator[Scored]:
        while traces:
            work, paths, costs = self._plan(question, traces)
            scored = self._evaluate(work)
            self._cache.keep(scored, paths)
            for path, cost, steps in zip(paths, costs, traces, strict=False):
                scores = [scored[key].score for key in path[1:]]
                scores += scores[-1:] * (len(steps) - len(scores))
                yield Scored(tuple(scores), cost)
            traces = traces[len(paths) :]

    def _plan(self, question: str, traces: Sequence[Sequence[str]]) -> tuple[_Pass, list[list[Key]], list[int]]:
        """Take traces until the pass is full; also the chunk keys of each, and the new tokens each brings."""
        work, paths, costs = _Pass(), [], []
        for steps in traces:
            if work.tokens >= self._pass_tokens:
                break
            before, path, end = work.tokens, [], 0
            for count in range(len(steps) + 1 if steps else 0):
                key = (question, tuple(steps[:count]))
                after = self._add(work, key, end)
                if after is None:
                    break
                path.append(key)
                end = after
            paths.append(path)
            costs.append(work.tokens - before)
        return work, paths, costs

    def _add(self, work: _Pass, key: Key, start: int) -> int | None:
        """Put one chunk into the pass, from the cache where it is known; its end, or None where it does not fit."""
        if key in work.new:
            ids, start = work.new[key]
            return start + len(ids)
        known = work.known.get(key) or self._cache.get(key)
        if known is not None:
            work.known[key] = known
            return known.end
        question, steps = key
        ids = step_chunk(self._tokenizer, question, steps) if steps else question_chunk(self._tokenizer, question)
        if start + len(ids) > self._positions:
            return None
        work.new[key] = (ids, start)
        work.tokens += len(ids)
        return start + len(ids)

    def _evaluate(self, work: _Pass) -> dict[Key, Chunk]:
        """Evaluate the new chunks of a pass; all of its chunks, now scored."""
        if not work.new:
            return work.known
        scores, present = self._run(self._feed(work), work.tokens)
        if not np.isfinite(scores).all():
            raise BackendError("the verifier produced scores that are not numbers; verify or reinstall the pack")
        scored, at = dict(work.known), 0
        for key, (ids, start) in work.new.items():
            stop = at + len(ids)
            scored[key] = Chunk(float(scores[0, stop - 1]), start + len(ids), present[:, :, :, at:stop].copy())
            at = stop
        return scored

    def _feed(self, work: _Pass) -> dict[str, NDArray[Any]]:
        """The graph's inputs: known chunks as its past, new chunks as its tokens."""
        index = {key: i for i, key in enumerate([*work.known, *work.new])}
        lengths = [c.kv.shape[3] for c in work.known.values()] + [len(ids) for ids, _ in work.new.values()]
        mask = tree_mask(lengths, [index[q, steps[:-1]] if steps else -1 for q, steps in index])
        past_tokens, tokens = len(mask) - work.tokens, work.tokens
        past_width, width = self._padded(past_tokens), self._padded(tokens)
        ids, positions = np.zeros((1, width), np.int64), np.zeros((1, width), np.int64)
        ids[0, :tokens] = np.concatenate([chunk for chunk, _ in work.new.values()])
        positions[0, :tokens] = np.concatenate([np.arange(s, s + len(c)) for c, s in work.new.values()])
        padded = np.full((1, width, past_width + width), MASKED, np.float32)
        padded[0, :tokens, :past_tokens] = mask[past_tokens:, :past_tokens]
        padded[0, :tokens, past_width : past_width + tokens] = mask[past_tokens:, past_tokens:]
        past = np.zeros((self._layers, 2, 1, past_width, self._hidden), np.float32)
        if work.known:
            np.concatenate([c.kv for c in work.known.values()], axis=3, out=past[:, :, :, :past_tokens])
        return {"ids": ids, "positions": positions, "mask": padded, "past": past}


def _metadata(model_path: Path, tokenizer_path: Path) -> tuple[int, int, int, int]:
    """Layers, hidden size, positions and parameters, once it is known that the tokenizer belongs to the model."""
    meta = read_metadata(model_path)
    try:
        if meta["format"] != FORMAT:
            raise ValueError(f"its format is {meta['format']!r}, not {FORMAT!r}")
        layers, hidden, positions, parameters = (int(meta[k]) for k in ("layers", "hidden", "positions", "parameters"))
        if positions < MAX_QUESTION_TOKENS + MAX_STEP_TOKENS:
            raise ValueError(f"it has room for {positions} tokens only")
        expected = meta["tokenizer_sha256"]
    except (KeyError, ValueError) as error:
        raise PackError(
            f"{model_path} is not a process reward model this runtime can use ({error}); "
            "verify or reinstall the pack, or export the model with edge_tts.export.prm"
        ) from error
    require_tokenizer(model_path, tokenizer_path, expected)
    return layers, hidden, positions, parameters
