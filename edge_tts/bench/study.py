"""A study: every strategy at every budget on every problem; each solve becomes a record.

The work consists of units. A unit is either a pool of samples of one problem, which serves all sampling strategies
at all budgets, or one search, such as beam search. A unit is recorded completely or not at all. So a killed study
loses only the units under way, and the same command continues it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from math import fsum
from pathlib import Path
from typing import Any, Self

from edge_tts.bench.datasets import DataSet
from edge_tts.bench.energy import Measurement, open_meter
from edge_tts.bench.pool import SAMPLING_KINDS, Pool, Sample, draw, problem_seed, read_pools
from edge_tts.bench.records import RECORDS, SAMPLES, Key, Record, read_records
from edge_tts.bench.replay import Replay
from edge_tts.core import Budget
from edge_tts.errors import InputError
from edge_tts.files.json_lines import Appender, read_lines
from edge_tts.files.typed import typed
from edge_tts.questions.reading import Question
from edge_tts.search.call import AUTO, Format
from edge_tts.search.concurrency import together
from edge_tts.search.selection import aggregate
from edge_tts.search.strategy import Strategy
from edge_tts.solver import Solver, finish

RUNS = "runs.jsonl"
"""One line for every run of the command: its seconds and joules, and how long the models worked."""


@dataclass(frozen=True)
class Grid:
    """The strategies and budgets of a study. Raises InputError for a strategy or budget that cannot be used."""

    strategies: tuple[str, ...]
    """As :meth:`Strategy.parse` reads them, without n; "auto" is allowed."""
    budgets: tuple[int, ...]
    """Generations, in rising order."""
    search_budgets: tuple[int, ...]
    """The same for strategies that generate their own text."""
    seeds: int
    format: Format = "auto"
    """How a chat model is asked."""

    def __post_init__(self) -> None:
        for text in self.strategies:
            if text != AUTO and "n=" in text:
                raise InputError(f"strategy {text!r} sets n, but the budgets set n; leave n out")
            if not self.cells((text,)):
                raise InputError(f"strategy {text!r} fits none of the budgets {self.search_budgets}; give larger ones")

    def cells(self, strategies: Iterable[str]) -> list[tuple[str, int]]:
        """Every possible (strategy, budget): for example, chains of 8 revisions need a budget divisible by 8."""
        found = []
        for text in strategies:
            if text != AUTO and Strategy.parse(text, MANY).kind == "greedy":
                found.append((text, 1))
                continue
            budgets = self.budgets if is_sampling(text) else self.search_budgets
            found += [(text, budget) for budget in budgets if _fits(text, budget)]
        return found

    @property
    def sampled(self) -> list[tuple[str, int]]:
        """The cells that a pool serves."""
        return self.cells(s for s in self.strategies if is_sampling(s))

    @property
    def searched(self) -> list[tuple[str, int]]:
        """The cells that generate their own text."""
        return self.cells(s for s in self.strategies if not is_sampling(s))


def is_sampling(strategy: str) -> bool:
    """Whether a pool of samples serves ``strategy``. Raises InputError for an unknown one."""
    return strategy != AUTO and Strategy.parse(strategy, MANY).kind in SAMPLING_KINDS


MANY = 1024
"""A budget large enough for any setting of a strategy, used to find out its kind."""


def _fits(strategy: str, budget: int) -> bool:
    if strategy == AUTO:
        return True
    Strategy.parse(strategy, MANY)  # raises what is wrong at every budget
    try:
        return Strategy.parse(strategy, budget).generations <= budget
    except InputError:
        return False


@dataclass(frozen=True)
class Unit:
    """Work that is recorded completely or not at all."""

    problem: Question
    seed: int
    cell: tuple[str, int] | None = None
    """The strategy and budget to run; None draws a pool."""

    def generations(self, grid: Grid) -> int:
        """Its approximate cost."""
        return self.cell[1] if self.cell else max(budget for _, budget in grid.sampled)


@dataclass(frozen=True)
class Done:
    """A finished unit."""

    unit: Unit
    records: tuple[Record, ...]
    pool: Pool | None
    """The pool, where this unit drew one."""


def config(solver: Solver, data: DataSet, problems: int, grid: Grid) -> dict[str, Any]:
    """The settings that all runs of one study share; it uses the first ``problems`` problems of ``data``."""
    pack = solver.pack
    return {
        "pack": pack.title,
        "reasoning_format": pack.reasoning if grid.format == "auto" else grid.format,
        "pack_files": {name: entry.sha256 for name, entry in sorted(pack.files.items())},
        "policy_parameters": solver.policy.info.parameters,
        "verifier_parameters": solver.verifier.info.parameters if solver.verifier else None,
        "sampling": asdict(pack.sampling),
        "calculator": solver.calculator,
        "device": {"policy": solver.policy.info.device, "width": solver.policy.width},
        "data": data.describe(problems),
        **{name: value for name, value in asdict(grid).items() if name != "format"},
    }


@dataclass(frozen=True)
class Run:
    """One run of a study; a resumed study has several."""

    units: int
    seconds: float
    """Summed over all machines."""
    decoding: float
    """Seconds in which the policy worked; the verifier may have worked at the same time."""
    scoring: float
    joules: float | None = None
    """None where unknown."""
    energy: str | None = None
    """Where ``joules`` come from, in the words of :mod:`edge_tts.bench.energy`."""

    def __add__(self, other: Self) -> Self:
        """Both runs together, without joules."""
        sums = (getattr(self, name) + getattr(other, name) for name in ("units", "seconds", "decoding", "scoring"))
        return type(self)(*sums)


class Study:
    """A study's folder: the records it has and the ones it lacks."""

    def __init__(self, folder: Path, problems: Sequence[Question], grid: Grid) -> None:
        """Raises InputError for a damaged record file."""
        self.folder = folder
        self.problems = problems
        self.grid = grid
        self.done: set[Key] = {record.key for record in read_records(folder / RECORDS)}

    def total(self) -> int:
        """Records of the whole study."""
        return len(self.problems) * self.grid.seeds * len(self.grid.sampled + self.grid.searched)

    def groups(self) -> Iterator[tuple[str, list[Unit]]]:
        """Units without all their records, grouped by kind, with a label. Units of a group cost about the same."""
        for seed in range(self.grid.seeds):
            cells: list[tuple[str, int] | None] = [None] if self.grid.sampled else []
            for cell in [*cells, *self.grid.searched]:
                units = [Unit(problem, seed, cell) for problem in self.problems]
                missing = [unit for unit in units if self._missing(unit)]
                if missing:
                    yield f"{cell[0]} at {cell[1]}" if cell else "samples", missing

    def _missing(self, unit: Unit) -> bool:
        cells = [unit.cell] if unit.cell else self.grid.sampled
        return any((unit.problem.id, *cell, unit.seed) not in self.done for cell in cells)

    def missing_generations(self) -> int:
        """The approximate amount of work left."""
        return sum(unit.generations(self.grid) for _, units in self.groups() for unit in units)

    def run(self, solver: Solver, parallel: int) -> Generator[tuple[str, int], None, None]:
        """Solve the missing units, ``parallel`` at a time; yields a label and the generations of each finished unit.

        Closing the iterator cancels the units under way and keeps the finished ones.
        """
        known, log = self.pools(), _RunLog(solver)
        meter = open_meter(solver.profile.watts)
        energy = Measurement(meter.source)
        try:
            with meter.measure() as energy, self.writing() as write:
                for label, units in self.groups():
                    with closing(run_units(solver, units, self.grid, parallel, known)) as finished:
                        for done in finished:
                            log.units += 1
                            yield label, write(done)
        finally:
            self.log_run(log.line(energy))

    @contextmanager
    def writing(self) -> Iterator[Callable[[Done], int]]:
        """A function that writes a finished unit to the disk and returns its generations."""
        with Appender(self.folder / SAMPLES) as samples, Appender(self.folder / RECORDS) as records:

            def write(done: Done) -> int:
                if done.pool:  # written first: its records can be made again from it
                    samples.add([done.pool.to_dict()])
                fresh = [record for record in done.records if record.key not in self.done]
                records.add([record.to_dict() for record in fresh])
                self.done.update(record.key for record in fresh)
                return done.unit.generations(self.grid)

            yield write

    def log_run(self, run: Run) -> None:
        """Add a line about a run, unless it finished nothing."""
        if run.units:
            with Appender(self.folder / RUNS) as runs:
                runs.add([asdict(run)])

    def runs(self) -> list[Run]:
        """The runs so far. Raises InputError naming a bad line."""
        path = self.folder / RUNS
        return [typed(Run, row, f"{path}, line {number}: not a run", InputError) for number, row in read_lines(path)]

    def summary(self) -> str:
        """One line on how many records there are and how busy the models were while they were made."""
        runs = self.runs()
        wall = fsum(run.seconds for run in runs)
        text = f"{len(self.done)} of {self.total()} records in {self.folder}"
        if not wall:
            return text
        decoding, scoring = (fsum(getattr(run, name) for run in runs) / wall for name in ("decoding", "scoring"))
        return f"{text}; {wall:.0f} s, of which {decoding:.0%} decoding and {scoring:.0%} scoring (they overlap)"

    def pools(self) -> dict[tuple[str, int], Pool]:
        """Pools on the disk whose records are incomplete, because a crash came between."""
        wanted = {(p.id, s) for p in self.problems for s in range(self.grid.seeds) if self._missing(Unit(p, s))}
        pools = read_pools(self.folder / SAMPLES, lambda id, seed: (id, seed) in wanted)
        return {(pool.id, pool.seed): pool for pool in pools}


