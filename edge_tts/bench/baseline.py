"""A larger model behind an endpoint as the baseline: the same problems, votes and records as the small one's."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from typing import Any

from edge_tts.bench.pool import problem_seed
from edge_tts.bench.records import Key, Record
from edge_tts.core import Trace, Usage
from edge_tts.errors import InputError
from edge_tts.questions.reading import Question
from edge_tts.reasoning.answer_reading import read_answer
from edge_tts.runtimes.endpoint import Endpoint, EndpointSettings, Reply, concurrently
from edge_tts.search.controller import WAVE
from edge_tts.search.selection import is_decided, majority

STRATEGIES = ("greedy", "majority", "adaptive")
PROMPT = (
    "Solve the problem below. Think step by step and show your work. "
    'Then end with a line that has the final answer alone after "#### ".\n\n'
    "Problem: {question}"
)


@dataclass(frozen=True)
class _Job:
    """A problem and a seed, with what is wanted of them."""

    problem: Question
    seed: int
    wanted: tuple[tuple[str, int], ...]
    """Strategies and budgets."""

    @property
    def greedy(self) -> bool:
        return any(strategy == "greedy" for strategy, _ in self.wanted)

    @property
    def bounds(self) -> list[int]:
        """Numbers of samples after which a strategy may stop. Usage is known for whole requests only, so requests
        end there too."""
        budgets = {strategy: [b for s, b in self.wanted if s == strategy] for strategy in ("majority", "adaptive")}
        rounds = range(WAVE, max(budgets["adaptive"], default=0), WAVE)
        return sorted({*budgets["majority"], *budgets["adaptive"], *rounds})


@dataclass(frozen=True)
class _Drawn:
    """Replies for a job; ``samples`` in their order."""

    greedy: list[Reply]
    samples: list[Reply]


def run_baseline(
    endpoint: Endpoint,
    problems: Sequence[Question],
    strategies: Sequence[str],
    budgets: Sequence[int],
    seeds: Sequence[int],
    done_keys: Collection[Key] = (),
) -> Generator[list[Record], None, None]:
    """Ask ``endpoint`` all ``problems`` and yield the records of one problem and seed at a time, as they are there.

    "greedy" is one sample at temperature 0, recorded at budget 1. "majority" and "adaptive" choose, at each budget,
    among the first samples of one pool of the largest; "adaptive" is charged what it would have drawn. Records whose
    key is in ``done_keys`` are left out, and so are requests that only they need. As many problems as the endpoint
    has slots are under way at once; closing the generator cancels them.

    ``seconds`` of a record is the time from the first start to the last end of the requests it is charged. Where
    the server reports no usage, tokens are 0 and ``detail["usage"]`` says so.

    Raises InputError for an unknown strategy or a budget below 1, BackendError for a problem whose requests fail.
    """
    if unknown := sorted(set(strategies) - set(STRATEGIES)):
        raise InputError(
            f"the strategy {unknown[0]!r} is not available for a baseline; choose among {', '.join(STRATEGIES)}"
        )
    if min(budgets, default=1) < 1:
        raise InputError(f"a budget must be at least 1 generation; got {min(budgets)}")
    every = [(s, b) for s in dict.fromkeys(strategies) for b in ([1] if s == "greedy" else sorted(set(budgets)))]
    jobs = [
        _Job(problem, seed, wanted)
        for seed in seeds
        for problem in problems
        if (wanted := tuple((s, b) for s, b in every if (problem.id, s, b, seed) not in done_keys))
    ]
    return _run(endpoint, jobs)


def config(settings: EndpointSettings) -> dict[str, Any]:
    """What must be equal for records of a baseline to belong to one study, as plain JSON types."""
    return {
        "url": settings.shown_url,
        "model": settings.model,
        "prompt": PROMPT,
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "stream": settings.stream,
        "price_in": settings.price_in,
        "price_out": settings.price_out,
        "parameters": settings.parameters,
    }


def _run(endpoint: Endpoint, jobs: Sequence[_Job]) -> Generator[list[Record], None, None]:
    from anyio.from_thread import start_blocking_portal  # comes with openai

    waiting = iter(jobs)
    running: dict[Future[_Drawn], _Job] = {}
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(endpoint):
        try:
            while True:
                for job in islice(waiting, endpoint.settings.concurrency - len(running)):
                    running[portal.start_task_soon(_draw, endpoint, job)] = job
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=lambda f: f.exception() is not None):  # what succeeded is kept
                    yield _records(endpoint.settings, running.pop(future), future.result())
        finally:
            for future in running:
                future.cancel()


async def _draw(endpoint: Endpoint, job: _Job) -> _Drawn:
    prompt = PROMPT.format(question=job.problem.question)
    seed = problem_seed(job.seed, job.problem.id)
    work = [endpoint.answer(prompt, 1, seed, temperature=0.0)] if job.greedy else []
    work += [endpoint.answer(prompt, end - start, seed + start) for start, end in pairwise([0, *job.bounds])]
    replies = await concurrently(work)
    greedy = replies.pop(0) if job.greedy else []
    return _Drawn(greedy, [reply for part in replies for reply in part])


def _records(settings: EndpointSettings, job: _Job, drawn: _Drawn) -> list[Record]:
    traces = _traces(job.problem, drawn.samples)
    records = []
    for strategy, budget in job.wanted:
        if strategy == "greedy":
            records.append(_record(settings, job, strategy, budget, drawn.greedy))
        else:
            used = budget if strategy == "majority" else _until_decided(traces, budget)
            records.append(_record(settings, job, strategy, budget, _first(drawn.samples, used)))
    return records


def _record(settings: EndpointSettings, job: _Job, strategy: str, budget: int, replies: Sequence[Reply]) -> Record:
    traces = _traces(job.problem, replies)
    choice = majority(traces)
    answer = choice.best.answer if choice.best else None
    usage, price = _cost(settings, replies)
    detail: dict[str, Any] = {"model": settings.model, "samples": len(traces), "price": price}
    if not usage.policy_tokens:
        detail["usage"] = "not reported"
    stop_reason = "decided" if len(traces) < budget else "complete"
    key = (job.problem, strategy, budget, job.seed)
    return Record.of(*key, answer, stop_reason, usage, choice.support, detail=detail)


def _traces(problem: Question, replies: Sequence[Reply]) -> list[Trace]:
    """The completions with their answers, read as this runtime's own; a text cut by the token limit has none."""
    completions = [(c.text, c.finish_reason == "stop") for reply in replies for c in reply.completions]
    return [
        Trace((), (text,), finished=finished, answer=read_answer(text, problem.question, is_cut=not finished))
        for text, finished in completions
    ]


