"""A server as a child process, and what can be measured of it from outside."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

START_SECONDS = 120.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class ServerProcess:
    """A server that is ready for requests."""

    url: str
    """Without a slash at its end."""
    process: subprocess.Popen[bytes]
    log: Path
    """The file with its standard error."""

    def memory_mb(self) -> float:
        """Resident memory of the server and its child processes now, in MiB."""
        parent = psutil.Process(self.process.pid)
        everyone = [parent, *parent.children(recursive=True)]
        return float(sum(process.memory_info().rss for process in everyone)) / 2**20

    def handles(self) -> dict[str, int]:
        """Numbers of its open file descriptors and threads."""
        process = psutil.Process(self.process.pid)
        return {"files": int(process.num_fds()), "threads": int(process.num_threads())}

    def metric(self, name: str) -> float:
        """The metric ``edge_reason_{name}`` of ``/metrics``, which must have no labels."""
        families = text_string_to_metric_families(httpx.get(f"{self.url}/metrics").raise_for_status().text)
        samples = {sample.name: sample.value for family in families for sample in family.samples}
        return float(samples[f"edge_reason_{name}"])

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no request runs or is queued; False where that takes more than ``seconds``."""
        ends = time.monotonic() + seconds
        while self.metric("requests_in_flight") or self.metric("queue_length"):
            if time.monotonic() > ends:
                return False
            time.sleep(0.05)
        return True

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal ``number`` and return the exit code. Raises subprocess.TimeoutExpired where it runs on."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def running_server(*options: str) -> Iterator[ServerProcess]:
    """``edge-reason serve`` with ``options`` on a free port of this machine, for the length of the block."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        command = [sys.executable, "-P", "-m", "edge_tts", "serve", "--port", "0", *options]
        with log.open("wb") as sink:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sink)
        try:
            yield ServerProcess(_address(process, log, command), process, log)
        finally:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path, command: Sequence[str]) -> str:
    ends = time.monotonic() + START_SECONDS
    while True:
        text = log.read_text("utf-8")
        found = re.search(r"answers at (\S+)/v1", text)
        if found:
            return found[1]
        if process.poll() is not None or time.monotonic() > ends:
            raise RuntimeError(f"{' '.join(command)} did not start: {text}")
        time.sleep(0.05)
