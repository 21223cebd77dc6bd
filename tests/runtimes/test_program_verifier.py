"""The verifier of programs: its signs, its scores, its fit."""

import json
from pathlib import Path

import pytest

from edge_tts.cancellation import Cancellation
from edge_tts.core import Scored
from edge_tts.errors import InputError, PackError
from edge_tts.export.train import fit_signs
from edge_tts.reasoning.program_signs import is_complete, signs
from edge_tts.runtimes.program_verifier import ProgramVerifier, SignWeights

QUESTION = "Tom has 3 boxes of 8 pencils. He gives away 25% of them. How many pencils are left?"
RIGHT = ("pencils = 3 * 8  # 24", "given = pencils * 0.25  # 6", "answer = pencils - given  # 18")


def test_a_program_that_uses_all_numbers_and_reads_all_it_computes_gives_nothing_away() -> None:
    found = signs(QUESTION, RIGHT)
    quiet = ("unused", "some unused", "new", "unread", "fraction", "negative", "copied", "branches", "rounds")
    assert [name for name in quiet if found[name]] == []
    assert (found["lines"], found["asked"], found["operators"], found["operator *"]) == (3, 3, 3, 2)


@pytest.mark.parametrize(
    ("steps", "sign", "value"),
    [
        (("pencils = 3 * 8  # 24", "answer = pencils  # 24"), "unused", 1),
        (("pencils = 3 * 8  # 24", "answer = pencils - 7  # 17"), "new", 1),
        (("pencils = 3 * 8  # 24", "given = 6", "answer = pencils  # 24"), "unread", 1),
        (("answer = 8 / 3  # 2.6666666667",), "fraction", 1),
        (("answer = 3 - 8  # -5",), "negative", 1),
        (("answer = 8",), "copied", 1),
        (("pencils_left = 24",), "named", 2),
        (("if pencils > 3:",), "branches", 1),
        (("answer = 25 // 8  # 3",), "rounds", 1),
        (("names = ['a']  # a",), "fraction", 0),
        (("x = 1" + "0" * 500,), "size", 0),
        ((), "lines", 0),
    ],
)
def test_what_gives_a_program_away(steps: tuple[str, ...], sign: str, value: float) -> None:
    assert signs(QUESTION, steps)[sign] == value


def test_a_program_is_complete_once_it_has_its_answer() -> None:
    assert is_complete(RIGHT)
    assert not is_complete(RIGHT[:2])
    assert not is_complete(("answer == 3", "answers = 3"))


def test_scores_are_those_of_every_beginning_and_cost_no_tokens() -> None:
    weights = SignWeights({"bias": 1.0, "unused": -2.0}, {"bias": -1.0})
    verifier = ProgramVerifier(weights)
    growing, complete = 1 / (1 + 2.718281828**1), 1 / (1 + 2.718281828**-1)
    [scored, empty] = verifier.score(QUESTION, [RIGHT, ()])
    assert scored == Scored((pytest.approx(growing), pytest.approx(growing), pytest.approx(complete)), 0)
    assert empty == Scored((), 0)
    assert verifier.seconds(1000) == 0
    stopped = Cancellation()
    stopped.request()
    assert verifier.score(QUESTION, [RIGHT], stopped) == []
    verifier.close()


def test_a_fit_that_cannot_be_used_is_named() -> None:
    for content in (
        {"format": 1, "complete": {"luck": 1.0}, "growing": {}},
        {"format": 2, "complete": {}, "growing": {}},
    ):
        with pytest.raises(PackError, match=r"this version reads 1, with weights of asked, bias, .*fit it again"):
            SignWeights.parse(content)
    with pytest.raises(PackError, match="complete is missing"):
        SignWeights.parse({"format": 1, "growing": {}})


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Right programs use the second number of the question, wrong ones do not."""
    lines = []
    for n in range(30):
        question = f"Ann has {n + 11} pens and finds {n + 60} more. How many pens has she?"
        first = f"pens = {n + 11}"
        for right in (True, False, False, False):
            last = f"answer = pens + {n + 60}  # {2 * n + 71}" if right else f"answer = pens + pens  # {2 * n + 22}"
            row = {"id": f"t-{n}", "question": question, "steps": [first, last], "labels": [0.25, float(right)]}
            lines.append({**row, "answer": last[-3:], "correct": right, "policy": "p", "logprob": -1.0})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_recipe_finds_the_sign_on_problems_it_was_not_fitted_on(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "fit.json"
    arguments = ["fit_signs", "--data", str(rows), "--test", str(rows), "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    fit_signs.main()
    content = json.loads(out.read_text())
    weights = SignWeights.parse(content)
    assert weights.complete["some unused"] < -0.5
    for part in ("held_out", "test"):
        told = content["evidence"][part]["signs"]["p"]
        assert told["auc_within_a_question"]["value"] == 1.0
        assert told["votes"]["4"]["majority"]["value"] == 0.0
        assert told["votes"]["4"]["best_of_n_less_majority"]["value"] == 1.0
        assert content["evidence"][part]["log-probability"]["p"]["auc_within_a_question"]["value"] == 0.5
    few = tmp_path / "few.jsonl"
    few.write_text(rows.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match="1 problems, too few for 5 folds"):
        fit_signs.run(few)
