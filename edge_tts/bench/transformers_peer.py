"""A search with Hugging Face transformers, as huggingface/search-and-learn does it.

It follows that project's src/sal/search/best_of_n.py and beam_search.py with the recipe Llama-3.2-1B-Instruct, one
problem at a time:

- Best-of-N: one call of ``generate`` for n copies of the prompt; then every trace is scored whole.
- Beam search: n lanes in every round. ``generate`` reads the whole text of each lane and writes one step, and every
  candidate is scored from its first step on. Complete candidates are put aside, equal ones dropped (the recipe's
  ``filter_duplicates``), and the n / m best of the rest fill the n lanes again, until none is left or after 40 rounds.
  Of the first n complete ones, the one with the best last score wins.
- The reward model reads one trace a call (the recipe's ``prm_batch_size: 1``) and keeps nothing between calls.

It differs from search-and-learn in this:

- search-and-learn generates with vLLM and prefix caching. Plain transformers keeps no keys and values between calls.
- The policy's weights are dequantised to float32, and the reward model is this project's, in ONNX Runtime.
- A step ends at the pack's delimiter, not at an empty line, and a trace is complete at its answer line too.
- search-and-learn's beam search also writes one greedy step beyond every candidate and throws it away
  (``lookahead: 1``). That is left out.
- The pack's token limit holds for the whole trace, not for each round.
- Best-of-N weighs answers by their scores, one of the ways in which search-and-learn evaluates it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edge_tts.bench.engine import QUESTION
from edge_tts.core import (
    StepEvent,
    StopReason,
    Trace,
    Usage,
)
from edge_tts.errors import PackError
from edge_tts.packs.pack import Pack
from edge_tts.runtimes import device
from edge_tts.runtimes.onnx_verifier import OnnxVerifier
from edge_tts.runtimes.process_memory import peak_memory_mb
from edge_tts.search.selection import Choice, aggregate, best_scored, weighted
from edge_tts.search.tree import MAX_ROUNDS

Method = Literal["best-of-n", "beam"]
BEAM_WIDTH = 4
"""Expansions of each kept trace, m; fewer where n is smaller."""
WARM_UP_BUDGET = 2


@dataclass(frozen=True)
class Solved:
    """One side's answer to one problem, and its cost without FLOPs."""

    answer: str | None
    support: float
    scores: tuple[float, ...]
    usage: Usage


@dataclass(frozen=True)
class _Written:
    """What one lane of a ``generate`` call wrote."""

    text: str
    tokens: int
    """With the end token or delimiter, without padding."""
    stop: StopReason


@dataclass(frozen=True)
class _Lane:
    """A trace that the beam search extends."""

    text: str
    tokens: int
    trace: Trace
    complete: bool


