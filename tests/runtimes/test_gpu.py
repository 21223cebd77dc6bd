"""The policy on a GPU, whichever the installed llama.cpp computes on; skipped where it computes on none.

Mesa's software device will do: a llama.cpp built with ``-DGGML_VULKAN=ON`` takes it with GGML_VK_VISIBLE_DEVICES=0.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from edge_tts import Budget, Solver
from edge_tts.cancellation import Cancellation
from edge_tts.core import Request, Sampling, StepEvent
from edge_tts.packs.pack import Pack
from edge_tts.profiles.gpu import usable_gpus
from edge_tts.profiles.loader import detect
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.llama import LlamaPolicy

pytestmark = pytest.mark.skipif(not usable_gpus(), reason="the installed llama.cpp computes on no GPU")

QUESTION = "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?"
WIDTH = 4
LEAVES_OUT = {"GGML_VK_VISIBLE_DEVICES": "", "VK_DRIVER_FILES": "/nowhere", "CUDA_VISIBLE_DEVICES": ""}
"""Variables that hide every GPU from llama.cpp."""
USE = """
import json, sys
from pathlib import Path
from edge_tts import Budget, Solver
from edge_tts.profiles.gpu import usable_gpus
from edge_tts.runtimes.process_memory import peak_memory_mb

free = [gpu.free_mb for gpu in usable_gpus()]
with Solver(sys.argv[1]) as solver:
    result = solver.solve(sys.argv[2], "majority", Budget(generations=8))
    held = [gpu.free_mb for gpu in usable_gpus.__wrapped__()]
    taken = sum(free) - sum(held)
    plan, info = solver.plan, solver.policy.info
    said = {"answer": result.answer, "device": info.device, "reason": info.reason, "taken": taken}
    caps = {"peak": peak_memory_mb(), "planned": plan.memory.total, "planned_there": plan.memory.gpu}
print(json.dumps(said | caps))
"""


@pytest.fixture(scope="module")
def policy(pack: Pack) -> Iterator[LlamaPolicy]:
    policy = LlamaPolicy(pack.policy_path, EngineConfig(width=WIDTH, context=512))
    yield policy
    policy.close()


def texts(policy: LlamaPolicy, sampling: Sampling, count: int = 1) -> list[str]:
    prompt = policy.tokenize(PromptFormat().render(QUESTION), special=True)
    events = list(policy.generate([Request(prompt, seed, sampling) for seed in range(count)]))
    return ["".join(event.text for event in events if event.request == index) for index in range(count)]


def used(pack: Pack, **environment: str) -> dict[str, str | float]:
    """What a new process says of a question that it solved."""
    done = subprocess.run(
        [sys.executable, "-c", USE, str(pack.folder), QUESTION],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str | float] = json.loads(done.stdout)
    return found


def test_the_policy_is_on_the_gpu_and_writes_what_the_cpu_writes(pack: Pack, policy: LlamaPolicy) -> None:
    gpu = usable_gpus()[0]
    assert policy.info.device == gpu.backend
    assert gpu.name in policy.info.reason
    greedy = Sampling(temperature=0, max_tokens=24)
    (there,) = texts(policy, greedy)
    on_cpu = LlamaPolicy(pack.policy_path, EngineConfig(width=WIDTH, context=512, gpu_layers=0))
    (here,) = texts(on_cpu, greedy)
    on_cpu.close()
    assert on_cpu.info.device == "cpu"
    assert there == here
    # More samples than streams: prompts are shared, cut and copied in the KV cache there.
    drawn = texts(policy, Sampling(temperature=0.7, max_tokens=24), 3 * WIDTH)
    assert drawn == texts(policy, Sampling(temperature=0.7, max_tokens=24), 3 * WIDTH)
    assert len(set(drawn)) > 1


def test_a_question_is_solved_within_the_plan_of_both_memories(pack: Pack) -> None:
    profile, _ = detect()
    assert profile.gpu
    found = used(pack)
    assert (found["answer"], found["device"]) == ("76", usable_gpus()[0].backend)
    own = profile.gpu_memory_mb is not None
    assert (found["planned_there"] > 0) is own
    assert found["taken"] <= found["planned_there"]
    # A software device keeps its memory in the process.
    assert found["peak"] <= found["planned"] + found["planned_there"]


def test_cancelling_and_a_deadline_end_work_there(pack: Pack, policy: LlamaPolicy) -> None:
    endless = Sampling(max_tokens=400, ignore_end=True)
    prompt = policy.tokenize(PromptFormat().render(QUESTION), special=True)
    cancel, events = Cancellation(), list[StepEvent]()
    requests = [Request(prompt, seed, endless) for seed in range(WIDTH)]
    caller = threading.Thread(target=lambda: events.extend(policy.generate(requests, None, cancel)))
    caller.start()
    while not events:
        time.sleep(0.001)
    begun = time.monotonic()
    cancel.request()
    caller.join()
    assert time.monotonic() - begun < 0.5
    assert any(event.stop == "cancelled" for event in events)
    assert len(texts(policy, Sampling(temperature=0, max_tokens=8))) == 1  # and it goes on
    with Solver(pack) as solver:
        solver.solve(QUESTION, "greedy")
        begun = time.monotonic()
        result = solver.solve(
            "How many primes are there below 20000?", "majority", Budget(generations=512, seconds=1.0)
        )
        assert time.monotonic() - begun < 1.5
    assert "deadline" in result.stop_reason


def test_without_a_device_the_same_build_computes_on_the_cpu(pack: Pack) -> None:
    found = used(pack, **LEAVES_OUT)
    assert (found["answer"], found["device"], found["reason"]) == ("76", "cpu", "no GPU was found")
    assert found["planned_there"] == 0
    assert found["peak"] <= found["planned"]
