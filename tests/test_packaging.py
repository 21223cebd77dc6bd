"""The contents of the wheel, and that the type check covers the mapped folders."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAPPED = {"export": "edge_tts/export", "profiles": "edge_tts/profiles", "runtimes": "edge_tts/runtimes"}
DATA = (".toml", ".json", ".onnx", ".gguf", ".md", ".typed", ".j2", ".html")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in the tree."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE", "cli.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("edge_tts", *MAPPED):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(copy: Path) -> set[str]:
    """The names of the files in the wheel."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next((copy / "dist").glob("*.whl"))) as archive:
        return set(archive.namelist())


def sources(suffixes: tuple[str, ...]) -> set[str]:
    """The names that files with these suffixes must have in the wheel."""
    names = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edge_tts").rglob("*")}
    for folder, installed in MAPPED.items():
        names |= {f"{installed}/{path.relative_to(ROOT / folder).as_posix()}" for path in (ROOT / folder).rglob("*")}
    return {name for name in names if name.endswith(suffixes) and "__pycache__" not in name}


def test_every_module_is_in_the_wheel(wheel: set[str]) -> None:
    modules = sources((".py",))
    assert {"edge_tts/cli.py", "edge_tts/runtimes/llama.py", "edge_tts/export/train/sft.py"} <= modules
    assert modules - wheel == set()


def test_package_data_is_in_the_wheel(wheel: set[str]) -> None:
    data = sources(DATA)
    assert "edge_tts/py.typed" in data
    assert data - wheel == set()


def test_nothing_lands_outside_the_package(wheel: set[str]) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert {name.split("/")[0] for name in wheel} == {"edge_tts", f"edge_reasoning_runtime-{version}.dist-info"}
    assert "edge_tts/tests" not in {"/".join(name.split("/")[:2]) for name in wheel}


def test_licence_is_in_the_wheel(wheel: set[str]) -> None:
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in wheel)
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_type_check_sees_planted_errors(tmp_path: Path) -> None:
    """Plant a type error in each folder of a small copy of the layout; the check must report all."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    folders = ("edge_tts", *MAPPED)
    for name in folders:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    check = [tmp_path / ".ci" / "check", "types"]
    sound = subprocess.run(check, capture_output=True, text=True)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    for name in folders:
        (tmp_path / name / f"planted_in_{name}.py").write_text('width: int = "sixteen"\n')
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode != 0
    for name in folders:
        assert f"planted_in_{name}.py:1: error: Incompatible types in assignment" in done.stdout


def test_python_that_starts_in_a_checkout_finds_all_subpackages() -> None:
    code = (
        "import sys\n"
        "sys.meta_path = [each for each in sys.meta_path if 'editable' not in repr(each).lower()]\n"
        "from edge_tts import Solver\n"
        "import edge_tts.export, edge_tts.profiles.loader, edge_tts.runtimes.trial\n"
        "print(edge_tts.runtimes.trial.__file__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "runtimes" / "trial.py"


def test_processes_we_start_import_nothing_from_the_users_folder(tmp_path: Path) -> None:
    (tmp_path / "edge_tts").mkdir()
    for module in ("edge_tts/__init__.py", "numpy.py", "json.py"):
        (tmp_path / module).write_text("raise SystemExit('imported from the folder')\n")
    code = "from edge_tts.runtimes.trial import run; print(run('edge_tts.answers.formulas'))"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.stdout == "('ready\\n', None)\n", done.stderr
