"""The page for everybody: axe-core finds nothing, and a keyboard is enough."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from browser import IDLE, READY, Browser, needs_browser
from made_up import result, shown, step
from server_requests import error

from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.packs.pack import Pack

JSON = {"Content-Type": "application/json"}
AXE = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
LOADING = """{current: "smol-math", problem: "", loading: {name: "large", share: 0.4, doing: "downloading large"},
  models: [{name: "smol-math", is_here: true, size: 1}, {name: "large", is_here: false, size: 1.2e9}]}"""
PROBLEMS = (
    "axe.run().then(found => found.violations.map(each => "
    "`${each.id}: ${each.nodes.map(node => node.html.slice(0, 120)).join(' | ')}`))"
)


@pytest.fixture(scope="module")
def server(pack: Pack) -> Iterator[ServerProcess]:
    with running_server() as running:
        yield running


@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(server: ServerProcess, tmp_path: Path, width: int, theme: str) -> None:
    browser = Browser(tmp_path, width, theme)
    try:
        browser.open(server.url)
        browser.wait(READY)
        browser.run(AXE)
        assert browser.run(PROBLEMS) == []
        browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
        assert browser.text("#use") == "Load"
        browser.run("import('/page/models.js').then(({Models}) => new Models(null, null).show(" + LOADING + "))")
        assert "downloading" in browser.text("#loading")
        assert browser.run(PROBLEMS) == []
        browser.fill(question="  ")
        browser.click("#go")
        assert browser.run(PROBLEMS) == []
        browser.fill(question="How many days have 7 weeks and 3 days?", strategy="majority", generations="16")
        browser.click("#go")
        browser.wait("document.querySelectorAll('.sample').length > 1")
        assert browser.run(PROBLEMS) == []
        browser.wait(IDLE)
        browser.run("for (const each of document.querySelectorAll('.sample')) each.open = true")
        assert browser.run(PROBLEMS) == []
        for confidence in (0.95, 0.7, 0.55, 0.2):
            failed = {**step(1, "x = y"), "finished": True, "error": "NameError", "doubts": ["2*2=5"]}
            answered = step(0, r"So \(\frac{3}{4}\) of `it` is **28**.", answer="28")
            shown(browser, [answered, failed], result(confidence=confidence, format="text"), answered["steps"][0])
        shown(browser, [failed], result(None, partial=["x = y"]))
        shown(browser, [answered])
        browser.run("for (const each of document.querySelectorAll('.sample')) each.open = true")
        assert browser.run(PROBLEMS) == []
    finally:
        browser.close()


@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_a_saved_search(server: ServerProcess, tmp_path: Path, theme: str) -> None:
    failed = {**step(1, "x = y"), "finished": True, "error": "NameError", "doubts": ["2*2=5"]}
    events = [step(0, "7*4=28", answer="28"), {"type": "score", "candidate": 0, "score": 0.4}, failed, step(2, "cut")]
    asked = {"question": "How many?", "earlier": [{"role": "user", "content": "Hello"}], "model": "a model", "edge": {}}
    saved, browser = tmp_path / "saved.html", Browser(tmp_path / "profile", 390, theme)
    try:
        for confidence in (0.95, 0.7, 0.55, 0.2):
            body = {**asked, "events": events, "result": result(confidence=confidence, votes=[["28", 1.0]])}
            answer = httpx.post(f"{server.url}/page/search", json=body)
            assert answer.status_code == 200
            saved.write_text(answer.text, "utf-8")
            browser("Page.setBypassCSP", enabled=True)  # the page lets no script run, axe-core neither
            browser("Page.navigate", url=saved.as_uri())
            browser.wait(f"document.readyState === 'complete' && document.body.innerText.includes('{confidence:.0%}')")
            browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
            browser.run(AXE)
            assert browser.run(PROBLEMS) == []
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.close()


def test_what_no_search_tells_is_refused(server: ServerProcess) -> None:
    asked = {"question": "How many?", "earlier": [], "model": "a model", "edge": {}, "events": [], "result": result()}
    for change in (
        {"events": [{"type": "step", "candidate": "x"}]},
        {"events": [{"type": "best", "answer": "28", "score": 1, "seconds": "soon"}]},
        {"result": {"answer": 5}},
        {"result": {**result(), "confidence": 7}},
        {"result": {**result(), "usage": {**result()["usage"], "seconds": 1e308 * 10}}},
        {"question": 5},
    ):
        response = httpx.post(f"{server.url}/page/search", content=json.dumps({**asked, **change}), headers=JSON)
        assert response.status_code == 400, change
        assert len(error(response)["message"]) < 400


@needs_browser
def test_a_keyboard_is_enough(server: ServerProcess, tmp_path: Path) -> None:
    browser = Browser(tmp_path, 1280)
    try:
        browser.open(server.url)
        browser.wait(READY)

        def tab(to: str) -> None:
            for _ in range(80):
                browser.press("Tab")
                if browser.run(f"document.activeElement.matches({to!r})"):
                    return
            raise AssertionError(f"{to} cannot be reached")

        for place in ("summary#model", "#question", "#strategy", "#generations", "#deadline", "#go", "#more > summary"):
            tab(place)
        tab("#examples button")
        browser.press("Enter")
        assert browser.run("document.activeElement.id") == "question"
        browser.fill(strategy="majority", generations="64")
        browser.press("Enter", modifiers=2)
        browser.wait("document.querySelector('.state')?.textContent === 'Best so far'")
        assert browser.run("document.activeElement.matches('.turn .stop')")
        browser.press("Escape")
        browser.wait(IDLE, 2)
        assert browser.text(".state") == "STOPPED, BEST SO FAR"
        assert browser.run("document.activeElement.matches('.copy')")
        tab(".save")
        tab(".sample > summary")
        browser.press("Enter")
        assert browser.count(".sample[open]") == 1
        tab("#new")
        browser.press(" ")
        assert browser.count(".turn") == 0
    finally:
        browser.close()
