"""One budget for all questions of a file: unsure questions get more of it, and it is kept to a wave."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_question_file import command, rows, run

from edge_tts.commands.total_budget import checked_total, is_spent, solve_within
from edge_tts.core import Budget, Sampling, Usage
from edge_tts.errors import InputError
from edge_tts.events import Done, Event, Result
from edge_tts.packs.pack import Pack
from edge_tts.questions.reading import Question
from edge_tts.questions.results import Settings
from edge_tts.reasoning.formats import AskedEquations
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.scripted import ScriptedPolicy
from edge_tts.search.confidence import Calibration
from edge_tts.search.controller import Controller, Pacing
from edge_tts.search.driver import Driver, Task
from edge_tts.search.ledger import Ledger, SharedBudget

PROMPTS = PromptFormat(prompt="Q {question}\nA ")
CALIBRATION = Calibration({"bias": -1.0, "vote": 2.0}, {"bias": 5.0})
SETTINGS = Settings("auto", Budget(generations=16), 0, "p 1", True)
QUESTIONS = tuple(Question(text, text, None) for text in ("easy", "hard one", "easy too", "hard two"))


class Searches:
    """Real searches over a scripted policy: all samples of easy questions agree."""

    def stream(
        self, question: str, strategy: str, budget: Budget, seed: int, shared: SharedBudget | None = None
    ) -> Generator[Event | Done, None, None]:
        if question == "impossible":
            raise InputError("it cannot be asked")
        policy = ScriptedPolicy(lambda text, seed: f"#### {1 if 'easy' in text else seed % 7}")
        ledger = Ledger(policy.info, budget=budget, shared=shared)
        task = Task(question, AskedEquations(PROMPTS, question), Sampling(), calibration=CALIBRATION)
        controller = Controller(16, CALIBRATION, Pacing(2, 2, target=0.85))
        outcome = yield from Driver(task, policy, None, ledger).run(controller)
        answer = outcome.best.answer if outcome.best else None
        yield Done(Result(answer, (), True, strategy, "", None, outcome.stop_reason, 1.0, ledger.usage, seed, 9))


def solved(total: Budget, spent: Usage | None = None, parallel: int = 1, **changes: Any) -> dict[str, Any]:
    questions = changes.get("questions", QUESTIONS)
    found = solve_within(Searches(), questions, SETTINGS, total, spent or Usage(), parallel)  # type: ignore[arg-type]
    return {question.id: result for question, result in found}


def drawn(found: dict[str, Any]) -> dict[str, int]:
    return {id: result.usage.generations for id, result in found.items()}


def test_unsure_questions_get_what_sure_ones_leave() -> None:
    found = solved(Budget(generations=24))
    used = drawn(found)
    assert sum(used.values()) == 24
    assert used["easy"] == used["easy too"] < 6
    assert min(used["hard one"], used["hard two"]) >= 4
    assert used["hard one"] + used["hard two"] > 2 * (used["easy"] + used["easy too"])
    assert found["easy"].stop_reason == "sure"
    assert "budget: total" in {found[id].stop_reason for id in ("hard one", "hard two")}
    assert all(result.answer is not None for result in found.values())


def test_several_at_once_spend_at_most_a_wave_each_too_much_and_always_alike() -> None:
    found = solved(Budget(generations=21), parallel=3)
    assert 21 <= sum(drawn(found).values()) <= 21 + 3 * 2
    assert drawn(found) == drawn(solved(Budget(generations=21), parallel=3))


def test_what_was_spent_before_counts() -> None:
    used = drawn(solved(Budget(generations=24), Usage(generations=10)))
    assert sum(used.values()) == 14


def test_tokens_and_flops_bound_the_total_too() -> None:
    few, many = (solved(Budget(tokens=tokens)) for tokens in (200, 2000))
    assert sum(drawn(few).values()) < sum(drawn(many).values())
    assert is_spent(Budget(flops=10.0), Usage(policy_flops=8.0, verifier_flops=2.0))
    assert not is_spent(Budget(flops=10.0, tokens=5), Usage(policy_flops=8.0, policy_tokens=4))


def test_questions_whose_turn_never_comes_and_those_that_fail_have_an_error() -> None:
    found = solved(Budget(generations=3))
    assert [isinstance(found[question.id], InputError) for question in QUESTIONS] == [False, False, True, True]
    assert "larger --budget-total" in str(found["hard two"])
    found = solved(Budget(generations=20), questions=(Question("x", "impossible", None), *QUESTIONS))
    assert "cannot be asked" in str(found["x"])
    assert found["easy"].answer == "1"


def test_closing_it_ends_the_searches() -> None:
    found: Iterator[Any] = solve_within(Searches(), QUESTIONS, SETTINGS, Budget(generations=24), Usage(), 2)  # type: ignore[arg-type]
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert list(found) == []


@pytest.mark.parametrize(
    ("total", "strategy", "deadline", "escalate", "complaint"),
    [
        (Budget(joules=3.0), "auto", None, None, "joules"),
        (Budget(tokens=9), "majority:n=4", None, None, "auto or adaptive; got 'majority:n=4'"),
        (Budget(tokens=9), "auto", 3.0, None, "--deadline"),
        (Budget(tokens=9), "auto", None, "m", "--escalate"),
    ],
)
def test_totals_that_cannot_be_shared(
    total: Budget, strategy: str, deadline: float | None, escalate: str | None, complaint: str
) -> None:
    assert checked_total(Budget(tokens=9), "adaptive:n=8", None, None) == Budget(tokens=9)
    with pytest.raises(InputError, match=complaint):
        checked_total(total, strategy, deadline, escalate)


def test_a_file_resumes_with_what_is_left(pack: Pack, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = [f"Tom has {n} boxes of 8 pencils. How many pencils are there?" for n in range(3, 7)]
    file.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
    shared = command(file, out, "--strategy", "adaptive", "--budget-total", "28", "--parallel", "2")
    done = run(shared)
    assert done.returncode == 0, done.stderr
    used = [row["usage"]["generations"] for row in rows(out)]
    assert 28 <= sum(used) <= 28 + 8 or all(row["stop_reason"] == "decided" for row in rows(out))
    whole = out.read_text()
    out.write_text("".join(whole.splitlines(keepends=True)[:2]))
    again = run(shared)
    assert again.returncode == 0, again.stderr
    assert "2 of 4 are in" in again.stderr
    assert [row["answer"] for row in rows(out)][:2] == [json.loads(line)["answer"] for line in whole.splitlines()[:2]]
    refused = run(command(file, out, "--budget-total", "28"))
    assert refused.returncode == 2
    assert "auto or adaptive" in refused.stderr
