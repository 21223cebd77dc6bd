"""Fitting the controller: on problems of known difficulty it is calibrated, stops early, and loses little."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pools import pool, written

from edge_tts.bench import controller_fit, controller_replay
from edge_tts.bench.controller_replay import Problem, Ran
from edge_tts.bench.pool import Part
from edge_tts.commands.bench import command
from edge_tts.core import Sampling
from edge_tts.errors import InputError
from edge_tts.events import Decided, Outcome
from edge_tts.packs import manifest
from edge_tts.packs.manifest import Pack
from edge_tts.packs.pack import BUILT_IN, DEFAULT, find_pack, pack_problems
from edge_tts.reasoning.formats import AskedEquations
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.scripted import ScriptedPolicy, ScriptedVerifier
from edge_tts.search import fit as fits
from edge_tts.search.confidence import Calibration, Standing
from edge_tts.search.controller import Controller, Pacing
from edge_tts.search.driver import Driver, Task
from edge_tts.search.ledger import Ledger
from edge_tts.search.wave import Candidate


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> list[Problem]:
    draw = np.random.default_rng(5)
    pools = [pool(i, draw.choice((0.1, 0.45, 0.8, 0.97)), draw) for i in range(100)]
    return controller_replay.read(written(tmp_path_factory.mktemp("study") / "usual", pools), None)


def test_the_fit_is_calibrated_stops_early_and_loses_little(
    problems: list[Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, values in (("TARGETS", (0.8, 0.9)), ("GAINS", (0.02,)), ("FIRST", (2, 4)), ("WAVES", (4,))):
        monkeypatch.setattr(controller_fit, name, values)
    monkeypatch.setattr(controller_replay, "ORDERS", 3)
    fit, evidence = controller_fit.fit(problems, 16, None)
    held_out = evidence["controller"]
    assert held_out["expected_calibration_error"] < 0.12
    assert held_out["samples"] < 11
    against = evidence["against"]["majority:n=16"]
    assert against["times_the_tokens"] > 1.3
    assert against["gain"]["value"] > -0.08
    assert evidence["against"]["majority:n=1"]["accuracy"] < held_out["accuracy"]["value"]
    for name in ("predicted", "oracle"):
        bins = evidence["difficulty"][name]
        assert [bin["problems"] for bin in bins] == [20] * 5
        assert bins[0]["controller"]["accuracy"] > bins[-1]["controller"]["accuracy"] + 0.3
        assert bins[0]["controller"]["tokens"] < bins[-1]["controller"]["tokens"]  # easy ones end early
        whole = evidence["against"]["majority:n=16"]["accuracy"]
        assert sum(bin["majority:n=16"]["accuracy"] for bin in bins) / 5 == pytest.approx(whole, abs=1e-3)
    sure, unsure = (fit.calibration.confidence(Standing(4, votes, 0, -0.1)) for votes in (4, 1))
    assert sure > 0.75 > 0.5 > unsure
    assert controller_fit.measure(problems, fit, 16)["controller"]["samples"] < 11
    read_back = fits.parse(json.loads(json.dumps(controller_fit.to_json({"program": (fit, evidence)}, {}))))
    assert read_back == {"program": fit}


def test_the_controller_gets_the_samples_in_their_order(problems: list[Problem]) -> None:
    ran = controller_replay.run(problems[0], Controller(6, pacing=Pacing(2, 2)))
    assert 2 <= ran.samples <= 6
    drawn = [candidate.trace.tokens for candidate in problems[0].usual[: ran.samples]]
    assert ran.tokens == 60 + len({tokens[: i + 1] for tokens in drawn for i in range(len(tokens))})


def test_a_replay_of_weighed_votes_decides_as_the_search_does() -> None:
    texts = [f"#### {answer}" for answer in "122213"]
    scores = {"#### 1": 0.9, "#### 2": 0.2, "#### 3": 0.4}

    def searched(controller: Controller) -> tuple[list[Decided], Outcome]:
        left = iter(texts)
        policy = ScriptedPolicy(lambda text, seed: next(left))
        verifier = ScriptedVerifier(lambda question, steps: [scores[step] for step in steps])
        task = Task("q", AskedEquations(PromptFormat(), "q"), Sampling(), calibration=controller.calibration)
        search = Driver(task, policy, verifier, Ledger(policy.info, verifier.info)).run(controller)
        decided: list[Decided] = []
        while True:
            try:
                event = next(search)
            except StopIteration as stop:
                return decided, stop.value
            decided += [event] if isinstance(event, Decided) else []

    calibration = Calibration({"bias": -1.0, "vote": 1.0, "score": 1.0}, {"bias": 2.0})
    _, everything = searched(Controller(6, calibration, Pacing(6, 6), scores=True))
    candidates = tuple(Candidate(i, i, trace, 0, 0) for i, trace in enumerate(everything.traces))
    problem = Problem("p", candidates, (), frozenset("1"), (1, 0), tuple((0,) * 6 for _ in candidates))
    for target in (0.3, 0.5, 0.6, 0.99):
        controller = Controller(6, calibration, Pacing(2, 2, target), scores=True)
        decided, outcome = searched(controller)
        ran = controller_replay.run(problem, controller)
        assert (ran.samples, ran.confidence) == (decided[-1].samples, decided[-1].confidence)
        assert ran.right == (outcome.best is not None and outcome.best.answer == "1")
        assert outcome.confidence == pytest.approx(ran.confidence, abs=1e-4)
    weighed, plain = (controller_replay.look(problem, candidates, scores=scores) for scores in (True, False))
    assert (weighed.answer, plain.answer) == ("1", "2")


def test_a_perfect_confidence_errs_by_chance_more_where_problems_are_few() -> None:
    draw = np.random.default_rng(2)
    sures = draw.random(400)
    ran = [Ran(f"p{i}", bool(draw.random() < sure), True, sure, sure, 4, 0, 100) for i, sure in enumerate(sures)]
    few, many = (controller_fit.error_by_chance(some) for some in (ran[:50], ran))
    assert few["mean"] > 1.5 * many["mean"]
    assert controller_fit.calibration_error(ran) < many["high"]
    too_sure = [replace(r, confidence=min(1.0, r.confidence + 0.2)) for r in ran]
    assert controller_fit.calibration_error(too_sure) > controller_fit.error_by_chance(too_sure)["high"]


def test_a_study_in_another_format_must_have_the_same_problems(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    usual = written(tmp_path / "usual", [pool(0, 0.5, draw), pool(1, 0.5, draw)])
    other = written(tmp_path / "other", [pool(0, 0.5, draw, 4)])
    with pytest.raises(InputError, match=r"lacks 1 problems of .* such as p1"):
        controller_replay.read(usual, other)
    (problem, _) = controller_replay.read(usual, written(tmp_path / "both", [pool(i, 0.9, draw, 4) for i in (0, 1)]))
    assert (len(problem.usual), len(problem.other)) == (16, 4)
    ran = controller_replay.run(problem, Controller(16, pacing=Pacing(2, 2)))
    assert ran.others == 0


def test_scoring_is_charged_in_tokens_of_the_policy_where_votes_weigh_scores(tmp_path: Path) -> None:
    one = pool(0, 0.5, np.random.default_rng(1), 4)
    samples = tuple(replace(sample, scores=(0.5,), verifier_tokens=50) for sample in one.samples)
    study = written(tmp_path / "study", [replace(one, samples=samples)])
    with pytest.raises(InputError, match="holds no study"):
        controller_replay.read(study)
    config = {"format": 1, "policy_parameters": 1000, "verifier_parameters": 100}
    (study / "study.json").write_text(json.dumps(config))
    (problem,) = controller_replay.read(study)
    plain, weighed = (controller_replay.look(problem, problem.usual, scores).tokens for scores in (False, True))
    assert weighed - plain == pytest.approx(4 * 50 * 100 / 1000)
    (study / "study.json").write_text(json.dumps({**config, "policy_parameters": None}))
    with pytest.raises(InputError, match="how many parameters"):
        controller_replay.read(study)


def test_samples_that_a_prm_tells_early_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first step scores low where the sample is wrong, for one in a hundred that are right too."""
    for name, values in (("TARGETS", (0.9,)), ("GAINS", (0.02,)), ("FIRST", (4,)), ("LOOK_AFTER", (1,))):
        monkeypatch.setattr(controller_fit, name, values)
    monkeypatch.setattr(controller_replay, "ORDERS", 2)
    draw, right = np.random.default_rng(3), 0
    pools = []
    for number in range(60):
        made = pool(number, draw.choice((0.2, 0.8)), draw)
        samples = []
        for sample in made.samples:
            right += sample.correct
            seems_lost = right % 200 == 0 if sample.correct else draw.random() < 0.7
            first, last = Part("a", 20, -2.0, 0), Part("b", len(sample.tokens) - 20, -2.0, 0)
            scores = (0.05 if seems_lost else 0.5, 0.8 if sample.correct else 0.3)
            samples.append(replace(sample, parts=(first, last), steps=("a", "b"), scores=scores, verifier_tokens=40))
        pools.append(replace(made, samples=tuple(samples)))
    study = written(tmp_path / "study", pools)
    config = {"format": 1, "policy_parameters": 1000, "verifier_parameters": 100}
    (study / "study.json").write_text(json.dumps(config))
    problems = controller_replay.read(study)
    (pacing,) = controller_fit.givings_up(problems)
    assert pacing.give_up == 0.5
    cut = [controller_replay.without_lost(problem, pacing) for problem in problems]
    for whole, short in zip(problems, cut, strict=True):
        for before, after in zip(whole.usual, short.usual, strict=True):
            given_up = before.trace.scores[0] < 0.5
            assert after.trace.answer == (None if given_up else before.trace.answer)
            assert len(after.trace.tokens) == (20 if given_up else len(before.trace.tokens))
            assert after.trace.logprob == (-2.0 if given_up else -4.0)
        both = [controller_replay.look(problem, problem.usual, True).tokens for problem in (whole, short)]
        assert both[1] <= both[0]
    fit, evidence = controller_fit.fit(problems, 16, None)
    assert (fit.pacing.look_after, fit.pacing.give_up) == (1, 0.5)
    assert evidence["controller"]["accuracy"]["value"] > evidence["against"]["weighted:n=16"]["accuracy"] - 0.05
    assert evidence["given_up"]["samples"] > 0.2
    assert evidence["given_up"]["right"] < 0.02
    assert controller_fit.givings_up([replace(problem, scoring=()) for problem in problems]) == []