def run_units(
    solver: Solver, units: Sequence[Unit], grid: Grid, parallel: int, known: dict[tuple[str, int], Pool]
) -> Generator[Done, None, None]:
    """Solve ``units`` of one group, ``parallel`` at a time in a shared batch; yields them as they finish.

    A unit's seconds are the time since the unit before it finished, so their mean is the machine's time per unit.
    Closing the iterator cancels the units under way. ``known`` has pools that were drawn already.
    """
    replay = Replay.of(solver)

    def work(unit: Unit, stopped: Callable[[], bool]) -> Done | None:
        if unit.cell:
            return _search(solver, unit, unit.cell, stopped, grid.format)
        pool = known.get((unit.problem.id, unit.seed))
        if pool is not None:
            return Done(unit, _share_seconds(choose(replay, unit.problem, pool, grid.sampled, grid.format), pool), None)
        greedy = any(Strategy.parse(strategy, MANY).kind == "greedy" for strategy, _ in grid.sampled)
        asked = solver.asked(unit.problem.question, format=grid.format)
        pool = draw(solver, unit.problem, unit.generations(grid), unit.seed, greedy, stopped, asked)
        return Done(unit, choose(replay, unit.problem, pool, grid.sampled, grid.format), pool) if pool else None

    last = time.monotonic()
    for done in together(units, work, parallel):
        now = time.monotonic()
        yield _timed(done, now - last)
        last = now


