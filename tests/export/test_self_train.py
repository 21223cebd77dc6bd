"""Self-training on right programs with a Qwen2 of random weights: what is trained on, the run, its adapter."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from native_logits import logits
from peft import PeftModel

from edge_tts.errors import InputError
from edge_tts.export import adapter
from edge_tts.export.gguf_model import load_gguf
from edge_tts.export.trace_rows import Row, read_rows
from edge_tts.export.train import self_train
from edge_tts.export.train.policy_tokenizer import load_tokenizer
from edge_tts.export.train.programs import attempts, right_programs, wrong_programs
from edge_tts.export.train.self_train import SelfTrainConfig
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.interpreter import Interpreter
from edge_tts.reasoning.program_format import OPENING

QUESTION = "Tom has {n} boxes with 8 pens each. How many pens are there?"
CONFIG = SelfTrainConfig(minutes=0.1, learning_rate=5e-3, batch_size=4, revision_share=0.25)


def row(problem: int, *steps: str, correct: bool = True) -> dict[str, Any]:
    return {"id": f"t-{problem}", "question": QUESTION.format(n=problem), "steps": steps, "correct": correct}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [
        found
        for n in range(2, 14)
        for found in (
            row(n, f"boxes = {n}", f"answer = boxes * 8  # {8 * n}"),
            row(n, f"boxes = {n}", "answer = boxes * 8"),
            row(n, f"answer = 8 * {n}  # {8 * n}"),
            row(n, f"answer = 8 + {n}  # {8 + n}", correct=False),
        )
    ]
    path.write_text("".join(json.dumps(found) + "\n" for found in rows))
    return path


@pytest.fixture(scope="module")
def run(qwen: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    self_train.train(qwen, data, out, CONFIG)
    return out


def test_distinct_right_programs_are_taken_without_their_values(data: Path) -> None:
    found = right_programs(read_rows(data, labelled=False), 4, 0)
    assert len(found) == 24
    assert {(row.question, program) for row, program in found[:2]} == {
        (QUESTION.format(n=2), "boxes = 2\nanswer = boxes * 8"),
        (QUESTION.format(n=2), "answer = 8 * 2"),
    }
    assert len(right_programs(read_rows(data, labelled=False), 1, 0)) == 12
    fails = Row("t-1", QUESTION, ("answer = pens",), correct=True)
    wrong = Row("t-1", QUESTION, ("answer = 1",), correct=False)
    with pytest.raises(InputError, match="none of the traces is a right program"):
        right_programs([fails, wrong], 4, 0)


def test_an_example_is_what_the_runtime_asks_and_ends_the_turn(qwen: Path) -> None:
    tokenizer = load_tokenizer(qwen)
    with Interpreter() as interpreter:
        example = self_train.encode(
            "How many <|im_end|>?", "answer = 7", ChatTemplate(tokenizer.chat_template), tokenizer, interpreter
        )
    prompt, target = tokenizer.decode(example.prompt), tokenizer.decode(example.target)
    assert prompt.endswith(f"How many <|im_end|>?<|im_end|>\n<|im_start|>assistant\n{OPENING}")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert example.prompt.count(end) == prompt.count("<|im_end|>") - 1  # the question's own is text
    assert target == "answer = 7\n```<|im_end|>"
    assert example.target[-1] == end


def test_a_revision_follows_wrong_programs_and_what_running_them_says(data: Path, qwen: Path) -> None:
    wrong = wrong_programs(read_rows(data, labelled=False))
    assert wrong["t-2"] == ("answer = 8 + 2",)
    failed = Row("t-1", QUESTION, ("boxes = 2", "answer = boxes * pens"), correct=False)
    known = wrong_programs([failed, failed, Row("t-1", QUESTION, ("(nothing)",), correct=False)])["t-1"]
    assert known == ("boxes = 2\nanswer = boxes * pens",)
    tokenizer, rng = load_tokenizer(qwen), random.Random(0)
    template, question = ChatTemplate(tokenizer.chat_template), QUESTION.format(n=2)
    with Interpreter() as interpreter:
        plain = self_train.encode(question, "answer = 16", template, tokenizer, interpreter)
        after = self_train.encode(
            question, "answer = 16", template, tokenizer, interpreter, [*wrong["t-2"], *attempts(known, rng)]
        )
    assert after.target == plain.target
    turns = tokenizer.decode(after.prompt).removeprefix(tokenizer.decode(plain.prompt))
    said = turns.split("<|im_start|>")
    assert said[0] == "answer = 8 + 2\n```<|im_end|>\n"
    assert "Running this program gives:\nanswer = 10\n" in said[1]
    assert said[2].endswith("boxes = 2\nanswer = boxes * pens\n```<|im_end|>\n")
    assert "Running this program says:\n" in said[3]
    assert "'pens' is not defined" in said[3]
    assert said[4] == f"assistant\n{OPENING}"
    programs = [f"answer = {n}" for n in range(9)]
    drawn = [attempts(programs, rng, "answer = 77") for _ in range(50)]
    assert {len(some) for some in drawn} == {1, 2, 3, 4}
    assert all(len(set(some)) == len(some) for some in drawn)
    assert len({some[-1] for some in drawn}) == 3
    assert "answer = 7" in {some[-1] for some in drawn}


def test_it_learns_and_goes_on_where_it_was_cut(run: Path, qwen: Path, data: Path) -> None:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    self_train.train(qwen, data, run, SelfTrainConfig(**{**CONFIG.__dict__, "minutes": 0.12}))
    longer = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert longer[: len(log)] == log
    assert [found["step"] for found in longer] == list(range(1, len(longer) + 1))
    assert longer[-1]["loss"] < 0.6 * log[0]["loss"]


def test_its_adapter_does_the_same_in_llama_cpp(run: Path, qwen: Path, tmp_path: Path) -> None:
    tokens = load_tokenizer(qwen).encode("boxes = 12\nanswer = boxes * 8", add_special_tokens=False)
    model = load_gguf(qwen)
    with torch.no_grad():
        plain = model(torch.tensor([tokens])).logits[0].numpy()
        expected = PeftModel.from_pretrained(model, str(run / "adapter"))(torch.tensor([tokens])).logits[0].numpy()
    adapter.convert(run / "adapter", qwen, tmp_path / "adapter.gguf", "F16")
    assert np.abs(logits(qwen, tokens) - plain).max() < 0.02
    found = logits(qwen, tokens, tmp_path / "adapter.gguf")
    effect = np.sqrt(np.mean((expected - plain) ** 2))
    assert effect > 0.5
    assert np.sqrt(np.mean((expected - found) ** 2)) < 0.05 * effect
