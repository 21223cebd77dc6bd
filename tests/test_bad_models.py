"""Models that cannot be used, through the command line: one sentence and an exit code for each, and no crash."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import hub_server
import pytest
import standin
from tiny_model import write_tiny_model

from edge_tts.files.gguf import open_gguf
from edge_tts.packs.base_model import SMOLLM2_135M
from edge_tts.packs.base_model import locate as locate_base

REFUSED = 3
"""Exit code of a pack or model that is damaged."""
TOKENS, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
Change = Callable[[Any], Any]


def changed(
    source: Path, target: Path, change: dict[str, Any] | None = None, leave_out: Sequence[str] = (), only: str = ""
) -> Path:
    """A copy of a GGUF with other metadata: values of ``change``, which may be made from what was there.

    ``only`` is a pattern of the tensors that are kept.
    """
    reader = open_gguf(source)
    change = dict(change or {})
    writer = gguf.GGUFWriter(target, arch=change.pop("general.architecture", "llama"))
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", *leave_out):
            continue
        kind, *inner = field.types
        value = change.pop(field.name, field.contents)
        writer.add_key_value(field.name, value() if callable(value) else value, kind, inner[0] if inner else None)
    for name, value in change.items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)
    for tensor in (tensor for tensor in reader.tensors if re.match(only, tensor.name)):
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def solve(model: object, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_tts", "solve", "--model", str(model), "--budget", "1", "--max-tokens", "8"]
    return subprocess.run(
        [*command, *options, "What is 2 + 2?"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def require_one_sentence(done: subprocess.CompletedProcess[str], code: int, said: str) -> None:
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not done.stdout


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"llama.pooling_type": 1}, 3, "(llama) makes embeddings of texts and does not write any; choose a decoder-"),
        ({"general.architecture": "bert"}, 2, "has no bert.embedding_length; choose a decoder language model"),
        (
            {"llama.block_count": 2},
            3,
            "download it again, take another quantisation or model, or see what `edge-reason ",
        ),
        ({"tokenizer.chat_template": "{% for m in messages %}"}, 3, "the model's chat template cannot be used: "),
        ({"tokenizer.chat_template": "{{ 1 / 0 }}"}, 3, "cannot be used: division by zero"),
        ({"tokenizer.chat_template": "{% for a in range(10**9) %}{% endfor %}"}, 3, "template cannot be used: "),
        ({"tokenizer.chat_template": "Answer."}, 3, "cannot be used: it leaves the question out"),
        ({"tokenizer.chat_template": "{{ raise_exception('no chat') }}"}, 2, "chat template refuses these messages"),
        ({"tokenizer.ggml.model": "none"}, 3, "llama.cpp ends with SIGABRT when it loads or runs "),
        ({"tokenizer.ggml.model": "mine"}, 3, "llama.cpp cannot load"),
    ],
)
def test_a_model_that_cannot_be_used(
    change: dict[str, Any], code: int, said: str, tiny_model: Path, tmp_path: Path
) -> None:
    require_one_sentence(solve(changed(tiny_model, tmp_path / "mine.gguf", change)), code, said)


def test_a_model_without_a_template_is_asked_in_chatml_and_that_is_said(tiny_model: Path, tmp_path: Path) -> None:
    done = solve(changed(tiny_model, tmp_path / "mine.gguf", leave_out=["tokenizer.chat_template"]))
    assert done.returncode in (0, 6), done.stderr
    assert "the model has no chat template of its own; it is asked in ChatML" in done.stderr


@pytest.fixture(scope="module")
def smollm2(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its vocabulary with one layer: what the model writes does not matter here."""
    target = tmp_path_factory.mktemp("smollm2") / "one-layer.gguf"
    return changed(locate_base(SMOLLM2_135M), target, {"llama.block_count": 1}, only=r"(?!blk\.[1-9])")


@pytest.mark.parametrize(
    ("change", "leave_out"),
    [
        ({TOKENS: lambda tokens: tokens[:-1]}, ()),
        ({TOKENS: lambda tokens: [""] * len(tokens)}, ()),
        ({}, (TOKENS,)),
        ({}, (MERGES,)),
        ({"tokenizer.ggml.eos_token_id": 10**6}, ()),
        ({"tokenizer.ggml.token_type": lambda kinds: kinds[:9]}, ()),
        ({"tokenizer.ggml.model": "llama"}, ()),
    ],
)
def test_a_wrong_vocabulary_is_used_as_far_as_it_goes_or_refused(
    change: dict[str, Any], leave_out: Sequence[str], smollm2: Path, tmp_path: Path
) -> None:
    fields = open_gguf(smollm2).fields
    made = {name: value(fields[name].contents()) if callable(value) else value for name, value in change.items()}
    done = solve(changed(smollm2, tmp_path / "mine.gguf", made, leave_out))
    assert "Traceback" not in done.stderr
    if done.returncode not in (0, 6):
        require_one_sentence(done, REFUSED, "error: ")
        assert "llama.cpp cannot load" in done.stderr or "take another GGUF" in done.stderr


def test_files_that_are_no_models(tmp_path: Path, tiny_model: Path) -> None:
    standin.write_pack(tmp_path)
    require_one_sentence(solve(tmp_path / "adapter.gguf"), 2, "no token embeddings; choose a decoder language model")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_model.read_bytes()[:-1000])
    require_one_sentence(solve(cut), 3, "cut.gguf is damaged and cannot be read as GGUF (it ends before its last")
    (tmp_path / "page.gguf").write_text("<html>")
    require_one_sentence(solve(tmp_path / "page.gguf"), 2, "page.gguf is not a GGUF file: it begins with b'<htm'")
    require_one_sentence(solve(tmp_path), 2, "is a folder; give one of its files: ")


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[hub_server.HubServer]:
    with hub_server.serve() as server:
        server.add("maker/plain", {"model.safetensors": b"x", "README.md": b"y"})
        server.add("maker/closed", {"model.gguf": tiny_model}, gated=True)
        server.add("maker/page", {"model.gguf": b"<html>"})
        server.add("maker/broken", {"model.gguf": tiny_model.read_bytes()[:-1000]})
        yield server


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("maker/none", 2, "the hub has no repository maker/none: check the name"),
        ("maker/closed", 2, "maker/closed is gated: accept its terms on its page on the hub"),
        ("maker/plain", 2, "the repository maker/plain has no GGUF file; name one that has"),
        ("maker/closed:Q9", 2, "no file fits maker/closed:Q9"),
        ("maker/page", 5, "is not a GGUF file, and was deleted"),
        ("maker/broken", 3, "is damaged and cannot be read as GGUF"),
    ],
)
def test_a_hub_id_that_cannot_be_used(
    model: str, code: int, said: str, hub: hub_server.HubServer, tmp_path: Path
) -> None:
    environment = {**hub.environment(tmp_path), "EDGE_REASON_HOME": str(tmp_path / "home")}
    require_one_sentence(solve(model, **environment), code, said)


def test_a_catalogue_with_errors(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    for text, said in (
        ("[models.mine]\nsize = 3\n", "models.mine: title is missing; correct the file"),
        ('[models."qwen2.5-coder-0.5b"]\nsize = -1\n', "size must be a whole number >= 1, found -1"),
        ("[models.mine", "cannot be read: "),
        ("x = 1\n", "'x' is not a table of models"),
    ):
        path.write_text(text, encoding="utf-8")
        require_one_sentence(solve("qwen2.5-coder-0.5b", EDGE_REASON_HOME=str(tmp_path)), 2, said)
