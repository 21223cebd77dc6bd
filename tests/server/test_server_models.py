"""The choice of a model: what is offered, what a change does to requests, and what happens where it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from server_requests import error

from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.errors import ResourceError
from edge_tts.packs.pack import Pack
from edge_tts.server.admission import Admission
from edge_tts.server.api_error import ApiError
from edge_tts.server.served import ServedModel
from edge_tts.solver import Solver


@pytest.fixture(scope="module")
def two(pack: Pack, coder_05b: Path) -> Iterator[ServerProcess]:
    """A server that begins with a chat model and knows the built-in pack."""
    with running_server("--model", str(coder_05b), "--memory", "1200", "--deadline", "120") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text("utf-8")


def changed(url: str, seconds: float = 60) -> dict[str, Any]:
    """What there is to choose once no change is under way."""
    ends = time.monotonic() + seconds
    while (found := httpx.get(f"{url}/page/models").json())["loading"]:
        assert time.monotonic() < ends
        time.sleep(0.1)
    return dict(found)


def test_another_model_answers(two: ServerProcess) -> None:
    first = httpx.get(f"{two.url}/page/models").json()
    known = {model["name"]: model for model in first["models"]}
    assert {first["current"], "smol-math"} <= set(known)
    assert known["smol-math"]["is_here"]
    assert "qwen2.5-coder-3b" not in known  # it does not fit 1,200 MB
    with OpenAI(base_url=f"{two.url}/v1", api_key="none", max_retries=5, timeout=120) as client:
        for name in ("smol-math", first["current"]):
            answer = httpx.post(f"{two.url}/page/model", json={"name": name})
            assert answer.status_code == 202
            assert answer.json()["loading"]["name"] == name
            again = httpx.post(f"{two.url}/page/model", json={"name": name})
            assert (again.status_code, error(again)["code"]) == (409, "loading")
            found = changed(two.url)
            assert (found["current"], found["problem"]) == (name, "")
            assert [model.id for model in client.models.list()] == [name]
            made = client.chat.completions.create(
                model=name,
                messages=[{"role": "user", "content": "What is 6 times 7?"}],
                extra_body={"edge": {"generations": 2}},
            )
            assert made.model == name
            assert made.choices[0].message.content
    schemas = httpx.get(f"{two.url}/openapi.json").json()["components"]["schemas"]
    assert schemas["ChatRequest"]["properties"]["model"]["enum"] == [first["current"]]


def test_what_is_not_offered_is_refused(two: ServerProcess, tmp_path: Path) -> None:
    """A path or a hub id neither: a body that anybody sends must not open files or fetch."""
    for name in ("gpt-5", str(tmp_path), "owner/repo", "", "qwen2.5-coder-3b"):
        refused = httpx.post(f"{two.url}/page/model", json={"name": name})
        assert (refused.status_code, error(refused)["code"]) == (404, "model_not_found")
    current = httpx.get(f"{two.url}/page/models").json()["current"]
    assert httpx.post(f"{two.url}/page/model", json={"name": current}).json()["loading"] is None


def test_a_model_that_cannot_be_loaded_leaves_the_one_before(pack: Pack) -> None:
    opened: list[str | None] = []

    def open_model(name: str | None, _: object) -> Solver:
        opened.append(name)
        if name is not None:
            raise ResourceError("the memory cap is too small")
        return Solver(pack, generations=2)

    async def change(served: ServedModel) -> None:
        served._first = "another"  # so that the pack is one of those offered by name
        served.about = {**served.about, "id": "another"}
        served.change("smol-math")
        while served.choices()["loading"]:
            await asyncio.sleep(0.05)

    served = ServedModel(Solver(pack, generations=2), Admission(2, 2), open_model)
    try:
        asyncio.run(change(served))
        assert opened == ["smol-math", None]
        assert served.choices()["problem"] == "smol-math was not loaded: the memory cap is too small"
        assert served.ready.solve("What is 6 times 7?").answer == "42"
    finally:
        served.close()


def test_without_a_way_to_load_others_there_is_one_to_choose(pack: Pack) -> None:
    with Solver(pack, generations=2) as solver:
        served = ServedModel(solver, Admission(2, 2))
        assert [model["name"] for model in served.choices()["models"]] == [pack.name]


def test_requests_are_refused_in_a_pause_and_those_accepted_finish() -> None:
    async def pause() -> list[str]:
        happened = []
        admission = Admission(1, 4)

        async def hold(name: str) -> None:
            async with admission.slot(5):
                happened.append(f"{name} begins")
                await asyncio.sleep(0.1)
            happened.append(f"{name} ends")

        accepted = [asyncio.create_task(hold(name)) for name in ("first", "second")]
        await asyncio.sleep(0)
        admission.pause("a model is being loaded")
        with pytest.raises(ApiError, match="a model is being loaded; try again in 5 s") as refused:
            await hold("third")
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
        await admission.idle()
        happened.append("idle")
        admission.resume(2)
        await asyncio.gather(hold("fourth"), hold("fifth"), *accepted)
        return happened

    happened = asyncio.run(pause())
    assert happened[:5] == ["first begins", "first ends", "second begins", "second ends", "idle"]
    assert set(happened[5:7]) == {"fourth begins", "fifth begins"}
