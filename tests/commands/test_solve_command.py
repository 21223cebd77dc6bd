"""``edge-reason solve`` with the built-in pack: what is printed where, exit codes, saved searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_tts import cli
from edge_tts.errors import NO_ANSWER, NOT_SURE, InputError, ResourceError
from edge_tts.packs.pack import Pack
from edge_tts.questions import saved_search
from edge_tts.questions.saved_search import read

QUESTION = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"


def solve(*arguments: str) -> Result:
    found = CliRunner().invoke(
        cli.group, ["solve", "--pack", "smol-math", "--deadline", "300", "--budget", "4", *arguments]
    )
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def test_standard_output_ends_with_the_answer_and_the_rest_is_on_standard_error(pack: Pack) -> None:
    done = solve("--strategy", "majority", QUESTION)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].startswith("answer: 76 (")
    assert done.stderr.splitlines()[0] == "stopped because all samples were drawn"
    assert done.stderr.splitlines()[2] == f"{pack.title}, as equations"
    assert "majority:n=4" not in done.stderr


def test_verbose_tells_every_event_and_the_details(pack: Pack) -> None:
    told = solve("--strategy", "majority", "-v", QUESTION).stderr.splitlines()
    assert told[0].startswith("plan: ")
    assert sum(" s  [" in line for line in told) >= 4
    assert told[-1].startswith("majority:n=4 (asked for), ")


def test_json_is_the_whole_result_whatever_the_confidence(pack: Pack) -> None:
    done = solve("--strategy", "majority", "--json", "--min-confidence", "1", QUESTION)
    found = json.loads(done.stdout)
    assert (found["answer"], found["votes"]) == ("76", [["76", 1.0]])
    assert done.stderr == ""
    assert done.exit_code == NOT_SURE


def test_below_the_least_confidence_it_is_not_sure(pack: Pack) -> None:
    done = solve("--strategy", "majority", "--min-confidence", "0.99", QUESTION)
    assert (done.exit_code, done.stdout) == (NOT_SURE, "not sure\n  76: 100% of the vote\n")
    sure = solve("--strategy", "majority", "--min-confidence", "0.01", QUESTION)
    assert sure.exit_code == 0
    assert sure.stdout.splitlines()[-1].startswith("answer: 76 (")


def test_no_answer_has_a_code_of_its_own(pack: Pack) -> None:
    done = solve("--max-tokens", "3", "--min-confidence", "0.5", QUESTION)
    assert done.exit_code == NO_ANSWER
    assert "answer:" not in done.stdout


def test_a_saved_search_has_every_candidate_and_the_result(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    done = solve("--strategy", "weighted", "--seed", "3", "--json", "--save", str(path), QUESTION)
    saved = read(path)
    assert json.loads(json.dumps(saved.result.to_dict())) == json.loads(done.stdout)
    assert (saved.question, saved.settings.seed, saved.settings.pack) == (QUESTION, 3, pack.title)
    assert [candidate.number for candidate in saved.candidates] == [1, 2, 3, 4]
    assert all(candidate.steps and candidate.score is not None for candidate in saved.candidates if candidate.answer)
    seconds = [event.seconds for event in saved.events]
    assert seconds == sorted(seconds)
    assert saved.events[0].kind == "StrategyChosen"


def test_a_search_that_cannot_be_saved_is_answered_all_the_same(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ResourceError("the disk is full")

    monkeypatch.setattr(saved_search, "save", full)
    arguments = ("--pack", "smol-math", "--strategy", "greedy", "--save", str(tmp_path / "s.json"), QUESTION)
    found = CliRunner().invoke(cli.group, ["solve", *arguments])
    assert isinstance(found.exception, ResourceError)
    assert "answer: 76 (" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--save", "none/s.json", "1+1?"), "--save none/s.json"),
        (("--save", ".", "1+1?"), "--save ."),
        (("--save", "s.json", "--file", "a", "--out", "b"), "goes with one question"),
        (("--out", "b", "1+1?"), "--out goes with --file"),
        (("--strategy", "poem", "1+1?"), "unknown strategy 'poem'"),
        (("--min-confidence", "80", "1+1?"), "from 0 to 1, such as 0.8; got 80"),
        (("--min-confidence", "nan", "1+1?"), "from 0 to 1"),
        (("--temperature", "-1", "1+1?"), "temperature"),
    ],
)
def test_options_that_do_not_fit_are_said_before_anything_is_loaded(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(cli.group, ["solve", "--model", "nosuch", *arguments])
    assert isinstance(found.exception, InputError)
    assert complaint in str(found.exception)
