"""Thin owners of llama.cpp's model, context and samplers over the low-level ctypes binding.

One context per object, a KV stream per sequence (``kv_unified=False``): attention of one sequence
then never walks another's cells. Nothing here is thread-safe except tokenising.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# llama.cpp's OpenMP threads wait for each other hundreds of times a token. By default GNU OpenMP lets them spin for a
# millisecond or more, and while another program is busy each wait then takes a whole time slice. GNU OpenMP itself
# spins 1000 times if it knows of more threads than cores. With that, next to two busy loops, a token takes 44 ms
# instead of 420; on idle cores it takes as long as before (2 cores, SmolLM2-135M).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from edge_tts.core import ChatModelInfo, Sampling, SpecialToken
from edge_tts.errors import BackendError, PackError
from edge_tts.runtimes import device
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.interrupts import holding_interrupts
from edge_tts.runtimes.process_memory import MAPPED, MIB, release_mapped_files

_KV_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}
_FLASH_ATTENTION = 1
_ABORTED = 2
"""What llama_decode returns when its abort callback has ended it."""
_libc = ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)
"""llama.cpp calls strlen of a text of at most one byte between the nodes of a compute graph, and gives up unless it is
0. A callback in Python would wait for the interpreter's lock hundreds of times a token."""
_RELEASED_MB = 32
"""How much of a mapped file is loaded between two releases of its pages."""
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""
_LOG_ERROR = 4
_init_lock = threading.Lock()
_initialised = False
_last_error = ""


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_errors(level: int, text: bytes, _: Any) -> None:
    global _last_error
    if level == _LOG_ERROR:
        _last_error = text.decode(errors="replace").strip()


def initialise() -> None:
    """Initialise the backend once and silence llama.cpp's log, keeping its last error line."""
    global _initialised
    with _init_lock:
        if not _initialised:
            lib.llama_log_set(_keep_errors, ctypes.c_void_p(0))
            lib.llama_backend_init()
            _initialised = True


def model_params() -> Any:
    """llama.cpp's defaults for a model, without the kernels that crash on CPUs with AMX.

    There, compilers remove the tile configuration as unused, and the kernel then ends in a segmentation fault or an
    illegal instruction (llama.cpp issue 20824, pull request 26954). The switch also turns off repacked weights, which
    costs a tenth of the speed or more; a build without AMX keeps them.
    """
    params = lib.llama_model_default_params()
    params.use_extra_bufts = b"AMX_INT8 = 1" not in lib.llama_print_system_info()
    return params


def _releasing(path: Path, held: list[int]) -> Any:
    """llama.cpp's progress callback: stops loading after an interrupt, and keeps few of the file's pages resident.

    llama.cpp maps the whole file. Tensors that it repacks for the CPU (all of Q4_0, Q4_K and some more types) get
    memory of their own, and the pages they were read from are not used again.
    """
    step = _RELEASED_MB * MIB / max(1, path.stat().st_size)
    due = step

    def progress(done: float, _: Any) -> bool:
        nonlocal due
        if MAPPED and due <= done < 1:
            due = done + step
            release_mapped_files(path.parent, path.suffix, done)
        return not held

    return lib.llama_progress_callback(progress)


class GivenUpError(Exception):
    """A batch was given up; its sequences have to be trimmed to what they held before."""


