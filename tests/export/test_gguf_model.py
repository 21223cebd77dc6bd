"""GGUF files as transformers models: the same as the checkpoint they were made of, and what cannot be one."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp.llama_cpp as native
import prm_checkpoints
import pytest
import torch
import transformers
from qwen_gguf import write_qwen_gguf

from edge_tts.errors import InputError, PackError
from edge_tts.export.gguf_model import load_gguf
from edge_tts.export.train.self_train import SelfTrainConfig
from edge_tts.export.train.sft import load_base, trainable
from edge_tts.files.gguf import open_gguf


def test_a_model_equals_the_checkpoint_it_was_made_of(qwen: Path, qwen_checkpoint: Path) -> None:
    whole = transformers.AutoModelForCausalLM.from_pretrained(qwen_checkpoint).eval()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(load_gguf(qwen)(ids).logits, whole(ids).logits)
        found, expected = load_gguf(qwen, layers=2).model(ids), whole.model(ids, output_hidden_states=True)
    assert torch.equal(found.last_hidden_state, whole.model.norm(expected.hidden_states[2]))


def requantised(source: Path, kind: int, out: Path) -> Path:
    """``source`` as llama.cpp stores it in ``kind`` (enum llama_ftype)."""
    options = native.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize, options.nthread = kind, True, 1
    assert native.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(options)) == 0
    return out


def test_low_rank_training_reads_k_quants_as_llama_cpp_does(tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 256, "tie_word_embeddings": True}
    tokenizer = prm_checkpoints.byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    config = transformers.Qwen2Config(**prm_checkpoints.DECODER | sizes, vocab_size=tokenizer.get_vocab_size())
    torch.manual_seed(0)
    prm_checkpoints.save(tmp_path / "policy", transformers.Qwen2ForCausalLM(config), tokenizer)
    source = write_qwen_gguf(tmp_path / "policy", tmp_path / "f32.gguf")

    small = requantised(source, native.LLAMA_FTYPE_MOSTLY_Q4_K_M, tmp_path / "q4_k_m.gguf")
    kinds = {tensor.tensor_type.name for tensor in open_gguf(small).tensors}
    assert {"Q4_K", "Q6_K"} <= kinds
    model, _ = load_base(small)
    by_llama_cpp = requantised(small, native.LLAMA_FTYPE_ALL_F32, tmp_path / "again.gguf")
    expected = load_gguf(by_llama_cpp).state_dict()
    for name, weight in model.state_dict().items():
        assert torch.allclose(weight, expected[name], rtol=0, atol=1e-6), name
    changed = load_gguf(source).state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert 1e-3 < (model.model.layers[0].mlp.up_proj.weight - changed).abs().mean() < 0.1
    tuned = trainable(model, SelfTrainConfig(rank=4), None)
    ids = torch.arange(40)[None]
    tuned(input_ids=ids, labels=ids).loss.backward()
    learned = {name: weight.grad for name, weight in tuned.named_parameters() if weight.grad is not None}
    assert learned
    assert all("lora_" in name for name in learned)
    assert all(learned[name].abs().max() > 0 for name in learned if "lora_B" in name)


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
