"""The verifier over a real exported encoder (MiniLM's weights, a random head)."""

import threading
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer

from edge_tts.errors import BackendError, PackError
from edge_tts.export import prm
from edge_tts.export.vocabulary import trim_tokenizer
from edge_tts.runtimes import onnx_session
from edge_tts.runtimes.chunks import RESULT_MARKS, SOURCE_MARKS, marks
from edge_tts.runtimes.onnx import OnnxVerifier
from edge_tts.runtimes.onnx_session import providers

QUESTION = "Tom has 12 boxes with 50 pens each. He sells 100 of his pens for $1,200.50. How many pens are left?"
OTHER = "A train goes 60 miles an hour for 3 hours, then 20 miles more. How far does it go?"
TRACE = ("12*50=600", "600-100=500", "500/2=250", "#### 250")
INT8_JITTER = 0.01
TRACES = [TRACE, TRACE[:2], ("12+50=62", "62-100=-38", "#### -38"), (), ("600-100=500",), TRACE]


class Model:
    """Files of one exported model, and the torch model they were made from."""

    def __init__(self, folder: Path) -> None:
        base = prm.minilm_folder()
        tokenizer_json, kept = trim_tokenizer(base / "tokenizer.json", [QUESTION, OTHER, *TRACE], 3000)
        torch.manual_seed(0)
        self.torch = prm.load_minilm(base, kept).eval()
        torch.nn.init.normal_(self.torch.head.weight, std=0.1)
        self.tokenizer, self.floats, self.int8 = (folder / n for n in ("tokenizer.json", "float.onnx", "prm.onnx"))
        self.tokenizer.write_text(tokenizer_json, encoding="utf-8")
        prm.export_onnx(self.torch, tokenizer_json, self.floats)
        prm.quantise_file(self.floats, self.int8)

    def open(self, **options: object) -> OnnxVerifier:
        return OnnxVerifier(self.int8, self.tokenizer, **{"device": "cpu", **options})  # type: ignore[arg-type]

    def reference(self, question: str, steps: tuple[str, ...]) -> list[float]:
        return prm.score_trace(self.torch, Tokenizer.from_file(str(self.tokenizer)), question, steps)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("prm"))


@pytest.fixture(scope="module")
def alone(model: Model) -> list[tuple[float, ...]]:
    """Int8 scores of each trace in a verifier that has seen nothing else, in one pass."""
    return [model.open().score(QUESTION, [steps])[0].scores for steps in TRACES]


@pytest.fixture(scope="module")
def exact(model: Model) -> list[list[float]]:
    """The torch model's scores of each trace."""
    return [model.reference(QUESTION, steps) for steps in TRACES]


def close_to(expected: object, tolerance: float) -> object:
    return pytest.approx(expected, abs=tolerance)


def test_int8_model_stays_near_torch(alone: list[tuple[float, ...]], exact: list[list[float]]) -> None:
    got, wanted = [x for scores in alone for x in scores], [x for scores in exact for x in scores]
    assert got == close_to(wanted, 0.05)
    assert max(got) - min(got) > 0.04  # the scores tell steps apart at all


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_scores_depend_on_neither_company_nor_order_nor_cache(
    kind: str, model: Model, alone: list[tuple[float, ...]], exact: list[list[float]]
) -> None:
    """Exactly so in float32; in int8 a sum's last bit may still tip an activation to the next integer."""

    def open_verifier() -> OnnxVerifier:
        return model.open() if kind == "int8" else OnnxVerifier(model.floats, model.tokenizer, device="cpu")

    expected, tolerance = (alone, INT8_JITTER) if kind == "int8" else (exact, 1e-5)
    together = open_verifier().score(QUESTION, TRACES)
    backwards = open_verifier().score(QUESTION, TRACES[::-1])[::-1]
    for first, second, wanted in zip(together, backwards, expected, strict=True):
        assert list(first.scores) == close_to(list(wanted), tolerance)
        assert list(second.scores) == close_to(list(wanted), tolerance)
    growing = open_verifier()
    for count in range(1, len(TRACE) + 1):
        scored = growing.score(QUESTION, [TRACES[2][:count], TRACE[:count]])[1]
        assert list(scored.scores) == close_to(list(expected[0][:count]), tolerance)


