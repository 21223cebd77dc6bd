"""The PRM recipe on a handful of real traces: packing, learning, resuming, export with its parity gate."""

import json
from pathlib import Path

import onnx
import pytest
import torch

from edge_tts.errors import InputError, PackError
from edge_tts.export import prm
from edge_tts.export.prm_metrics import auc, selection, step_metrics
from edge_tts.export.train import train_prm as recipe
from edge_tts.export.train.packing import Packer
from edge_tts.export.train.rows import Row, read_rows
from edge_tts.export.train.train_prm import PrmConfig
from edge_tts.runtimes.chunks import MarkedChunks

QUESTIONS = {
    "Tom has 12 boxes with 50 pens each. He sells 100 pens. How many pens are left?": ("12*50=600", "600-100=500"),
    "Ann earns $1,200 a week and spends $300.50 of it. How much does she keep?": ("1200-300.5=899.5",),
    "A train goes 60 miles an hour for 3 hours, then 20 miles. How far does it go?": ("60*3=180", "180+20=200"),
}
CONFIG = PrmConfig(learning_rate=1e-4, dropout=0.0, vocabulary=3000, warmup=0.0, batch_tokens=400)


def rows() -> list[dict[str, object]]:
    """For each question a right trace, and two wrong ones that share its first step or nothing."""
    found: list[dict[str, object]] = []
    for number, (question, steps) in enumerate(QUESTIONS.items()):
        right = [*steps, f"#### {steps[-1].rpartition('=')[2]}"]
        for trace, label in ((right, 1.0), ([steps[0], "7+7=14", "#### 14"], 0.0), (["2+2=4", "#### 4"], 0.0)):
            labels = [label if i or len(trace) == 2 else 0.5 + label / 2 for i in range(len(trace))]
            answer = trace[-1].removeprefix("#### ")
            row = {"id": f"q{number}", "question": question, "steps": trace, "labels": labels}
            found.append({**row, "answer": answer, "correct": trace is right})
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rollouts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after 16 updates, with a checkpoint."""
    out = tmp_path_factory.mktemp("run")
    run, batches = recipe.start(data, out, CONFIG, validation=data)
    for _ in range(16):
        run.update(next(batches), progress=0.1)
    run.evaluate()
    run.save()
    return out


def test_training_lowers_the_loss_and_separates_right_from_wrong(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if "loss" in row]
    assert len(losses) == 16
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    assert log[-1]["auc"] > 0.9
    assert log[-1]["best_of_n"] == 1.0
    assert log[-1]["pass_at_1"] == pytest.approx(1 / 3, abs=1e-3)


def test_a_run_resumes_from_its_checkpoint(trained: Path, data: Path) -> None:
    state = torch.load(trained / "state.pt", weights_only=True)
    run, _ = recipe.start(data, trained, CONFIG, validation=data)
    assert run.step == 16
    assert run.best == state["best"] < 0.6
    assert all(torch.equal(value, state["model"][name]) for name, value in run.model.state_dict().items())
    assert run.optimiser.state_dict()["state"][0]["step"] == 16


def test_the_timed_loop_stops_and_leaves_a_model(data: Path, tmp_path: Path) -> None:
    recipe.train(data, tmp_path, PrmConfig(minutes=1e-4, vocabulary=3000))
    assert prm.load_run(tmp_path).description()["vocabulary"] == 3000


def test_packed_traces_score_as_each_does_alone(trained: Path) -> None:
    from tokenizers import Tokenizer

    model = prm.load_run(trained)
    chunks = model.chunks(Tokenizer.from_file(str(trained / "tokenizer.json")))
    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    question = next(iter(QUESTIONS))
    traces = [Row("q", question, tuple(r["steps"]), tuple(r["labels"])) for r in rows() if r["question"] == question]  # type: ignore[arg-type]
    [(_, pack)] = Packer(chunks, 512, 320).packs(traces)
    assert len(pack.chunks) == 1 + 7  # the shared first step once
    with torch.no_grad():
        scores = torch.sigmoid(recipe.chunk_logits(model, [pack], "cpu")).tolist()
    for row, nodes in zip(traces, pack.nodes, strict=True):
        alone = prm.score_trace(model, tokenizer, question, row.steps)
        assert [scores[node] for node in nodes] == pytest.approx(alone, abs=1e-5)


def test_shared_prefixes_average_their_labels_and_long_traces_are_cut() -> None:
    class Letters:
        """A tokenizer with one token a letter."""

        def encode(self, text: str, add_special_tokens: bool) -> "Letters":
            self.ids = [ord(c) for c in text]
            return self

        def token_to_id(self, token: str) -> int:
            return 0

    letters = MarkedChunks(Letters())
    traces = [Row("q", "ab", ("x", "y"), (1.0, 1.0)), Row("q", "ab", ("x", "z"), (0.0, 0.5))]
    [(_, pack)] = Packer(letters, 512, 320).packs(traces)
    assert pack.labels == [0.0, 0.5, 1.0, 0.5]
    assert pack.weights == [0.0, 2.0, 1.0, 1.0]
    assert pack.starts == [0, 4, 7, 7]
    assert pack.parents == [-1, 0, 1, 1]
    assert pack.nodes == [[1, 2], [1, 3]]
    [(_, short)] = Packer(letters, 9, 320).packs(traces)
    assert short.nodes == [[1], [1]]  # 4 + 3 tokens fit 9 positions, 10 do not
    assert [p.tokens for _, p in Packer(letters, 512, 12).packs(traces)] == [10, 10]


def test_export_writes_a_small_int8_model_that_ranks_like_the_original(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prm, "MIN_SPEARMAN", 0.9)  # so few steps, of all but equal scores, make ranks coarse
    account = prm.export(trained, tmp_path)
    assert account == json.loads((tmp_path / "parity.json").read_text())
    assert account["float32"]["max_error"] < 1e-5
    assert account["int8"]["spearman"] >= prm.MIN_SPEARMAN
    assert account["int8"]["bytes"] < 0.3 * account["float32"]["bytes"]
    assert account["operators"]["MatMulInteger"] == 24
    assert account["operators"]["QuantizeLinear"] == 24
    model = onnx.load(tmp_path / "prm.onnx")
    onnx.checker.check_model(model)
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata["layers"] == "6"
    assert 10_600_000 < int(metadata["parameters"]) < 10_700_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parity.json", "prm.onnx", "tokenizer.json"]
    with pytest.raises(PackError, match="did not take"):
        prm.quantise_file(tmp_path / "prm.onnx", tmp_path / "again.onnx")


def test_export_refuses_poor_parity_unless_forced(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prm, "MIN_SPEARMAN", 1.01)
    with pytest.raises(PackError, match=r"Spearman .* --force"):
        prm.export(trained, tmp_path)
    assert not (tmp_path / "prm.onnx").exists()
    prm.export(trained, tmp_path, force=True)
    assert (tmp_path / "prm.onnx").exists()


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"id": "q", "question": "a", "steps": ["1+1=2"]}',
        '{"id": "q", "question": "a", "steps": ["1+1=2"], "labels": [1.5]}',
        '{"id": "q", "question": "a", "steps": ["1+1=2", "#### 2"], "labels": [1]}',
    ],
)
def test_bad_rows_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="line 1: not a labelled trace"):
        read_rows(path)


def test_metrics() -> None:
    assert auc(torch.tensor([0.9, 0.5]).numpy(), torch.tensor([0.5, 0.1]).numpy()) == pytest.approx(3.5 / 4)
    assert step_metrics([(0.5, 1.0), (0.5, 0.0)])["bce"] == pytest.approx(0.6931, abs=1e-3)
    traces = [("a", "1", True, 0.9), ("a", "2", False, 0.5), ("a", "2", False, 0.5), ("b", "3", False, 0.2)]
    assert selection(traces) == {
        "questions": 2.0,
        "pass_at_1": pytest.approx(1 / 6),
        "best_of_n": 0.5,
        "weighted": 0.0,
        "majority": 0.0,
        "pass_at_n": 0.5,
    }