def test_a_study_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pools"):
        controller_replay.read(written(tmp_path / "empty", []), None)


def test_a_fit_with_another_format_weighs_it_and_says_what_mixes_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, values in (("TARGETS", (0.9,)), ("GAINS", (0.05,)), ("FIRST", (2,)), ("SIZES", (2, 4, 8))):
        monkeypatch.setattr(controller_fit, name, values)
    monkeypatch.setattr(controller_replay, "ORDERS", 2)
    draw = np.random.default_rng(3)
    chances = [draw.choice((0.2, 0.6, 0.9)) for _ in range(30)]
    usual = written(tmp_path / "usual", [pool(i, chance, draw, 8) for i, chance in enumerate(chances)])
    other = written(tmp_path / "other", [pool(i, 0.95, draw, 4) for i in range(30)])
    problems = controller_replay.read(usual, other)
    fit, evidence = controller_fit.fit(problems, 8, "text")
    assert (fit.other, fit.pacing.other > 0) == ("text", True)
    assert fit.other_weight in controller_fit.OTHER_WEIGHTS
    assert fit.calibration.right["agreement"] > 0
    assert evidence["controller"]["others"] > 0
    rows = evidence["mixes"]
    alone, both = (rows[name]["accuracy"]["value"] for name in ("4 usual, 0 other", "4 usual, 4 other"))
    assert both > alone + 0.1
    assert rows["0 usual, 4 other"]["gain_over_4_other"]["value"] == 0
    assert rows["2 usual, 2 other"]["tokens"] > rows["0 usual, 2 other"]["tokens"]