def choose(
    replay: Replay, problem: Question, pool: Pool, cells: Iterable[tuple[str, int]], format: Format
) -> tuple[Record, ...]:
    """The records of strategies at budgets, from one pool; their ``seconds`` are not filled in."""
    records = []
    for text, budget in cells:
        detail: dict[str, Any] = {}
        if text == AUTO:
            outcome, usage = replay.auto(problem.question, pool, budget, format)
        else:
            strategy = Strategy.parse(text, budget)
            outcome, usage = replay.run(problem.question, pool, strategy, format)
            detail = {} if strategy.kind == "greedy" else _difficulty(pool.samples[: strategy.n])
        answer = outcome.best.answer if outcome.best else None
        scores = outcome.best.scores if outcome.best else ()
        key = (problem, text, budget, pool.seed)
        records.append(Record.of(*key, answer, outcome.stop_reason, usage, outcome.support, scores, detail))
    return tuple(records)


def _difficulty(samples: Sequence[Sample]) -> dict[str, Any]:
    """How many samples are right, and their mean score as :mod:`edge_tts.search.difficulty` computes it."""
    scores = [aggregate(sample.scores, "last") for sample in samples]
    return {"right_samples": sum(s.correct for s in samples), "mean_score": round(fsum(scores) / len(scores), 5)}


def _share_seconds(records: Sequence[Record], pool: Pool) -> tuple[Record, ...]:
    """The records with their seconds: the pool's seconds times the record's FLOPs over those of the largest record.

    The largest record used the whole pool and, where there is a verifier, every score.
    """
    flops = [record.usage.policy_flops + record.usage.verifier_flops for record in records]
    return tuple(_lasting(record, pool.seconds * own / max(flops)) for record, own in zip(records, flops, strict=True))


def _lasting(record: Record, seconds: float) -> Record:
    return replace(record, usage=replace(record.usage, seconds=round(seconds, 4)))


def _timed(done: Done, seconds: float) -> Done:
    """The unit with its share of the machine's time."""
    if done.unit.cell:
        (record,) = done.records
        return replace(done, records=(_lasting(record, seconds),))
    if done.pool is None:
        return done
    pool = replace(done.pool, seconds=round(seconds, 4))
    return replace(done, pool=pool, records=_share_seconds(done.records, pool))


def _search(
    solver: Solver, unit: Unit, cell: tuple[str, int], stopped: Callable[[], bool], format: Format
) -> Done | None:
    strategy, budget = cell
    seed = problem_seed(unit.seed, unit.problem.id)
    events = solver.stream(unit.problem.question, strategy, Budget(generations=budget), seed, format=format)
    result = finish(events, stopped)
    if result is None:
        return None
    detail: dict[str, Any] = {}
    if result.difficulty:
        detail = {"bin": result.difficulty.bin, "probe": result.difficulty.score, "ran": result.strategy}
    key = (unit.problem, strategy, budget, unit.seed)
    usage, support, scores = result.usage, result.support, result.scores
    return Done(unit, (Record.of(*key, result.answer, result.stop_reason, usage, support, scores, detail),), None)


class _RunLog:
    """Counts a run's units, its seconds and how long the models worked."""

    def __init__(self, solver: Solver) -> None:
        self.units = 0
        self._solver = solver
        self._began = time.monotonic()
        self._busy = busy_seconds(solver)

    def line(self, energy: Measurement) -> Run:
        decoding, scoring = (now - then for now, then in zip(busy_seconds(self._solver), self._busy, strict=True))
        return Run(self.units, time.monotonic() - self._began, decoding, scoring, energy.joules, energy.source)


def busy_seconds(solver: Solver) -> tuple[float, float]:
    """How long the policy and the verifier have worked since they were loaded."""
    policy, verifier = (getattr(model, "busy_seconds", 0.0) for model in (solver.policy, solver.verifier))
    return policy, verifier