def _first(replies: Sequence[Reply], count: int) -> Sequence[Reply]:
    """The replies that hold the first ``count`` samples."""
    ends = accumulate(len(reply.completions) for reply in replies)
    return replies[: 1 + next(i for i, end in enumerate(ends) if end >= count)]


def _until_decided(traces: Sequence[Trace], most: int) -> int:
    """How many samples adaptive consistency draws, as in :mod:`edge_tts.search.sampling`."""
    used = 0
    while used < most:
        used = min(most, used + WAVE)
        if is_decided(traces[:used]):
            break
    return used


def _cost(settings: EndpointSettings, replies: Sequence[Reply]) -> tuple[Usage, float | None]:
    """Usage and price of some requests; no tokens and no price where the server does not report them."""
    seconds = max(reply.ended for reply in replies) - min(reply.started for reply in replies)
    prompt = [reply.prompt_tokens for reply in replies if reply.prompt_tokens is not None]
    new = [reply.completion_tokens for reply in replies if reply.completion_tokens is not None]
    if len(prompt) < len(replies) or len(new) < len(replies):
        return Usage(seconds=seconds), None
    tokens = sum(prompt) + sum(new)
    price = None
    if settings.price_in is not None and settings.price_out is not None:
        price = (settings.price_in * sum(prompt) + settings.price_out * sum(new)) / 1e6
    usage = Usage(
        policy_tokens=tokens,
        generated_tokens=sum(new),
        policy_flops=2.0 * (settings.parameters or 0) * tokens,
        seconds=seconds,
    )
    return usage, price