def test_only_new_steps_cost_tokens(model: Model) -> None:
    tokenizer = Tokenizer.from_file(str(model.tokenizer))

    def size(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids) + 2

    verifier = model.open()
    first = verifier.score(QUESTION, [TRACE[:2], TRACE[:2], TRACE[:1]])
    assert [s.tokens for s in first] == [size(QUESTION) + size(TRACE[0]) + size(TRACE[1]), 0, 0]
    longer = verifier.score(QUESTION, [TRACE[:3]])[0]
    assert longer.tokens == size(TRACE[2])
    assert longer.scores[:2] == first[0].scores
    assert verifier.score(QUESTION, [TRACE[:3]])[0].tokens == 0
    assert verifier.score(QUESTION, []) == []


def test_passes_and_a_full_cache_change_no_score(model: Model, exact: list[list[float]]) -> None:
    tiny = OnnxVerifier(model.floats, model.tokenizer, device="cpu", cache_mb=0, pass_tokens=1)
    for scored, expected in zip(tiny.score(QUESTION, TRACES), exact, strict=True):
        assert list(scored.scores) == close_to(expected, 1e-5)
    again = tiny.score(QUESTION, [TRACE])[0]
    assert again.tokens > 0  # nothing was kept
    some = model.open(cache_mb=1, pass_tokens=1)  # 56 tokens of keys and values
    some.score(OTHER, [("60*3=180",)])
    some.score(QUESTION, TRACES)
    assert 0 < some._cache.bytes <= 2**20
    assert some._cache.bytes == sum(chunk.kv.nbytes for chunk in some._cache.values())
    assert some.score(OTHER, [("60*3=180",)])[0].tokens > 0  # the oldest left first
    assert all(key[1] == () or (key[0], key[1][:-1]) in some._cache for key in some._cache)


def test_padding_to_buckets_changes_no_score(model: Model, exact: list[list[float]]) -> None:
    verifier = OnnxVerifier(model.floats, model.tokenizer, device="cpu")
    verifier._bucket = onnx_session.GPU_BUCKET  # what a CUDA session uses
    verifier.score(QUESTION, [TRACE[:1]])
    for scored, expected in zip(verifier.score(QUESTION, TRACES), exact, strict=True):
        assert list(scored.scores) == close_to(expected, 1e-5)


def test_text_beyond_the_positions(model: Model) -> None:
    # In float32: positions are what is tested here, and int8 is near torch or not for reasons of its own.
    verifier = OnnxVerifier(model.floats, model.tokenizer, device="cpu")
    steps = tuple(f"{n}+1234={n + 1234}" for n in range(100))
    [scored] = verifier.score(QUESTION + " pens" * 1000, [steps])
    assert len(scored.scores) == 100
    assert scored.scores[50:] == (scored.scores[50],) * 50
    fitting = model.reference(QUESTION + " pens" * 1000, steps)
    assert list(scored.scores[: len(fitting)]) == close_to(fitting, 1e-4)
    assert scored.scores[len(fitting) - 1 :] == (scored.scores[-1],) * (101 - len(fitting))
    assert len(set(scored.scores[:8])) == 8
    [long_step] = verifier.score(QUESTION, [("1+" * 3000 + "1", "#### 1")])
    assert len(long_step.scores) == 2
    assert long_step.tokens < 200


def test_numbers_read_the_same_in_question_and_steps(model: Model) -> None:
    tokenizer = Tokenizer.from_file(str(model.tokenizer))

    def tokens(text: str) -> list[str]:
        return tokenizer.encode(text, add_special_tokens=False).tokens  # type: ignore[no-any-return]

    assert tokens("$1,200.50") == ["$", *tokens("1200.5")]
    assert tokens("5.00") == tokens("5")
    assert tokens(".5") == tokens("0.5")
    assert tokens("#### 10") == ["answer", "10"]
    assert "[UNK]" not in tokens("Zoë's naïve café: 3½ of £5 ≤ 20€ xylophonist QQQQ")


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


