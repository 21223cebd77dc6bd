"""Results files: one current row for each question, whatever happened to the file before."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scripted_solver import ScriptedSolver, answer, limited_file_size, run, settings

from edge_tts.commands.question_file import ROWS_FAILED
from edge_tts.core import Budget
from edge_tts.errors import NOT_SURE, EdgeError, InputError, ResourceError
from edge_tts.events import Escalated, Result
from edge_tts.questions.lines import question_lines
from edge_tts.questions.results import failure_row
from edge_tts.questions.results_file import ResultsFile, check_out

QUESTIONS = (
    {"id": 1, "question": "abc", "answer": 3},
    {"id": "1", "question": "abcd", "answer": "Four.\n#### 4"},
    {"question": "abcde", "answer": "6"},
    {"id": "last", "question": "abcdef"},
)


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def ids(out: Path) -> list[Any]:
    return [row["id"] for row in rows_of(out)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", *QUESTIONS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_a_row_for_every_question_in_the_order_of_the_file(file: Path, out: Path) -> None:
    code, said = run(ScriptedSolver(), file, out, parallel=4)
    assert code == 0
    assert "4 answered, 2 of 3 right; results are in" in said
    assert ids(out) == [1, "1", "line 3", "last"]
    assert [row.get("correct") for row in rows_of(out)] == [True, True, False, None]
    assert [row.get("expected") for row in rows_of(out)] == ["3", "4", "6", None]
    assert [row["question"] for row in rows_of(out)] == ["abc", "abcd", "abcde", "abcdef"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_names_of_a_row_are_none_of_a_result() -> None:
    names = {field.name for field in fields(Result)}
    assert names.isdisjoint({"id", "question", "expected", "correct", "sure", "error", "settings"})
    assert "usage" in names  # what tells a result from a failure


def test_below_the_least_confidence_a_row_keeps_its_answer_and_is_not_sure(file: Path, out: Path) -> None:
    confidence = {"abc": 0.8, "abcd": 0.79, "abcde": 0.95, "abcdef": 0.0}
    solver = ScriptedSolver(lambda question: None if question == "abcdef" else answer(question), confidence=confidence)
    asked = settings(others={"min_confidence": 0.8})
    for _ in range(2):  # the second time all rows are there
        code, said = run(solver, file, out, asked)
        assert code == NOT_SURE
        assert "3 answered, 2 of 3 right, 1 without an answer, 2 not sure (those without" in said
    assert [row["sure"] for row in rows_of(out)] == [True, False, True, False]
    assert [(row["answer"], row["confidence"]) for row in rows_of(out)][1] == ("4", 0.79)
    assert len(solver.asked) == len(QUESTIONS)


def test_a_failure_is_said_before_what_is_not_sure(file: Path, out: Path) -> None:
    def failing(question: str) -> str:
        if question == "abc":
            raise InputError("no")
        return answer(question)

    code, said = run(ScriptedSolver(failing), file, out, settings(others={"min_confidence": 1.0}))
    assert code == ROWS_FAILED
    assert "3 not sure, 1 failed" in said


def test_what_was_handed_over_and_its_price_are_said(file: Path, out: Path) -> None:
    asked = Escalated("big", "http://somewhere", 10, 5, 1.0, price=0.25)
    solver = ScriptedSolver(escalation={"abc": asked, "abcd": replace(asked, price=1.0)})
    _, said = run(solver, file, out)
    assert "a larger model was also asked 2 of these questions, price 1.25\n" in said


def test_what_is_done_is_not_done_again(file: Path, out: Path) -> None:
    run(ScriptedSolver(), file, out)
    before = out.read_bytes()
    solver = ScriptedSolver()
    code, said = run(solver, file, out)
    assert (code, solver.asked, out.read_bytes()) == (0, [], before)
    assert "4 of 4 are in" in said
    assert "4 answered, 2 of 3 right" in said


def test_a_changed_question_is_solved_anew_and_its_old_row_is_gone(file: Path, out: Path) -> None:
    run(ScriptedSolver(), file, out)
    write(file, {**QUESTIONS[0], "question": "a longer one"}, *QUESTIONS[1:])
    solver = ScriptedSolver()
    run(solver, file, out)
    assert solver.asked == ["a longer one"]
    assert ids(out) == [1, "1", "line 3", "last"]
    assert (rows_of(out)[0]["question"], rows_of(out)[0]["correct"]) == ("a longer one", False)


def test_a_changed_question_has_no_stale_row_while_it_is_solved(file: Path, out: Path) -> None:
    run(ScriptedSolver(), file, out)
    write(file, {**QUESTIONS[0], "question": "a longer one"}, *QUESTIONS[1:])

    def interrupted(_: str) -> str:
        assert ids(out) == ["1", "line 3", "last"]
        raise KeyboardInterrupt

    with ResultsFile(out, question_lines(file), settings()) as results:
        assert len(results.done) == 3
        with pytest.raises(KeyboardInterrupt):
            interrupted("")
    assert ids(out) == ["1", "line 3", "last"]


def test_a_changed_right_answer_is_graded_anew_without_solving(file: Path, out: Path) -> None:
    run(ScriptedSolver(), file, out)
    without = {name: value for name, value in QUESTIONS[1].items() if name != "answer"}
    write(file, {**QUESTIONS[0], "answer": "5"}, without, {**QUESTIONS[2], "answer": 5}, {**QUESTIONS[3], "answer": 6})
    solver = ScriptedSolver()
    _, said = run(solver, file, out)
    assert solver.asked == []
    assert [row.get("correct") for row in rows_of(out)] == [False, None, True, True]
    assert [row.get("expected") for row in rows_of(out)] == ["5", None, "5", "6"]
    assert "2 of 3 right" in said
    assert all(row["usage"]["policy_tokens"] == 10 for row in rows_of(out))


def test_rows_of_other_questions_are_kept_before_the_others(file: Path, out: Path, tmp_path: Path) -> None:
    run(ScriptedSolver(), write(tmp_path / "other.jsonl", {"id": "x", "question": "other"}), out)
    solver = ScriptedSolver()
    _, said = run(solver, file, out)
    assert ids(out) == ["x", 1, "1", "line 3", "last"]
    assert "and keeps: 1" in said
    write(file, *QUESTIONS[:2])
    run(solver, file, out)
    assert ids(out) == ["x", "line 3", "last", 1, "1"]


# --- failures --------------------------------------------------------------------------------


def test_bad_lines_and_questions_that_fail_get_a_row_and_the_others_go_on(file: Path, out: Path) -> None:
    def fails(question: str) -> str | None:
        if question == "abcd":
            raise InputError("the question fills the context")
        if question == "abcde":
            raise ZeroDivisionError("division\nby zero")
        return None if question == "abcdef" else "3"

    write(file, *QUESTIONS, "no json", {"id": 5, "question": "2+3 \ud83d"}, {"id": "\udc00", "question": "abc"})
    code, said = run(ScriptedSolver(fails), file, out)
    assert code == 8
    assert ids(out) == [1, "1", "line 3", "last", "line 5", 5, "\udc00"]
    errors = [row.get("error") for row in rows_of(out)]
    assert errors[1] == "the question fills the context"
    assert errors[2] == "internal error: ZeroDivisionError: division"
    assert errors[4] == "line 5: not JSON (Expecting value at column 1)"
    assert str(errors[5]).startswith("line 6: the question contains")
    assert [errors[0], errors[3], errors[6]] == [None] * 3
    assert "2 answered, 1 of 1 right, 1 without an answer, 4 failed" in said
    assert "line 5: not JSON" in said
    assert "and 1 more, each in the file" in said


def test_failures_are_tried_again(file: Path, out: Path) -> None:
    def fails(question: str) -> str:
        if question == "abc":
            raise InputError("too long")
        return "4"

    write(file, *QUESTIONS, "no json")
    assert run(ScriptedSolver(fails), file, out)[0] == 8
    write(file, *QUESTIONS, {"id": "e", "question": "abcd"})
    solver = ScriptedSolver()
    code, said = run(solver, file, out)
    assert (code, solver.asked) == (0, ["abc", "abcd"])
    assert ids(out) == [1, "1", "line 3", "last", "e"]
    assert not any("error" in row for row in rows_of(out))
    assert "failed" not in said


# --- what a file may have been through ---------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 5, 6, 7, 40, -2, -1])
def test_a_row_cut_short_is_written_again(file: Path, out: Path, cut: int) -> None:
    run(ScriptedSolver(), file, out)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in range(4):
        out.write_bytes(b"".join(lines[:kept]) + lines[kept][:cut])
        solver = ScriptedSolver()
        run(solver, file, out)
        assert out.read_bytes() == whole
        assert len(solver.asked) == 4 - kept - (cut == -1)  # only its line end is missing


def test_blank_lines_and_a_byte_order_mark_are_no_harm(file: Path, out: Path) -> None:
    run(ScriptedSolver(), file, out)
    whole = out.read_bytes()
    first, rest = whole.split(b"\n", 1)
    for changed in (b"\n\n" + whole, b"\xef\xbb\xbf" + whole, whole.replace(b"\n", b"\r\n\r\n")):
        out.write_bytes(changed)
        solver = ScriptedSolver()
        run(solver, file, out)
        assert solver.asked == []
        assert ids(out) == [1, "1", "line 3", "last"]
    out.write_bytes(b"\xef\xbb\xbf" + rest + first + b"\n")
    run(ScriptedSolver(), file, out)
    assert out.read_bytes() == whole


def test_rows_that_are_there_twice_count_once(file: Path, out: Path) -> None:
    run(ScriptedSolver(), file, out)
    whole = out.read_bytes()
    out.write_bytes(whole + whole)
    run(ScriptedSolver(), file, out)
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        '{"question": "3 times 14?"}',
        '{"id": "1", "question": "a b"}\n',
        "# notes",
        "[1]\n",
        '{"id": 1, "settings": 3}\n',
        '{"id": 1, "settings": {}}\n',
        "[" * 100_000 + "\n",
        "\0\0\0",
        '{"id": 1, "ques',
    ],
)
def test_a_file_that_is_no_output_is_left_alone(file: Path, out: Path, content: str) -> None:
    out.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="choose another --out"):
        run(ScriptedSolver(), file, out)
    assert out.read_text(encoding="utf-8") == content
    assert sorted(path.name for path in out.parent.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_results_of_other_settings_are_not_mixed(file: Path, out: Path) -> None:
    run(ScriptedSolver(), file, out)
    before = out.read_bytes()
    with pytest.raises(InputError, match="seed: 0, now 7"):
        run(ScriptedSolver(), file, out, settings(seed=7))
    others = settings(budget=Budget(generations=4), sampling={"temperature": 0.5})
    with pytest.raises(InputError, match=r"\(budget.generations: 2, now 4; sampling.temperature: null, now 0.5\)"):
        run(ScriptedSolver(), file, out, others)
    assert out.read_bytes() == before


def test_what_cannot_be_the_output_is_said_before_anything_is_loaded(file: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.jsonl").symlink_to(file)
    for other, complaint in (
        (tmp_path, "Is a directory"),
        (file, "the file of questions itself"),
        (tmp_path / "link.jsonl", "the file of questions itself"),
        (tmp_path / "out.jsonl.gz", "plain text"),
        (tmp_path / "none" / "out.jsonl", "there is no folder"),
        (tmp_path / "circle", "choose another --out"),
        (tmp_path / "pipe", "no file that can be resumed"),
    ):
        with pytest.raises(InputError, match=complaint):
            check_out(other, file)
    check_out(out, file)


def test_a_link_stays_a_link(file: Path, out: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.jsonl"
    out.symlink_to(real)
    write(file, *QUESTIONS[::-1])
    run(ScriptedSolver(), file, out)
    real.chmod(0o640)
    write(file, *QUESTIONS)
    run(ScriptedSolver(), file, out)
    assert out.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert len(rows_of(real)) == 5  # "line 2" of the file before is another question


def test_two_processes_do_not_write_one_file(file: Path, out: Path) -> None:
    with (
        ResultsFile(out, question_lines(file), settings()),
        pytest.raises(InputError, match="another process is adding to"),
    ):
        run(ScriptedSolver(), file, out)
    assert run(ScriptedSolver(), file, out)[0] == 0


# --- full disks --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=60)


def many(tmp_path: Path, count: int = 100) -> Path:
    return write(tmp_path / "many.jsonl", *({"id": i, "question": "x" * (900 + i)} for i in range(count)))


def test_a_full_disk_loses_nothing_that_is_finished(small_disk: Path, tmp_path: Path) -> None:
    file, out = many(tmp_path), small_disk / "out.jsonl"
    with pytest.raises(ResourceError, match=r"No space left on device; free some space and run the same command"):
        run(ScriptedSolver(), file, out)
    done = ids(out)
    assert done == list(range(len(done)))
    assert 20 < len(done) < 60
    assert out.read_bytes().endswith(b"\n")
    with pytest.raises(ResourceError, match="No space left"):  # still full, still nothing is lost
        run(ScriptedSolver(), file, out)
    assert ids(out) == done
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True, timeout=60)
    solver = ScriptedSolver()
    assert run(solver, file, out)[0] == 0
    assert len(solver.asked) == 100 - len(done)
    assert ids(out) == list(range(100))


def test_rows_stay_unsorted_where_the_disk_has_no_room_for_sorting(small_disk: Path, tmp_path: Path) -> None:
    file, out = many(tmp_path, 30), small_disk / "out.jsonl"
    write(tmp_path / "last.jsonl", *({"id": i, "question": "x" * (900 + i)} for i in range(29, 9, -1)))
    run(ScriptedSolver(), tmp_path / "last.jsonl", out)
    code, said = run(ScriptedSolver(), file, out)
    assert code == 0
    assert "all rows are in" in said
    assert "No space left" in said
    assert sorted(ids(out)) == list(range(30))
    assert [path.name for path in small_disk.iterdir()] == ["out.jsonl"]


def test_a_file_that_may_not_grow_loses_nothing_that_is_finished(tmp_path: Path, out: Path) -> None:
    file = many(tmp_path)
    with limited_file_size(50_000), pytest.raises(ResourceError, match="File too large; free some space"):
        run(ScriptedSolver(), file, out)
    done = ids(out)
    assert 10 < len(done) < 60
    assert out.read_bytes().endswith(b"\n")
    solver = ScriptedSolver()
    assert run(solver, file, out)[0] == 0
    assert len(solver.asked) == 100 - len(done)


# --- any file -----------------------------------------------------------------------------------


@pytest.fixture
def fresh(file: Path, out: Path) -> bytes:
    """The output for ``QUESTIONS``."""
    run(ScriptedSolver(), file, out)
    return out.read_bytes()


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand files need not survive a loss of power."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@examples(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 300), st.binary(max_size=9)), max_size=3),
    questions=st.lists(st.sampled_from(range(6)), min_size=1, max_size=6),
    bad=st.booleans(),
)
def test_any_output_is_resumed_or_left_alone(
    tmp_path: Path,
    fresh: bytes,
    no_fsync: None,
    edits: list[tuple[int, int, bytes]],
    questions: list[int],
    bad: bool,
) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    content = fresh
    for start, length, piece in edits:
        content = content[:start] + piece + content[start + length :]
    out.write_bytes(content)
    write(file, *({"id": i % 4, "question": "a" * (i + 1)} for i in questions), *(["bad"] if bad else []))
    lines = question_lines(file)
    try:
        run(ScriptedSolver(), file, out)
    except EdgeError:
        assert out.read_bytes() == content
        return
    current = {json.dumps(row["id"]): row for row in rows_of(out)}
    assert len(current) == len(rows_of(out))
    for line in lines:
        row = current[json.dumps(line.id)]
        assert row.get("question") == (line.question.question if line.question else None)
        assert ("error" in row) == (line.question is None)
    assert ids(out)[-len(lines) :] == [line.id for line in lines]


def test_a_failure_says_what_was_wrong(file: Path) -> None:
    line = question_lines(file)[0]
    row = failure_row(line, InputError("too long"), settings())
    assert (row["id"], row["question"], row["error"]) == (1, "abc", "too long")
