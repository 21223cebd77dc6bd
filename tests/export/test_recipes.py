"""The training recipes: data, labels, a few real updates of a fine-tuning run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from edge_tts.core import Sampling, Trace
from edge_tts.errors import InputError
from edge_tts.export.train.data import Problem, completion, equation_steps, read_problems, split, wrong_attempts
from edge_tts.export.train.examples import Samples
from edge_tts.export.train.rollouts import label, sample_programs
from edge_tts.runtimes.scripted import ScriptedPolicy

QUESTION = "Tom has 3 boxes of 8 pencils. He gives away 4. How many are left?"
PROBLEM = Problem("t-1", QUESTION, "20", ("3*8=24", "24-4=20"))


@pytest.mark.parametrize(
    ("solution", "answer", "steps"),
    [
        ("He has 3*8=<<3*8=24>>24.\nLeft: <<24-4=20>>20\n#### 20", "20", ("3*8=24", "24-4=20")),
        ("<<18*.5=9.00>>9 then <<18+9=27.00>>27\n#### 27", "27", ("18*.5=9", "18+9=27")),
        ("<<5=5>>5 and <<5+1=6>>6\n#### 6", "6", ("5+1=6",)),
        ("<<3*8=25>>25\n#### 25", "25", ()),
        ("<<3*8=24>>24\n#### 20", "20", ()),
        ("no annotation\n#### 3", "3", ()),
    ],
)
def test_annotations_become_checked_equations(solution: str, answer: str, steps: tuple[str, ...]) -> None:
    assert equation_steps(solution, answer) == steps


def test_wrong_attempts_are_wrong_and_distinct() -> None:
    attempts = wrong_attempts(PROBLEM, 4, random.Random(0))
    assert 2 <= len(set(attempts)) == len(attempts)
    assert all(attempt.splitlines()[-1] != "#### 20" for attempt in attempts)


@pytest.mark.parametrize("rank", [4, 40])
def test_a_change_is_cut_to_its_best_approximation_of_a_rank(rank: int) -> None:
    torch = pytest.importorskip("torch")
    from edge_tts.export.train.extract import truncated

    torch.manual_seed(1)
    change = torch.randn(60, 60) @ torch.diag(0.9 ** torch.arange(60)) @ torch.randn(60, 90)
    left, values, right = truncated(change, rank)
    assert (left.shape, values.shape, right.shape) == ((60, rank), (rank,), (rank, 90))
    lost = (change - left * values @ right).square().sum()
    assert lost <= 1.001 * torch.linalg.svdvals(change)[rank:].square().sum()
    assert torch.equal(truncated(change, rank)[0], left)


def test_validation_problems_are_never_trained_on(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    rows = [{"id": f"t-{i}", "question": "q", "solution": "<<1+1=2>>2\n#### 2", "answer": "2"} for i in range(60)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    train, held_out = split(read_problems(file))
    assert [p.id for p in held_out] == ["t-0", "t-15", "t-30", "t-45"]
    assert len(train) == 56


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "truncated"),
        ('{"id": "t-1", "question": "q"}', "missing required field `answer`"),
        ('{"id": "t-1", "question": "q", "answer": 2}', "Expected `str`, got `int`"),
        ('{"id": "first", "question": "q", "answer": "2"}', "matching regex"),
    ],
)
def test_bad_problems_are_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"id": "t-0", "question": "q", "answer": "2"}\n' + line)
    with pytest.raises(InputError, match=f"line 2: not a problem .*{message}"):
        list(read_problems(path))


def test_labels_are_shares_of_right_answers_through_each_prefix() -> None:
    def trace(*steps: str, answer: str) -> Trace:
        return Trace((1,), (*steps, f"#### {answer}"), True, answer)

    rows = label(
        PROBLEM,
        [
            trace("3*8=24", "24-4=20", answer="20"),
            trace("3*8=24", "24+4=28", answer="28"),
            trace("3+8=11", answer="11"),
            Trace((1,), ("3*8=24",), False, None),
        ],
    )
    assert [r["labels"] for r in rows] == [[0.5, 1.0, 1.0], [0.5, 0.0, 0.0], [0.0, 0.0]]
    assert [r["correct"] for r in rows] == [True, False, False]


def test_programs_are_sampled_as_the_runtime_asks_for_them_and_failures_are_wrong() -> None:
    programs = {0: "pencils = 3 * 8\nanswer = pencils - 4\n```", 1: "pencils = 3 * 8\nanswer = pens\n```", 2: "x = 1"}
    drawn: list[str] = []

    def continued(text: str, seed: int) -> str:
        assert QUESTION in text
        drawn.append(programs[len(drawn)])
        return drawn[-1]

    policy = ScriptedPolicy(continued, width=1)
    [traces] = sample_programs(policy, [PROBLEM], 3, Sampling(max_tokens=200), 0)
    rows = label(PROBLEM, traces, failed=True)
    assert [row["answer"] for row in rows] == ["20", None, None]
    assert [row["correct"] for row in rows] == [True, False, False]
    assert rows[0]["steps"] == ["pencils = 3 * 8  # 24", "answer = pencils - 4  # 20"]
    assert [row["labels"][0] for row in rows] == [0.5, 0.5, 0.0]
    assert len(label(PROBLEM, traces)) == 1


def test_revisions_of_programs_see_what_running_them_said() -> None:
    asked: list[str] = []

    def continued(text: str, seed: int) -> str:
        asked.append(text)
        return "answer = 3 * 8 - 4\n```"

    def sampled(earlier: Samples | None, context: int = 4096) -> Trace:
        policy = ScriptedPolicy(continued, width=1, context_length=context)
        [[trace]] = sample_programs(policy, [PROBLEM], 1, Sampling(max_tokens=200), 0, earlier)
        return trace

    wrong = Samples(wrong={PROBLEM.id: ("pencils = 3 + 8\nanswer = pencils",)})
    plain, revised = sampled(None), sampled(wrong)
    assert (plain.answer, revised.answer) == ("20", "20")
    assert "pencils = 3 + 8\nanswer = pencils\n```" in asked[1]
    assert "Running this program gives:\npencils = 11\nanswer = 11\n" in asked[1]
    sampled(wrong, plain.prompt_tokens + 210)  # no room for an attempt
    assert asked[2] == asked[0]


def test_fine_tuning_learns_and_resumes(smollm: tuple[Any, Any], tmp_path: Path) -> None:
    """A tiny model of the policy's own architecture, through the same code as the real one."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from edge_tts.export.train import sft
    from edge_tts.reasoning.prompts import PromptFormat

    tokenizer = smollm[1]
    prompts = PromptFormat()
    example = sft.encode(PROBLEM, [completion(("3+8=11",), "11")], tokenizer, prompts, 0.1)
    whole = prompts.render(QUESTION, ["3+8=11\n#### 11"]) + "3*8=24\n24-4=20\n#### 20" + prompts.end
    assert example.prompt + example.target == tokenizer.encode(whole, add_special_tokens=False)
    assert sorted(set(example.weights)) == [0.1, 1.0]
    assert example.weights.count(0.1) == 4

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = sft.trainable(LlamaForCausalLM(config), sft.SftConfig(rank=0), None)
    weights = [p for p in model.parameters() if p.requires_grad]
    assert not model.model.embed_tokens.weight.requires_grad
    optimiser = torch.optim.AdamW(weights, lr=1e-2)
    batch = sft.collate([example, example], 0, "cpu")
    losses = []
    for _ in range(8):
        loss = sft.answer_loss(model, *batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    # The frozen random embeddings keep it from learning more than a little.
    assert min(losses) < losses[0] - 0.2

    sft.save_state(tmp_path / "state.pt", model, optimiser, 8, 1.0, 100)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 8
    assert set(state["weights"]) == {n for n, p in model.named_parameters() if p.requires_grad}
