"""The page at / in a real browser: what is shown of a search while it runs and after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from browser import IDLE, READY, Browser, needs_browser
from made_up import PRETENDING, result, shown, step

from edge_tts.bench.server_process import ServerProcess, running_server
from edge_tts.packs.pack import Pack
from edge_tts.server import page

TOKEN = "secret"
BEST = {"type": "best", "answer": "28", "score": 1, "confidence": 0.7, "seconds": 0.6}


@pytest.fixture(scope="module")
def server(pack: Pack) -> Iterator[ServerProcess]:
    with running_server() as running:
        yield running


@pytest.fixture(params=[1280, 390])
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path, request.param)
    yield made
    made.close()


# --- a search of the built-in pack -----------------------------------------------------------------------


@needs_browser
def test_a_search_is_shown_as_it_runs(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(strategy="majority", generations="8", deadline="25")
    browser.click("#go")
    browser.wait("document.querySelectorAll('.sample').length > 1")
    assert browser.text("#go") == "Stop"
    assert browser.text(".state") != "ANSWER"  # samples are shown before the answer
    browser.wait(IDLE)
    assert browser.text(".state") == "ANSWER"
    assert browser.text(".best") == "76"
    assert re.fullmatch(r"about 9\d% sure|likely, about \d\d%", browser.text(".certainty"))
    assert browser.text(".support") == "8 of 8 samples agree"
    assert browser.count(".sample") == 8
    assert browser.count(".sample.chosen") == 1
    assert browser.text(".group").split() == ["76", "8"]
    assert browser.text(".steps").splitlines()[0] == "12*8=96"
    assert "####" not in browser.text("main")
    facts = browser.text(".facts")
    for part in (r"Strategy\s+majority:n=8", r"Stopped\s+all samples were drawn", r"Tokens\s+\d"):
        assert re.search(part, facts), facts
    assert browser.text(".reasons") == ""  # it was asked for
    assert "8 of 8 finished" in browser.text(".count")
    assert re.search(r"of 25 s", browser.text(".time"))
    assert browser.said == []
    asked = {url.removeprefix(server.url) for url in browser.requests}
    assert asked == {*page.PATHS, "/v1/models", "/page/models", "/v1/chat/completions"}
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_auto_says_how_hard_it_was_and_why_it_stopped(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(strategy="auto", generations="8", deadline="25")
    browser.click("#go")
    browser.wait(IDLE)
    assert browser.text(".best") == "76"
    facts = browser.text(".facts")
    for part in (r"Difficulty\s+[1-5] of 5", r"Strategy\s+adaptive:n=8", r"Stopped\s+that is sure enough"):
        assert re.search(part, facts), facts
    assert re.search(r"\d\d% sure is enough", browser.text(".reasons"))


@needs_browser
@pytest.mark.parametrize("strategy", ["beam", "revise"])
def test_strategies_that_number_their_candidates_again(browser: Browser, server: ServerProcess, strategy: str) -> None:
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(strategy=strategy, generations="4")
    browser.click("#go")
    browser.wait(IDLE)
    assert browser.text(".best") == "76"
    tree = browser.text(".tree")
    assert {"beam": "×4", "revise": "#1, attempt 2"}[strategy] in tree
    assert browser.count(".tree li.chosen") > 0
    assert browser.said == []
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_stop(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(strategy="majority", generations="64")
    browser.click("#go")
    browser.wait("document.querySelector('.state')?.textContent === 'Best so far'")
    browser.click(".turn .stop")
    browser.wait(IDLE, 2)
    assert browser.text(".state") == "STOPPED, BEST SO FAR"
    assert browser.text(".best").isdigit()
    assert re.fullmatch(r"\d+ of 64 samples had finished", browser.text(".support"))
    assert browser.count(".answer.sure") == browser.text(".certainty").startswith("about 9")
    assert server.wait_until_idle(1)
    assert browser.text("#problem") == ""
    browser.fill(question="What is 6 times 7?", strategy="greedy", generations="1")  # and again
    browser.click("#go")
    browser.wait(IDLE)
    assert browser.text(".state") == "ANSWER"
    assert browser.count(".turn") == 2
    assert browser.text(".support") == "one sample, so there was no vote"


@needs_browser
def test_a_blank_question_is_answered_with_a_sentence(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(question="  \n ")
    browser.click("#go")
    assert browser.text("#problem") == "Write a question first, for example: What is 15% of 80?"
    assert browser.run("document.activeElement.id") == "question"
    assert browser.count(".turn") == 0


@needs_browser
def test_what_limits_the_model_is_shown(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    browser.wait(READY)
    browser.run("document.getElementById('about').open = document.getElementById('more').open = true")
    assert re.search(r"smol-math .* MB", browser.text("#model"))
    limits = browser.text("#limits")
    for name in ("Memory plan", "Longest sample", "tokens of context", "for an answer"):
        assert name in limits
    assert "It reads neither a system prompt nor earlier questions." in browser.text("#only")


# --- a chat: what is sent, with a model that reads system prompts -------------------------------------------


@needs_browser
def test_a_chat_keeps_its_turns(browser: Browser, server: ServerProcess) -> None:
    """The answer to the list of models says that this one chats; it is the requests that are looked at."""
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(secret="not needed")
    browser.run(PRETENDING)
    browser.run("document.getElementById('token').requestSubmit()")  # reads the list of models again
    browser.wait("document.getElementById('format').options.length === 3")
    assert browser.count("#new:not([hidden])") == 0
    browser.fill(system="Be brief.", strategy="greedy", question="What is 6 times 7?")
    for question in ("And 6 times 8?", "And 6 times 9?"):
        browser.click("#go")
        browser.wait(IDLE)
        assert browser.text("#asking") == "FOLLOW-UP"
        browser.fill(question=question)
    first, second = browser.run("window.sent")
    assert (first["edge"]["format"], first["edge"]["kind"], first["edge"]["explain"]) == ("auto", None, False)
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    roles = [message["role"] for message in second["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert second["messages"][0]["content"] == "Be brief."
    assert "42" in second["messages"][2]["content"]
    browser.fill(question="word " * 300)  # leaves no room for what was said before
    browser.click("#go")
    browser.wait(IDLE)
    assert [message["role"] for message in browser.run("window.sent.at(-1)")["messages"]] == ["system", "user"]
    assert "earlier questions that did not fit: 2" in browser.text(".reasons")
    browser.click("#new")
    assert browser.count(".turn") == 0
    browser.fill(question="What is 2 times 3?")
    browser.click("#go")
    browser.wait(IDLE)
    assert [message["role"] for message in browser.run("window.sent.at(-1)")["messages"]] == ["system", "user"]


# --- searches made up ------------------------------------------------------------------------------------


@needs_browser
@pytest.mark.parametrize(
    ("confidence", "level", "words"),
    [(0.95, "sure", "about 95% sure"), (0.7, "likely", "likely, about 70%"), (0.2, "guess", "a guess, 20%")],
)
def test_colours_and_words_follow_the_confidence(
    browser: Browser, server: ServerProcess, confidence: float, level: str, words: str
) -> None:
    browser.open(server.url)
    green = browser.run("getComputedStyle(document.documentElement).getPropertyValue('--good')")
    events = [step(i, f"x={i}", f"#### {i or 28}", answer=str(i or 28)) for i in range(7)]
    votes = [[str(i or 28), round(1 / 7, 4)] for i in range(7)]
    shown(browser, events, result(confidence=confidence, support=1 / 7, votes=votes), "x=0\n#### 28")
    assert browser.text(".certainty") == words
    assert browser.text(".support") == "1 of 7 samples agrees"
    assert browser.count(f".answer.{level}") == 1
    used = browser.run(
        "(probe => [getComputedStyle(probe).borderLeftColor, getComputedStyle(document.querySelector('.certainty'))"
        ".color])(document.querySelector('.answer'))"
    )
    browser.run(f"document.body.style.color = '{green}'")
    assert (used == [browser.run("getComputedStyle(document.body).color")] * 2) == (level == "sure")
    assert "####" not in browser.text("main")


@needs_browser
def test_samples_that_failed_and_ran_away(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    events = [
        step(0, "total = boxes * 8  # 96", values=[{"name": "total", "value": "96"}]),
        step(0, "total = boxes * 8  # 96", "answer = total  # 96", answer="96", values=[{"name": "a", "value": "96"}]),
        {**step(1, "x = y"), "finished": True, "error": "NameError: name 'y' is not defined"},
        step(2, "so " * 30_000),
        {"type": "weighing", "reason": "something that this page does not know"},
        {"type": "decided", "action": "stop", "reason": "the vote is settled"},
        {"type": "new kind without a reason", "x": 1},
    ]
    text = "```python\ntotal = boxes * 8  # 96\nanswer = total  # 96\n```\n\nThe answer is 96."
    shown(browser, events, result("96", format="program", votes=[["96", 1.0]]), text)
    assert browser.text(".steps").split("\n") == ["total = boxes * 8", "96", "answer = total", "96"]
    assert browser.text(".support") == "only one sample reached an answer; 1 ended without one"
    assert "NameError" in browser.text(".failed")
    assert "failed on the way" in browser.text(".failed")
    for reason in ("something that this page does not know", "the vote is settled"):
        assert reason in browser.text(".reasons")
    heights = browser.run("[...document.querySelectorAll('.sample > summary')].map(each => each.offsetHeight)")
    assert len(heights) == 3
    assert max(heights) < 40
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.run("for (const each of document.querySelectorAll('.sample')) each.open = true")
    assert "more characters" in browser.text(".tree")


@needs_browser
def test_a_search_that_is_stopped_early(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    shown(browser, [{**step(i, "cut"), "finished": True} for i in range(4)] + [step(4, "going on")])
    assert browser.text(".best") == "no answer: 4 of 64 samples had finished, none of them with an answer"
    assert browser.text(".count") == "4 of 64 finished"
    shown(browser, [step(0, "going on")])
    assert browser.text(".best") == "no answer: no sample had finished"


@needs_browser
def test_mathematics_is_typeset(browser: Browser, server: ServerProcess) -> None:
    browser.open(server.url)
    steps = [r"Half of \(\frac{3}{4}\) costs $5 and $6.", r"So \[ x^2 = \boxed{\frac{3}{8}} \]", r"It is \boxed{7}."]
    events = [step(0, *steps, answer=r"\frac{3}{8}")]
    shown(browser, events, result(r"\frac{3}{8}", format="text"), "\n\n".join(steps))
    browser.wait("document.querySelectorAll('.steps math').length === 2")
    assert browser.count(".best mfrac") == browser.count(".group mfrac") == 1
    browser.run("document.querySelector('.sample').open = true")
    browser.wait("document.querySelectorAll('.body math').length === 2")
    assert browser.count(".steps mfrac") == 2
    text = browser.text(".steps")
    assert "costs $5 and $6." in text
    assert "boxed" not in browser.text("main")
    assert "frac" not in text
    assert browser.text(".steps strong") == "7"
    shown(browser, events, result(r"\frac{", format="text"), r"\(\frac{\)")  # what cannot be read stays
    browser.wait("document.querySelectorAll('.turn').length === 2")
    assert browser.text(".best") == r"\frac{"


@needs_browser
def test_copy_and_save(browser: Browser, server: ServerProcess, tmp_path: Path) -> None:
    browser.open(server.url)
    browser("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    shown(browser, [step(0, "7*4=28", "#### 28", answer="28")], result(votes=[["28", 1.0]]), "7*4=28\n#### 28")
    browser.click(".copy")
    browser.wait("document.querySelector('.said').textContent === 'copied'")
    assert browser.run("navigator.clipboard.readText()") == "28"
    assert saved(browser, tmp_path) == ["How many?", "28 (a guess, 20%)", "28", "1 sample, 100% of the vote"]
    shown(browser, [{**step(0, "7*4", "#### 28", answer="28"), "seconds": 0.5}, BEST, step(1, "7*")])  # stopped
    assert saved(browser, tmp_path) == ["How many?", "28 (likely, about 70%)", "28", "1 sample, 100% of the vote"]


def saved(browser: Browser, folder: Path) -> list[str]:
    """Press the button of the last search, and read the page that is saved: question, answer, first group."""
    for path in folder.glob("search-*"):
        path.unlink()
    browser.click(".save")
    browser.wait("[...document.querySelectorAll('.said')].at(-1).textContent.startsWith('saved as search-')")
    for _ in range(100):
        if found := list(folder.glob("search-*.html")):
            break
        browser.run("new Promise(done => setTimeout(done, 50))")
    text = found[0].read_text("utf-8")
    assert not {"script", "link", "img"} & {tag for tag, _ in Tags(text).found}
    for name in ("time line", "a model 1.0", "stopped because"):
        assert name in text
    question, answer = (re.findall(pattern, text)[0] for pattern in ("<h1>(.*)</h1>", r'class="answer \w+">(.*)</p>'))
    ((name, share),) = re.findall(r"<summary><b>(\d+)</b>(.*)\n", text)
    return [question, re.sub("<.*?>", "", answer), name, share]


@needs_browser
def test_text_is_never_markup(browser: Browser, server: ServerProcess) -> None:
    """Neither in the question, nor in errors, nor in what a model writes."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    browser.open(server.url)
    browser.wait(READY)
    browser.fill(question=evil + " word" * 2000)
    browser.click("#go")
    browser.wait("!document.getElementById('problem').hidden")
    assert "the policy's context" in browser.text("#problem")
    formula = rf"\(\text{{{evil}}}\) \(\href{{javascript:alert(3)}}{{x}}\) $\style{{width:1px}}{{y}}$"
    events = [
        {"type": "strategy", "strategy": evil, "reason": evil},
        step(0, evil),
        step(0, evil, formula, f"#### {evil}", answer=evil),
        {"type": "best", "answer": evil, "score": 1},
    ]
    end = result(evil, format="text", stopped=evil)
    shown(browser, events, end, "\n\n".join([evil, formula, f"#### {evil}"]))
    for place in (".best", ".steps", ".tree", ".facts", ".reasons"):
        assert evil in browser.text(place)
    browser.wait("document.querySelectorAll('.steps math').length > 0")
    assert (
        browser.run(
            "document.querySelectorAll('main img, main script, main [href], main [style*=width\\\\:1px]').length"
        )
        == 0
    )
    assert [said for said in browser.said if "status of 400" not in str(said)] == []


