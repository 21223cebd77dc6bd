"""The baseline behind an endpoint: a real llama.cpp server, and a server with every fault there is."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Faulty, Handler, chunk, cut, cut_in_chunk, page, right, silence, stall, status, stream_of

from edge_tts.bench.baseline import PROMPT, config, run_baseline
from edge_tts.bench.records import Record, open_study
from edge_tts.errors import BackendError, InputError
from edge_tts.packs.pack import Pack
from edge_tts.questions.reading import Question
from edge_tts.reasoning.answer_reading import read_answer
from edge_tts.runtimes.endpoint import Endpoint, EndpointSettings, Reply

PENCILS = "Tom has 12 boxes with 8 pencils each. How many pencils does he have?"
APPLES = "Ann has 3 apples. How many apples does she have?"
KEY = "a-secret-key"


def ask(settings: EndpointSettings, prompt: str = PENCILS, n: int = 1, **options: Any) -> list[Reply]:
    async def answer() -> list[Reply]:
        async with Endpoint(settings) as endpoint:
            return await endpoint.answer(prompt, n, **options)

    return asyncio.run(answer())


def texts(replies: list[Reply]) -> list[str]:
    return [completion.text for reply in replies for completion in reply.completions]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


# --- a real server ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointSettings]:
    """llama-cpp-python's server with the pack's policy; it ignores ``n``, and streams without usage."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, str(Path(__file__).parents[1] / "llama_server.py")]
    command += ["--model", str(pack.policy_path), "--n_ctx", "512", "--host", "127.0.0.1"]
    command += ["--port", url.rpartition(":")[2], "--interrupt_requests", "false"]
    command += ["--n_threads", "1", "--n_threads_batch", "1"]  # two would wait for each other on a busy machine
    log = tmp_path_factory.mktemp("llama") / "log.txt"
    with log.open("w") as sink:
        server = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        ends = time.monotonic() + 60
        while not answers(url + "/v1/models"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.1)
        yield EndpointSettings(url, "smol", max_tokens=80, temperature=1.0, timeout_s=60, retries=1)
    finally:
        server.terminate()
        server.wait(10)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def test_greedy_completions_are_whole_and_the_same_each_time(llama: EndpointSettings) -> None:
    first, second = (ask(llama, temperature=0.0)[0] for _ in range(2))
    assert first.completions == second.completions
    assert first.completions[0].finish_reason == "stop"
    assert read_answer(first.completions[0].text, PENCILS) == "96"
    assert 0 < first.seconds < 60


def test_usage_is_what_the_server_reports(llama: EndpointSettings) -> None:
    [streamed] = ask(llama, temperature=0.0)
    assert (streamed.prompt_tokens, streamed.completion_tokens) == (None, None)
    [whole] = ask(replace(llama, stream=False), temperature=0.0)
    assert whole.completions == streamed.completions
    count = json.loads(post(llama.url + "/extras/tokenize/count", {"input": texts([whole])[0]}))["count"]
    assert whole.completion_tokens == count
    assert whole.prompt_tokens is not None
    [longer] = ask(replace(llama, stream=False), PENCILS + " " + APPLES, temperature=0.0)
    assert (longer.prompt_tokens or 0) > whole.prompt_tokens


def post(url: str, content: dict[str, Any]) -> str:
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def test_samples_are_asked_for_one_by_one_where_n_is_ignored(llama: EndpointSettings) -> None:
    replies = ask(llama, n=5, seed=3)
    assert [len(reply.completions) for reply in replies] == [1] * 5
    assert len(set(texts(replies))) > 1
    assert max(reply.started for reply in replies) < max(reply.ended for reply in replies[:-1])


def test_a_cut_completion_says_so(llama: EndpointSettings) -> None:
    [reply] = ask(replace(llama, max_tokens=3), temperature=0.0)
    assert reply.completions[0].finish_reason == "length"


