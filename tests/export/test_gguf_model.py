"""GGUF files as transformers models: the same as the checkpoint they were made of, and what cannot be one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from edge_tts.errors import InputError, PackError
from edge_tts.export.gguf_model import load_gguf


def test_a_model_equals_the_checkpoint_it_was_made_of(qwen: Path, qwen_checkpoint: Path) -> None:
    whole = transformers.AutoModelForCausalLM.from_pretrained(qwen_checkpoint).eval()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(load_gguf(qwen)(ids).logits, whole(ids).logits)
        found, expected = load_gguf(qwen, layers=2).model(ids), whole.model(ids, output_hidden_states=True)
    assert torch.equal(found.last_hidden_state, whole.model.norm(expected.hidden_states[2]))


def test_files_that_are_no_such_model(qwen: Path, tmp_path: Path) -> None:
    content = qwen.read_bytes()
    other, cut, lost = (tmp_path / f"{name}.gguf" for name in ("other", "cut", "lost"))
    other.write_bytes(content.replace(b"qwen2", b"phi42"))
    cut.write_bytes(content[:-4000])
    lost.write_bytes(content.replace(b"blk.1.ffn_up", b"blk.9.ffn_up"))
    with pytest.raises(InputError, match=r"other\.gguf is a phi42; training knows llama and qwen2 only"):
        load_gguf(other)
    with pytest.raises(PackError, match=r"cut\.gguf is damaged"):
        load_gguf(cut)
    with pytest.raises(PackError, match=r"lost\.gguf lacks tensors"):
        load_gguf(lost)
    with pytest.raises(InputError, match="has 3 layers; the first 4 were asked for"):
        load_gguf(qwen, layers=4)
