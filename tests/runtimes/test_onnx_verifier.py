"""The verifier over exported models."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import prm_checkpoints
import pytest
import torch
from prm_checkpoints import OTHER, QUESTION, TRACE, TRACES

from edge_tts.core import Scored
from edge_tts.errors import BackendError, PackError
from edge_tts.export import prm_graph
from edge_tts.export.reward_heads import recognise
from edge_tts.runtimes.graph_metadata import read_metadata
from edge_tts.runtimes.onnx_session import Device, providers
from edge_tts.runtimes.onnx_verifier import GPU_BUCKET, OnnxVerifier
from edge_tts.runtimes.step_marks import RESULT_MARKS, SOURCE_MARKS, marks

CLOSE = 1e-4
FAMILIES = ["step-token", "chat", "value"]


class Model:
    """Files of one exported model."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.tokenizer = checkpoint / "tokenizer.json"
        prm_graph.write(prm_graph.load(checkpoint, recognise(checkpoint)), self.tokenizer, folder, "fp32")
        self.path = folder / "prm.onnx"

    def open(self, device: Device = "cpu", **options: int) -> OnnxVerifier:
        return OnnxVerifier(self.path, self.tokenizer, device, threads=1, **options)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    built = prm_checkpoints.build_all(tmp_path_factory.mktemp("checkpoints"))
    return {name: Model(tmp_path_factory.mktemp(name), path) for name, path in built if name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


def alone(model: Model) -> list[tuple[float, ...]]:
    """Scores of each trace from a verifier that has seen nothing else: one row, without past."""
    return [model.open().score(QUESTION, [steps])[0].scores for steps in TRACES]


def same(got: list[Scored], wanted: list[tuple[float, ...]]) -> bool:
    return all(s.scores == pytest.approx(w, abs=CLOSE) for s, w in zip(got, wanted, strict=True))


def test_with_past_scores_are_equal_and_fewer_tokens_are_evaluated(model: Model) -> None:
    wanted = alone(model)[0]
    whole = model.open().score(QUESTION, [TRACE])[0]
    assert len(set(whole.scores)) == len(TRACE)
    growing = model.open()
    tokens = []
    for count in range(1, len(TRACE) + 1):
        [scored] = growing.score(QUESTION, [TRACE[:count]])
        assert scored.scores == pytest.approx(wanted[:count], abs=CLOSE)
        tokens.append(scored.tokens)
    assert sum(tokens) == whole.tokens
    again = sum(model.open().score(QUESTION, [TRACE[:count]])[0].tokens for count in range(1, len(TRACE) + 1))
    assert sum(tokens) < 0.5 * again
    assert tokens[-1] < 0.35 * whole.tokens  # a beam round evaluates its new step only
    assert growing.score(QUESTION, [TRACE])[0].tokens == 0


def test_scores_depend_on_neither_company_nor_order_nor_cache(model: Model) -> None:
    wanted = alone(model)
    assert same(model.open().score(QUESTION, TRACES), wanted)
    assert same(model.open().score(QUESTION, TRACES[::-1])[::-1], wanted)
    for options in ({"pass_tokens": 1}, {"pass_tokens": 30}, {"cache_mb": 0}, {"cache_mb": 0, "pass_tokens": 1}):
        verifier = model.open(**options)
        verifier.score(OTHER, TRACES)
        assert same(verifier.score(QUESTION, TRACES), wanted), options
        assert same(verifier.score(QUESTION, TRACES), wanted), options
    beam = model.open()
    beam.score(QUESTION, [TRACE[:1]])
    for count in range(1, 4):  # rows with pasts of different lengths
        scored = beam.score(QUESTION, [TRACES[2][:count], TRACE[: count + 1]])
        assert same(scored, [wanted[2][:count], wanted[0][: count + 1]])


def test_shared_steps_are_evaluated_once(model: Model) -> None:
    first = model.open().score(QUESTION, TRACES)
    assert [s.tokens for s in first][1] == first[3].tokens == first[5].tokens == 0
    assert 0 < first[4].tokens < first[2].tokens < first[0].tokens
    assert model.open().score(QUESTION, []) == []
    assert model.open().score(QUESTION, [()]) == [Scored((), 0)]


def test_padding_to_buckets_changes_no_score(model: Model) -> None:
    verifier = model.open()
    verifier._bucket = GPU_BUCKET  # what a CUDA session uses
    verifier.score(QUESTION, [TRACE[:1]])
    assert same(verifier.score(QUESTION, TRACES), alone(model))


def test_a_tokenizer_that_reads_across_steps_costs_reuse_but_no_exactness(models: dict[str, Model]) -> None:
    verifier = models["value"].open()
    separate = verifier._encoder.extended

    def crossing(question: str, steps: tuple[str, ...], before: tuple[int, ...]) -> tuple[int, ...]:
        ids = separate(question, steps, before)
        return ids if len(steps) % 2 else (ids[0] + 1, *ids[1:])

    verifier._encoder.extended = crossing  # type: ignore[method-assign,assignment]
    first = verifier.score(QUESTION, [TRACE[:2]])[0]
    whole = len(verifier._cache[QUESTION, TRACE[:2]].ids)
    assert first.tokens == whole + len(verifier._cache[QUESTION, TRACE[:1]].ids)
    verifier._cache.clear()
    assert verifier.score(QUESTION, [TRACE[:1], TRACE[:2]])[1].scores == pytest.approx(first.scores, abs=CLOSE)


def test_a_full_cache_drops_the_oldest_and_keeps_ancestors(models: dict[str, Model]) -> None:
    verifier = models["value"].open(cache_mb=1)
    limit = 40_000  # 78 tokens of keys and values
    verifier._cache.limit = limit
    verifier.score(OTHER, [("60*3=180",)])
    for count in range(1, len(TRACE) + 1):
        verifier.score(QUESTION, [TRACE[:count], TRACES[2][:count]])
        assert 0 < verifier._cache.bytes <= limit
        assert verifier._cache.bytes == sum(span.kv.nbytes for span in verifier._cache.values() if span.kv is not None)
        assert all(span.parent is None or span.parent in verifier._cache for span in verifier._cache.values())
    assert verifier.score(OTHER, [("60*3=180",)])[0].tokens > 0


def test_text_beyond_the_positions(models: dict[str, Model]) -> None:
    verifier = models["value"].open()
    steps = tuple(f"{n}+1234={n + 1234}" for n in range(100))
    [scored] = verifier.score(QUESTION + " pens" * 2000, [steps])
    assert len(scored.scores) == 100
    assert len(set(scored.scores[:8])) == 8
    assert scored.scores[60:] == (scored.scores[60],) * 40
    [long_step] = verifier.score(QUESTION, [("1+" * 3000 + "1", "#### 1")])
    assert len(long_step.scores) == 2
    assert long_step.tokens < 512


def test_threads_share_one_verifier(models: dict[str, Model]) -> None:
    model = models["value"]
    verifier = model.open()
    wanted = {question: model.open().score(question, [TRACE])[0].scores for question in (QUESTION, OTHER)}
    failures: list[str] = []

    def work(question: str) -> None:
        for count in (1, 2, 4):
            got = verifier.score(question, [TRACE[:count]])[0].scores
            if got != pytest.approx(wanted[question][:count], abs=CLOSE):
                failures.append(f"{question}: {got}")

    threads = [threading.Thread(target=work, args=(question,)) for question in (QUESTION, OTHER) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(verifier._cache) == 2 * 5


def test_marks_say_where_numbers_come_from() -> None:
    question = "Betty needs $1,200. She has half of it, and 15 coins."
    for steps, expected in (
        (["1200/2=600"], ("[new0unused1]", "[loose0whole]")),  # 2 is the "half"
        (["1200/2=600", "600-15=585"], ("[new0unused0]", "[loose0whole]")),
        (["1200/2=600", "600-15=585", "#### 585"], ("[new0unused0]", "[loose0whole]")),
        (["1200/2=600", "#### 1200"], ("[new0unused1]", "[loose1whole]")),
        (["7*3=21"], ("[new2unused2]", "[loose0whole]")),
        (["15-1200=-1185"], ("[new0unused0]", "[loose0negative]")),
        (["15/1200=.01"], ("[new0unused0]", "[loose0fraction]")),
        (["no numbers"], ("[new0unused2]", "[loose0whole]")),
    ):
        assert marks(question, steps) == expected
        assert expected[0] in SOURCE_MARKS
        assert expected[1] in RESULT_MARKS


def test_provider_choice_says_why() -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers("cpu", both) == (["CPUExecutionProvider"], "the CPU was asked for")
    assert providers("auto", both[1:]) == (["CPUExecutionProvider"], "this onnxruntime build has no CUDA provider")
    chosen, reason = providers("auto", both)
    assert chosen[0] == ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
    assert chosen[1] == "CPUExecutionProvider"
    assert "CUDA provider" in reason


def test_asking_for_cuda_gives_equal_scores_here(models: dict[str, Model]) -> None:
    model = models["value"]
    verifier = model.open(device="cuda")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert verifier.info.device == "cpu"
        assert verifier.info.reason == "this onnxruntime build has no CUDA provider"
    tolerance = CLOSE if verifier.info.device == "cpu" else 0.05
    for scored, wanted in zip(verifier.score(QUESTION, TRACES), alone(model), strict=True):
        assert scored.scores == pytest.approx(wanted, abs=tolerance)


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not torch.cuda.is_available(),
    reason="needs onnxruntime-gpu and a CUDA device",
)
def test_cuda_provider_is_used_where_there_is_one(models: dict[str, Model]) -> None:
    assert models["value"].open(device="auto").info.device == "cuda"


def test_info_and_predicted_seconds(model: Model) -> None:
    verifier = model.open()
    assert (verifier.info.device, verifier.info.reason) == ("cpu", "the CPU was asked for")
    assert verifier.info.context_length == int(read_metadata(model.path)["positions"])
    assert verifier.info.parameters == int(read_metadata(model.path)["parameters"])
    before = verifier.seconds(100)
    verifier.score(QUESTION, TRACES)
    assert verifier.seconds(100) != before
    assert verifier.seconds(200) == pytest.approx(2 * verifier.seconds(100))


def test_a_model_of_another_format_is_refused(models: dict[str, Model], tmp_path: Path) -> None:
    value = models["value"]
    for format_ in ("something-9", "encoder-1", "block-causal-2"):
        with pytest.raises(PackError, match=f"its format is '{format_}', not 'decoder-past-1'"):
            OnnxVerifier(change(value, tmp_path, format=format_), value.tokenizer)


def change(model: Model, folder: Path, **meta: str) -> Path:
    graph = onnx.load(model.path)
    onnx.helper.set_model_props(graph, read_metadata(model.path) | meta)
    onnx.save(graph, folder / "changed.onnx")
    return folder / "changed.onnx"


def test_parts_that_do_not_fit_are_pack_errors(models: dict[str, Model], tmp_path: Path) -> None:
    model = models["value"]
    with pytest.raises(PackError, match="does not fit the verifier"):
        OnnxVerifier(model.path, models["chat"].tokenizer)
    with pytest.raises(PackError, match="cannot read the verifier's tokenizer"):
        OnnxVerifier(model.path, tmp_path / "none.json")
    for meta in ({"layers": "two"}, {"layout": "{}"}, {"layout": "["}, {"layout": '{"begin": [], "end": []}'}):
        with pytest.raises(PackError, match="not a process reward model this runtime can use"):
            OnnxVerifier(change(model, tmp_path, **meta), model.tokenizer)


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-20], lambda c: c[: len(c) // 2], lambda c: b"\xff" * 40, lambda c: b""]
)
def test_damaged_models_are_pack_errors(
    damage: Callable[[bytes], bytes], models: dict[str, Model], tmp_path: Path
) -> None:
    path = tmp_path / "prm.onnx"
    path.write_bytes(damage(models["value"].path.read_bytes()))
    with pytest.raises(PackError, match="verify or reinstall the pack"):
        OnnxVerifier(path, models["value"].tokenizer)
    with pytest.raises(PackError, match="cannot read the verifier"):
        OnnxVerifier(tmp_path / "missing.onnx", models["value"].tokenizer)