def test_baseline_over_a_real_server(llama: EndpointSettings) -> None:
    settings = replace(llama, stream=False, parameters=1000, price_in=2.0, price_out=8.0)
    problems = [Question("a", PENCILS, "96"), Question("b", APPLES, "3")]
    done = ("b", "majority", 4, 0)
    found = list(run_baseline(Endpoint(settings), problems, ["greedy", "majority", "adaptive"], [1, 4], [0], {done}))
    assert sorted(records[0].id for records in found) == ["a", "b"]
    by_key = {record.key: record for records in found for record in records}
    wanted = [("greedy", 1), ("majority", 1), ("majority", 4), ("adaptive", 1), ("adaptive", 4)]
    assert by_key.keys() == {(id, s, b, 0) for id in "ab" for s, b in wanted} - {done}
    for record in by_key.values():
        usage = record.usage
        assert 0 < usage.generated_tokens < usage.policy_tokens
        assert usage.policy_flops == 2000 * usage.policy_tokens
        prompt_tokens = usage.policy_tokens - usage.generated_tokens
        assert record.detail["price"] == pytest.approx((2 * prompt_tokens + 8 * usage.generated_tokens) / 1e6)
        assert 0 < usage.seconds < 60
        assert record.detail["samples"] == record.budget
        assert Record.parse(json.loads(json.dumps(record.to_dict()))).key == record.key
    many, one = (by_key["a", "majority", budget, 0].usage for budget in (4, 1))
    sent = one.policy_tokens - one.generated_tokens
    assert many.policy_tokens - many.generated_tokens == 4 * sent


def test_what_is_done_is_not_asked_again(llama: EndpointSettings) -> None:
    asked = Endpoint(replace(llama, url=f"http://127.0.0.1:{free_port()}", retries=0))
    done = {("a", "greedy", 1, 7), ("a", "majority", 2, 7)}
    assert list(run_baseline(asked, [Question("a", PENCILS, "96")], ["greedy", "majority"], [2], [7], done)) == []


# --- a server with faults --------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        cut,
        cut_in_chunk,
        stall,
        silence,
        stream_of({"error": {"message": "out of memory"}}),
        status(429, "{}", Retry_After="0.05"),
        status(503, "{}"),
    ],
)
def test_what_passes_is_asked_again(fault: Callable[[Handler], None]) -> None:
    with Faulty(fault, right("18")) as server:
        [reply] = ask(replace(server.settings, timeout_s=1))
    assert texts([reply]) == ["so\n#### 18"]
    assert (reply.prompt_tokens, reply.completion_tokens) == (10, 5)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "130"}, 130),
        ({"x_ratelimit_reset_requests": "20ms", "x_ratelimit_reset_tokens": "6m1.5s"}, 361.5),
    ],
)
def test_a_limit_that_the_client_does_not_wait_for(
    headers: dict[str, str], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []
    sleep = asyncio.sleep

    async def shorter(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", shorter)
    with Faulty(status(429, "{}", x_should_retry="false", **headers), right("18")) as server:
        assert texts(ask(server.settings)) == ["so\n#### 18"]
    assert waits == [seconds]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (cut, ["ended its answer without a finish_reason, attempt 2 of 2", "server's log"]),
        (stall, ["sent no token for 1 s, attempt 2 of 2", "lower the concurrency"]),
        (silence, ["sent nothing for 1 s, attempt 2 of 2"]),
        (page, ["no chat completion (<html>Welcome to nginx</html>)", "OpenAI-compatible"]),
        (stream_of("{not json"), ["no chat completion ({not json)"]),
        (stream_of("17"), ["no chat completion (17)"]),
        (stream_of({"object": "other"}), ["ended its answer without"]),
        (status(401, '{"error": {"message": "bad key ' + KEY + '"}}'), ["answered 401", "bad key ***", "THE_KEY"]),
        (status(404, '{"error": {"message": "no such model"}}'), ["answered 404", "no such model", "/v1/models"]),
        (status(429, "slow down"), ["answered 429 (slow down)", "lower the concurrency"]),
        (status(429, "", Retry_After="86400"), ["answered 429 (an empty body)", "go on later"]),
        (status(500, "x" * 1000), ["answered 500", "x" * 200 + "...", "server's log"]),
        (status(400, "too long"), ["answered 400 (too long)", "length of the question"]),
    ],
)
def test_errors_name_address_cause_and_remedy(
    fault: Callable[[Handler], None], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    with Faulty(fault) as server, pytest.raises(BackendError) as caught:
        ask(replace(server.settings, timeout_s=1, key_variable="THE_KEY"))
    message = str(caught.value)
    assert message.startswith(f"{server.settings.url}/v1 (model 'big') ")
    assert all(part in message for part in said), message
    assert KEY not in message
    assert server.authorization[0] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (page, "no chat completion (<html>Welcome"),
        (status(200, '{"detail": "x"}'), 'no chat completion ({"detail":"x"})'),
        (status(200, "{not json"), "no chat completion ({not json)"),
        (status(200, '{"choices": []}'), 'no chat completion ({"choices":[]})'),
    ],
)
def test_garbage_in_place_of_a_whole_answer(fault: Callable[[Handler], None], said: str) -> None:
    with Faulty(fault) as server, pytest.raises(BackendError) as caught:
        ask(replace(server.settings, stream=False))
    assert said in str(caught.value)


