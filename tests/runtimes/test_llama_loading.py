"""Loading a policy: what its file says, what is refused and how."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import gguf
import llama_cpp.llama_cpp as lib
import pytest

from edge_tts.errors import PackError
from edge_tts.files.gguf import open_gguf
from edge_tts.packs.pack import Pack
from edge_tts.profiles.gpu import Gpu
from edge_tts.runtimes import device
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy
from edge_tts.runtimes.llama_native import NativeModel, model_params

WIDTH = 8


@pytest.fixture(scope="module")
def policy(pack: Pack) -> Iterator[LlamaPolicy]:
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=WIDTH, context=320))
    yield policy
    policy.close()


def test_what_the_file_says_about_chatting(policy: LlamaPolicy, coder_05b: Path) -> None:
    assert policy.chat_model.template is not None
    assert (policy.chat_model.eos, policy.chat_model.adds_bos) == ("<|im_end|>", False)
    native = NativeModel(coder_05b, EngineConfig(width=1, context=256))
    chat, tokens = native.chat_model, native.tokenize("<|im_end|>", special=True)
    native.close()
    assert chat.template is not None
    assert "<|im_start|>" in chat.template
    assert (chat.bos, chat.eos) == ("<|endoftext|>", "<|im_end|>")
    assert len(tokens) == 1
    assert not chat.adds_bos


@pytest.mark.parametrize("around", ["{}", "a{}b", " {} ", "\n{}\n", "<{}>"])
def test_no_text_becomes_a_control_token(coder_05b: Path, pack: Pack, around: str) -> None:
    for path in (coder_05b, pack.policy_path):
        native = NativeModel(path, EngineConfig(width=1, context=256))
        known = filter(None, map(native.special, range(native.vocabulary)))
        control = {special.token: special.text for special in known}
        written = {text: native.tokenize(around.format(text)) for text in control.values()}
        native.close()
        assert len(control) > 15
        assert not {text: found for text, found in written.items() if control.keys() & set(found)}


@pytest.mark.parametrize(
    ("question", "yes", "says"),
    [
        ("llama_model_is_recurrent", True, "recurrent state"),
        ("llama_model_is_hybrid", True, "recurrent state"),
        ("llama_model_has_encoder", True, "has an encoder"),
        ("llama_model_has_decoder", False, "has an encoder"),
        ("llama_model_is_diffusion", True, "diffusion"),
    ],
)
def test_models_that_do_not_continue_text_are_refused(
    pack: Pack, question: str, yes: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lib, question, lambda model: yes)
    with pytest.raises(PackError, match=rf"{says}.*choose a decoder-only chat model"):
        NativeModel(pack.policy_path, EngineConfig(width=1, context=256))


def test_a_model_for_embeddings_is_refused(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "embedding.gguf"
    with_pooling(pack.policy_path, path)
    with pytest.raises(PackError, match=r"embedding\.gguf \(llama\) makes embeddings"):
        NativeModel(path, EngineConfig(width=1, context=256))


def with_pooling(source: Path, target: Path) -> None:
    """A copy of a GGUF that says, as files of embedding models do, how to pool its outputs."""
    reader = open_gguf(source)
    writer = gguf.GGUFWriter(target, arch="llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind, *inner = field.types
            writer.add_key_value(field.name, field.contents(), kind, inner[0] if inner else None)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("amx", [False, True])
def test_kernels_that_crash_are_not_used(amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lib, "llama_print_system_info", lambda: b"CPU : AVX2 = 1 | " + b"AMX_INT8 = 1 | " * amx)
    assert model_params().use_extra_bufts is not amx


def test_damaged_and_missing_files_are_named(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="does not exist"):
        LlamaPolicy(tmp_path / "none.gguf", EngineConfig())
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(pack.policy_path.read_bytes()[:1_000_000])
    with pytest.raises(PackError, match=r"cut\.gguf"):
        LlamaPolicy(cut, EngineConfig())


def test_an_interrupt_while_loading_is_not_lost(pack: Pack) -> None:
    def load_again_and_again() -> None:
        for _ in range(20):
            NativeModel(pack.policy_path, EngineConfig(width=1, context=256)).close()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):  # while llama.cpp loads, and writes its log through a callback
            load_again_and_again()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_gpu_choice_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    radeon = Gpu("vulkan", "AMD Radeon RX 7600", 7000, 8192, False)
    monkeypatch.setattr(device, "usable_gpus", lambda: (radeon,))
    assert device.offload(None, True) == (-1, "vulkan", "the llama.cpp build sees a GPU, AMD Radeon RX 7600")
    assert device.offload(7, True)[:2] == (7, "vulkan")
    assert device.offload(0, True)[:2] == (0, "cpu")
    monkeypatch.setattr(device, "usable_gpus", lambda: ())
    monkeypatch.setattr(device, "nvidia_gpu_present", lambda: True)
    layers, name, reason = device.offload(None, False)
    assert (layers, name) == (0, "cpu")
    assert "GGML_CUDA" in reason
