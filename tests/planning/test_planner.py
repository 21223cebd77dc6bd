"""The memory model against a real engine, and the planner's choices."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_tts.commands.plan import command as plan_command
from edge_tts.errors import InputError, ResourceError
from edge_tts.packs.base_model import locate
from edge_tts.packs.build import sampling_for
from edge_tts.packs.pack import Pack
from edge_tts.packs.planned import plan_for
from edge_tts.planning.memory import cache_for, memory_plan
from edge_tts.planning.planner import Plan, make_plan
from edge_tts.planning.shapes import policy_shape
from edge_tts.profiles.loader import load
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.config import EngineConfig, PolicyShape, VerifierConfig, VerifierShape
from edge_tts.runtimes.process_memory import MAPPED

SMOL = PolicyShape(91_726_912, 134_515_008, 30, 3, 64, 576, 49_152, 8192)
MINI = VerifierShape(17_463_541, 14_161_537, 4, 576, 512, 6144, 5120, 1.9)

USE = """
import json, sys
from pathlib import Path
from edge_tts.commands import solve
from edge_tts.core import Request, Sampling
from edge_tts.runtimes.config import EngineConfig
from edge_tts.runtimes.config import VerifierConfig
from edge_tts.runtimes.process_memory import peak_memory_mb
from edge_tts.solver import Solver
from edge_tts.runtimes.llama import LlamaPolicy
import rich.console, rich.live, rich.progress, rich.table
engine, policy, verifier_config, verifier = json.loads(sys.argv[1])
config = EngineConfig(**engine)
policy = LlamaPolicy(Path(policy), config)
if verifier:
    from edge_tts.runtimes.onnx_verifier import OnnxVerifier
    verifier = OnnxVerifier(*map(Path, verifier), **verifier_config)
prompt = (policy.tokenize("Tom has 3 boxes of 8 pencils. ") * 200)[: config.context - 16]
requests = [Request(prompt, seed, Sampling(max_tokens=8)) for seed in range(config.width + 2)]
tokens = sum(len(event.tokens) for event in policy.generate(requests))
for question in range(3 if verifier else 0):
    text = f"{question} " + "Tom has 3 boxes of 8 pencils and gives 5 of them to Ann. " * 5
    for step in range(1, 6):
        verifier.score(text, [[f"{i * 37}*{s}={i * 37 * s}" for s in range(step)] for i in range(config.width)])
