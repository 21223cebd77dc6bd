"""The policy on a GPU, whichever the installed llama.cpp computes on; skipped where it computes on none.

Mesa's software device will do: a llama.cpp built with ``-DGGML_VULKAN=ON`` takes it with GGML_VK_VISIBLE_DEVICES=0. The
model is tiny, since that device is slow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from edge_tts import Budget, Solver
from edge_tts.cancellation import Cancellation
from edge_tts.core import Request, Sampling, StepEvent
from edge_tts.profiles.gpu import usable_gpus
from edge_tts.profiles.loader import detect
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy

pytestmark = pytest.mark.skipif(not usable_gpus(), reason="the installed llama.cpp computes on no GPU")

QUESTION = "Tom has 12 boxes with 8 pencils each. How many pencils does he have?"
WIDTH = 4
ENGINE = EngineConfig(width=WIDTH, context=512)
ENDLESS = Sampling(max_tokens=400, ignore_end=True)
HIDDEN = {"GGML_VK_VISIBLE_DEVICES": "", "VK_DRIVER_FILES": "/nowhere", "CUDA_VISIBLE_DEVICES": ""}
"""Variables that hide GPUs from llama.cpp."""
USE = """
import json, sys
from edge_tts import Budget, Solver
from edge_tts.profiles.gpu import usable_gpus
from edge_tts.runtimes.process_memory import peak_memory_mb

free = sum(gpu.free_mb for gpu in usable_gpus())
with Solver(model=sys.argv[1], max_tokens=64) as solver:
    result = solver.solve(sys.argv[2], "majority", Budget(generations=8))
    taken = free - sum(gpu.free_mb for gpu in usable_gpus.__wrapped__())
    info, memory = solver.policy.info, solver.plan.memory
said = {"device": info.device, "tokens": result.usage.generated_tokens}
print(json.dumps(said | {"peak": peak_memory_mb(), "here": memory.total, "there": memory.gpu, "taken": taken}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("gpu") / "tiny.gguf")


@pytest.fixture(scope="module")
def policy(model: Path) -> Iterator[LlamaPolicy]:
    policy = LlamaPolicy(model, ENGINE)
    yield policy
    policy.close()


def written(policy: LlamaPolicy, sampling: Sampling, count: int = 1) -> list[list[int]]:
    """The tokens of ``count`` samples."""
    prompt = policy.tokenize(QUESTION)
    events = list(policy.generate([Request(prompt, seed, sampling) for seed in range(count)]))
    return [[token for event in events if event.request == index for token in event.tokens] for index in range(count)]


def used(model: Path, **environment: str) -> dict[str, str | float]:
    """What a new process says of a question that it was asked."""
    done = subprocess.run(
        [sys.executable, "-c", USE, str(model), QUESTION],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found: dict[str, str | float] = json.loads(done.stdout)
    return found


def test_the_policy_is_on_the_gpu_and_writes_what_the_cpu_writes(model: Path, policy: LlamaPolicy) -> None:
    gpu = usable_gpus()[0]
    assert policy.info.device == gpu.backend
    assert gpu.name in policy.info.reason
    greedy = Sampling(temperature=0, max_tokens=24, ignore_end=True)
    there = written(policy, greedy)
    on_cpu = LlamaPolicy(model, EngineConfig(width=WIDTH, context=512, gpu_layers=0))
    here = written(on_cpu, greedy)
    on_cpu.close()
    assert on_cpu.info.device == "cpu"
    assert len(there[0]) == 24
    assert there[0][:4] == here[0][:4]  # of random weights, whose logits lie close, roundings soon change the text
    # More samples than streams: prompts are shared, cut and copied in the KV cache there.
    sampling = Sampling(temperature=0.7, max_tokens=24)
    drawn = written(policy, sampling, 3 * WIDTH)
    assert drawn == written(policy, sampling, 3 * WIDTH)
    assert len({tuple(tokens) for tokens in drawn}) > 1


def test_a_question_stays_within_the_plan_of_both_memories(model: Path) -> None:
    profile, _ = detect()
    assert profile.gpu
    found = used(model)
    assert found["device"] == usable_gpus()[0].backend
    assert found["tokens"] > 8
    assert (found["there"] > 0) is (profile.gpu_memory_mb is not None)
    assert found["taken"] <= found["there"]
    # A software device keeps its memory in the process.
    assert found["peak"] <= found["here"] + found["there"]


def test_cancelling_and_a_deadline_end_work_there(model: Path, policy: LlamaPolicy) -> None:
    prompt = policy.tokenize(QUESTION)
    cancel, events = Cancellation(), list[StepEvent]()
    requests = [Request(prompt, seed, ENDLESS) for seed in range(WIDTH)]
    caller = threading.Thread(target=lambda: events.extend(policy.generate(requests, None, cancel)))
    caller.start()
    time.sleep(0.5)
    begun = time.monotonic()
    cancel.request()
    caller.join()
    assert time.monotonic() - begun < 0.5
    assert not any(event.stop == "length" for event in events)
    assert len(written(policy, Sampling(temperature=0, max_tokens=8, ignore_end=True))[0]) == 8  # and it goes on
    with Solver(model=model) as solver:
        begun = time.monotonic()
        result = solver.solve(QUESTION, "majority", Budget(generations=512, seconds=1.0))
        assert time.monotonic() - begun < 1.5
    assert result.stop_reason == "deadline"


def test_one_callers_deadline_leaves_anothers_work_alone(policy: LlamaPolicy) -> None:
    prompt = policy.tokenize(QUESTION)
    first: list[StepEvent] = []
    sampling = Sampling(max_tokens=64, ignore_end=True)
    caller = threading.Thread(target=lambda: first.extend(policy.generate([Request(prompt, 1, sampling)])))
    caller.start()
    other = list(policy.generate([Request(prompt, 2, ENDLESS)], time.monotonic() + 0.2))
    caller.join()
    assert other[-1].stop == "cancelled"
    assert first[-1].stop == "length"
    assert sum(len(event.tokens) for event in first) == 64


def test_without_a_device_the_same_build_computes_on_the_cpu(model: Path) -> None:
    found = used(model, **HIDDEN)
    assert (found["device"], found["there"]) == ("cpu", 0)
    assert found["tokens"] > 8
    assert found["peak"] <= found["here"]
