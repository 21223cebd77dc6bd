"""Which work runs in which KV stream: prefixes, equal jobs, gaps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge_tts.core import Request
from edge_tts.runtimes.streams import Call, Job, Streams
from edge_tts.runtimes.token_tree import TokenTree

PROMPT = list(range(100, 140))


class Forks(list[tuple[int, int, int]]):
    def __call__(self, source: int, target: int, length: int) -> None:
        if source != target:
            self.append((source, target, length))


@pytest.fixture
def forks() -> Forks:
    return Forks()


def job(tokens: Sequence[int], index: int = 0) -> Job:
    return Job(Call(None, TokenTree(0)), index, Request(tuple(tokens), index), list(tokens))


def call_of(count: int, first: int) -> list[Job]:
    """A call's jobs, whose tokens are those of no other."""
    call = Call(None, TokenTree(0))
    return [Job(call, i, Request((first + i, *PROMPT), i), [first + i, *PROMPT]) for i in range(count)]


def admit(streams: Streams, *jobs: Job) -> None:
    streams.waiting.extend(jobs)
    streams.admit(streams.due())


def evaluate(streams: Streams) -> None:
    for stream in streams.running:
        stream.tokens += stream.pending
        stream.pending = []


def end(streams: Streams, *ids: int) -> None:
    for id in ids:
        for each in list(streams.all[id].jobs):
            streams.all[id].leave(each)


def test_equal_jobs_run_in_one_stream_and_the_first_is_charged(forks: Forks) -> None:
    streams = Streams(4, forks)
    jobs = [job(PROMPT, i) for i in range(4)]
    admit(streams, *jobs)
    assert [len(stream.jobs) for stream in streams.running] == [4]
    assert [j.prefill for j in jobs] == [len(PROMPT) - 1, 0, 0, 0]


def test_no_more_jobs_run_than_there_are_streams(forks: Forks) -> None:
    streams = Streams(3, forks)
    admit(streams, *(job(PROMPT, i) for i in range(5)))
    assert [len(stream.jobs) for stream in streams.running] == [3]
    assert [j.index for j in streams.waiting] == [3, 4]


def test_jobs_that_part_get_forked_streams_before_new_ones(forks: Forks) -> None:
    streams = Streams(3, forks)
    jobs = [job(PROMPT, i) for i in range(3)]
    admit(streams, *jobs, job([1, 2, 3], 9))
    evaluate(streams)
    (stream,) = streams.running
    for j, new in zip(jobs, (7, 8, 8), strict=True):
        j.tokens, j.sampler = [*PROMPT, new], object()  # type: ignore[assignment]
    stream.pending = [7]
    streams.part(stream, jobs[1:])
    streams.admit(streams.due())
    assert [[j.index for j in s.jobs] for s in streams.running] == [[0], [1, 2]]
    assert [s.pending for s in streams.running] == [[7], [8]]
    assert forks == [(stream.id, streams.running[1].id, len(PROMPT))]
    assert [j.index for j in streams.waiting] == [9]
    assert jobs[1].prefill == 0  # its one pending token is paid for as new text


def test_an_idle_stream_that_ends_at_the_prefix_is_used_in_place(forks: Forks) -> None:
    streams = Streams(4, forks)
    admit(streams, job(PROMPT))
    evaluate(streams)
    end(streams, 0)
    grown = job([*PROMPT, 5])
    admit(streams, grown)
    assert streams.all[0].jobs == [grown]
    assert (forks, grown.prefill) == ([], 0)


def test_a_job_waits_for_a_prefix_that_is_being_evaluated(forks: Forks) -> None:
    streams = Streams(4, forks)
    longer = job([*PROMPT, 1, 2])
    admit(streams, job(PROMPT), longer)
    assert list(streams.waiting) == [longer]
    evaluate(streams)
    streams.admit(streams.due())
    assert not streams.waiting
    assert streams.all[0].tokens == PROMPT
    assert longer.prefill == 1


def test_gaps_are_closed_with_the_fewest_copies(forks: Forks) -> None:
    streams = Streams(8, forks)
    admit(streams, *(job([i, *PROMPT], i) for i in range(8)))
    evaluate(streams)
    end(streams, 1, 4, 7)
    streams.close_gaps()
    assert [s.id for s in streams.running] == [2, 3, 4, 5, 6]
    assert sorted(j.index for s in streams.running for j in s.jobs) == [0, 2, 3, 5, 6]
    assert all(s.tokens == [s.jobs[0].index, *PROMPT] for s in streams.running)
    assert forks == [(0, 4, 41)]
    streams.close_gaps()
    assert len(forks) == 1


def test_a_small_call_is_next_whoever_came_before(forks: Forks) -> None:
    streams = Streams(4, forks)
    crowd, lone = call_of(256, 1000), call_of(1, 1)
    admit(streams, *crowd)
    admit(streams, *lone)
    assert lone[0] in streams.waiting
    end(streams, 2)
    streams.admit(streams.due())
    assert streams.all[2].jobs == lone


def test_streams_that_fall_free_go_to_the_call_that_has_the_fewest(forks: Forks) -> None:
    streams = Streams(6, forks)
    first, second = call_of(50, 1000), call_of(50, 2000)
    admit(streams, *first)
    admit(streams, *second)
    for stream in range(6):
        end(streams, stream)
        streams.admit(streams.due())
        if stream == 2:
            assert sorted(s.jobs[0] in second for s in streams.all) == [False] * 3 + [True] * 3
    held = [s.jobs[0] in second for s in streams.all]
    assert held.count(True) == 3


def test_calls_take_turns_for_a_single_stream(forks: Forks) -> None:
    streams = Streams(1, forks)
    calls = [call_of(5, 1000 * n) for n in (1, 2, 3)]
    admit(streams, *(each for call in calls for each in call))
    order = []
    while streams.running:
        (job,) = streams.all[0].jobs
        order.append(next(n for n, call in enumerate(calls) if job in call))
        end(streams, 0)
        streams.admit(streams.due())
    assert order == [0, 1, 2] * 5
