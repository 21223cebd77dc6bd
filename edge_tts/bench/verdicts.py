"""The three questions that a report answers first, one sentence each, for each set of problems.

How accurate at what cost; what adaptivity saves; when a larger model wins. Studies of one data set are compared on the
problems that they share, with paired intervals (:mod:`edge_tts.bench.intervals`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_tts.bench.figures import Answer, Share
from edge_tts.bench.intervals import mean_interval, ratio_interval
from edge_tts.bench.loading import Cell, Loaded, Solves
from edge_tts.bench.optimal import resample, share
from edge_tts.bench.wording import flops, named_at, percent, share_text, signed_points, span, times, verdict

ACCURATE = "How accurate, at what cost?"
SAVES = "What does adaptivity save?"
LARGER = "When does the larger model win?"
_ADAPTIVE = ("auto", "adaptive")
_VOTES = ("majority", "weighted")


@dataclass(frozen=True)
class _Model:
    """One study's policy on its problems."""

    name: str
    parameters: float
    study: Loaded

    def on(self, ids: Sequence[str], cell: Cell) -> Solves:
        """What ``cell`` did on the problems ``ids``, in that order."""
        place = {id: number for number, id in enumerate(self.study.problems)}
        rows, solves = [place[id] for id in ids], self.study.cells[cell]
        return Solves(solves.correct[rows], {name: cost[rows] for name, cost in solves.costs.items()})


def answers(studies: Sequence[Loaded]) -> tuple[Answer, ...]:
    """Those that the studies have figures for; the data set that most studies are of comes first."""
    sets: dict[str, list[_Model]] = {}
    for study in studies:
        config = study.config
        name = str(config.get("pack") or config.get("model") or "the model")
        parameters = float(config.get("policy_parameters") or config.get("parameters") or 0)
        sets.setdefault(study.name, []).append(_Model(name, parameters, study))
    found: list[Answer] = []
    for data, models in sorted(sets.items(), key=lambda item: -len(item[1])):
        models.sort(key=lambda model: model.parameters)
        for question, sentences in (
            (ACCURATE, map(_accurate, models)),
            (SAVES, map(_saves, models)),
            (LARGER, (_larger(a, b) for i, a in enumerate(models) for b in models[i + 1 :] if b.parameters)),
        ):
            # The largest model's verdict leads, since it is what most people would choose.
            said = [text for text in sentences if text][::-1]
            if said:
                found.append(Answer(data, question, said[0], tuple(said[1:])))
    return tuple(found)


def _accurate(model: _Model) -> str:
    cells = model.study.cells
    best, greedy = _best(cells), ("greedy", 1)
    text = f"{model.name} gets {_told(cells[best])} with {named_at(*best)}"
    if greedy in cells and best != greedy:
        text += f", and {_told(cells[greedy])} with one greedy answer"
    return f"{text}."


def _told(solves: Solves) -> str:
    right = share(solves.correct, resample(len(solves.correct)))  # as in the table of all points
    return f"{share_text(right)} for {flops(_flops(solves))}"


def _saves(model: _Model) -> str:
    """``auto``, or adaptive consistency, at its largest budget against the vote of as many samples, and the cheapest
    vote that is as good."""
    cells = model.study.cells
    votes = [cell for cell in cells if cell[0] in _VOTES and cell[1] > 1]
    wide = [cell for cell in cells if cell[1] > 1]
    adaptive = [max(c for c in wide if c[0] == name) for name in _ADAPTIVE if any(c[0] == name for c in wide)]
    if not votes or not adaptive:
        return ""
    strategy, budget = adaptive[0]
    own = cells[(strategy, budget)]
    same = next((cell for cell in votes if cell[1] == budget), max(votes, key=lambda cell: cell[1]))
    text = f"{model.name} with {named_at(strategy, budget)} {_beside(own, cells[same], same)}"
    as_good = [cell for cell in votes if _right(cells[cell]) >= _right(own) and cell != same]
    if as_good:
        cheapest = min(as_good, key=lambda cell: _flops(cells[cell]))
        text += f"; the cheapest fixed vote that is no worse, {named_at(*cheapest)}, takes "
        text += f"{times(_flops(cells[cheapest]) / _flops(own))} its FLOPs"
    return f"{text}."


def _beside(own: Solves, other: Solves, cell: Cell) -> str:
    ratio = ratio_interval(other.costs["flops"], own.costs["flops"])
    gain = mean_interval(own.correct - other.correct)
    word = {
        "win": f"saves: {named_at(*cell)} takes",
        "loss": f"costs more: {named_at(*cell)} takes",
        "undecided": f"shows no saving: {named_at(*cell)} takes",
    }[verdict(ratio, 1)]
    return f"{word} {times(ratio.value)} its FLOPs ({span(ratio)}) and is {_apart(gain)}"


def _apart(gain: Share) -> str:
    """How much less or more accurate the other one is, ``gain`` being what ours has more."""
    if gain.low == gain.high == 0:
        return "right on the same problems"
    if not gain.value:
        return f"as accurate ({_points(gain)} points)"
    return f"{abs(100 * gain.value):.1f} points {'less' if gain.value > 0 else 'more'} accurate ({_points(gain)})"


def _points(gain: Share) -> str:
    low, high = sorted((0 - gain.low, 0 - gain.high))
    return f"{signed_points(low)} to {signed_points(high)}"


def _larger(small: _Model, large: _Model) -> str:
    """One greedy answer of ``large`` against the best of ``small`` on the same problems."""
    greedy, ids = ("greedy", 1), sorted(set(small.study.problems) & set(large.study.problems))
    if greedy not in large.study.cells or not ids or large.parameters <= small.parameters:
        return ""
    theirs = large.on(ids, greedy)
    cells = {cell: small.on(ids, cell) for cell in small.study.cells}
    best = _best(cells)
    gain = mean_interval(cells[best].correct - theirs.correct)
    lead = {
        "win": f"{small.name} passes one greedy answer of {large.name}",
        "loss": f"The larger model wins: no setting of {small.name} reaches one greedy answer of {large.name}",
        "undecided": f"{small.name} and one greedy answer of {large.name} are not told apart",
    }[verdict(gain, 0)]
    return (
        f"{lead}: {percent(_right(cells[best]))} with {named_at(*best)} for {flops(_flops(cells[best]))} against "
        f"{percent(_right(theirs))} for {flops(_flops(theirs))} "
        f"({signed_points(gain.value)} points, {signed_points(gain.low)} to {signed_points(gain.high)}; "
        f"{len(ids)} problems)."
    )


def _best(cells: Mapping[Cell, Solves]) -> Cell:
    """The most accurate cell; the cheapest of equals."""
    return max(cells, key=lambda cell: (_right(cells[cell]), -_flops(cells[cell])))


def _right(solves: Solves) -> float:
    return float(solves.correct.mean())


def _flops(solves: Solves) -> float:
    return float(solves.costs["flops"].mean())
