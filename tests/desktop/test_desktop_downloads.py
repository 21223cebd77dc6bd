"""Models that the desktop app downloads when the user agrees."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import hub_server
import pytest
from desktop_app import QUESTION, application, serve
from edge_desktop.theme import Theme
from edge_desktop.window import Window
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication, QInputDialog
from tiny_model import write_tiny_model


@pytest.fixture
def app() -> QApplication:
    return application()


def test_a_model_is_downloaded_when_the_user_agrees_and_a_cancelled_download_goes_on(
    tmp_path: Path, app: QApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"GGUF" + bytes(25 * 2**20)  # what is kept of a cut download is whole chunks of 10 MB
    own = {"size": len(content), "sha256": f'"{hashlib.sha256(content).hexdigest()}"', "file": '"tiny.gguf"'}
    lines = [f"{key} = {value}" for key, value in own.items()]
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path))
    (tmp_path / "catalogue.toml").write_text(
        '[models."qwen2.5-coder-0.5b"]\n' + "\n".join(lines) + '\nsources = [{ hub = "a/b", file = "tiny.gguf" }]\n'
    )
    with hub_server.serve() as hub:
        hub.patch(monkeypatch, tmp_path)
        for name, value in hub.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        hub.add("a/b", {"tiny.gguf": content})
        hub.cuts.append(12 * 2**20)
        hub.gate = gate = OpensOnce()
        window = Window(Theme(app), tmp_path / "history.sqlite3")
        window.ask.memory.setValue(2000)
        window.show()
        window.ask.model.choose("qwen2.5-coder-0.5b")
        serve(window.strip.isVisible)
        assert "not on this machine. It is a download of 26 MB" in window.strip.text.text()
        assert not hub.ranges
        window.strip.download.click()
        serve(lambda: not window.banner.isHidden())  # the connection is lost
        assert "could not be downloaded" in window.banner_text.text()
        serve(window.strip.download.isVisible)
        window.strip.download.click()
        serve(lambda: len(hub.ranges) == 2)
        serve(lambda: window.strip.bar.value() > 0)
        window.strip.cancel.click()
        serve(lambda: not window.fetcher.is_running)
        serve(window.strip.download.isVisible)
        assert window.banner.isHidden(), window.banner_text.text()
        gate.set()
        window.strip.download.click()
        serve(lambda: window.strip.isHidden() and not window.fetcher.is_running)
        assert window.banner.isHidden(), window.banner_text.text()
        assert hub.ranges == [None, "bytes=10485760-", "bytes=10485760-"]  # from where it had got to
        serve(lambda: window.ask.model.itemData(1) == "qwen2.5-coder-0.5b")  # among those that are here
        window.close()


def test_a_hub_id_is_typed_downloaded_on_consent_and_loaded(
    tmp_path: Path, app: QApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_tiny_model(tmp_path / "tiny.gguf").read_bytes()
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "home"))
    with hub_server.serve() as hub:
        hub.patch(monkeypatch, tmp_path)
        for name, value in hub.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        hub.add("a/tiny", {"tiny.Q4_K_M.gguf": content, "tiny.Q8_0.gguf": content})
        window = Window(Theme(app), tmp_path / "history.sqlite3")
        window.ask.memory.setValue(2000)
        window.show()
        type_model(window, "a/tiny:Q9")
        serve(lambda: "o file fits a/tiny:Q9" in window.plan.message.text())
        type_model(window, "nonsense")
        assert "o model 'nonsense'" in window.banner_text.text()
        type_model(window, "a/tiny:Q4_K_M")
        serve(window.strip.isVisible)
        megabytes = f"{len(content) / 1e6:.0f} MB"
        assert f"a/tiny:Q4_K_M is not on this machine. It is a download of {megabytes}." in window.strip.text.text()
        assert window.strip.download.text() == f"Download {megabytes}"
        assert "once it is on this machine" in window.plan.message.text()
        window.ask.question.setPlainText(QUESTION)
        assert not window.ask.solve.isEnabled()
        hub.gate.clear()
        window.strip.download.click()
        serve(lambda: len(hub.ranges) == 1)
        window.strip.cancel.click()
        serve(lambda: not window.fetcher.is_running and window.strip.download.isVisible())
        assert window.settings.model == window.ask.model.currentText() == "a/tiny:Q4_K_M"
        hub.gate.set()
        window.strip.download.click()
        serve(lambda: window.ask.model_caption.text() == "Model: tiny.Q4_K_M is loaded")
        assert window.strip.isHidden()
        assert window.ask.solve.isEnabled()
        window.close()


def type_model(window: Window, text: str) -> None:
    """Choose "Enter a name …" and type ``text`` into the dialog."""

    def answer() -> None:
        dialog = application().activeModalWidget()
        assert isinstance(dialog, QInputDialog)
        dialog.setTextValue(text)
        dialog.accept()

    box = window.ask.model
    line = box.findText("Enter a name or a hub id …")
    QTimer.singleShot(0, answer)
    box.setCurrentIndex(line)
    box.activated.emit(line)


def test_a_download_that_fails_says_why(tmp_path: Path, app: QApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    window = Window(Theme(app), tmp_path / "history.sqlite3")
    window.ask.memory.setValue(2000)
    window.ask.model.choose("qwen2.5-coder-0.5b")
    serve(lambda: not window.strip.isHidden())
    window.strip.download.click()
    serve(lambda: not window.banner.isHidden())
    assert "HF_HUB_OFFLINE is set" in window.banner_text.text()
    serve(lambda: not window.strip.isHidden())  # it asks again
    window.close()


class OpensOnce(threading.Event):
    """Lets the first download pass, and the others once it is set."""

    def __init__(self) -> None:
        super().__init__()
        self._passed = False

    def wait(self, timeout: float | None = None) -> bool:
        first, self._passed = not self._passed, True
        return first or super().wait(timeout)
