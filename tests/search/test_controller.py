"""What the controller decides after a wave, and that a search carries it out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from searching import PROMPT, QUESTION, Search, drain, in_turn, last_step

from edge_tts.core import Budget, Sampling
from edge_tts.errors import InputError
from edge_tts.events import Decided, Event, Outcome, StepTaken
from edge_tts.reasoning.formats import AskedEquations
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.scripted import ScriptedPolicy, ScriptedVerifier
from edge_tts.search.confidence import Calibration
from edge_tts.search.controller import Controller, Pacing
from edge_tts.search.driver import Way
from edge_tts.search.sampling import Majority

SURE_BY_VOTE = {"bias": -1.0, "vote": 2.0}
HOPEFUL = Calibration(SURE_BY_VOTE, {"bias": 5.0})
HOPELESS = Calibration(SURE_BY_VOTE, {"bias": -5.0})


def answers(*texts: str) -> ScriptedPolicy:
    return ScriptedPolicy(in_turn(*(f"#### {text}" for text in texts)))


def run(policy: ScriptedPolicy, controller: Controller, others: tuple[Way, ...] = ()) -> tuple[list[Decided], Outcome]:
    search = Search(policy, others=others, calibration=controller.calibration)
    events, outcome = drain(search.run(controller))
    return decisions(events), outcome


def decisions(events: Sequence[Event]) -> list[Decided]:
    return [event for event in events if isinstance(event, Decided)]


def test_it_stops_once_it_is_sure_enough() -> None:
    said, outcome = run(answers(*"1111"), Controller(16, HOPEFUL, Pacing(target=0.9)))
    assert [(event.action, event.samples) for event in said] == [("stop", 4)]
    assert said[0].reason.endswith("sure is enough")
    assert outcome.stop_reason == "sure"
    assert outcome.confidence == pytest.approx(said[0].confidence, abs=1e-4)


def test_it_goes_on_while_samples_may_help_and_stops_when_all_are_drawn() -> None:
    said, outcome = run(answers(*"12341234"), Controller(8, HOPEFUL, Pacing(first=4, wave=2)))
    assert [(event.action, event.samples) for event in said] == [("sample", 4), ("sample", 6), ("stop", 8)]
    assert outcome.stop_reason == "complete"
    assert outcome.best is not None
    assert outcome.best.answer == "1"


def test_the_end_of_the_budget_is_a_decision_too() -> None:
    search = Search(answers(*"12341234"), calibration=HOPEFUL, budget=Budget(generations=6))
    events, outcome = drain(search.run(Controller(8, HOPEFUL, Pacing(first=4, wave=2))))
    last = decisions(events)[-1]
    assert (last.action, last.samples, last.reason) == ("stop", 6, "nothing is left of the budget or the time")
    assert outcome.stop_reason == "budget: generations"


def test_it_stops_where_samples_would_not_help() -> None:
    said, outcome = run(answers(*"1234"), Controller(16, HOPELESS))
    assert [event.action for event in said] == ["stop"]
    assert "hardly" in said[0].reason
    assert outcome.stop_reason == "no gain"
    assert outcome.confidence < 0.5


def test_it_stops_where_no_other_answer_can_overtake() -> None:
    said, _ = run(answers(*"111112"), Controller(8, Calibration({"bias": 0.0}, {"bias": 5.0}), Pacing(6, 2)))
    assert [(event.action, event.samples) for event in said] == [("stop", 6)]
    assert "overtake" in said[0].reason


def test_an_unsure_question_is_asked_in_another_way_whose_votes_have_their_own_weight() -> None:
    prompts = PromptFormat(prompt="In words: {question}\n")
    other = Way(AskedEquations(prompts, QUESTION), Sampling(max_tokens=50), weight=1.5)
    policy = answers(*"1123", *"22")
    said, outcome = run(policy, Controller(16, HOPELESS, Pacing(other=2), ways=2), (other,))
    assert [(event.action, event.samples) for event in said] == [("other", 4), ("stop", 6)]
    assert outcome.best is not None
    assert outcome.best.answer == "2"  # 1 + 2 x 1.5 votes against 2
    assert [trace.weight for trace in outcome.traces] == [1, 1, 1, 1, 1.5, 1.5]
    in_words = policy.tokenize("In words: ")
    asked = [trace.tokens[: len(in_words)] == in_words for trace in outcome.traces]
    assert asked == [False] * 4 + [True] * 2


def test_a_verifier_reads_only_the_ways_of_asking_that_it_knows() -> None:
    read: list[str] = []

    def score(question: str, steps: Sequence[str]) -> list[float]:
        read.extend(steps)
        return [0.4 if "1" in step else 0.8 for step in steps]

    other = Way(AskedEquations(PromptFormat(), QUESTION), Sampling(max_tokens=50), is_scored=False)
    controller = Controller(16, HOPELESS, Pacing(other=2), scores=True, ways=2)
    search = Search(answers(*"1112", *"22"), ScriptedVerifier(score), others=(other,), calibration=HOPELESS)
    _, outcome = drain(search.run(controller))
    assert read == ["#### 1", "#### 2"]
    assert [bool(trace.scores) for trace in outcome.traces] == [True] * 4 + [False] * 2
    assert outcome.best is not None
    assert outcome.best.answer == "2"  # 0.8 and twice the mean, against 3 x 0.4


def test_a_fit_that_weighs_scores_has_them_for_a_plain_vote_too() -> None:
    verifier = ScriptedVerifier(lambda question, steps: [0.75] * len(steps))
    search = Search(answers(*"12"), verifier, calibration=Calibration({"score": 1.0}))
    _, outcome = drain(search.run(Majority(2)))
    assert outcome.confidence == pytest.approx(0.745)  # a score s counts as 0.01 + 0.98 s


def test_same_seed_same_decisions() -> None:
    def once() -> list[Decided]:
        policy = ScriptedPolicy(lambda text, seed: f"#### {seed % 3}")
        return run(policy, Controller(16, HOPEFUL, Pacing(target=0.97)))[0]

    assert once() == once()
    assert len(once()) > 1


@pytest.mark.parametrize(
    "settings", [{"first": 0}, {"wave": 0}, {"target": 0.0}, {"target": 2.0}, {"least_gain": -1.0}]
)
def test_a_pacing_out_of_range_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="got"):
        Pacing(**settings)  # type: ignore[arg-type]


def test_samples_that_the_verifier_thinks_lost_end_early_and_count_as_samples_without_an_answer() -> None:
    starts = iter(["good\n-", "bad\n-", "bad\n-", "fine\n-"])
    policy = ScriptedPolicy(lambda text, seed: "#### 7" if "\n" in text.removeprefix(PROMPT) else next(starts))
    scores = last_step({"good": 0.9, "fine": 0.3, "bad": 0.01, "#### 7": 0.8})
    pacing = Pacing(first=4, look_after=1, give_up=0.2)
    search = Search(policy, ScriptedVerifier(scores))
    events, outcome = drain(search.run(Controller(4, pacing=pacing, scores=True)))
    assert [trace.steps for trace in outcome.traces] == [("good", "#### 7"), ("bad",), ("bad",), ("fine", "#### 7")]
    given_up = [event for event in events if isinstance(event, StepTaken) and event.error]
    assert [(event.candidate, event.error) for event in given_up] == [
        (1, "given up: the verifier scores it 0.010"),
        (2, "given up: the verifier scores it 0.010"),
    ]
    assert outcome.best is not None
    assert outcome.best.answer == "7"
    assert outcome.confidence == pytest.approx(2 / 5)
    assert len(policy.calls[1]) == 2  # only the two that are left
    assert search.usage.policy_tokens == policy.evaluated_tokens