class NativeModel:
    """A GGUF model with one context. ``close`` frees context and model, in that order."""

    def __init__(self, path: Path, config: EngineConfig) -> None:
        """Load ``path``.

        Raises PackError for a file that is missing, damaged or no text model, BackendError if memory is too small.
        """
        initialise()
        self._stack = ExitStack()
        self._vocabulary_lock = threading.Lock()
        self._closed = False
        self._given_up = ctypes.create_string_buffer(2)
        try:
            with holding_interrupts() as held:
                self._load(path, config, held)
                self._open_context(path, config)
        except BaseException:
            self._stack.close()
            raise

    def _load(self, path: Path, config: EngineConfig, held: list[int]) -> None:
        if not path.is_file():
            raise PackError(f"the model file {path} does not exist; check the path")
        layers, self.device, self.reason = device.offload(config.gpu_layers, bool(lib.llama_supports_gpu_offload()))
        params = model_params()
        params.n_gpu_layers = layers
        # Where mapped pages cannot be released, a file stays resident beside the tensors that are repacked from it.
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if MAPPED else lib.LLAMA_LOAD_MODE_NONE
        on_progress = _releasing(path, held)
        params.progress_callback = on_progress
        model = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise PackError(
                f"llama.cpp cannot load {path}: {_last_error or 'unknown reason'}; "
                "the file is damaged, or of a kind that this version does not know; download it again, take another "
                f"quantisation or model, or see what `edge-reason model info {shlex.quote(str(path))}` says of it"
            )
        self._stack.callback(lib.llama_model_free, model)
        if MAPPED:
            release_mapped_files(path.parent, path.suffix)
        self.model = model
        self.vocab = lib.llama_model_get_vocab(model)
        self.vocabulary = int(lib.llama_vocab_n_tokens(self.vocab))
        self.parameters = int(lib.llama_model_n_params(model))
        self._pieces: dict[int, bytes] = {}
        self.chat_model = self._chat_model()
        self._refuse_other_kinds(path)

    def _chat_model(self) -> ChatModelInfo:
        template = lib.llama_model_chat_template(self.model, None)

        def text(token: int) -> str:
            known: bytes = lib.llama_vocab_get_text(self.vocab, token) if token >= 0 else b""
            return known.decode("utf-8", errors="replace")

        return ChatModelInfo(
            template.decode("utf-8", errors="replace") if template else None,
            text(int(lib.llama_vocab_bos(self.vocab))),
            text(int(lib.llama_vocab_eos(self.vocab))),
            bool(lib.llama_vocab_get_add_bos(self.vocab)),
        )

    def _metadata(self, key: str) -> str | None:
        buffer = ctypes.create_string_buffer(256)
        size = lib.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace") if size >= 0 else None

    def _refuse_other_kinds(self, path: Path) -> None:
        """Raise PackError unless the model continues text from left to right and its KV cache can be cut and copied."""
        family = self._metadata("general.architecture") or "unknown"
        pooling = self._metadata(f"{family}.pooling_type")
        if lib.llama_model_is_recurrent(self.model) or lib.llama_model_is_hybrid(self.model):
            problem = "keeps a recurrent state, which cannot be cut back to share a prompt between samples"
        elif lib.llama_model_has_encoder(self.model) or not lib.llama_model_has_decoder(self.model):
            problem = "has an encoder"
        elif lib.llama_model_is_diffusion(self.model):
            problem = "writes by diffusion, not from left to right"
        elif pooling not in (None, "0") or self._metadata(f"{family}.attention.causal") == "false":
            problem = "makes embeddings of texts and does not write any"
        else:
            return
        raise PackError(f"the model {path} ({family}) {problem}; choose a decoder-only chat model")

    def _open_context(self, path: Path, config: EngineConfig) -> None:
        trained = int(lib.llama_model_n_ctx_train(self.model))
        self.context_length = min(config.context, trained)
        self.width = config.width
        params = lib.llama_context_default_params()
        params.n_ctx = self.context_length * config.width
        params.n_seq_max = config.width
        params.n_batch = params.n_ubatch = max(config.micro_batch, config.width)
        params.n_outputs_max = config.width
        params.n_threads = params.n_threads_batch = device.threads(config.threads)
        params.kv_unified = False
        params.flash_attn_type = _FLASH_ATTENTION
        params.type_k = params.type_v = _KV_TYPES[config.kv_type]
        params.no_perf = True
        params.abort_callback = ctypes.cast(_libc.strlen, lib.ggml_abort_callback)
        params.abort_callback_data = ctypes.addressof(self._given_up)
        context = lib.llama_init_from_model(self.model, params)
        if not context:
            raise BackendError(
                f"llama.cpp cannot open {path} with width {config.width} and context {config.context}: "
                f"{_last_error or 'unknown reason'}; try a smaller width or context"
            )
        self._stack.callback(lib.llama_free, context)
        self.context = context
        self.memory = lib.llama_get_memory(context)
        # llama.cpp rounds the length of a stream; this is how long it really is.
        self.context_length = min(self.context_length, int(lib.llama_n_ctx(context)) // config.width)
        self.batch_size = int(lib.llama_n_batch(context))
        self.batch = lib.llama_batch_init(self.batch_size, 0, 1)
        self._stack.callback(lib.llama_batch_free, self.batch)

    def close(self) -> None:
        with self._vocabulary_lock:
            self._closed = True
            self._stack.close()

    def special(self, token: int) -> SpecialToken | None:
        """See :meth:`edge_tts.core.Policy.special`."""
        with self._vocabulary_lock:
            if self._closed:
                raise BackendError("the policy is closed; load it again")
            attributes = int(lib.llama_vocab_get_attr(self.vocab, token))
            text = lib.llama_vocab_get_text(self.vocab, token).decode("utf-8", errors="replace")
        if not attributes & (lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN):
            return None
        left, right = lib.LLAMA_TOKEN_ATTR_LSTRIP, lib.LLAMA_TOKEN_ATTR_RSTRIP
        return SpecialToken(token, text, bool(attributes & left), bool(attributes & right))

    def tokenize(self, text: str, special: bool = False) -> tuple[int, ...]:
        """See :meth:`edge_tts.core.Policy.tokenize`. Raises BackendError once closed."""
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 8
        ids = (lib.llama_token * room)()
        with self._vocabulary_lock:
            if self._closed:
                raise BackendError("the policy is closed; load it again")
            count = lib.llama_tokenize(self.vocab, data, len(data), ids, room, False, special)
        if count < 0:
            raise BackendError(f"llama.cpp cannot tokenise a text of {len(data)} bytes")
        return tuple(ids[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of one token; special tokens are empty."""
        known = self._pieces.get(token)
        if known is None:
            buffer = ctypes.create_string_buffer(256)
            size = lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
            known = self._pieces[token] = buffer.raw[: max(0, size)]
        return known

    def is_end(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self.vocab, token))

    def fork(self, source: int, target: int, length: int) -> None:
        """Give sequence ``target`` the first ``length`` cells of ``source`` (llama_memory_seq_cp).

        llama.cpp copies whole streams only, so the rest is trimmed afterwards.
        """
        if source != target:
            lib.llama_memory_seq_rm(self.memory, target, -1, -1)
            lib.llama_memory_seq_cp(self.memory, source, target, -1, -1)
        self.trim(target, length)

    def trim(self, sequence: int, length: int) -> None:
        """Remove from ``sequence`` what it holds from position ``length`` on."""
        lib.llama_memory_seq_rm(self.memory, sequence, length, -1)

    def state(self, sequence: int) -> memoryview:
        """The keys and values of ``sequence`` (llama_state_seq_get_data)."""
        size = int(lib.llama_state_seq_get_size(self.context, sequence))
        buffer = (ctypes.c_uint8 * size)()
        written = int(lib.llama_state_seq_get_data(self.context, buffer, size, sequence))
        return memoryview(buffer).cast("B")[:written]

    def restore(self, sequence: int, state: memoryview) -> bool:
        """Give ``sequence`` what :meth:`state` gave; False, and an empty sequence, where llama.cpp refuses it."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer(state)
        taken = lib.llama_state_seq_set_data(self.context, buffer, len(state), sequence)
        del buffer  # it keeps the memory behind ``state`` from being released
        if taken:
            return True
        self.trim(sequence, 0)
        return False

    def decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> NDArray[np.float32]:
        """Evaluate rows of (token, position, sequence, wants logits); at most ``batch_size``.

        Returns the logits of the rows that want them, in order, as (rows, vocabulary); the array is
        llama.cpp's own memory, valid until the next call. On a CPU the work can be given up by
        :meth:`give_up`. Raises GivenUpError in that case, and BackendError where llama.cpp fails.
        """
        batch = self.batch
        outputs = 0
        for i, (token, position, sequence, wants) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wants
            outputs += wants
        batch.n_tokens = len(rows)
        status = lib.llama_decode(self.context, batch)
        if status == _ABORTED:
            raise GivenUpError
        if status:
            raise BackendError(f"llama_decode failed with status {status} on {len(rows)} tokens: {_last_error}")
        if not outputs:
            return np.empty((0, self.vocabulary), np.float32)
        pointer = lib.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, (outputs, self.vocabulary))

    def give_up(self, yes: bool = True) -> None:
        """End a ``decode`` under way in another thread, or the next one; False takes that back."""
        self._given_up.value = b"1" if yes else b""


class NativeSampler:
    """A C sampler chain: top-k, top-p, min-p, temperature, draw; greedy at temperature 0."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if sampling.temperature <= 0:
            lib.llama_sampler_chain_add(self._chain, lib.llama_sampler_init_greedy())
            return
        if sampling.top_k > 0:
            lib.llama_sampler_chain_add(self._chain, lib.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p < 1:
            lib.llama_sampler_chain_add(self._chain, lib.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            lib.llama_sampler_chain_add(self._chain, lib.llama_sampler_init_min_p(sampling.min_p, 1))
        lib.llama_sampler_chain_add(self._chain, lib.llama_sampler_init_temp(sampling.temperature))
        lib.llama_sampler_chain_add(self._chain, lib.llama_sampler_init_dist(seed & 0xFFFFFFFF))

    def sample(self, ids: NDArray[np.int64], logits: NDArray[np.float32]) -> int:
        """Draw one of the tokens ``ids`` by their ``logits`` (llama_sampler_apply)."""
        candidates = np.zeros(len(ids), _CANDIDATE)
        candidates["id"], candidates["logit"] = ids, logits
        data = candidates.ctypes.data_as(lib.llama_token_data_p)
        array = lib.llama_token_data_array(data, len(ids), -1, False)
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def close(self) -> None:
        if self._chain:
            lib.llama_sampler_free(self._chain)
            self._chain = None
