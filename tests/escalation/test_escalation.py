"""Questions handed over to a larger model: a real local one, and endpoints that work and that do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from faulty_server import Faulty, Handler, chunk, right, stall, status, stream_of

from edge_tts.bench.server_process import running_server
from edge_tts.cancellation import Cancellation
from edge_tts.cli import group
from edge_tts.core import Budget
from edge_tts.errors import NOT_SURE, EdgeError, InputError
from edge_tts.escalation.endpoint import KEY_VARIABLE, EndpointTarget, answered
from edge_tts.escalation.solver import ONE_ANSWER, EscalatingSolver
from edge_tts.events import (
    Decided,
    Done,
    Result,
    StepTaken,
)
from edge_tts.packs.pack import Pack
from edge_tts.reasoning.messages import Message

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
        EscalatingSolver(f"{server.settings.url}#big", 1.0, (1e6, 2e6), **{**SMALL, "deadline_s": 8}) as solver,
    ):
        _, result = asked(solver)
    assert result.escalation is not None
    assert not result.escalation.kept
    assert (result.escalation.answer_before, result.escalation.price) == (result.answer, None)
    assert result.answer is not None
    assert "so the local answer stays" in result.notes[-1]


BROKEN_OFF = stream_of(
    {**chunk(0, "#### 1"), "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}}
)


@pytest.mark.parametrize(
    ("then", "tokens", "kept"), [(right("24"), (20, 7), True), (status(400, "no"), (10, 2), False)]
)
def test_tokens_of_an_answer_that_broke_off_are_counted(
    then: Callable[[Handler], None], tokens: tuple[int, int], kept: bool
) -> None:
    with Faulty(BROKEN_OFF, then) as server:
        target = EndpointTarget(server.settings.url, "big", (1e6, 2e6))
        found = answered(target, [Message("user", QUESTION)], "math", 60.0, _never())
    assert (found.escalated.prompt_tokens, found.escalated.completion_tokens) == tokens
    assert found.escalated.price == tokens[0] + 2 * tokens[1]
    assert (found.answer == "24", bool(found.failure)) == (kept, not kept)


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


def _never() -> Cancellation:
    return Cancellation()


PRICED = ("--below", "1", "--prices", "0.5,2")
TOOK = "15 tokens, price 0.000015"
"""10 at 0.5 and 5 at 2 a million."""


def test_the_command_line_hands_over_and_says_what_it_took(pack: Pack) -> None:
    with Faulty(right("24")) as server:
        to = f"{server.settings.url}#big"
        said = CliRunner().invoke(group, ["solve", "--escalate", to, *PRICED, "--budget", "2", QUESTION])
    assert said.exit_code == 0, said.output
    assert "answer: 24" in said.stdout
    assert f"big ({server.settings.shown_url}) was asked too" in said.stderr
    assert TOOK in said.stderr


def test_a_file_hands_over_and_says_what_it_took(pack: Pack, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(f"{json.dumps({'question': QUESTION, 'id': i, 'answer': 24})}\n" for i in range(2)))
    with Faulty(right("24"), status(500, "broken")) as server:
        to = f"{server.settings.url}#big"
        files = ("--file", str(file), "--out", str(out), "--parallel", "1")
        asking = ("--strategy", "greedy", "--min-confidence", "0.99")
        said = CliRunner().invoke(group, ["solve", "--escalate", to, *PRICED, *files, *asking])
    assert said.exit_code == NOT_SURE, said.output
    assert "2 not sure" in said.stderr
    assert "a larger model was also asked 2 of these questions, price 0.000015" in said.stderr
    answered_, failed = (json.loads(line) for line in out.read_text("utf-8").splitlines())
    assert (answered_["answer"], answered_["correct"], answered_["escalation"]["kept"]) == ("24", True, True)
    assert not failed["escalation"]["kept"]
    assert failed["answer"] == failed["escalation"]["answer_before"]
    assert (answered_["sure"], failed["sure"]) == (False, False)
    assert answered_["settings"]["others"] == {"escalate": to, "below": 1.0, "min_confidence": 0.99}


def test_a_chat_hands_over_and_says_what_it_took(pack: Pack) -> None:
    with Faulty(right("24")) as server:
        to = f"{server.settings.url}#big"
        said = CliRunner().invoke(group, ["chat", "--escalate", to, *PRICED, "--budget", "2"], input=f"{QUESTION}\n")
    assert said.exit_code == 0, said.output
    assert "answer: 24" in said.stdout
    assert TOOK in said.stderr


def test_a_server_hands_over_and_says_what_it_took(pack: Pack) -> None:
    body = {"model": "smol-math", "messages": [{"role": "user", "content": QUESTION}], "edge": {"strategy": "greedy"}}
    with (
        Faulty(right("24")) as endpoint,
        running_server("--escalate", f"{endpoint.settings.url}#big", *PRICED) as server,
    ):
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).raise_for_status().json()
    assert reply["edge"]["answer"] == "24"
    assert reply["edge"]["escalation"]["kept"]
    assert TOOK in reply["edge"]["escalated"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--escalate", "http://127.0.0.1:8000#big", "--prices", "1"), "two numbers such as 0.15,0.6; got '1'"),
        (("--escalate", "http://127.0.0.1:8000#big", "--prices", "1,-2"), "0 or more; got 1 and -2"),
        (("--escalate", "http://127.0.0.1:8000#big", "--prices", "1,nan"), "0 or more; got 1 and nan"),
        (("--escalate", "smol-math", "--prices", "1,2"), "smol-math runs on this machine"),
        (("--prices", "1,2"), "--escalate names"),
    ],
)
@pytest.mark.parametrize("verb", [("solve", QUESTION), ("chat",)])
def test_prices_that_cannot_be_used_are_said_before_anything_is_loaded(
    options: tuple[str, ...], complaint: str, verb: tuple[str, ...], home: Path
) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        CliRunner().invoke(group, [*verb, *options], catch_exceptions=False)
