"""Files of questions as users have them: a line that cannot be used is named and loses no other line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_solver import ScriptedSolver, run

from edge_tts.errors import InputError
from edge_tts.questions.lines import Line, key, question_lines
from edge_tts.questions.reading import Question, checked_question, final_answer, parse_question, read_questions

GOOD = b'{"id": "good", "question": "What is 3 times 14?"}'
SAMPLE = Path(__file__).parent / "data" / "svamp_sample.jsonl"


def read(tmp_path: Path, *lines: bytes) -> tuple[Line, ...]:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines))
    return question_lines(path)


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (b'{"question": "2+3 \\ud83d"}', r"contains '\\ud83d', which is no whole character"),
        (b"[" * 100_000 + b"]" * 100_000, "too many nested brackets"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too many nested brackets"),
        (b'{"question": "a b", "answer": ' + b"7" * 5000 + b"}", "not JSON that can be read .*digits"),
        (b"not json", "not JSON .* at column 1"),
        (b'{"question": "a b", "answer": NaN}', "NaN is no number of JSON"),
        (b'{"question": "a b", "answer": 1e999}', "the answer must be text or a number, found inf"),
        (b'{"question": "a b", "answer": {}}', "the answer must be text or a number, found {}"),
        (b'{"question": "a b", "id": [1]}', r"the id must be text or a number, found \[1\]"),
        (b'{"question": "a b", "id": -1e999}', "the id must be text or a number, found -inf"),
        (b"[1]", r'a JSON object with a "question" that is text, found \[1\]'),
        (b'"text"', "found 'text'"),
        (b'{"id": 7}', "found none"),
        (b'{"question": null}', "found None"),
        (b'{"question": " \\n "}', "the question is empty"),
        (b'{"question": "a\\u0000b"}', "control character"),
        (b'{"question": "' + b"x" * 20_001 + b'"}', "20,001 characters"),
        (b'{"question": "caf\xe9"}', "not UTF-8 text"),
    ],
)
def test_a_bad_line_is_named_and_loses_no_other(tmp_path: Path, bad: bytes, complaint: str) -> None:
    before, wrong, after = read(tmp_path, GOOD, bad, GOOD.replace(b"good", b"too"))
    assert (before.id, after.id) == ("good", "too")
    assert before.question == Question('"good"', "What is 3 times 14?")
    assert after.question is not None
    assert wrong.question is None
    assert wrong.error.startswith("line 2: ")
    with pytest.raises(InputError, match=complaint):
        raise InputError(wrong.error)
    with pytest.raises(InputError, match=r"in\.jsonl, line 2: "):  # where every line has to be right
        read_questions(tmp_path / "in.jsonl")


def test_a_file_without_one_good_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no questions"):
        read(tmp_path, b"", b"  ")
    with pytest.raises(InputError, match=r"in.jsonl, line 1: not JSON .* nor can the 2 others"):
        read(tmp_path, b"x", b"[]", b"{}")
    with pytest.raises(InputError, match="UTF-16; save the file as UTF-8"):
        read(tmp_path, '\ufeff{"question": "a b"}'.encode("utf-16"))
    with pytest.raises(InputError, match="cannot read"):
        question_lines(tmp_path / "none.jsonl")


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    lines = read(tmp_path, b"\xef\xbb\xbf", b"", GOOD, b" \r", b'{"question": "a b"}\r')
    assert [(line.number, line.id, line.error) for line in lines] == [(3, "good", ""), (5, "line 5", "")]
    (only,) = read(tmp_path, b"\xef\xbb\xbf" + GOOD)
    assert only.question == Question('"good"', "What is 3 times 14?")
    assert [q.id for q in read_questions(tmp_path / "in.jsonl")] == ["good"]


def test_ids_keep_their_type(tmp_path: Path) -> None:
    given_ids: list[Any] = [1, "1", 1.0, True, "true", "", "\ud83d", 10**400]
    lines = read(tmp_path, *(json.dumps({"id": id, "question": "a b"}).encode() for id in given_ids))
    assert [(line.id, type(line.id)) for line in lines] == [(id, type(id)) for id in given_ids]
    assert all(line.question for line in lines)
    assert len({line.question.id for line in lines if line.question}) == len(given_ids)


def test_ids_that_are_made_up_make_way_for_given_ones(tmp_path: Path) -> None:
    lines = read(
        tmp_path,
        b'{"question": "a b"}',
        b'{"id": "line 1", "question": "c d"}',
        b'{"id": "line 1 (2)", "question": "e f"}',
        b'{"id": null, "question": "g h"}',
        b"no json",
    )
    assert [line.id for line in lines] == ["line 1 (3)", "line 1", "line 1 (2)", "line 4", "line 5"]
    assert [line.question is None for line in lines] == [False, False, False, False, True]


def test_the_first_of_equal_ids_keeps_it(tmp_path: Path) -> None:
    bad, first, second, other = read(
        tmp_path,
        b'{"id": 1}',
        b'{"id": 1, "question": "a b"}',
        b'{"id": 1, "question": "c d"}',
        b'{"id": "1", "question": "e f"}',
    )
    assert (first.id, first.error, other.id, other.error) == (1, "", "1", "")
    assert second.error == "line 3: the id 1 is used in line 2 already"
    assert (second.id, second.question, bad.id, bad.question) == ("line 3", None, "line 1", None)


@pytest.mark.parametrize(
    ("given_answer", "final"),
    [
        ("Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72", "72"),
        ("#### 1,234 ", "1,234"),
        ("First.\n#### 3\nNo, again.\n####  -5 \n", "-5"),
        ("72", "72"),
        ("item #### 5", "item #### 5"),
        ("####", "####"),
        (0.5, "0.5"),
    ],
)
def test_a_worked_solution_is_graded_by_its_final_answer(given_answer: str | float, final: str) -> None:
    assert final_answer(str(given_answer)) == final
    line = json.dumps({"question": "a b", "answer": given_answer}).encode()
    assert parse_question(line, 1, Path("in.jsonl")).answer == final


@pytest.mark.parametrize("half", ["\ud83d", "2+3 \udc00?"])
def test_half_a_character_is_no_text(half: str) -> None:
    with pytest.raises(InputError, match="no whole character"):
        checked_question(half)
    assert checked_question("2+3 \U0001f600") == "2+3 \U0001f600"


def mutated() -> st.SearchStrategy[bytes]:
    """The sample file with pieces removed, doubled, moved or replaced by anything."""
    content = SAMPLE.read_bytes()[:3000]
    pieces = st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            [b"\n", b'"', b"{", b"}", b"\\ud83d", b"\xef\xbb\xbf", b"[" * 5000, b"1e999", b'"id":1,', b"null"]
        ),
    )
    edit = st.tuples(st.integers(0, len(content)), st.integers(0, 200), pieces)

    def edited(edits: list[tuple[int, int, bytes]]) -> bytes:
        changed = content
        for start, length, piece in edits:
            changed = changed[:start] + piece + changed[start + length :]
        return changed

    return st.lists(edit, min_size=1, max_size=8).map(edited)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=mutated())
def test_any_file_gives_rows_or_one_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(content)
    out.unlink(missing_ok=True)
    try:
        lines = question_lines(path)
    except InputError:
        return
    assert any(line.question for line in lines)
    assert all((line.question is None) == bool(line.error) for line in lines)
    assert all(line.question is None or line.question.id == key(line.id) for line in lines)
    code, _ = run(ScriptedSolver(), path, out)
    rows = [json.loads(line) for line in out.read_bytes().split(b"\n")[:-1]]
    assert [key(row["id"]) for row in rows] == [key(line.id) for line in lines]
    assert len({key(line.id) for line in lines}) == len(lines)
    assert [row.get("error", "") for row in rows] == [line.error for line in lines]
    assert code == (8 if any(line.error for line in lines) else 0)
