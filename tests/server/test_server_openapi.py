"""Requests made from the server's own description: none gets a 5xx, none hangs, every answer is as described.

    EDGE_REASON_FUZZ_REQUESTS=2000 pytest tests/server/test_server_openapi.py

sends 2,000 of them instead of 200.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from server_requests import QUESTION

from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.packs.pack import Pack

REQUESTS = int(os.environ.get("EDGE_REASON_FUZZ_REQUESTS", "100"))
DEADLINE_S = 0.5
"""Of the server: bounds what a request may ask for."""
SECONDS = 20.0
"""After which a request counts as hanging."""
VOTES = ("auto", "greedy", "majority:n=2", "adaptive", "weighted:n=2")
STRATEGIES = (*VOTES, "beam:n=4,m=2", "particles:n=2", "revise:n=2,s=2")

load_all_checks()
CHECKED = CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)


@pytest.fixture(scope="module")
def server(pack: Pack) -> Iterator[ServerProcess]:
    with running_server("--deadline", str(DEADLINE_S), "--parallel", "2") as running:
        yield running
        assert running.stop() == 0
        log = running.log.read_text("utf-8")
        assert "internal error" not in log, log


def answerable(body: dict[str, Any], strategy: str) -> dict[str, Any]:
    """``body`` with a question and a strategy that the model can take, so that what is behind the checks is reached."""
    known = {name: value for name, value in body.items() if name in KEPT}
    asking = {"messages": [{"role": "user", "content": QUESTION}], "prompt": QUESTION, "input": QUESTION}
    question = {name: value for name, value in asking.items() if name in body}
    return {**known, **question, "stream_options": None, "edge": {"strategy": strategy}}


KEPT = ("model", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stream", "n")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_breaks_the_server(server: ServerProcess, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    posts = [operation for operation in operations if operation.method == "post"]
    assert len(posts) == 3
    statuses: Counter[int] = Counter()
    sent: list[Any] = []
    # Nothing can be wrong with a request without a body.
    others = [] if mode is GenerationMode.NEGATIVE else [found for found in operations if found.method != "post"]

    for operation in posts + others:

        @settings(
            max_examples=REQUESTS // 6 if operation.method == "post" else REQUESTS // 40,
            deadline=None,
            database=None,
            derandomize=REQUESTS == 100,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), strategy=st.sampled_from([None, *STRATEGIES]))
        def probe(case: Case, strategy: str | None) -> None:
            if strategy and mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                case.body = answerable(case.body, strategy)
            response = case.call(timeout=SECONDS)
            statuses[response.status_code] += 1
            sent.append(case.method)
            case.validate_response(response, checks=CHECKED)

        probe()
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert server.wait_until_idle(5)
    print(f"{len(sent)} requests: {dict(statuses)}")
    assert len(sent) >= 0.4 * REQUESTS
    if mode is GenerationMode.POSITIVE:
        assert statuses[200] >= len(sent) // 4
    else:
        assert statuses[400] >= len(sent) // 2
