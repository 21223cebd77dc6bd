"""The page at / in a real browser, driven through its debugging pipe."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.packs.pack import Pack

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TOKEN = "secret"
READY = "document.getElementById('strategy').options.length > 0"
IDLE = "document.getElementById('go').textContent === 'Solve'"

needs_browser = pytest.mark.skipif(CHROMIUM is None or os.name == "nt", reason="needs Chromium")


class Browser:
    """One tab, driven by the DevTools protocol over file descriptors 3 and 4; a zero byte ends each message."""

    def __init__(self, folder: Path, width: int) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        # Chromium expects descriptors 3 and 4, and Popen cannot choose descriptor numbers: the shell does.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = ["bash", "-c", script, "-", str(CHROMIUM), *options, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._numbers, self._session = itertools.count(1), ""
        self.said: list[dict[str, Any]] = []
        """Log entries, exceptions and dialogs since the last ``open``."""
        self.requests: list[str] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        self("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Run a command and return its result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        self._out.write(json.dumps({"id": number, "method": method, "params": params, **session}).encode() + b"\0")
        self._out.flush()
        while True:
            message = json.loads(b"".join(iter(lambda: self._in.read(1), b"\0")))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
                self.said.append(message["params"])
            elif message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])

    def open(self, url: str) -> None:
        self.requests, self.said = [], []
        self("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")
        # Without a seed every search is another one; the tests want the same one each time.
        self.run(
            "window.fetch = (send => (path, options) => send(path, options.body ? {...options, "
            "body: JSON.stringify({...JSON.parse(options.body), seed: 0})} : options))(window.fetch)"
        )

    def run(self, code: str) -> Any:
        """The value of an expression in the page."""
        answer = self("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = 30) -> None:
        ends = time.monotonic() + seconds
        while not self.run(code):
            assert time.monotonic() < ends, code
            time.sleep(0.02)

    def text(self, id: str) -> str:
        return str(self.run(f"document.getElementById('{id}').innerText"))

    def fill(self, **values: str) -> None:
        for id, value in values.items():
            self.run(f"document.getElementById('{id}').value = {json.dumps(value)}")

    def click(self, id: str) -> None:
        self.run(f"document.getElementById('{id}').click()")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._in.close()


@pytest.fixture(scope="module")
def server(pack: Pack) -> Iterator[ServerProcess]:
    with running_server() as running:
        yield running


@pytest.fixture(params=[1280, 375])
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path, request.param)
    yield made
    made.close()


@needs_browser
def test_a_search_is_shown_as_it_runs(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(strategy="auto", generations="8", deadline="25")
    browser.click("go")
    browser.wait("document.querySelectorAll('.candidate').length > 1")
    assert browser.text("go") == "Stop"
    assert browser.text("state") != "ANSWER"  # candidates are shown before the answer
    browser.wait(IDLE)
    assert browser.text("state") == "ANSWER"
    assert browser.text("best") == "76"
    assert "% of the vote" in browser.text("support")
    assert browser.run("document.querySelectorAll('.candidate').length") == 8
    assert browser.run("document.querySelectorAll('.candidate.chosen').length") == 1
    assert browser.run("document.querySelectorAll('.candidate .bar:not([hidden])').length") > 3
    assert re.search(r"[1-5] of 5", browser.text("difficulty"))
    assert "n=8" in browser.text("chosen")
    assert "best on validation" in browser.text("reason")
    assert "8 of 8 finished" in browser.text("count")
    assert re.search(r"of 25 s", browser.text("time"))
    assert browser.text("trace").splitlines()[0] == "12*8=96"
    assert "Policy tokens" in browser.text("usage")
    assert browser.said == []
    assert {url.removeprefix(server.url) for url in browser.requests} == {"/", "/v1/models", "/v1/chat/completions"}
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
@pytest.mark.parametrize("strategy", ["beam", "revise"])
def test_strategies_that_number_their_candidates_again(browser: Browser, server: ServerProcess, strategy: str) -> None:
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(strategy=strategy, generations="4")
    browser.click("go")
    browser.wait(IDLE)
    assert browser.text("best") == "76"
    title = {"beam": "step 1", "revise": "#1"}[strategy]
    assert title in browser.text("candidates")
    assert browser.said == []
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_stop(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(strategy="majority", generations="64")
    browser.click("go")
    browser.wait("document.getElementById('state').textContent === 'Best so far'")
    browser.click("go")
    browser.wait(IDLE, 2)
    assert browser.text("state") == "STOPPED, BEST SO FAR"
    assert browser.text("best").isdigit()
    assert server.wait_until_idle(1)
    assert browser.text("problem") == ""
    browser.fill(strategy="greedy", generations="1")  # and again
    browser.click("go")
    browser.wait(IDLE)
    assert browser.text("state") == "ANSWER"


@needs_browser
def test_text_is_never_markup(browser: Browser, server: ServerProcess) -> None:
    """Neither in the question, nor in errors, nor in what a model writes."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(question=evil + " word" * 2000)
    browser.click("go")
    browser.wait("!document.getElementById('problem').hidden")
    assert "the policy's context" in browser.text("problem")
    usage = {"seconds": 1, "policy_tokens": 1, "verifier_tokens": 1, "policy_flops": 1, "verifier_flops": 1}
    result = {"finished": True, "answer": evil, "support": 1, "scores": [0.5], "stop_reason": evil}
    events = [
        {"type": "strategy", "strategy": evil, "reason": evil},
        {"type": "step", "candidate": 0, "text": evil, "finished": False},
        {"type": "step", "candidate": 0, "text": f"#### {evil}", "finished": True},
        {"type": "best", "answer": evil, "score": 1},
    ]
    result["usage"] = {**usage, "peak_memory_mb": 1}
    browser.run(
        f"const made = new Run(1, 1); for (const event of {json.dumps(events)}) made.take(event);"
        f"made.end({json.dumps(result)}, {json.dumps(evil)}); made.close(); complain(new Error({json.dumps(evil)}))"
    )
    for id in ("best", "trace", "candidates", "votes", "chosen", "reason", "problem"):
        assert evil in browser.text(id)
    assert browser.run("document.querySelectorAll('main img, main script').length") == 0
    assert [said for said in browser.said if "status of 400" not in str(said)] == []


@needs_browser
def test_the_page_asks_for_the_token(browser: Browser, pack: Pack) -> None:
    with running_server("--token", TOKEN) as server:
        browser.open(server.url)
        browser.wait("!document.getElementById('token').hidden")
        browser.fill(secret="wrong")
        browser.run("document.getElementById('token').requestSubmit()")
        browser.wait(
            "document.getElementById('token').hidden === false && performance.getEntriesByType('resource').length > 1"
        )
        browser.fill(secret=TOKEN)
        browser.run("document.getElementById('token').requestSubmit()")
        browser.wait(READY)
        browser.fill(strategy="greedy")
        browser.click("go")
        browser.wait(IDLE)
        assert browser.text("best") == "76"


class Tags(HTMLParser):
    """The tags of a document with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing_else(server: ServerProcess) -> None:
    response = httpx.get(server.url)
    text = response.text
    assert text == files("edge_tts.server").joinpath("page.html").read_text("utf-8")
    tags = Tags(text).found
    assert not {"img", "iframe", "object", "base"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert not {"src", "srcset", "style"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "data:,") == "data:,"
    assert "innerHTML" not in text
    assert "@import" not in text
    assert "url(" not in text
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    labelled = [attributes for tag, attributes in tags if tag in ("textarea", "select", "input")]
    assert len(labelled) == text.count("<label")
    assert dict(tags)["html"] == {"lang": "en"}
