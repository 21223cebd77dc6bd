"""The page for everybody: axe-core finds nothing, and a keyboard is enough."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from browser import IDLE, READY, Browser, needs_browser
from made_up import result, shown, step

from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.packs.pack import Pack

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
        browser.fill(question="How many days have 7 weeks and 3 days?", strategy="majority", generations="64")
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
