"""The command line: light to start, one line for every error, the fitting exit code."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import standin
from click.testing import CliRunner

from edge_tts import cli
from edge_tts.errors import BackendError, InputError, PackError, ResourceError
from edge_tts.packs import pack

HEAVY = {
    "accelerate", "datasets", "gguf", "jinja2", "llama_cpp", "math_verify", "matplotlib", "numpy", "onnx",
    "onnxruntime", "openai", "optimum", "peft", "prompt_toolkit", "psutil", "ray", "rich", "sympy", "tokenizers",
    "torch", "transformers",
}  # fmt: skip


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_tts", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)


@pytest.mark.parametrize("statement", ["import edge_tts", "from edge_tts.__main__ import main; main()"])
def test_start_imports_nothing_heavy(statement: str) -> None:
    code = f"""
import sys
sys.argv = ["edge-reason", "--help"]
try:
    {statement}
except SystemExit:
    pass
print(sorted(m for m in sys.modules if "." not in m), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    modules = set(done.stderr.replace("'", "").strip("[]\n ").split(", "))
    assert "edge_tts" in modules
    assert modules & HEAVY == set()


def test_help_is_quick_and_lists_every_verb() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert all(f"  {verb} " in done.stdout for verb in cli.VERBS)
    # CPU time, which a busy machine does not stretch; about 0.1 s of the 0.3 s allowed.
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 0.3


def test_version() -> None:
    assert run("--version").stdout.startswith("edge-reason, version ")


def test_unknown_verb_and_option() -> None:
    for arguments in (["slove"], ["--fast"]):
        done = run(*arguments)
        assert done.returncode == 2
        assert arguments[0] in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("no question"), 2, "error: no question\n"),
        (PackError("damaged\nin two lines"), 3, "error: damaged in two lines\n"),
        (ResourceError("too small"), 4, "error: too small\n"),
        (BackendError("failed"), 5, "error: failed\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError("oh"), 70, "internal error: OSError: oh (EDGE_REASON_DEBUG=1 shows the traceback)\n"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.group, "main", fail)
    assert cli.run() == code
    assert capsys.readouterr().err == message


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_REASON_DEBUG", "1")
    monkeypatch.setattr(cli.group, "main", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.run()


def test_an_interrupt_during_the_first_imports_shows_no_traceback() -> None:
    code = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from edge_tts.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    shell = f"{sys.executable} -m edge_tts --help | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_pack_list_info_verify_assemble(tiny: standin.StandIn) -> None:
    runner = CliRunner()

    def told(*arguments: str) -> str:
        result = runner.invoke(cli.group, ["pack", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert json.loads(told("list", "--json"))[0]["state"] == "built in, assembled on first use"
    assert json.loads(told("info", "--json"))["policy"]["layers"] == 1
    assert "parameters, 1 layers" in told("info", "tiny")
    assert json.loads(told("verify", "--json"))["ok"] is True
    assert "is ready in" in told("assemble", "--base", str(tiny.base))
    assert "ready in" in told("list")
    assert json.loads(told("verify", "tiny", "--json")) == {
        "name": "tiny",
        "folder": str(pack.find_pack("tiny").folder),
        "ok": True,
        "problems": [],
    }


def test_pack_verify_fails_on_a_damaged_file(tiny: standin.StandIn) -> None:
    ready = pack.prepare_pack(pack.find_pack("tiny"), base=tiny.base)
    ready.policy_path.write_bytes(ready.policy_path.read_bytes()[:100])
    result = CliRunner().invoke(cli.group, ["pack", "verify", "--json"])
    assert result.exit_code == 3
    assert "policy.gguf is truncated: 100 of" in json.loads(result.stdout)["problems"][0]


def test_pack_list_survives_a_damaged_pack(tiny: standin.StandIn) -> None:
    (tiny.pack.folder / "manifest.json").write_text("{")
    result = CliRunner().invoke(cli.group, ["pack", "list"])
    assert result.exit_code == 0
    assert "damaged" in result.stdout


def test_launcher_of_the_checkout(tmp_path: Path) -> None:
    launcher = Path(__file__).parents[2] / "cli.py"
    command = [sys.executable, launcher, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.startswith("Usage: edge-reason")