def test_runtime_failures_are_backend_errors(model: Model) -> None:
    verifier = model.open()
    verifier._encoder.encode = lambda text: [10**6]  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="ONNX Runtime failed while scoring"):
        verifier.score(QUESTION, [TRACE])
    verifier.close()
    verifier.close()
    with pytest.raises(BackendError, match="closed"):
        verifier.score(QUESTION, [TRACE])


def test_a_score_that_is_no_number_is_that_of_its_trace_alone(models: dict[str, Model]) -> None:
    faulty, sound = models["value"].open(), models["value"].open()
    run = faulty._run

    def with_one_bad_row(feed: dict[str, np.ndarray], tokens: int) -> list[np.ndarray]:
        scores, *present = run(feed, tokens)
        scores[feed["input_ids"].sum(axis=1).argmax()] = np.nan
        return [scores, *present]

    faulty._run = with_one_bad_row  # type: ignore[method-assign]
    found, expected = (verifier.score(QUESTION, TRACES) for verifier in (faulty, sound))
    bad = [not all(np.isfinite(scored.scores)) for scored in found]
    assert any(bad)
    assert not all(bad)
    for scored, right, is_bad in zip(found, expected, bad, strict=True):
        if not is_bad:
            assert scored.scores == pytest.approx(right.scores, abs=1e-5)
