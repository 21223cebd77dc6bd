"""Sampling with PyTorch, for a GPU that llama.cpp was not built for: thousands of sequences at once.

It is for the recipes only, where nothing but the throughput over a whole data set counts. So a call runs in static
batches, without continuous batching, deadline or cancellation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from edge_tts.cancellation import Cancellation
from edge_tts.core import (
    ChatModelInfo,
    ModelInfo,
    Request,
    StepEvent,
    StepEvents,
    StopReason,
)
from edge_tts.export.train.policy_tokenizer import PolicyVocabulary
from edge_tts.export.train.sft import load_policy
from edge_tts.reasoning.prompts import PromptFormat

SHRINK_BELOW = 0.7
"""Finished sequences are dropped from the batch once less than this share of it still runs."""


@dataclass
class _Lane:
    """One request on its way."""

    index: int
    request: Request
    text: str = ""
    step: list[int] = field(default_factory=list)
    last: int = 0
    """The newest token."""
    forced: deque[int] = field(default_factory=deque)
    written: int = 0
    produced: int = 0
    steps: int = 0
    logprob: float = 0.0
    stop: StopReason | None = None


class TorchPolicy(PolicyVocabulary):
    """A :class:`edge_tts.core.Policy` over transformers.

    The draws of a call depend on its first request's seed and on all its requests, not on each
    request's own seed.
    """

    def __init__(self, base: Path, adapter: Path | None = None, width: int = 1024) -> None:
        """Load the GGUF ``base`` with an adapter of the fine-tuning recipe merged in (see ``sft.load_policy``)."""
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        model, tokenizer = load_policy(base, adapter)
        super().__init__(tokenizer)
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        self._model: Any = model.to(self._device, dtype).eval()
        self._end = self._tokenizer.convert_tokens_to_ids(PromptFormat().end)
        self.width = width
        parameters = sum(p.numel() for p in model.parameters())
        reason = "the recipes sample with PyTorch"
        self.chat_model = ChatModelInfo(template=self._tokenizer.chat_template)
        self.info = ModelInfo(base.stem, parameters, model.config.max_position_embeddings, self._device, reason)

    def generate(
        self, requests: Sequence[Request], deadline: float | None = None, cancel: Cancellation | None = None
    ) -> StepEvents:
        """See :meth:`edge_tts.core.Policy.generate`; ``deadline`` and ``cancel`` are not looked at."""
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].tokens))
        for start in range(0, len(order), self.width):
            yield from self._batch([_Lane(i, requests[i]) for i in order[start : start + self.width]])

    def close(self) -> None:
        self._model = None

    @torch.inference_mode()
    def _batch(self, lanes: list[_Lane]) -> Generator[StepEvent, None, None]:
        generator = torch.Generator(self._device).manual_seed(lanes[0].request.seed)
        cache, mask, logits = self._prefill(lanes)
        while lanes:
            drawn, logprobs = self._draw(logits, lanes, generator)
            for lane, token, logprob in zip(lanes, drawn.tolist(), logprobs.tolist(), strict=True):
                if lane.stop is None:
                    yield from self._take(lane, token, logprob)
            running = [row for row, lane in enumerate(lanes) if lane.stop is None]
            if not running:
                return
            # A lane that stopped goes on unseen until the batch is cut down.
            tokens = torch.tensor([lane.last for lane in lanes])
            if len(running) < SHRINK_BELOW * len(lanes):
                rows = torch.tensor(running, device=self._device)
                cache.batch_select_indices(rows)
                mask, tokens = mask[rows], tokens[rows.cpu()]
                lanes = [lanes[row] for row in running]
            mask = torch.cat([mask, mask.new_ones(len(lanes), 1)], dim=1)
            positions = mask.sum(1, keepdim=True) - 1
            ids = tokens.to(self._device)[:, None]
            out = self._model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache)
            logits = out.logits[:, -1].float()

    def _prefill(self, lanes: Sequence[_Lane]) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """Evaluate each distinct prompt once; cache, attention mask (lanes, longest) and logits (lanes, vocabulary)."""
        prompts = list(dict.fromkeys(lane.request.tokens for lane in lanes))
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self._end)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=DynamicCache(), logits_to_keep=1
        )
        row_of = {prompt: row for row, prompt in enumerate(prompts)}
        rows = torch.tensor([row_of[lane.request.tokens] for lane in lanes], device=self._device)
        out.past_key_values.batch_select_indices(rows)
        return out.past_key_values, mask[rows], out.logits[rows, -1].float()

    def _draw(
        self, logits: torch.Tensor, lanes: Sequence[_Lane], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A token and its log-probability (temperature 1) for every lane; all share one sampling but its length."""
        sampling = lanes[0].request.sampling
        values, ids = logits.topk(sampling.top_k or logits.shape[1], dim=1)
        if sampling.temperature == 0:
            picks = torch.zeros((len(lanes), 1), dtype=torch.long, device=logits.device)
        else:
            picks = torch.multinomial(torch.softmax(values / sampling.temperature, dim=1), 1, generator=generator)
        chosen = values.gather(1, picks)[:, 0] - logits.logsumexp(1)
        return ids.gather(1, picks)[:, 0], chosen

    def _take(self, lane: _Lane, token: int, logprob: float) -> Generator[StepEvent, None, None]:
        """Add the drawn token, or the next forced one in its place, and end step or request where due."""
        if lane.forced:
            token = lane.forced.popleft()
            lane.written += 1
        else:
            lane.logprob += logprob
        lane.last = token
        lane.step.append(token)
        lane.produced += 1
        if token != self._end:
            lane.text += self._tokenizer.decode([token])
            if not lane.forced and lane.request.writes:
                lane.forced.extend(self.tokenize(lane.request.writes(lane.text) or ""))
        at_delimiter = lane.request.delimiter in lane.text
        if token == self._end:
            lane.stop = "end"
        elif at_delimiter and lane.steps + 1 == lane.request.max_steps:
            lane.stop = "step"
        elif lane.produced >= lane.request.sampling.max_tokens:
            lane.stop = "length"
        if lane.stop or at_delimiter:
            text, _, rest = lane.text.partition(lane.request.delimiter)
            prefill = len(lane.request.tokens) - 1 if not lane.steps else 0
            yield StepEvent(lane.index, text, tuple(lane.step), lane.logprob, prefill, lane.written, lane.stop)
            lane.text = rest
            lane.step, lane.logprob, lane.written = [], 0.0, 0
            lane.steps += 1
