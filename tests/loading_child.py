"""Load and use damaged models: ``python loading_child.py`` reads lines of JSON, a model each, and answers each one.

Every model is loaded in a process forked for it, so that a crash of native code ends that one alone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path

from edge_tts import EdgeError
from edge_tts.core import Request, Sampling
from edge_tts.packs.prm_check import tried
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.prompt_tokens import prompt_tokens
from edge_tts.runtimes import llama, onnx_verifier, privacy, trial
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.loaded import LoadedModels, ModelsConfig

SECONDS = 30
MOST_BYTES = 8 * 2**30


def policy(path: Path) -> str:
    engine = EngineConfig(width=2, context=256, threads=1)
    models = LoadedModels(ModelsConfig(path, engine, None))
    chat = models.policy.chat_model
    template = ChatTemplate(chat.template, chat.bos, chat.eos, chat.adds_bos)
    prompt = prompt_tokens(template.render((Message("user", "What is 2 + 3?"),)).pieces, models.policy)
    requests = [Request(prompt, seed, Sampling(0.7, max_tokens=8)) for seed in range(2)]
    return str(len([event for event in models.policy.generate(requests) if event.stop]))


def verifier(path: Path) -> str:
    return str(len(tried(path, path.with_name("tokenizer.json"))))


def work(kind: str, path: Path) -> dict[str, str]:
    try:
        return {"done": {"policy": policy, "verifier": verifier}[kind](path)}
    except EdgeError as error:
        return {"error": type(error).__name__, "text": str(error)}
    except BaseException:
        return {"traceback": traceback.format_exc()}


def answer(kind: str, path: Path) -> dict[str, str]:
    """What became of the model at ``path``: done, an error's class and text, a traceback, or a signal's name."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(writing, json.dumps(work(kind, path)).encode()[:60_000])
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], SECONDS)
    said = os.read(reading, 65536) if ready else b""
    if not ready:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(reading)
    if not ready:
        return {"traceback": f"no answer in {SECONDS} s"}
    if said:
        return dict(json.loads(said))
    return {"signal": signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"}


if __name__ == "__main__":
    trial.without_core_dump()
    privacy.import_onnxruntime()
    assert llama.LlamaPolicy  # imported once, for all processes
    assert onnx_verifier.OnnxVerifier
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(answer(asked["kind"], Path(asked["path"]))), flush=True)
