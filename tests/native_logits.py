"""Logits of a GGUF by llama.cpp itself, to compare other computations of the same model with."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import llama_cpp.llama_cpp as native
import numpy as np
import numpy.typing as npt

from edge_tts.runtimes.llama_native import model_params


@native.llama_log_callback
def _quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    return


def logits(model_path: Path, tokens: Sequence[int], adapter: Path | None = None) -> npt.NDArray[np.float32]:
    """Logits (tokens, vocabulary) after each token, with ``adapter`` applied at run time where given."""
    native.llama_log_set(_quiet, ctypes.c_void_p(0))
    native.llama_backend_init()
    with ExitStack() as stack:
        model_options = model_params()
        model_options.n_gpu_layers = 0
        model = native.llama_model_load_from_file(str(model_path).encode(), model_options)
        assert model, f"llama.cpp cannot load {model_path}"
        stack.callback(native.llama_model_free, model)
        options = native.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = 256
        options.n_threads = options.n_threads_batch = 1
        context = native.llama_init_from_model(model, options)
        assert context
        stack.callback(native.llama_free, context)
        if adapter is not None:
            lora = native.llama_adapter_lora_init(model, str(adapter).encode())
            assert lora, f"llama.cpp cannot load the adapter {adapter}"
            adapters = (native.llama_adapter_lora_p_ctypes * 1)(lora)
            assert native.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)) == 0
        batch = native.llama_batch_init(len(tokens), 0, 1)
        stack.callback(native.llama_batch_free, batch)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        assert native.llama_decode(context, batch) == 0
        width = native.llama_vocab_n_tokens(native.llama_model_get_vocab(model))
        return np.ctypeslib.as_array(native.llama_get_logits(context), (len(tokens), width)).copy()
