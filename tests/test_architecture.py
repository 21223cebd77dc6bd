"""The import graph: dependencies point down, and no room has a circle (contracts in pyproject.toml)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAPPED = ("export", "profiles", "runtimes")


def linked_package(folder: Path) -> Path:
    """``edge_tts`` in its installed shape, as links: import-linter does not know the mapping of pyproject.toml."""
    package = folder / "edge_tts"
    package.mkdir()
    for path in (*(ROOT / "edge_tts").iterdir(), *(ROOT / name for name in MAPPED)):
        (package / path.name).symlink_to(path)
    return package


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_dependencies_point_down_without_circles(tmp_path: Path) -> None:
    linked_package(tmp_path)
    done = lint_imports(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("upward", ["import edge_tts.solver", "import edge_tts.server.app"])
def test_an_arrow_that_points_up_fails(tmp_path: Path, upward: str) -> None:
    package = linked_package(tmp_path)
    target = (package / "answers").readlink()
    (package / "answers").unlink()
    (package / "answers").mkdir()
    for path in target.glob("*.py"):
        (package / "answers" / path.name).symlink_to(path)
    (package / "answers" / "stray.py").write_text(upward + "\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "edge_tts.answers.stray" in done.stdout


def test_the_root_holds_at_most_eight_modules() -> None:
    modules = sorted(path.name for path in (ROOT / "edge_tts").glob("*.py"))
    assert len(modules) <= 8, modules