@needs_browser
def test_the_page_asks_for_the_token(browser: Browser, pack: Pack) -> None:
    with running_server("--token", TOKEN) as server:
        browser.open(server.url)
        browser.wait("!document.getElementById('token').hidden")
        browser.fill(secret="wrong")
        browser.run("document.getElementById('token').requestSubmit()")
        browser.wait("!document.getElementById('token').hidden && performance.getEntriesByType('resource').length > 6")
        browser.fill(secret=TOKEN)
        browser.run("document.getElementById('token').requestSubmit()")
        browser.wait(READY)
        browser.fill(strategy="greedy")
        browser.click("#go")
        browser.wait(IDLE)
        assert browser.text(".best") == "76"


# --- the files -------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags of a document with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing_from_elsewhere(server: ServerProcess) -> None:
    for path, (name, kind) in page.PATHS.items():
        response = httpx.get(server.url + path)
        assert response.text == files("edge_tts.server").joinpath("web", name).read_text("utf-8")
        assert response.headers["content-type"].partition(";")[0] == kind
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        for forbidden in ("innerHTML", "insertAdjacentHTML", "eval(", "@import", "url("):
            assert forbidden not in response.text
        addresses = re.findall(r"""["'](https?://[^"']+)""", response.text)
        assert set(addresses) <= {"http://www.w3.org/1998/Math/MathML"}
    text = httpx.get(server.url).text
    tags = Tags(text).found
    assert not {"img", "iframe", "object", "base", "style"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert not {"srcset", "style"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")]
        assert {attributes.get("src"), attributes.get("href")} <= {None, "data:,", *page.PATHS}
    labelled = [attributes for tag, attributes in tags if tag in ("textarea", "select", "input")]
    assert len(labelled) == text.count("<label")
    assert dict(tags)["html"] == {"lang": "en"}
