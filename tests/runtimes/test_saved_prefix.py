"""Keys and values of a fixed prompt that a later process reads instead of evaluating it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge_tts.core import Request, Sampling, StepEvent
from edge_tts.packs.pack import Pack
from edge_tts.runtimes import saved_prefix
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy

FIXED = "Solve the problem. " + "Ann has 3 bags of 4 pears and eats 2, so 3*4=12 and 12-2=10 are left. " * 4
QUESTION = "Tom has 8 boxes of 12 pencils. How many pencils are there?\n"


def answered(pack: Pack, file: Path | None, width: int = 4) -> tuple[list[StepEvent], int]:
    """What a new engine draws, and how long the prefix is."""
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width, context=512, threads=2))
    try:
        fixed = policy.tokenize(FIXED)
        if file is not None:
            policy.keep_prefix(fixed, file)
        prompt = fixed + policy.tokenize(QUESTION)
        requests = [Request(prompt, seed, Sampling(max_tokens=24)) for seed in range(6)]
        return sorted(policy.generate(requests), key=lambda event: event.request), len(fixed)
    finally:
        policy.close()


def told(events: list[StepEvent]) -> list[tuple[int, str, tuple[int, ...], float]]:
    return [(event.request, event.text, event.tokens, event.logprob) for event in events]


def test_a_later_process_reads_it_and_draws_the_same(pack: Pack, tmp_path: Path) -> None:
    file = tmp_path / "prefixes" / "one.kv"
    first, length = answered(pack, file)
    assert length >= saved_prefix.LEAST_TOKENS
    assert file.stat().st_size > 10_000
    written = file.read_bytes()
    second, _ = answered(pack, file)
    assert told(second) == told(first)
    assert file.read_bytes() == written
    without, _ = answered(pack, None)
    prefill = [max(event.prefill_tokens for event in events) for events in (first, second, without)]
    assert prefill[0] == prefill[1] == prefill[2] - length


def test_engines_of_different_width_do_not_take_each_others_files_away(pack: Pack, tmp_path: Path) -> None:
    engines = [EngineConfig(width) for width in (1, 4)]
    assert len({saved_prefix.file_for(pack.policy_path, engine, (1, 2, 3)).name for engine in engines}) == 2
    file = tmp_path / "one.kv"
    answered(pack, file, width=4)
    written = file.read_bytes()
    answered(pack, file, width=1)
    assert file.read_bytes() != written  # what the wider one wrote could not be read, and was made again


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"x" * len(data), lambda data: b"", None])
def test_a_damaged_file_is_made_again(pack: Pack, tmp_path: Path, damage: object) -> None:
    file = tmp_path / "one.kv"
    first, _ = answered(pack, file)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.write_bytes(bytes(flipped) if damage is None else damage(whole))  # type: ignore[operator]
    assert told(answered(pack, file)[0]) == told(first)
    assert file.read_bytes() == whole


def test_a_deadline_does_not_wait_for_it(pack: Pack, tmp_path: Path) -> None:
    file = tmp_path / "one.kv"
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=1, context=4096, micro_batch=512, threads=1))
    long = (policy.tokenize(FIXED) * 40)[:1200]  # seconds of work
    policy.keep_prefix(long, file)
    begun = time.monotonic()
    events = list(policy.generate([Request(policy.tokenize(QUESTION), 0)], begun + 0.3))
    assert time.monotonic() - begun < 0.6
    assert [event.stop for event in events] in ([], ["cancelled"])
    assert policy._preparing
    policy.close()
    assert file.exists()  # for later processes


def test_other_tokens_are_not_taken_for_these(tmp_path: Path) -> None:
    file = tmp_path / "one.kv"
    saved_prefix.write(file, (1, 2, 3), b"state")
    for tokens, expected in (((1, 2, 3), b"state"), ((1, 2), None), ((1, 2, 4), None)):
        with saved_prefix.read(file, tokens) as state:
            assert (None if state is None else bytes(state)) == expected


def test_only_the_latest_files_are_kept(tmp_path: Path) -> None:
    for number in range(saved_prefix.KEPT + 3):
        file = tmp_path / f"{number}.kv"
        saved_prefix.write(file, (1,), b"state")
        os.utime(file, (number, number))
    assert len(list(tmp_path.glob("*.kv"))) == saved_prefix.KEPT
    assert not (tmp_path / "0.kv").exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    saved_prefix.write(tmp_path / "file" / "one.kv", (1,), b"state")
    with saved_prefix.read(tmp_path / "file" / "one.kv", (1,)) as state:
        assert state is None
