"""Merging an adapter into a base GGUF and requantising it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
import standin
from native_logits import logits
from safetensors.numpy import load_file, save_file

from edge_tts.errors import PackError
from edge_tts.export.adapter import convert
from edge_tts.export.train.policy_tokenizer import load_tokenizer
from edge_tts.export.vocabulary import kept_tokens
from edge_tts.files.gguf import open_gguf
from edge_tts.packs.base_model import SMOLLM2_135M, locate
from edge_tts.packs.merge_adapter import merge, read_adapter
from edge_tts.packs.vocabulary_cut import Cut
from edge_tts.planning.shapes import policy_shape


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``base.gguf``, ``peft`` and ``adapter.gguf`` of the stand-in, rank 32."""
    standin.write_base(tmp_path / "base.gguf")
    standin.write_peft(tmp_path / "peft", rank=32)
    convert(tmp_path / "peft", tmp_path / "base.gguf", tmp_path / "adapter.gguf", "Q8_0")
    return tmp_path


def tokenized(path: Path, text: str) -> list[int]:
    policy = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    try:
        return policy.tokenize(text.encode(), add_bos=False, special=True)
    finally:
        policy.close()


def matrices(path: Path) -> dict[str, np.ndarray]:
    reader = open_gguf(path)
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}


def test_merge_adds_the_scaled_product(folder: Path) -> None:
    merge(folder / "base.gguf", folder / "adapter.gguf", folder / "out.gguf", "F32")
    before, after = matrices(folder / "base.gguf"), matrices(folder / "out.gguf")
    weights = load_file(folder / "peft" / "adapter_model.safetensors")
    key = "base_model.model.model.layers.0.mlp.down_proj"
    product = 2 * weights[f"{key}.lora_B.weight"] @ weights[f"{key}.lora_A.weight"]  # alpha is twice the rank
    assert np.abs(product).max() > 10
    assert np.abs(after["blk.0.ffn_down.weight"] - before["blk.0.ffn_down.weight"] - product).max() < 0.5
    for name in set(before) - {"blk.0.ffn_down.weight", "blk.0.attn_q.weight"}:
        assert np.array_equal(before[name], after[name])


def test_merge_keeps_metadata_and_vocabulary(folder: Path) -> None:
    merge(folder / "base.gguf", folder / "adapter.gguf", folder / "out.gguf", "Q4_0")
    before, after = open_gguf(folder / "base.gguf"), open_gguf(folder / "out.gguf")
    changed = {k for k in before.fields if before.fields[k].contents() != after.fields[k].contents()}
    assert list(before.fields) == list(after.fields)
    assert changed == {"general.file_type"}
    kinds = {tensor.name: tensor.tensor_type.name for tensor in after.tensors}
    assert kinds["token_embd.weight"] == kinds["output_norm.weight"] == "F32"
    assert {kind for name, kind in kinds.items() if name.startswith("blk.")} == {"Q4_0"}


def test_a_vocabulary_may_be_cut(home: Path, tmp_path: Path) -> None:
    """The logits of the tokens that stay are the same, and so are the tokens of a text made of them."""
    base = locate(SMOLLM2_135M)
    text = "<|im_start|>user\nTom has 12 boxes. How many?<|im_end|>\n<|im_start|>assistant\n12*8=96\n"
    full = load_tokenizer(base)
    kept = kept_tokens(full.backend_tokenizer, [text], 2000)
    assert len(kept) == 2000
    standin.write_peft(tmp_path / "peft", rank=32)
    save_file({}, tmp_path / "peft" / "adapter_model.safetensors")
    convert(tmp_path / "peft", base, tmp_path / "adapter.gguf", vocabulary=kept)
    whole, cut = tmp_path / "whole.gguf", tmp_path / "cut.gguf"
    merge(base, None, whole, "Q8_0")
    merge(base, tmp_path / "adapter.gguf", cut, "Q8_0")
    assert policy_shape(cut).vocabulary == 2000
    assert policy_shape(whole).parameters - policy_shape(cut).parameters == (49152 - 2000) * 576
    tokens, fewer = (tokenized(path, text) for path in (whole, cut))
    assert [kept[token] for token in fewer] == tokens == full.encode(text, add_special_tokens=False)
    assert np.allclose(logits(cut, fewer), logits(whole, tokens)[..., kept], atol=1e-3)
    assert len(tokenized(cut, "incomprehensibility")) > len(tokenized(whole, "incomprehensibility"))


def test_a_vocabulary_that_does_not_fit_is_refused(folder: Path) -> None:
    for kept in ([3, 2, 1], [0, 32], [-1, 0], [1, 1]):
        convert(folder / "peft", folder / "base.gguf", folder / "adapter.gguf", "Q8_0", kept)
        with pytest.raises(PackError, match="ascending list of ids below 32, found"):
            merge(folder / "base.gguf", folder / "adapter.gguf", folder / "out.gguf", "F32")
    with pytest.raises(PackError, match=r"must include 2, the model's tokenizer\.ggml\.eos_token_id"):
        Cut([0, 1], ["a", "b", "c"]).metadata("tokenizer.ggml.eos_token_id", 2)