class TransformersPeer:
    """The policy under transformers, and the verifier without a cache; see the module's description."""

    def __init__(self, pack: Pack) -> None:
        """Load the models of ``pack``, which has a verifier. Raises PackError where transformers cannot load it."""
        import torch

        from edge_tts.export.train.sft import load_base

        assert pack.verifier_path
        assert pack.tokenizer_path
        threads = device.threads(None)
        torch.set_num_threads(threads)
        self._torch = torch
        self._prompts, self._sampling = pack.prompts, pack.sampling
        try:
            self._model, self._tokenizer = load_base(pack.policy_path)
        except Exception as error:  # transformers does not check the file first, so the error can be of any kind
            raise PackError(f"transformers cannot load {pack.policy_path} ({error}); choose another --pack") from error
        self._model.eval()
        self._tokenizer.padding_side = "left"
        self._end = self._tokenizer.convert_tokens_to_ids(pack.prompts.end)
        texts = self._tokenizer.batch_decode([[i] for i in range(len(self._tokenizer))])
        self._delimiters = [i for i, text in enumerate(texts) if pack.prompts.step_delimiter in text]
        # With a cache of 0 MB it evaluates all steps of a trace in every call.
        self._verifier = OnnxVerifier(pack.verifier_path, pack.tokenizer_path, threads=threads, cache_mb=0)
        self._usage = Usage()

    def solve(self, method: Method, question: str, n: int, seed: int) -> Solved:
        """The answer and its cost. Policy tokens are those that the policy evaluated, prompts included, no padding."""
        self._torch.manual_seed(seed)
        self._usage = Usage()
        began = time.monotonic()
        choice = self._best_of_n(question, n) if method == "best-of-n" else self._beam(question, n, min(BEAM_WIDTH, n))
        usage = replace(self._usage, seconds=time.monotonic() - began, peak_memory_mb=peak_memory_mb())
        best = choice.best
        return Solved(best.answer if best else None, choice.support, best.scores if best else (), usage)

    def prepare(self, method: Method) -> None:
        """Warm up; there are no caches to empty."""
        self.solve(method, QUESTION, WARM_UP_BUDGET, 0)

    def tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _best_of_n(self, question: str, n: int) -> Choice:
        prompt = self._prompts.render(question)
        written = self._generate([prompt] * n, [self._end], self._sampling.max_tokens)
        traces = [self._trace(one.text, one.stop) for one in written]
        return weighted([self._scored(question, trace) for trace in traces], "last")

    def _beam(self, question: str, n: int, m: int) -> Choice:
        prompt = self._prompts.render(question)
        active, completed = [_Lane("", 0, Trace(()), False)], list[Trace]()
        for _ in range(MAX_ROUNDS):
            lanes = list(itertools.islice(itertools.cycle(active), n))
            room = self._sampling.max_tokens - min(lane.tokens for lane in lanes)
            written = self._generate([prompt + lane.text for lane in lanes], [self._end, *self._delimiters], room)
            grown = [self._grown(question, lane, step) for lane, step in zip(lanes, written, strict=True)]
            completed += [lane.trace for lane in grown if lane.complete]
            distinct = {lane.text: lane for lane in grown if not lane.complete}
            if not distinct:
                break
            active = sorted(distinct.values(), key=lambda lane: -aggregate(lane.trace.scores, "last"))[: n // m]
        return best_scored(completed[:n], "last")

    def _grown(self, question: str, lane: _Lane, step: _Written) -> _Lane:
        text, tokens = lane.text + step.text, lane.tokens + step.tokens
        trace = self._scored(question, self._trace(text, step.stop))
        complete = trace.finished or step.stop != "step" or tokens >= self._sampling.max_tokens
        return _Lane(text, tokens, trace, complete)

    def _generate(self, texts: Sequence[str], stops: Sequence[int], room: int) -> list[_Written]:
        """One call of ``generate`` for all lanes; each ends at a token of ``stops`` or after ``room`` new tokens."""
        given = self._tokenizer(list(texts), add_special_tokens=False, padding=True, return_tensors="pt")
        with self._torch.inference_mode():
            out = self._model.generate(
                input_ids=given.input_ids,
                attention_mask=given.attention_mask,
                do_sample=True,
                temperature=self._sampling.temperature,
                top_k=self._sampling.top_k,
                top_p=1.0,
                max_new_tokens=room,
                eos_token_id=list(stops),
                pad_token_id=self._end,
            )
        ended = set(stops)
        written = [self._written(row, ended) for row in out[:, given.input_ids.shape[1] :].tolist()]
        generated = sum(one.tokens for one in written)
        prefill = int(given.attention_mask.sum())
        self._usage += Usage(policy_tokens=prefill + generated, generated_tokens=generated)
        return written

    def _written(self, row: list[int], stops: set[int]) -> _Written:
        count = next((i + 1 for i, token in enumerate(row) if token in stops), len(row))
        last = row[count - 1]
        stop: StopReason = "length" if last not in stops else "end" if last == self._end else "step"
        return _Written(self._tokenizer.decode(row[:count], skip_special_tokens=True), count, stop)

    def _trace(self, text: str, stop: StopReason) -> Trace:
        """``text`` as steps, up to its answer, by the rules of our own side."""
        trace = Trace(())
        *whole, rest = text.split(self._prompts.step_delimiter)
        for step in whole:
            if not trace.finished:
                trace = trace.extended(StepEvent(0, step, (), 0.0, 0, 0, "step"), self._prompts.answer_marker)
        if not trace.finished:
            trace = trace.extended(StepEvent(0, rest, (), 0.0, 0, 0, stop), self._prompts.answer_marker)
        return trace

    def _scored(self, question: str, trace: Trace) -> Trace:
        (found,) = self._verifier.score(question, [trace.steps])
        self._usage += Usage(verifier_tokens=found.tokens)
        return replace(trace, scores=found.scores)