policy.close()
print(json.dumps({"tokens": tokens, "peak": peak_memory_mb()}))
"""


def measured(
    policy: Path, engine: EngineConfig, verifier: tuple[Path | None, Path | None] | None, config: VerifierConfig
) -> float:
    """Peak MiB of a new process that decodes at full width with nearly full contexts."""
    files = [str(path) for path in verifier] if verifier else None
    argument = json.dumps([engine.__dict__, str(policy), config.__dict__, files])
    done = subprocess.run([sys.executable, "-c", USE, argument], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tokens"] >= engine.width
    return float(found["peak"])


@pytest.mark.parametrize(
    ("engine", "verifier"),
    [
        (EngineConfig(width=1, context=256), None),
        (EngineConfig(width=16, context=256, kv_type="q8_0"), None),
        (EngineConfig(width=64, context=256), None),
        (EngineConfig(width=8, context=512), VerifierConfig()),
        (EngineConfig(width=16, context=256, kv_type="q8_0"), VerifierConfig()),
        (EngineConfig(width=4, context=256, kv_type="q8_0"), VerifierConfig(48, 4)),
    ],
    ids=str,
)
def test_the_peak_stays_within_a_tenth_below_the_plan(
    pack: Pack, engine: EngineConfig, verifier: VerifierConfig | None
) -> None:
    engine = replace(engine, threads=1, gpu_layers=0)
    planned = memory_plan(pack.policy, pack.verifier if verifier else None, engine, verifier).total
    files = (pack.verifier_path, pack.tokenizer_path) if verifier else None
    peak = measured(pack.policy_path, engine, files, verifier or VerifierConfig())
    assert 0.9 * planned <= peak <= planned


@pytest.mark.parametrize(
    "engine",
    [
        EngineConfig(width=1, context=512),
        EngineConfig(width=16, context=512, kv_type="q8_0"),
        EngineConfig(width=32, context=256, micro_batch=64),
    ],
    ids=str,
)
def test_the_peak_of_a_model_with_a_large_vocabulary_stays_within_a_tenth(
    coder_05b: Path, engine: EngineConfig
) -> None:
    engine = replace(engine, gpu_layers=0)
    planned = memory_plan(policy_shape(coder_05b), None, engine).total
    assert 0.9 * planned <= measured(coder_05b, engine, None, VerifierConfig()) <= planned


def test_first_use_stays_below_a_small_cap(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pack.recipe is not None
    base = locate(pack.recipe.base)
    monkeypatch.setenv("EDGE_REASON_HOME", str(tmp_path))
    code = (
        "import edge_tts.solver; from edge_tts.runtimes.process_memory import peak_memory_mb; "
        "from edge_tts.packs.pack import find_pack, prepare_pack; from pathlib import Path; import sys; "
        "prepare_pack(find_pack(None), base=Path(sys.argv[1])); print(peak_memory_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(base)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 300


def test_keys_and_values_are_counted_as_llama_cpp_allocates_them() -> None:
    # 30 layers x 2 x 3 heads x 64 numbers x 2 bytes x 512 cells x 16 streams = 180 MiB, as llama.cpp logs it.
    assert memory_plan(SMOL, None, EngineConfig(16, 512)).kv == pytest.approx(180 + 16 * 512 * 176 / 2**20)
    assert memory_plan(SMOL, None, EngineConfig(5, 300)).kv == memory_plan(SMOL, None, EngineConfig(5, 512)).kv
    assert memory_plan(SMOL, None, EngineConfig(1, 9000)).kv == memory_plan(SMOL, None, EngineConfig(1, 8192)).kv


def test_parts_add_up_and_grow_with_their_knobs() -> None:
    plan = memory_plan(SMOL, MINI, EngineConfig())
    parts = plan.to_dict()
    assert parts.pop("total_mb") == pytest.approx(sum(parts.values()), abs=0.5)
    assert memory_plan(SMOL, None, EngineConfig()).total < plan.total
    assert memory_plan(SMOL, MINI, EngineConfig(kv_type="q8_0")).kv < plan.kv
    assert memory_plan(SMOL, MINI, EngineConfig(micro_batch=512)).compute > plan.compute
    assert memory_plan(SMOL, MINI, EngineConfig(), VerifierConfig(256, 32)).verifier_arena > plan.verifier_arena


def test_a_decoder_gets_a_cache_for_the_traces_of_one_question() -> None:
    # 28 layers x 2 x 2 heads x 128 numbers x 4 bytes, as Qwen2.5-Math-PRM at 1.5B has them.
    qwen = VerifierShape(1_600_000_000, 1_310_000_000, 28, 1536, 4096, 57_344, 151_936, 1.9)
    assert cache_for(qwen, VerifierConfig(), 16).cache_mb == math.ceil((128 + 16 * 50) * 57_344 / 2**20)
    plan = make_plan(SMOL, qwen, load("laptop-cpu"), 8192)
    assert plan.verifier_config.cache_mb == 51
    assert plan.memory.verifier_arena > 51
    half = memory_plan(SMOL, replace(qwen, weight_copies=2.75), EngineConfig())
    assert half.verifier_weights > 1.2 * plan.memory.verifier_weights
    small, large = (memory_plan(SMOL, qwen, EngineConfig(width)).verifier_arena for width in (2, 8))
    assert 0 < small < large


def test_a_verifier_is_run_by_its_size_and_the_length_of_traces() -> None:
    large = VerifierShape(1_600_000_000, 1_310_000_000, 28, 1536, 4096, 57_344, 151_936, 1.9)
    small_plan = make_plan(SMOL, MINI, load("laptop-cpu"), 8192)
    large_plan = make_plan(SMOL, large, load("laptop-cpu"), 8192, trace_tokens=512, typical_tokens=300)
    assert small_plan.verifier_config.threads == 1
    assert large_plan.verifier_config.threads is None
    assert small_plan.verifier_config.pass_tokens == 64
    assert large_plan.verifier_config.pass_tokens == 300
    assert large_plan.verifier_config.cache_mb == math.ceil((128 + 16 * 300) * 57_344 / 2**20)
    # Each trace's tokens are scored at the speed of a model of that size.
    spent = 16 * 300 / load("laptop-cpu").speeds.verifier_at(large.parameters)
    without = make_plan(SMOL, None, load("laptop-cpu"), 8192, 1e6, trace_tokens=512, typical_tokens=300)
    within = make_plan(SMOL, large, load("laptop-cpu"), 8192, 1e6, trace_tokens=512, typical_tokens=300)
    assert within.seconds - without.seconds == pytest.approx(spent, rel=0.05)


def test_longer_traces_take_context_and_time() -> None:
    equations, text = planned(), planned(memory=4096, trace_tokens=512, typical_tokens=300)
    assert text.engine.context == 768
    assert text.seconds > 4 * equations.seconds
    tight = planned(memory=text.memory.total - 200, trace_tokens=512)
    assert tight.engine.context in (512, 768)
    assert tight.notes
    with pytest.raises(InputError, match="length of a trace must be above 0"):
        planned(trace_tokens=0)


QWEN_7B = PolicyShape(4_683_073_536, 7_070_619_136, 28, 4, 128, 3584, 152_064, 32_768, 306_561_024)
"""Qwen2.5-7B-Instruct in Q4_K_M."""
PRM_7B = VerifierShape(7_640_000_000, 7_080_000_000, 28, 3584, 4096, 114_688, 151_666, 1.9)
"""Qwen2.5-Math-PRM-7B in int8."""


def planned_7b(memory: float) -> Plan:
    """A chat model of 7B with a PRM of 7B, in words."""
    how: dict[str, Any] = {"prompts": PromptFormat(), "calculator": None, "sampling": sampling_for("text")}
    what: dict[str, Any] = {"policy": QWEN_7B, "verifier": PRM_7B, "table": None, "format": "text"}
    pack = Pack("large", "1", "Apache-2.0", Path("/packs/large"), {}, **how, **what)
    return plan_for(pack, load("laptop-cpu"), memory)


def test_a_7b_model_and_a_7b_prm_are_planned_inside_a_large_cap() -> None:
    plan = planned_7b(32_768)
    assert plan.verifier
    assert plan.memory.total <= 32_768
    assert plan.memory.weights > QWEN_7B.file_bytes / 2**20
    assert plan.memory.verifier_weights > 1.9 * PRM_7B.file_bytes / 2**20
    assert plan.engine.context >= 180 + 512
    assert plan.verifier_config.cache_mb == math.ceil((128 + plan.engine.width * 300) * 114_688 / 2**20)
    # Each token of a trace is decoded by one model and read by the other.
    assert plan.seconds > plan.generations * 300 / load("laptop-cpu").speeds.verifier_at(PRM_7B.parameters)
    assert plan.deadline_s >= plan.seconds


def test_a_7b_model_is_refused_inside_a_small_cap_with_what_it_needs() -> None:
    with pytest.raises(
        ResourceError, match=r"a memory cap of 4096 MB is \d+ MB too small.*allow at least \d+"
    ) as caught:
        planned_7b(4096)
    least = int(re.findall(r"allow at least (\d+) MB", str(caught.value))[0])
    alone = planned_7b(least)
    assert not alone.verifier
    needed = alone.verifier_needs_mb
    assert needed is not None
    assert needed > least + 1.9 * PRM_7B.file_bytes / 2**20
    told = f"no verifier, which needs a cap of {needed} MB, to stay below {least} MB: answers are chosen by majority"
    assert told in alone.notes
    assert [planned_7b(cap).verifier for cap in (needed - 1, needed)] == [False, True]


def test_an_embedding_table_that_is_looked_up_is_resident_in_part() -> None:
    shape = PolicyShape(491_400_064, 494_032_768, 24, 2, 64, 896, 151_936, 32_768)
    mapped = replace(shape, lookup_bytes=93_592_576)
    whole, part = (memory_plan(s, None, EngineConfig(32, 512)).total for s in (shape, mapped))
    assert (whole - part == pytest.approx(0.6 * 93_592_576 / 2**20)) if MAPPED else whole == part
    # While a file is loaded all of it is resident, whatever comes after.
    loading = 61 + (491_400_064 + 151_936 * 370) / 2**20
    assert memory_plan(mapped, None, EngineConfig(1, 256)).total == pytest.approx(loading, rel=0.01)


def test_peak_memory_rises_with_use() -> None:
    """In a process of its own: the peak of this one may be that of a test that took gigabytes."""
    code = (
        "from edge_tts.runtimes.process_memory import peak_memory_mb\n"
        "before = peak_memory_mb()\n"
        "block = bytearray(b'x' * (int(before) + 64) * 2**20)\n"
        "print(peak_memory_mb() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) >= 60


def planned(memory: float = 2048, deadline: float = 60, generations: int = 16, **options: int) -> Plan:
    return make_plan(SMOL, MINI, load("laptop-cpu"), memory, deadline, generations, **options)


def test_plenty_concedes_nothing() -> None:
    plan = planned()
    assert (plan.engine.width, plan.engine.kv_type, plan.engine.context) == (16, "f16", 512)
    assert plan.verifier
    assert plan.generations == 16
    assert plan.notes == ()
    assert plan.joules == pytest.approx(plan.seconds * 28)


def test_memory_is_given_up_in_order_and_said() -> None:
    plans = [planned(cap) for cap in range(185, 701, 5)]
    assert all(plan.memory.total <= plan.memory_cap_mb for plan in plans)
    assert [plan.verifier for plan in plans] == sorted(plan.verifier for plan in plans)
    with_verifier = [plan for plan in plans if plan.verifier]
    wide = [plan for plan in with_verifier if plan.engine.width >= 4]
    assert {plan.engine.kv_type for plan in wide} == {"f16", "q8_0"}
    assert {plan.engine.context for plan in wide} == {256, 512}
    assert with_verifier[0].engine.width == 1
    for plan in plans:
        notes = " ".join(plan.notes)
        assert ("sequences together instead of 16" in notes) == (plan.engine.width < 16)
        assert ("the KV cache in q8_0" in notes) == (plan.engine.kv_type == "q8_0")
        assert ("256 tokens of context instead of 512" in notes) == (plan.engine.context == 256)
        assert ("no verifier" in notes) == (not plan.verifier)


def test_300_mb_keep_the_verifier_and_four_sequences() -> None:
    plan = planned(300)
    assert plan.verifier
    assert plan.engine.width >= 4


def test_too_small_a_cap_names_the_shortfall_and_what_would_do() -> None:
    with pytest.raises(ResourceError, match=r"cap of 100 MB is (\d+) MB too small.*allow at least \d+ MB") as caught:
        planned(100)
    least = int(str(caught.value).split("allow at least ")[1].split()[0])
    assert f"is {least - 100} MB too small" in str(caught.value)
    assert planned(least).memory.total <= least
    with pytest.raises(ResourceError):
        planned(least - 1)


def test_a_deadline_takes_generations() -> None:
    plan = planned(deadline=3)
    assert 1 < plan.generations < 16
    assert plan.seconds <= 3
    assert any("of 16 generations" in note for note in plan.notes)
    hopeless = planned(deadline=0.1)
    assert hopeless.generations == 1
    assert hopeless.seconds > 0.1
    assert any("longer than the deadline" in note for note in hopeless.notes)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_that_are_no_limits_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="deadline must be above 0"):
        planned(deadline=value)
    with pytest.raises(InputError, match="memory cap must be above 0"):
        planned(value)


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="number of generations must be above 0"):
        planned(generations=0)


def test_a_short_prompt_leaves_the_plan_as_it_is() -> None:
    assert planned(300, prompt_tokens=10) == planned(300)


def test_a_long_prompt_widens_the_context_up_to_the_policys() -> None:
    assert planned(prompt_tokens=900, memory=4096).engine.context == 1280
    assert planned(prompt_tokens=8092, memory=4096).engine.context == 8192
    with pytest.raises(InputError, match="do not fit the policy's context of 8192"):
        planned(prompt_tokens=8093)


def test_a_cpu_profile_keeps_off_the_gpu_and_a_slow_one_takes_small_batches() -> None:
    assert planned().engine.gpu_layers == 0
    assert make_plan(SMOL, MINI, load("desktop-cuda")).engine.gpu_layers is None
    assert make_plan(SMOL, MINI, load("raspberry-pi-5")).engine.micro_batch == 32
    assert make_plan(SMOL, MINI, load("desktop-cuda")).engine.micro_batch == 512


def test_the_memory_of_a_gpu_is_planned_apart() -> None:
    desktop = load("desktop-cuda")
    plan = make_plan(SMOL, MINI, desktop)
    assert plan.gpu_cap_mb == desktop.gpu_memory_mb
    shared = make_plan(SMOL, MINI, replace(desktop, gpu_memory_mb=None))
    assert (shared.gpu_cap_mb, shared.memory.gpu) == (None, 0)
    weights_and_more = shared.memory.weights + shared.memory.kv + shared.memory.compute
    assert plan.memory.gpu == pytest.approx(weights_and_more, rel=0.15)
    assert plan.memory.kv + plan.memory.weights < 0.2 * plan.memory.gpu
    tight = make_plan(SMOL, MINI, replace(desktop, gpu_memory_mb=plan.memory.gpu - 100))
    assert tight.memory.gpu <= plan.memory.gpu - 100
    assert "MB of the GPU" in tight.notes[0]
    on_cpu = make_plan(SMOL, MINI, replace(desktop, gpu_memory_mb=50))
    assert re.match(r"on the CPU: the model needs \d+ MB of the GPU, which has 50 MB for it", on_cpu.notes[0])
    assert (on_cpu.engine.gpu_layers, on_cpu.gpu_cap_mb, on_cpu.memory.gpu) == (0, None, 0)
    assert on_cpu.memory.total > plan.memory.total
    assert on_cpu.seconds > 2 * plan.seconds
    with pytest.raises(ResourceError, match="a memory cap of 100 MB"):
        make_plan(SMOL, MINI, replace(desktop, gpu_memory_mb=50), memory_mb=100)


def test_width_stops_where_the_device_gains_nothing() -> None:
    assert planned(memory=8192, generations=64).engine.width == 32
    assert planned(generations=5).engine.width == 5


def test_a_pack_without_verifier_needs_none() -> None:
    plan = make_plan(SMOL, None, load("laptop-cpu"))
    assert not plan.verifier
    assert plan.notes == ()
    assert plan.memory.verifier_arena == 0
    assert plan.verifier_needs_mb is None


def test_plan_prints_json_before_anything_is_loaded(pack: Pack) -> None:
    arguments = ["--profile", "laptop-cpu", "--memory", "512", "--deadline", "8", "--budget", "32"]
    done = CliRunner().invoke(plan_command, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.output)
    assert shown["memory"]["total_mb"] <= 512
    assert shown["pack"] == pack.name
    assert shown["seconds"] <= 8
    table = CliRunner().invoke(plan_command, arguments)
    assert table.exit_code == 0, table.output
    assert "verifier arena" in table.output
