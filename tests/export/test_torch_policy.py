"""The recipes' sampler on PyTorch and training through quantisation, against the runtime on the shipped pack."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from edge_tts.core import (
    Policy,
    Request,
    Sampling,
    Trace,
)
from edge_tts.export.adapter import convert, permute
from edge_tts.export.train import quantised_lora, sft
from edge_tts.export.train.data import Problem
from edge_tts.export.train.torch_policy import TorchPolicy
from edge_tts.files.gguf import open_gguf
from edge_tts.packs.base_model import SMOLLM2_135M, locate
from edge_tts.packs.pack import Pack
from edge_tts.reasoning.prompts import CalculatorFormat, PromptFormat
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy

SHIPPED = Path(__file__).parents[2] / "edge_tts/packs/builtin/smol-math/adapter.gguf"
QUESTIONS = (
    "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?",
    "Ann buys 3 pens at $2 each and a book for $7. How much does she pay?",
)
WRITES = CalculatorFormat().written


@pytest.fixture(scope="module")
def policy(pack: Pack, smollm: tuple[Any, Any]) -> Iterator[TorchPolicy]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "load_base", lambda path: deepcopy(smollm))
        yield TorchPolicy(locate(SMOLLM2_135M), SHIPPED, width=8)


def sample(policy: Policy, sampling: Sampling, each: int = 1, seed: int = 0) -> tuple[list[Trace], list[float]]:
    """Traces of the questions, ``each`` times, and the log-probability of their first steps."""
    prompts = PromptFormat()
    traces = [Trace(policy.tokenize(prompts.render(q), special=True)) for q in QUESTIONS for _ in range(each)]
    first = [0.0] * len(traces)
    requests = [Request(t.tokens, seed + i, sampling, writes=WRITES) for i, t in enumerate(traces)]
    for event in policy.generate(requests):
        if not traces[event.request].steps:
            first[event.request] = event.logprob
        traces[event.request] = traces[event.request].extended(event, prompts.answer_marker)
    return traces, first


def test_greedy_traces_agree_with_the_runtime(policy: TorchPolicy, pack: Pack) -> None:
    runtime = LlamaPolicy(pack.policy_path, EngineConfig(width=2, context=384))
    try:
        wanted, their_logprobs = sample(runtime, Sampling(temperature=0))
        for question in QUESTIONS:
            assert runtime.tokenize(question) == policy.tokenize(question)
    finally:
        runtime.close()
    found, logprobs = sample(policy, Sampling(temperature=0))
    for ours, theirs, logprob, their_logprob in zip(found, wanted, logprobs, their_logprobs, strict=True):
        assert ours.finished
        assert ours.steps[-1].startswith("####")
        if ours.steps[0] == theirs.steps[0]:
            assert logprob == pytest.approx(their_logprob, abs=0.4)  # llama.cpp rounds activations to eight bits
        else:  # near ties only
            assert logprob == pytest.approx(their_logprob, abs=0.7)


def test_samples_are_repeatable_differ_and_their_equations_hold(policy: TorchPolicy) -> None:
    first, second = (sample(policy, Sampling(temperature=0.8), each=6, seed=3)[0] for _ in range(2))
    assert first == second
    assert len({trace.steps for trace in first}) > 4
    equations = [step for trace in first for step in trace.steps if "=" in step]
    assert equations
    for step in equations:
        expression, _, result = step.rpartition("=")
        assert CalculatorFormat(close="").written(expression + "=") in (result, None)
    assert any(t.answer == "76" for t in first)


def test_step_and_length_limits_stop_a_request(policy: TorchPolicy) -> None:
    tokens = policy.tokenize(PromptFormat().render(QUESTIONS[0]), special=True)
    (step,) = policy.generate([Request(tokens, 0, Sampling(temperature=0), max_steps=1, writes=WRITES)])
    assert step.stop == "step"
    assert step.prefill_tokens == len(tokens) - 1
    assert step.forced_tokens > 0
    (short,) = policy.generate([Request(tokens, 0, Sampling(temperature=0, max_tokens=2))])
    assert (short.stop, len(short.tokens)) == ("length", 2)


def test_rounding_is_that_of_the_gguf_quantiser() -> None:
    weight = torch.randn(48, 96, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    stored = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType.Q4_0)
    expected = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType.Q4_0)
    rounded = quantised_lora.round_q4_0(weight)
    assert np.array_equal(rounded.numpy(), expected)
    assert torch.equal(quantised_lora.round_q4_0(rounded), rounded)


def test_what_is_trained_is_what_ships_and_it_learns(pack: Pack, smollm: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = deepcopy(smollm[0]), smollm[1]
    quantised_lora.attach(model, SHIPPED)
    shipped = {tensor.name: tensor for tensor in open_gguf(pack.policy_path).tensors}
    for index, module, name, heads in ((0, "q_proj", "attn_q", 9), (29, "o_proj", "attn_output", None)):
        weight = getattr(model.model.layers[index].self_attn, module).weight().detach().numpy()
        tensor = shipped[f"blk.{index}.{name}.weight"]
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(permute(weight, heads) if heads else weight, expected)

    sft.save_result(model, tokenizer, tmp_path)
    convert(tmp_path / "adapter", locate(SMOLLM2_135M), tmp_path / "again.gguf")
    before, after = (
        {t.name: bytes(t.data) for t in open_gguf(path).tensors} for path in (SHIPPED, tmp_path / "again.gguf")
    )
    assert before == after

    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 30 * 64 * 10176  # rank 64, the inputs and outputs of seven matrices
    problem = Problem("t-1", QUESTIONS[0], "76", ("8*12=96", "96-20=76"))
    batch = sft.collate([sft.encode(problem, [], tokenizer, PromptFormat(), 0.1)], 0, "cpu")
    optimiser = torch.optim.AdamW(trained, lr=5e-4)
    losses = []
    for _ in range(3):
        loss = sft.answer_loss(model, *batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    changed = model.model.layers[4].mlp.down_proj.weight().detach()
    quantised_lora.freeze(model)
    assert torch.equal(model.model.layers[4].mlp.down_proj.weight, changed)
    assert not any(isinstance(module, quantised_lora.QuantisedLora) for module in model.modules())
