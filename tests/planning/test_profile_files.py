"""Any file given as a profile: a profile, or one complaint."""

from __future__ import annotations

import math
from dataclasses import astuple
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_tts.errors import InputError
from edge_tts.profiles import loader
from edge_tts.profiles.loader import load, save

PHONE = Path(loader.__file__).with_name("phone.toml").read_bytes()
PIECES = (
    b"\n", b"[", b"]", b"=", b'"', b"{", b"}", b"nan", b"inf", b"-1", b"0", b"1e999", b"true", b"2026-11-27", b"[[",
    b"[calibrated]\n", b"9" * 5000, b"9" * 30, b"a." * 2000 + b"b = 1\n", b"a = " + b"[" * 2000, b"\xef\xbb\xbf",
)  # fmt: skip


def mutated() -> st.SearchStrategy[bytes]:
    """The phone's profile with pieces removed, doubled, moved or replaced by anything."""
    edit = st.tuples(
        st.integers(0, len(PHONE)), st.integers(0, 60), st.one_of(st.binary(max_size=9), st.sampled_from(PIECES))
    )

    def edited(edits: list[tuple[int, int, bytes]]) -> bytes:
        content = PHONE
        for start, length, piece in edits:
            content = content[:start] + piece + content[start + length :]
        return content

    return st.lists(edit, min_size=1, max_size=5).map(edited)


def values() -> st.SearchStrategy[bytes]:
    """The profile with a figure replaced: what is read, and then used."""
    figures = st.sampled_from([b"memory_mb", b"deadline_s", b"watts", b"threads", b"gpu", b"prefill", b"parameters"])
    found = st.one_of(
        st.floats().map(repr), st.integers().map(str), st.sampled_from(["true", "[]", '"1"', "1979-05-27"])
    )
    return st.tuples(figures, found).map(
        lambda pair: b"\n".join(
            pair[0] + b" = " + pair[1].encode() if line.startswith(pair[0] + b" ") else line
            for line in PHONE.splitlines()
        )
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(mutated(), values()))
def test_any_file_is_a_profile_or_one_complaint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    try:
        profile = load(path)
    except InputError:
        return
    figures = (profile.memory_mb, profile.deadline_s, profile.watts, *astuple(profile.speeds.decode[0]))
    assert all(math.isfinite(figure) and figure > 0 for figure in figures)
    assert profile.threads is None or profile.threads > 0
    assert profile.speeds.decode_at(3, 100, 10**8) > 0


@pytest.mark.parametrize(
    "content",
    [b"a = " + b"[" * 100_000, b"memory_mb = " + b"9" * 5000, b"\xff\xfe", b"", b"memory_mb = 1" + b"0" * 400],
    ids=["nested", "digits", "not UTF-8", "empty", "beyond floats"],
)
def test_a_file_that_breaks_parsers_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"mine\.toml"):
        load(path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "phone.toml"
    save(load("phone"), path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path) == load("phone")
