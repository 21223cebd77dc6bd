"""Questions handed over to a larger model: a real local one, and endpoints that work and that do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from faulty_server import Faulty, right, stall, status

from edge_tts.cli import group
from edge_tts.core import Budget
from edge_tts.errors import EdgeError, InputError
from edge_tts.escalation.endpoint import KEY_VARIABLE, EndpointTarget
from edge_tts.escalation.solver import ONE_ANSWER, EscalatingSolver
from edge_tts.events import (
    Decided,
    Done,
    Result,
    StepTaken,
)
from edge_tts.packs.pack import Pack

QUESTION = "Tom has 3 boxes of 8 pencils. How many pencils are there?"
SMALL = {"profile": "laptop-cpu", "deadline_s": 300, "generations": 4}


@pytest.fixture(scope="module")
def beside(pack: Pack, coder_05b: Path) -> Iterator[EscalatingSolver]:
    with EscalatingSolver(str(coder_05b), 1.0, memory_mb=4000, **SMALL) as solver:
        yield solver


def asked(solver: EscalatingSolver, **arguments: object) -> tuple[list[object], Result]:
    events = list(solver.stream(QUESTION, "majority:n=2", Budget(generations=2), seed=1, **arguments))  # type: ignore[arg-type]
    assert isinstance(events[-1], Done)
    return events[:-1], events[-1].result


def test_what_the_small_model_is_unsure_of_goes_to_the_larger_one(beside: EscalatingSolver) -> None:
    events, result = asked(beside)
    said = [event for event in events if isinstance(event, Decided)]
    assert [event.action for event in said] == ["escalate"]
    assert "sure is less than 100%" in said[0].reason
    escalated = result.escalation
    assert escalated is not None
    assert escalated.where == "this machine"
    assert escalated.kept
    assert (result.answer, result.format) == ("24", "program")
    assert escalated.completion_tokens > 0
    later = events[events.index(said[0]) :]
    assert any(isinstance(event, StepTaken) for event in later)
    alone = super(EscalatingSolver, beside)
    own = next(e.result for e in alone._search(_call(), _never()) if isinstance(e, Done))
    assert result.usage.policy_flops > own.usage.policy_flops
    assert result.usage.generated_tokens == own.usage.generated_tokens + escalated.completion_tokens


def test_a_sure_answer_stays(beside: EscalatingSolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "below", 0.0)
    events, result = asked(beside)
    assert result.escalation is None
    assert not any(isinstance(event, Decided) for event in events)


def test_models_that_do_not_fit_together_are_loaded_in_turn(pack: Pack, coder_05b: Path) -> None:
    with EscalatingSolver(str(coder_05b), 1.0, memory_mb=700, **SMALL) as solver:
        assert solver._in_turn
        for _ in range(2):  # the small one is loaded again for the second question
            _, result = asked(solver)
            assert result.escalation is not None
            assert result.answer == "24"
            assert result.usage.peak_memory_mb > 0


def test_an_endpoint_answers(pack: Pack) -> None:
    with Faulty(right("24")) as server:
        to = f"{server.settings.url}#big"
        with EscalatingSolver(to, 1.0, prices=(1e6, 2e6), **SMALL) as solver:
            _, result = asked(solver)
        (request,) = server.requests
        assert server.authorization == ["Bearer none"]
    assert result.escalation is not None
    assert (result.escalation.prompt_tokens, result.escalation.completion_tokens) == (10, 5)
    assert result.escalation.price == 10 + 2 * 5
    assert (result.answer, result.finished) == ("24", True)
    assert result.confidence >= ONE_ANSWER
    system, user = request["messages"]
    assert user == {"role": "user", "content": QUESTION}
    assert "may be wrong" in system["content"] or "found no answer" in system["content"]


@pytest.mark.parametrize("fault", [status(500, "broken"), stall, status(200, "<html>")])
def test_an_endpoint_that_fails_leaves_the_local_answer_and_says_so(pack: Pack, fault: object) -> None:
    with (
        Faulty(fault) as server,  # type: ignore[arg-type]
        EscalatingSolver(f"{server.settings.url}#big", 1.0, **{**SMALL, "deadline_s": 8}) as solver,
    ):
        _, result = asked(solver)
    assert result.escalation is None
    assert result.answer is not None
    assert "so the local answer stays" in result.notes[-1]


def test_a_key_is_sent_only_where_its_variable_is_set(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret of another service")
    monkeypatch.setenv(KEY_VARIABLE, "mine")
    with Faulty(right("24")) as server, EscalatingSolver(f"{server.settings.url}#big", 1.0, **SMALL) as solver:
        asked(solver)
        assert server.authorization == ["Bearer mine"]


@pytest.mark.parametrize(
    ("to", "below", "complaint"),
    [
        ("http://127.0.0.1:8000", 0.5, "names no model"),
        ("no-such-model", 0.5, "no-such-model"),
        ("http://127.0.0.1:8000#big", 1.5, "from 0 to 1; got 1.5"),
    ],
)
def test_what_cannot_be_escalated_to_is_said_before_anything_is_loaded(to: str, below: float, complaint: str) -> None:
    with pytest.raises(EdgeError, match=complaint):
        EscalatingSolver(to, below)


def test_addresses_are_told_from_models() -> None:
    assert EndpointTarget.parse("qwen2.5-coder-1.5b") is None
    assert EndpointTarget.parse("HTTPS://host/v1#m") == EndpointTarget("HTTPS://host/v1", "m")
    with pytest.raises(InputError):
        EndpointTarget.parse("http://:0#m")


def _call() -> object:
    from edge_tts.search.call import Call

    return Call(QUESTION, "majority:n=2", Budget(generations=2), 1)


def _never() -> object:
    from edge_tts.cancellation import Cancellation

    return Cancellation()


def test_the_command_line_hands_over_and_says_so(pack: Pack) -> None:
    with Faulty(right("24")) as server:
        to = f"{server.settings.url}#big"
        said = CliRunner().invoke(group, ["solve", "--escalate", to, "--below", "1", "--budget", "2", QUESTION])
    assert said.exit_code == 0, said.output
    assert "answer: 24" in said.stdout
    assert "big" in said.stderr