def test_a_closed_port() -> None:
    settings = EndpointSettings(f"http://user:pass@127.0.0.1:{free_port()}", "big", retries=0)
    with pytest.raises(
        BackendError, match=r"^http://127.0.0.1:\d+/v1 .*could not be asked.*start the server"
    ) as caught:
        ask(settings)
    assert "pass" not in str(caught.value)


def test_a_key_of_another_service_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Faulty(right("18")) as server:
        ask(server.settings)
    assert server.authorization == ["Bearer none"]


def test_one_request_where_the_server_knows_n() -> None:
    with Faulty(right("1", "2", "3")) as server:
        [reply] = ask(server.settings, n=3, seed=5)
    assert texts([reply]) == ["so\n#### 1", "so\n#### 2", "so\n#### 3"]
    assert (reply.prompt_tokens, reply.completion_tokens) == (10, 15)
    [request] = server.requests
    assert request.items() >= {"model": "big", "n": 3, "seed": 5, "max_tokens": 20, "temperature": 0.7}.items()


def test_a_server_that_refuses_n_is_asked_for_one_at_a_time() -> None:
    with Faulty(status(400, "Only one completion choice is allowed"), right("1")) as server:
        replies = ask(server.settings, n=3, seed=5)
    assert len(texts(replies)) == 3
    assert [request.get("n") for request in server.requests] == [3, None, None, None]
    assert sorted(request["seed"] for request in server.requests[1:]) == [5, 6, 7]


def test_no_more_requests_at_once_than_allowed() -> None:
    problems = [Question(str(i), APPLES, "18") for i in range(6)]
    with Faulty(right("18", seconds=0.1)) as server:
        endpoint = Endpoint(replace(server.settings, concurrency=3))
        found = list(run_baseline(endpoint, problems, ["greedy", "majority"], [2], [0]))
    assert sorted(records[0].id for records in found) == [problem.id for problem in problems]
    assert server.most_at_once == 3
    assert all(record.correct for records in found for record in records)