def test_threads_share_one_verifier(model: Model, alone: list[tuple[float, ...]]) -> None:
    verifier = model.open(threads=1)
    expected = {QUESTION: alone[0], OTHER: model.open().score(OTHER, [TRACE])[0].scores}
    failures: list[str] = []

    def work(question: str) -> None:
        for count in (1, 2, 4):
            got = verifier.score(question, [TRACE[:count]])[0].scores
            if got != close_to(expected[question][:count], INT8_JITTER):
                failures.append(f"{question}: {got}")

    threads = [threading.Thread(target=work, args=(q,)) for q in (QUESTION, OTHER) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(verifier._cache) == 2 * 5


def test_info_and_predicted_seconds(model: Model) -> None:
    verifier = model.open()
    assert verifier.info.device == "cpu"
    assert verifier.info.reason == "the CPU was asked for"
    assert verifier.info.context_length == 512
    assert verifier.info.parameters == model.torch.parameters_per_token
    before = verifier.seconds(100)
    verifier.score(QUESTION, TRACES)
    assert verifier.seconds(100) != before
    assert verifier.seconds(200) == pytest.approx(2 * verifier.seconds(100))


def test_provider_choice_says_why() -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers("cpu", both) == (["CPUExecutionProvider"], "the CPU was asked for")
    assert providers("auto", both[1:]) == (["CPUExecutionProvider"], "this onnxruntime build has no CUDA provider")
    chosen, reason = providers("auto", both)
    assert chosen[0] == ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
    assert chosen[1] == "CPUExecutionProvider"
    assert "CUDA provider" in reason


def test_asking_for_cuda_gives_equal_scores_here(model: Model, alone: list[tuple[float, ...]]) -> None:
    verifier = model.open(device="cuda")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert verifier.info.device == "cpu"
        assert verifier.info.reason == "this onnxruntime build has no CUDA provider"
    tolerance = INT8_JITTER if verifier.info.device == "cpu" else 0.05
    for scored, expected in zip(verifier.score(QUESTION, TRACES), alone, strict=True):
        assert scored.scores == close_to(expected, tolerance)


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not torch.cuda.is_available(),
    reason="needs onnxruntime-gpu and a CUDA device",
)
def test_cuda_provider_is_used_where_there_is_one(model: Model) -> None:
    assert model.open(device="auto").info.device == "cuda"


def test_damaged_files_are_pack_errors(model: Model, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(model.int8.read_bytes()[:1_000_000])
    with pytest.raises(PackError, match=r"cannot read the verifier .*truncated.onnx: it is cut short"):
        OnnxVerifier(truncated, model.tokenizer)
    with pytest.raises(PackError, match=r"cannot read the verifier .*missing.onnx"):
        OnnxVerifier(tmp_path / "missing.onnx", model.tokenizer)
    broken = tmp_path / "tokenizer.json"
    broken.write_bytes(b"\xff{")
    with pytest.raises(PackError, match="cannot read the verifier's tokenizer"):
        OnnxVerifier(model.int8, broken)


def test_parts_that_do_not_fit_are_pack_errors(model: Model, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.json"
    other.write_text(trim_tokenizer(prm.minilm_folder() / "tokenizer.json", [], 2500)[0], encoding="utf-8")
    with pytest.raises(PackError, match="does not fit the verifier"):
        OnnxVerifier(model.int8, other)
    graph = onnx.load(model.int8)
    metadata = {p.key: p.value for p in graph.metadata_props}
    for change, message in (
        ({"format": "token-classifier"}, "'token-classifier'"),
        ({"layers": "six"}, "six"),
        ({"positions": "128"}, "128 tokens"),
    ):
        onnx.helper.set_model_props(graph, metadata | change)
        path = tmp_path / f"{next(iter(change))}.onnx"
        onnx.save(graph, path)
        with pytest.raises(PackError, match=message):
            OnnxVerifier(path, model.tokenizer)


def test_runtime_failures_are_backend_errors(model: Model) -> None:
    verifier = model.open()
    larger, _ = trim_tokenizer(prm.minilm_folder() / "tokenizer.json", [], 9000)
    verifier._tokenizer = Tokenizer.from_str(larger)  # ids beyond the embedding table
    with pytest.raises(BackendError, match="ONNX Runtime failed while scoring"):
        verifier.score(QUESTION, [TRACE])
    verifier.close()
    verifier.close()
    with pytest.raises(BackendError, match="closed"):
        verifier.score(QUESTION, [TRACE])
