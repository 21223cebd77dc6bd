"""Commands in processes forked from one that has imported them, so that a start takes milliseconds and many can be
killed. Tests use ``Commands``; this file is also the program that forks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

KILLS = int(os.environ.get("EDGE_REASON_TEST_KILLS", "10"))
"""Of each command."""


class Commands:
    """Starts commands one after the other, each in a process of its own that may be killed."""

    def __init__(self, log: Path, **environment: str) -> None:
        self._log = log
        self._draw = random.Random(0)
        self._within = 0.0
        """Seconds in which an end is tried: adjusted so that about six of ten come before the command's own."""
        self._forker = subprocess.Popen(
            [sys.executable, __file__, str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
        )
        assert self._line() == "ready"

    def run(self, name: str, *arguments: object) -> tuple[int, str]:
        """Exit code of one of the functions below, and what it printed."""
        begun = time.monotonic()
        self.start(name, *arguments)
        ended = self.ended()
        self._within = time.monotonic() - begun
        return ended

    def kill(self, name: str, *arguments: object) -> bool:
        """Start one and kill it at a random moment; gives whether it was under way still."""
        return self._end(signal.SIGKILL, name, *arguments)[0] == -signal.SIGKILL

    def interrupt(self, name: str, *arguments: object) -> tuple[int, str]:
        """The same with Ctrl-C; gives exit code and what was printed."""
        return self._end(signal.SIGINT, name, *arguments)

    def _end(self, how: signal.Signals, name: str, *arguments: object) -> tuple[int, str]:
        pid = self.start(name, *arguments)
        time.sleep(self._draw.uniform(0, self._within))
        with suppress(ProcessLookupError):
            os.kill(pid, how)
        code, said = self.ended()
        self._within *= 0.8 if code == 0 else 1.16
        return code, said

    def start(self, name: str, *arguments: object) -> int:
        """Start one; gives the number of its process."""
        assert self._forker.stdin
        self._forker.stdin.write(json.dumps([name, *map(str, arguments)]) + "\n")
        self._forker.stdin.flush()
        return int(self._line())

    def ended(self) -> tuple[int, str]:
        """Wait until it ends; gives exit code and what was printed."""
        code = os.waitstatus_to_exitcode(int(self._line()))
        return code, self._log.read_text(encoding="utf-8")

    def _line(self) -> str:
        assert self._forker.stdout
        return self._forker.stdout.readline().strip()

    def close(self) -> None:
        self._forker.communicate("", timeout=60)


@contextmanager
def commands(log: Path, **environment: str) -> Iterator[Commands]:
    made = Commands(log, **environment)
    try:
        yield made
    finally:
        made.close()


# --- what can be run ---------------------------------------------------------------------------


def command(*arguments: str) -> int:
    """The command line."""
    from edge_tts.__main__ import main as run

    sys.argv = ["edge-reason", *arguments]
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except SystemExit as ended:
        return int(ended.code or 0)
    raise AssertionError


def study(*arguments: str) -> int:
    """``bench run`` with short samples."""
    from edge_tts.packs import bare_model

    bare_model.TRACE_TOKENS = {"text": 60}
    return command("bench", "run", *arguments)


def solve_file(file: str, out: str) -> int:
    """``solve --file`` with a solver that answers at once, so that most of the time goes into the files."""
    from scripted_solver import ScriptedSolver, run

    return run(ScriptedSolver(seconds=0.001), Path(file), Path(out), parallel=2)[0]


def assemble(built_in: str, base: str) -> int:
    """``pack assemble`` of the stand-in in the folder ``built_in``; its PRM is not tried, which takes a process."""
    from edge_tts.packs import pack, prm_check

    pack.BUILT_IN = Path(built_in)
    prm_check.prm_problems = lambda *_: []
    return command("pack", "assemble", "tiny", "--base", base)


def pull(name: str) -> int:
    """``model pull``, which here keeps what it has every 1000 bytes."""
    from huggingface_hub import constants

    constants.DOWNLOAD_CHUNK_SIZE = 1000
    return command("model", "pull", name)


# --- the program that forks --------------------------------------------------------------------


def _import_all() -> None:
    import huggingface_hub.file_download  # noqa: F401
    import llama_cpp  # noqa: F401
    import onnxruntime  # noqa: F401
    import scripted_solver  # noqa: F401

    import edge_tts.bench.study
    import edge_tts.commands.bench
    import edge_tts.commands.model
    import edge_tts.commands.pack
    import edge_tts.packs.download
    import edge_tts.packs.merge_adapter  # noqa: F401


def _become(log: str, function: Callable[..., Any], arguments: list[str]) -> None:
    """End this process as ``function`` does."""
    code = 70
    try:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(sink, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = function(*arguments)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(log: str) -> None:
    _import_all()
    functions = {function.__name__: function for function in (study, solve_file, assemble, pull)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until a command runs
    print("ready", flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(log, functions[name], arguments)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