def test_a_pack_gets_what_is_fitted_on_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in (("TARGETS", (0.6,)), ("GAINS", (0.0,)), ("FIRST", (2,)), ("LOOK_AFTER", (2,))):
        monkeypatch.setattr(controller_fit, name, values)
    monkeypatch.setattr(controller_replay, "ORDERS", 1)
    folder = Path(shutil.copytree(BUILT_IN / DEFAULT, tmp_path / "mine"))

    def fitted(count: int) -> tuple[Pack, Result]:
        done = CliRunner().invoke(command, ["fit", str(part(tmp_path / f"of-{count}", count)), "--pack", str(folder)])
        assert done.exit_code == 0, done.output
        return manifest.read(folder), done

    found, done = fitted(40)
    assert found.controller is not None
    assert found.controller["evidence"]["equations"]["problems"] == 40
    assert json.loads(done.stdout)["controller"] == found.controller["fits"]
    assert (found.table is None) == (not json.loads(done.stdout)["table"])
    found, done = fitted(10)
    assert "note: the pack gets no fit of the controller: a fit of the controller needs 20 problems" in done.stderr
    assert (found.controller, found.table is None) == (None, False)
    assert pack_problems(find_pack(str(folder))) == []


def part(folder: Path, count: int) -> Path:
    """The first problems of a committed study."""
    whole = Path(__file__).parents[2] / "records" / "studies" / "held_out-0.6"
    folder.mkdir()
    shutil.copy(whole / "study.json", folder)
    ids: list[str] = []
    for name in ("samples.jsonl", "records.jsonl"):
        with gzip.open(whole / f"{name}.gz", "rt", encoding="utf-8") as lines:
            rows = [(json.loads(line)["id"], line) for line in lines]
        ids = ids or [id for id, _ in rows[:count]]
        (folder / name).write_text("".join(line for id, line in rows if id in ids), encoding="utf-8")
    return folder
