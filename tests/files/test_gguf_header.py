"""The quick reader of GGUF headers, against the gguf library."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import standin

from edge_tts.errors import InputError, PackError
from edge_tts.files.gguf_header import read_gguf, read_header
from edge_tts.planning.shapes import policy_shape


@pytest.fixture
def base(tmp_path: Path) -> Path:
    standin.write_base(tmp_path / "base.gguf")
    return tmp_path / "base.gguf"


def test_values_and_tensors_are_those_of_the_library(base: Path) -> None:
    library, header = gguf.GGUFReader(base), read_gguf(base)
    assert header.values["general.architecture"] == "llama"
    assert header.values["llama.block_count"] == 1
    assert "tokenizer.ggml.tokens" not in header.values
    assert set(header.tensors) == {tensor.name for tensor in library.tensors}
    for tensor in library.tensors:
        found = header.tensors[tensor.name]
        assert found.shape == tuple(tensor.shape.tolist())
        assert found.numbers == tensor.n_elements
        assert 0 <= found.bytes - tensor.n_bytes < 32


def test_lists_of_numbers_are_read_where_they_are_short(tmp_path: Path) -> None:
    path = tmp_path / "lists.gguf"
    writer = gguf.GGUFWriter(path, arch="llama")
    writer.add_head_count_kv([2, 4, 8])
    writer.add_array("long", list(range(5000)))
    writer.add_array("texts", ["a", "b" * 300, ""])
    writer.add_string("after", "ends well")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_gguf(path)
    assert header.lists == {"llama.attention.head_count_kv": (2, 4, 8)}
    assert header.values["after"] == "ends well"


def test_sizes_of_a_real_model(coder_05b: Path) -> None:
    shape = policy_shape(coder_05b)
    assert (shape.file_bytes, shape.parameters) == (491_400_064, 494_032_768)
    assert (shape.layers, shape.kv_heads, shape.head_dim, shape.hidden) == (24, 2, 64, 896)
    assert (shape.vocabulary, shape.trained_context) == (151_936, 32_768)
    assert shape.lookup_bytes == 151_936 * 896 // 32 * 22  # Q5_0: 22 bytes for 32 weights


def test_a_file_that_is_cut_anywhere_is_damaged(base: Path, tmp_path: Path) -> None:
    content = base.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (*range(0, 400, 7), len(content) // 2):
        cut.write_bytes(content[:length])
        with pytest.raises(PackError, match=r"cut\.gguf is damaged"):
            read_gguf(cut)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="is missing"):
        read_header(tmp_path / "none.gguf")
    text = tmp_path / "text.gguf"
    text.write_bytes(b"not a model at all")
    with pytest.raises(PackError, match="it begins with b'not '"):
        read_header(text)
    no_model = tmp_path / "no-model.gguf"
    writer = gguf.GGUFWriter(no_model, arch="clip")
    writer.add_uint32("x", 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"no-model\.gguf has no token embeddings; choose a decoder"):
        policy_shape(no_model)
