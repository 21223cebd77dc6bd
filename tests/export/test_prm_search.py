"""A user's chat model with a published PRM: exported, packed and searched with, every step scored as its makers do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from prm_checkpoints import FAMILIES, QUESTION
from prm_recipes import RECIPES
from tiny_model import write_speaking_model

from edge_tts import cli
from edge_tts.core import Budget
from edge_tts.errors import InputError
from edge_tts.events import CandidateScored, Done, Result
from edge_tts.export import prm_export
from edge_tts.packs.pack import find_pack
from edge_tts.reasoning.messages import Message
from edge_tts.runtimes import trial
from edge_tts.solver import Solver

WORDS = (
    ("There are 12 * 50 = 600 pens.\n\n", "There are 12 + 50 = 62 pens.\n\n"),
    ("Then 600 - 100 = 500.\n\n", "He keeps half of them.\n\n"),
    ("So \\boxed{500}", "So \\boxed{62}"),
)
PROGRAM = (("pens = 12 * 50\n", "pens = 12 + 50\n"), ("answer = pens - 100\n",), ("```",))
TOLERANCE = 2e-4
"""Of float32."""

Packed = Callable[[str, str], Path]


@pytest.fixture(scope="module", autouse=True)
def in_one_process() -> Iterator[None]:
    """No process is started to try the models, and none to measure the exported one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "can_run", lambda: False)
        patch.setattr(prm_export, "measure", lambda *_: ())
        yield


@pytest.fixture(scope="module")
def packed(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """The pack of a chat model with the PRM of a family, as a user makes it; the model speaks as the format wants."""
    folder = tmp_path_factory.mktemp("packs")
    speaking = {
        format: write_speaking_model(folder / f"{format}.gguf", says)
        for format, says in (("text", WORDS), ("program", PROGRAM), ("equations", PROGRAM))
    }

    @cache
    def exported(family: str) -> Path:
        run("export", "prm", checkpoints[family], "--quant", "fp32", "--out", folder / family)
        return folder / family

    @cache
    def pack(family: str, format: str) -> Path:
        prm, out = exported(family), folder / f"{family}-{format}"
        files = ("--policy", speaking[format], "--prm", prm / "prm.onnx", "--tokenizer", prm / "tokenizer.json")
        run("pack", "build", *files, "--format", format, "--licence", "MIT", "--out", out)
        return out

    return pack


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli.group, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@torch.no_grad()
def by_its_recipe(family: str, checkpoint: Path, question: str, steps: Sequence[str]) -> object:
    return pytest.approx(RECIPES[family](checkpoint, question, steps), abs=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chat_model_is_searched_under_a_published_prm(
    family: str, checkpoints: dict[str, Path], packed: Packed
) -> None:
    folder = packed(family, "text")
    told = run("solve", QUESTION, "--pack", folder, "--strategy", "beam:n=8,m=4", "--json", "--profile", "laptop-cpu")
    beam = json.loads(told)
    assert (beam["format"], beam["finished"], beam["answer"] in ("500", "62")) == ("text", True, True)
    assert len(beam["steps"]) == 3
    assert beam["scores"] == by_its_recipe(family, checkpoints[family], QUESTION, beam["steps"])
    with Solver(str(folder), profile="laptop-cpu") as solver:
        *events, last = solver.stream(QUESTION, "best-of-n:n=8", seed=3)
    assert isinstance(last, Done)
    best = last.result
    assert best.scores == by_its_recipe(family, checkpoints[family], QUESTION, best.steps)
    assert best.scores[-1] == max(event.score for event in events if isinstance(event, CandidateScored))


def test_every_search_runs_in_words(checkpoints: dict[str, Path], packed: Packed) -> None:
    def checked(result: Result, question: str) -> None:
        assert (result.format, result.finished) == ("text", True)
        assert result.usage.verifier_tokens > 0
        assert result.scores == by_its_recipe("value", checkpoints["value"], question, result.steps)

    with Solver(str(packed("value", "text")), profile="laptop-cpu") as solver:
        for number, strategy in enumerate(("weighted", "lookahead", "dvts", "particles", "revise", "auto")):
            question = QUESTION.replace("12", str(20 + number))  # what was scored before costs nothing
            checked(solver.solve(question, strategy, Budget(generations=8)), question)
        chat = [
            Message("system", "Be short."),
            Message("user", "Tom has 12 boxes with 50 pens each."),
            Message("assistant", "That is many."),
            Message("user", "He sells 100. How many are left?"),
        ]
        checked(solver.solve(chat, "weighted:n=4"), "\n\n".join(turn.content for turn in chat[1:]))


def test_lines_of_programs_are_scored_with_their_values(checkpoints: dict[str, Path], packed: Packed) -> None:
    with Solver(str(packed("value", "program")), profile="laptop-cpu", prompt_tokens=2400) as solver:
        result = solver.solve(QUESTION, "beam:n=8,m=4")
        assert solver.asked("Who was Napoleon?").name == "text"
        assert solver.asked(QUESTION, format="text").name == "text"
    assert result.format == "program"
    assert result.steps in (
        ("pens = 12 * 50  # 600", "answer = pens - 100  # 500"),
        ("pens = 12 + 50  # 62", "answer = pens - 100  # -38"),
    )
    assert result.scores == by_its_recipe("value", checkpoints["value"], QUESTION, result.steps)


def test_a_pack_says_how_its_policy_reasons(packed: Packed) -> None:
    said = {}
    for format in ("text", "program", "equations"):
        folder = packed("value", format)
        assert find_pack(str(folder)).reasoning == format
        assert run("pack", "verify", folder).startswith(f"value-{format} 1.0.0: sound")
        shown = json.loads(run("pack", "info", folder, "--json"))
        assert (shown["format"], "prompts" in shown) == (format, format == "equations")
        said[format] = run("pack", "info", folder)
        plan = json.loads(run("plan", "--pack", folder, "--profile", "laptop-cpu", "--json"))
        assert plan["engine"]["context"] == {"text": 768, "program": 1024, "equations": 512}[format]
    assert "format       words, step by step" in said["text"]
    assert "format       a program for a computation, words for the rest" in said["program"]
    assert "answer       behind '####'" in said["equations"]
    refused = "value-equations writes equations and nothing else, and the format is 'program'; leave it at auto"
    equations = Solver(str(packed("value", "equations")), profile="laptop-cpu")
    with equations, pytest.raises(InputError, match=refused):
        equations.solve(QUESTION, "greedy", format="program")
