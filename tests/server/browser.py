"""A real browser for the tests of the page, driven through its debugging pipe."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
READY = "document.getElementById('strategy').options.length > 0"
IDLE = "document.getElementById('go').textContent === 'Solve'"

needs_browser = pytest.mark.skipif(CHROMIUM is None or os.name == "nt", reason="needs Chromium")


class Browser:
    """One tab, driven by the DevTools protocol over file descriptors 3 and 4; a zero byte ends each message."""

    def __init__(self, folder: Path, width: int, theme: str = "light") -> None:
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
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

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
        self.wait("location.protocol !== 'about:' && document.readyState === 'complete'")
        # Without a seed every search is another one; the tests want the same one each time.
        self.run(
            "window.fetch = (send => (path, options) => send(path, path.startsWith('/v1/chat') ? {...options, "
            "body: JSON.stringify({...JSON.parse(options.body), seed: 0})} : options))(window.fetch)"
        )

    def run(self, code: str) -> Any:
        """The value of an expression in the page, or what its promise resolves to."""
        answer = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, code: str, seconds: float = 30) -> None:
        ends = time.monotonic() + seconds
        while not self.run(code):
            assert time.monotonic() < ends, code
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What is seen of the last visible element that matches; empty where there is none."""
        visible = f"[...document.querySelectorAll({json.dumps(selector)})].filter(each => each.checkVisibility())"
        return str(self.run(f"{visible}.at(-1)?.innerText ?? ''"))

    def count(self, selector: str) -> int:
        return int(self.run(f"document.querySelectorAll({json.dumps(selector)}).length"))

    def fill(self, **values: str) -> None:
        for id, value in values.items():
            self.run(f"document.getElementById('{id}').value = {json.dumps(value)}")

    def click(self, selector: str) -> None:
        """Click the last element that matches."""
        self.run(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1).click()")

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key where the focus is; ``modifiers`` 2 is Ctrl, 8 Shift."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        known = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key], "modifiers": modifiers}
        text = {"Enter": "\r", " ": " "}.get(key)
        self("Input.dispatchKeyEvent", type="keyDown", **known, **({"text": text} if text else {}))
        self("Input.dispatchKeyEvent", type="keyUp", **known)

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}
        shot = self("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._in.close()