def test_sensitive_matrices_may_be_stored_wider(folder: Path) -> None:
    merge(folder / "base.gguf", folder / "adapter.gguf", folder / "out.gguf", "Q4_0+Q8_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in open_gguf(folder / "out.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0"
    assert kinds["blk.0.attn_q.weight"] == kinds["blk.0.ffn_up.weight"] == "Q4_0"


def test_result_does_not_depend_on_the_order_of_additions(folder: Path) -> None:
    first = merge(folder / "base.gguf", folder / "adapter.gguf", folder / "first.gguf", "F32")
    order = np.random.default_rng(0).permutation(32)
    weights = load_file(folder / "peft" / "adapter_model.safetensors")
    shuffled = {key: w[order] if "lora_A" in key else np.ascontiguousarray(w[:, order]) for key, w in weights.items()}
    save_file(shuffled, folder / "peft" / "adapter_model.safetensors")
    convert(folder / "peft", folder / "base.gguf", folder / "shuffled.gguf", "Q8_0")
    assert (folder / "shuffled.gguf").read_bytes() != (folder / "adapter.gguf").read_bytes()
    assert merge(folder / "base.gguf", folder / "shuffled.gguf", folder / "second.gguf", "F32") == first


def test_quantiser_agrees_with_llama_cpp() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 576)).astype(np.float32)
    library = ctypes.CDLL(str(next((Path(llama_cpp.__file__).parent / "lib").glob("*ggml-base.*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    kind = gguf.GGMLQuantizationType.Q4_0
    ours = gguf.quants.quantize(weight, kind)
    theirs = np.zeros_like(ours)
    rows, columns = (ctypes.c_int64(n) for n in weight.shape)
    floats = weight.ctypes.data_as(ctypes.c_void_p)
    out = theirs.ctypes.data_as(ctypes.c_void_p)
    library.ggml_quantize_chunk(ctypes.c_int(kind), floats, out, ctypes.c_int64(0), rows, columns, None)
    # Theirs may round a tie differently where the compiler fuses multiply and add.
    assert (ours != theirs).mean() < 1e-4


def test_progress_runs_from_zero_towards_one(folder: Path) -> None:
    told: list[float] = []
    merge(folder / "base.gguf", None, folder / "out.gguf", "Q4_0", lambda fraction, _: told.append(fraction))
    assert told[0] == 0.0
    assert told == sorted(told)
    assert 0.5 < told[-1] <= 1.0


def test_damaged_and_foreign_files(folder: Path) -> None:
    whole = (folder / "base.gguf").read_bytes()
    for size in (0, 3, 100, len(whole) // 2):
        (folder / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(PackError, match=r"cut\.gguf is damaged"):
            merge(folder / "cut.gguf", None, folder / "out.gguf", "Q4_0")
    with pytest.raises(PackError, match="nowhere"):
        merge(folder / "nowhere.gguf", None, folder / "out.gguf", "Q4_0")
    with pytest.raises(PackError, match="not a LoRA adapter"):
        read_adapter(folder / "base.gguf")


def test_merged_model_decodes_like_the_adapter_at_run_time(home: Path, tmp_path: Path) -> None:
    base = locate(SMOLLM2_135M)
    rng = np.random.default_rng(0)
    weights = {}
    shapes = {"self_attn.q_proj": (576, 576), "self_attn.k_proj": (192, 576), "mlp.down_proj": (576, 1536)}
    for layer in (10, 20, 29):
        for module, (outputs, inputs) in shapes.items():
            key = f"base_model.model.model.layers.{layer}.{module}"
            weights[f"{key}.lora_A.weight"] = rng.normal(size=(32, inputs)).astype(np.float32) / np.float32(inputs**0.5)
            weights[f"{key}.lora_B.weight"] = rng.normal(size=(outputs, 32)).astype(np.float32) * np.float32(0.1)
    standin.write_peft(tmp_path / "peft", rank=32)
    save_file(weights, tmp_path / "peft" / "adapter_model.safetensors")
    convert(tmp_path / "peft", base, tmp_path / "adapter.gguf", "Q8_0")
    merge(base, None, tmp_path / "base-f16.gguf", "F16")
    merge(base, tmp_path / "adapter.gguf", tmp_path / "merged-f16.gguf", "F16")
    tokens = [1, 4093, 198, 1301, 418, 216, 34, 26, 198, 504, 3575, 282, 4649, 314]
    without = logits(tmp_path / "base-f16.gguf", tokens)
    at_run_time = logits(tmp_path / "base-f16.gguf", tokens, tmp_path / "adapter.gguf")
    merged = logits(tmp_path / "merged-f16.gguf", tokens)
    effect = np.sqrt(np.mean((at_run_time - without) ** 2))
    assert effect > 0.3
    assert np.sqrt(np.mean((merged - at_run_time) ** 2)) < 0.05 * effect
