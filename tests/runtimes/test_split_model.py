"""A model in several files: found, planned and loaded by the path of its first part."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from edge_tts.errors import InputError
from edge_tts.files.gguf import open_gguf
from edge_tts.packs.bare_model import find_model
from edge_tts.packs.pack import Pack
from edge_tts.solver import Solver


def split(whole: Path, folder: Path, parts: int) -> Path:
    """Write ``whole`` as ``parts`` files, as llama.cpp's gguf-split names them; gives the first."""
    reader = open_gguf(whole)
    family = reader.fields["general.architecture"].contents()
    most = -(-len(reader.tensors) // parts)
    writer = gguf.GGUFWriter(folder / "model.gguf", family, split_max_tensors=most)
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture", "split.")):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("model-*.gguf"))[0]


def test_a_split_model_answers_as_the_whole_one(pack: Pack, tmp_path: Path) -> None:
    first = split(pack.policy_path, tmp_path, 3)
    assert first.name.endswith("-00001-of-00003.gguf")
    whole = find_model(pack.policy_path)
    assert find_model(first).policy.parameters == whole.policy.parameters
    assert find_model(first).policy.file_bytes == pytest.approx(whole.policy.file_bytes, rel=0.01)
    said = []
    for path in (pack.policy_path, first):
        with Solver(model=path, profile="laptop-cpu", memory_mb=900, generations=2, max_tokens=40) as solver:
            result = solver.solve("What is 2 plus 3?", "majority:n=2", seed=3)
            said.append((result.answer, result.steps, result.partial, result.usage.generated_tokens))
    assert said[0] == said[1]


def test_a_missing_part_is_named(pack: Pack, tmp_path: Path) -> None:
    first = split(pack.policy_path, tmp_path, 2)
    sorted(tmp_path.glob("model-*.gguf"))[1].unlink()
    with pytest.raises(InputError, match="00002-of-00002"):
        find_model(first)