@pytest.mark.parametrize(
    ("values", "bad"),
    [
        ({"url": "localhost:8000"}, "localhost:8000"),
        ({"url": "http://host:99999999"}, "address"),
        ({"url": "https://host/v1?key=1"}, "address"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_settings_that_cannot_be_used(values: dict[str, Any], bad: str) -> None:
    with pytest.raises(InputError, match=bad):
        EndpointSettings(**{"url": "http://127.0.0.1:1", "model": "big", **values})


@pytest.mark.parametrize(
    "url", ["http://host:8000", "http://host:8000/", "http://host:8000/v1", "http://host:8000/v1/"]
)
def test_addresses_with_and_without_a_path(url: str) -> None:
    assert EndpointSettings(url, "big").base_url == "http://host:8000/v1"


def test_what_is_missing_is_said_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EndpointSettings("http://127.0.0.1:1", "big", key_variable="NO_SUCH_KEY")
    with pytest.raises(InputError, match="NO_SUCH_KEY"):
        Endpoint(settings)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'edge-reasoning-runtime\[bench\]'"):
        Endpoint(settings)


# --- records ---------------------------------------------------------------------------------


def test_each_budget_is_charged_for_its_own_samples() -> None:
    answers = ["7", "7", "7", "7", "7", "7", "7", "7"]
    with Faulty(right(*answers)) as server:
        endpoint = Endpoint(replace(server.settings, concurrency=1))
        [records] = run_baseline(endpoint, [Question("a", APPLES, "7")], ["majority", "adaptive"], [2, 8], [0])
    assert sorted(request.get("n", 1) for request in server.requests) == [2, 2, 4]
    found = {
        (r.strategy, r.budget): (r.stop_reason, r.detail["samples"], r.usage.policy_tokens, r.usage.generated_tokens)
        for r in records
    }
    assert found == {
        ("majority", 2): ("complete", 2, 20, 10),
        ("majority", 8): ("complete", 8, 70, 40),
        ("adaptive", 2): ("complete", 2, 20, 10),
        ("adaptive", 8): ("decided", 4, 40, 20),
    }
    assert all(r.correct and r.support == 1.0 and r.detail["price"] is None for r in records)


def test_seeds_have_samples_of_their_own() -> None:
    with Faulty(right("7")) as server:
        list(run_baseline(Endpoint(server.settings), [Question("a", APPLES, "7")], ["majority"], [4], [0, 1]))
    assert len({request["seed"] for request in server.requests}) == len(server.requests) == 8
    assert all(request["messages"][0]["content"] == PROMPT.format(question=APPLES) for request in server.requests)


def test_a_text_that_was_cut_has_no_vote() -> None:
    with Faulty(stream_of(chunk(0, "#### 7", "length"))) as server:
        [[record]] = run_baseline(Endpoint(server.settings), [Question("a", APPLES, "7")], ["greedy"], [], [0])
    assert (record.answer, record.correct, record.budget) == (None, False, 1)
    assert record.detail == {"model": "big", "samples": 1, "price": None, "usage": "not reported"}
    assert record.usage.policy_tokens == 0 < record.usage.seconds


def test_records_before_a_failure_are_kept() -> None:
    problems = [Question("a", APPLES, "7"), Question("b", APPLES, "7")]
    with Faulty(right("7"), status(401)) as server:
        found = run_baseline(Endpoint(replace(server.settings, concurrency=1)), problems, ["greedy"], [], [0])
        assert [record.id for record in next(found)] == ["a"]
        with pytest.raises(BackendError, match="401"):
            next(found)


def test_closing_cancels_what_is_under_way() -> None:
    problems = [Question(str(i), APPLES, "7") for i in range(4)]
    with Faulty(right("7"), stall) as server:
        found = run_baseline(Endpoint(replace(server.settings, concurrency=2)), problems, ["greedy"], [], [0])
        next(found)
        while len(server.requests) < 2:  # one that stalls is under way
            time.sleep(0.01)
        begun = time.monotonic()
        found.close()
        assert time.monotonic() - begun < 2
        assert server.left.wait(2)


def test_the_caller_can_be_interrupted() -> None:
    with Faulty(stall) as server:
        found = run_baseline(Endpoint(server.settings), [Question("a", APPLES, "7")], ["greedy"], [], [0])
        main = threading.main_thread().ident
        assert main is not None
        threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT)).start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(found)
        assert time.monotonic() - begun < 3
        assert server.left.wait(2)


@pytest.mark.parametrize(("strategies", "budgets"), [(["beam"], [4]), (["majority"], [0])])
def test_wishes_that_cannot_be_had(strategies: list[str], budgets: list[int]) -> None:
    with pytest.raises(InputError, match=strategies[0] if budgets[0] else "at least 1 generation; got 0"):
        run_baseline(Endpoint(EndpointSettings("http://127.0.0.1:1", "big")), [], strategies, budgets, [0])


def test_a_changed_baseline_is_refused(tmp_path: Path) -> None:
    settings = EndpointSettings("http://user:pass@127.0.0.1:1", "big", price_in=1.0, parameters=7_000_000_000)
    open_study(tmp_path, {"baseline": config(settings)})
    assert "pass" not in (tmp_path / "study.json").read_text()
    open_study(tmp_path, {"baseline": config(replace(settings, concurrency=1, retries=9, timeout_s=1))})
    with pytest.raises(InputError, match="bigger"):
        open_study(tmp_path, {"baseline": config(replace(settings, model="bigger"))})
