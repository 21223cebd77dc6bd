"""Nothing leaves the machine: real commands under a system-call trace connect nowhere and look up no name, and they
write only where they should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import httpx
import prm_checkpoints
import psutil
import pytest

from edge_tts.packs.pack import Pack
from edge_tts.runtimes.privacy import SETTINGS

QUESTION = "Tom has 3 boxes of 8 pencils. How many pencils are there?"
CALLS = (
    *("connect", "sendto", "sendmsg", "sendmmsg"),
    *("open", "openat", "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlinkat"),
)
_ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]+)"')
_CREATION = re.compile(r"\bopen(?:at)?\(.*O_CREAT|\b(?:creat|mkdir|mkdirat|rename\w*|link(?:at)?|symlinkat)\(")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"([^"]+)"')
_SYSTEM = ("/dev/", "/proc/", "/sys/")


def _tracing_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "true"]).returncode == 0


pytestmark = pytest.mark.skipif(not _tracing_works(), reason="needs strace and the permission to trace")


class Traced:
    """Commands run under strace with an empty home folder, and what they did that they should not."""

    def __init__(self, folder: Path, *writable: Path) -> None:
        self.log = folder / "trace.txt"
        self.folder = folder
        self.user = folder / "user"
        self._writable = (folder, *writable)
        self.user.mkdir()
        (folder / "temp").mkdir()
        hidden = {"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME", *SETTINGS}
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "HOME": str(self.user),
            "USER": "somebody",  # PyTorch names a folder after the user, and looks the name up where this is not set
            "TMPDIR": str(folder / "temp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, *arguments: str) -> list[str]:
        options = ["-f", "--seccomp-bpf", "-qq", "-y", "-s", "300", "-e", "signal=none", "-o", str(self.log)]
        return ["strace", *options, "-e", f"trace={','.join(CALLS)}", sys.executable, *arguments]

    def run(self, *arguments: str) -> str:
        """Run a Python command to its end and return what it printed."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env=self.environment, cwd=self.folder, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def violations(self) -> list[str]:
        """Calls that reach for the network, look up a name, or create a file in the wrong place."""
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        assert any(_CREATION.search(line) or "openat(" in line for line in lines), "nothing was traced"
        return [line for line in lines if _reaches_out(line) or self._creates_elsewhere(line)]

    def left_in_home(self) -> list[Path]:
        return sorted(self.user.rglob("*"))

    def _creates_elsewhere(self, line: str) -> bool:
        if not _CREATION.search(line) or " = -1 " in line:
            return False
        return any(not self._may_write(base, path) for base, path in _PATH.findall(line))

    def _may_write(self, base: str, path: str) -> bool:
        whole = Path(os.path.normpath(Path(base or self.folder) / path))
        if whole.is_relative_to(self.user):
            return False
        return str(whole).startswith(_SYSTEM) or any(whole.is_relative_to(folder) for folder in self._writable)


def _reaches_out(line: str) -> bool:
    if "nscd" in line or "resolve" in line.partition("sun_path=")[2]:
        return True
    found = _ADDRESS.search(line)
    return found is not None and (found[1] == "53" or not ip_address(found[2]).is_loopback)


@pytest.fixture
def traced(tmp_path: Path, home: Path) -> Traced:
    return Traced(tmp_path, home)


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.53', 53))",
        "import pathlib; pathlib.Path('/var/tmp/edge-reason-test').touch()",
        "import os; os.mkdir('/var/tmp/edge-reason-test.d')",
        "import os, pathlib; pathlib.Path.home().joinpath('.cache').mkdir()",
    ],
)
def test_the_trace_shows_what_must_not_happen(traced: Traced, code: str) -> None:
    try:
        traced.run("-c", code)
    finally:
        Path("/var/tmp/edge-reason-test").unlink(missing_ok=True)
        shutil.rmtree("/var/tmp/edge-reason-test.d", ignore_errors=True)
    assert len(traced.violations()) == 1


def test_the_trace_lets_local_things_pass(traced: Traced) -> None:
    traced.run("-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))")
    assert traced.violations() == []


def test_solve(traced: Traced, pack: Pack) -> None:
    said = traced.run("-m", "edge_tts", "solve", QUESTION, "--strategy", "weighted", "--budget", "4", "--json")
    assert '"verifier_tokens": 0' not in said  # ONNX Runtime was in use
    assert traced.violations() == []
    assert traced.left_in_home() == []


def test_serve(traced: Traced, pack: Pack) -> None:
    """With the models in a child process, which has to be as quiet."""
    command = traced.command("-m", "edge_tts", "serve", "--port", "0", "--isolate")
    said = traced.folder / "server.txt"
    with said.open("wb") as file:
        tracer = subprocess.Popen(command, stderr=file, env=traced.environment, cwd=traced.folder)
    try:
        ends = time.monotonic() + 120
        while (found := re.search(r"answers at (\S+?)/v1", said.read_text("utf-8"))) is None:
            assert tracer.poll() is None, said.read_text("utf-8")  # it has ended
            assert time.monotonic() < ends
            time.sleep(0.1)
        body = {"model": pack.name, "messages": [{"role": "user", "content": QUESTION}]}
        body["edge"] = {"strategy": "weighted:n=4"}
        answer = httpx.post(f"{found[1]}/v1/chat/completions", json=body, timeout=120).json()
        assert answer["edge"]["usage"]["verifier_tokens"] > 0
    finally:
        if tracer.poll() is None:
            for server in psutil.Process(tracer.pid).children():
                server.terminate()
    assert tracer.wait(60) == 0
    assert traced.violations() == []
    assert traced.left_in_home() == []


def test_the_library(traced: Traced, pack: Pack) -> None:
    """The verifier alone, in a program that imports nothing else of this package first."""
    code = (
        "from pathlib import Path\n"
        "from edge_tts.runtimes.onnx_verifier import OnnxVerifier\n"
        f"verifier = OnnxVerifier(Path({str(pack.verifier_path)!r}), Path({str(pack.tokenizer_path)!r}))\n"
        f"print(verifier.score({QUESTION!r}, [('3*8=24', '#### 24')])[0].scores)\n"
        "verifier.close()\n"
    )
    assert traced.run("-c", code).startswith("(")
    assert traced.violations() == []
    assert traced.left_in_home() == []


def test_export(traced: Traced) -> None:
    checkpoint = prm_checkpoints.shepherd(traced.folder / "checkpoint")
    out = str(traced.folder / "out")
    traced.run("-m", "edge_tts", "export", "prm", str(checkpoint), "--out", out, "--force", "--json")
    assert traced.violations() == []
    assert traced.left_in_home() == []


def test_a_setting_of_the_user_is_kept() -> None:
    code = f"import os, edge_tts; print([os.environ[name] for name in {list(SETTINGS)!r}])"
    free = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    for own in ({}, {"ORT_DISABLE_TELEMETRY": "0"}):
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=free | own, check=True
        ).stdout
        assert said.strip() == str(list((SETTINGS | own).values()))
