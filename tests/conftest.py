"""Fixtures shared by the tests: the built-in pack, assembled once a session from its real base."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import standin

from edge_tts.core import Verifier
from edge_tts.packs import pack as pack_module
from edge_tts.packs.catalogue import entries
from edge_tts.packs.download import locate
from edge_tts.packs.pack import Pack, find_pack, prepare_pack
from edge_tts.runtimes.onnx_verifier import OnnxVerifier

HAS_TORCH = find_spec("torch") is not None
collect_ignore = (
    [] if HAS_TORCH else ["export", "bench/test_peers.py", "runtimes/test_onnx_verifier.py", "test_privacy.py"]
)


def pytest_report_header() -> str:
    if HAS_TORCH:
        return "PyTorch is there: the tests of the export tools run too"
    return f"PyTorch is not there: {', '.join(collect_ignore)} are left out; pip install '.[test,export]' brings them"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder of the session's own, so that nothing of the user's is touched."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_REASON_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def pack(home: Path) -> Pack:
    """The built-in pack, assembled for real (downloads its base where it is not installed)."""
    return prepare_pack(find_pack(None))


@pytest.fixture(scope="session", autouse=True)
def built_in_pack_by_default() -> Iterator[None]:
    """What names no model gets the built-in pack, and not a download."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_REASON_MODEL", "smol-math")
        yield


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> standin.StandIn:
    """A stand-in for the built-in pack, small and not assembled yet."""
    made = standin.write_pack(tmp_path)
    monkeypatch.setattr(pack_module, "BUILT_IN", made.pack.folder.parent)
    monkeypatch.setattr(pack_module, "DEFAULT", standin.NAME)
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGE_REASON_MODEL", standin.NAME)
    return made


@pytest.fixture(scope="session")
def verifier(pack: Pack) -> Iterator[Verifier]:
    assert pack.verifier_path is not None
    assert pack.tokenizer_path is not None
    verifier = OnnxVerifier(pack.verifier_path, pack.tokenizer_path)
    yield verifier
    verifier.close()


@pytest.fixture(scope="session")
def coder_05b(home: Path) -> Path:
    """Qwen2.5-Coder-0.5B-Instruct, a real chat model: fetched once a session, or the file that a variable names."""
    named = os.environ.get("EDGE_REASON_TEST_05B")
    return Path(named) if named else locate(entries()["qwen2.5-coder-0.5b"])
