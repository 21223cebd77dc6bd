"""A head on a chat model's frozen first layers: labels, figures on held-out problems, the run that is written."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from edge_tts.errors import InputError, PackError
from edge_tts.export.prm_export import export_prm
from edge_tts.export.prm_measurements import Thresholds, torch_scores
from edge_tts.export.trace_rows import Row, read_rows
from edge_tts.export.train import fit_prm, labels, train_prm
from edge_tts.export.train.train_prm import PrmConfig
from edge_tts.export.truncated_policy import CHAT_PROMPT, load_policy, load_run, step_encoder
from edge_tts.export.vote_metrics import Drawn, calibration_error, interval, votes, within_question_auc, worth
from edge_tts.packs.gguf_tokenizer import SPLITS, tokenizer_json

QUESTION = "Tom has 12 boxes with {n} pens each. How many pens are there?"


def traces(problem: int) -> list[dict[str, object]]:
    """Two policies' samples of a problem: products are right, sums wrong; one sample has no answer."""
    n = problem + 3
    right, wrong = [f"pens = 12 * {n}  # {12 * n}"], [f"pens = 12 + {n}  # {12 + n}"]
    shared = {"id": f"t-{problem}", "question": QUESTION.format(n=n), "logprob": -0.5}
    rows: list[dict[str, object]] = []
    for policy in ("small", "large"):
        for steps, is_right in ((right, True), (wrong, False), (wrong, False)):
            first = "boxes = 12  # 12"
            label = {"labels": [1 / 3, float(is_right)], "answer": str(is_right), "correct": is_right}
            rows.append({**shared, "steps": [first, *steps], **label, "policy": policy})
        rows.append(
            {**shared, "steps": ["pens = boxs"], "labels": [0.0], "answer": None, "correct": False} | {"policy": policy}
        )
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for problem in range(30) for row in traces(problem)))
    return path


@pytest.fixture(scope="module")
def fitted(qwen_checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    fit_prm.run(qwen_checkpoint, data, out, depths=(1, 3), layers=3)
    return out


def test_a_head_tells_right_from_wrong_on_problems_it_has_not_seen(fitted: Path) -> None:
    report = json.loads((fitted / "report.json").read_text())
    assert (report["traces"], report["problems"], report["steps"]) == (240, 30, 240)
    assert report["chosen_layers"] == 3
    for found in report["layers"].values():
        for told in found["by_policy"].values():
            assert told["auc_within_a_question"]["value"] > 0.75
            assert told["auc_within_a_question"]["questions"] == 30
            assert told["votes"]["4"]["majority"]["value"] == 0.0
            assert told["votes"]["4"]["best_of_n_less_majority"]["value"] > 0.6
            assert told["calibration_error"] < 0.2
    blind = report["log-probability"]["by_policy"]["small"]
    assert blind["auc_within_a_question"]["value"] == 0.5


def test_the_run_scores_as_the_head_was_fitted_and_is_exported(fitted: Path, data: Path, tmp_path: Path) -> None:
    rows = read_rows(data)[:80]
    model = load_run(fitted)
    assert (len(model.backbone.layers), model.reads) == (3, "chat")
    tokenizer = Tokenizer.from_file(str(fitted / "tokenizer.json"))
    scores = torch_scores(model.reward_model(tokenizer), step_encoder(tokenizer, "chat"), rows)
    right, wrong = scores[::4], scores[1::4]
    assert all(a[0] == b[0] for a, b in zip(right, wrong, strict=True))  # one shared first step
    assert np.mean([a[1] - b[1] for a, b in zip(right, wrong, strict=True)]) > 0.3
    measured = export_prm(fitted, tmp_path, "fp32", shapes=(), thresholds=Thresholds())
    assert measured["comparison"]["parity"]["max_error"] < 1e-3


def test_states_are_kept_and_do_not_depend_on_what_they_are_packed_with(
    fitted: Path, qwen_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (fitted / "states").iterdir()}
    fit_prm.run(qwen_checkpoint, data, fitted, depths=(1, 3), layers=3)
    assert {path: path.stat().st_mtime_ns for path in (fitted / "states").iterdir()} == before
    rows = read_rows(data)
    alone = [row for row in rows if row.id == "t-7"][:1]
    model = load_policy(qwen_checkpoint, None, 3, 3, reads="chat")
    tokenizer = Tokenizer.from_file(str(qwen_checkpoint / "tokenizer.json"))
    encoder = step_encoder(tokenizer, "chat")
    frozen = fit_prm.FrozenLayers(model.backbone, (1, 3), tmp_path, "policy")
    together, single = (
        fit_prm.collect(chosen, frozen, fit_prm.Packer(encoder, 1024, 1500))
        for chosen in ([row for row in rows if row.id == "t-7"], alone)
    )
    assert np.allclose(together.states[:2], single.states, atol=2e-2)
    assert together.targets.weights.sum() == pytest.approx(len(together.states))


def test_a_change_of_low_rank_is_trained_on_from_the_fitted_head(fitted: Path, data: Path, tmp_path: Path) -> None:
    config = PrmConfig(rank=2, frozen_layers=1, batch_tokens=600, learning_rate=1e-2, warmup=0.0)
    run, batches = train_prm.start(data, tmp_path, config, fitted, data)
    before = load_run(fitted)
    for _ in range(4):
        run.update(next(batches), progress=0.1)
    run.evaluate()
    run.save()
    after = load_run(tmp_path)
    same = [
        torch.equal(old.mlp.down_proj.weight, new.mlp.down_proj.weight)
        for old, new in zip(before.backbone.layers, after.backbone.layers, strict=True)
    ]
    assert same == [True, False, False]
    change = after.backbone.layers[2].mlp.up_proj.weight - before.backbone.layers[2].mlp.up_proj.weight
    assert torch.linalg.matrix_rank(change.detach(), rtol=1e-4) == 2
    assert after.reads == "chat"
    again, _ = train_prm.start(data, tmp_path, config, fitted, data)
    assert again.step == 4
    assert torch.equal(again.model.head.weight, run.model.head.weight)


def test_too_few_problems_and_unknown_depths_are_named(qwen_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(data.read_text().splitlines()[:8]) + "\n")
    with pytest.raises(InputError, match="has 1 problems, too few for 5 folds"):
        fit_prm.run(qwen_checkpoint, few, tmp_path / "run")
    with pytest.raises(InputError, match="--layers 2 is not among the depths 1, 3"):
        fit_prm.run(qwen_checkpoint, data, tmp_path / "run", depths=(1, 3), layers=2)


def test_samples_of_a_study_become_rows_with_monte_carlo_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(steps: list[str], answer: str | None, correct: bool) -> dict[str, object]:
        parts = [{"text": step, "tokens": 4, "logprob": -1.0, "forced": 0} for step in steps]
        return {"tokens": [1], "parts": parts, "stop": "end", "steps": steps, "answer": answer, "correct": correct}

    drawn = [sample(["a", "b"], "2", True), sample(["a", "c"], "3", False), sample(["a", "d"], None, False)]
    study = tmp_path / "one-study"
    study.mkdir()
    line = json.dumps({"id": "t-1", "seed": 0, "prompt": [], "samples": [*drawn, sample([], None, False)]}) + "\n"
    with gzip.open(study / "samples.jsonl.gz", "wt") as file:
        file.write(line)
    problems, out = tmp_path / "problems.jsonl", tmp_path / "rows.jsonl"
    problems.write_text(json.dumps({"id": "t-1", "question": "q", "answer": "2"}) + "\n")
    arguments = ["labels", "--problems", str(problems), "--samples", str(study / "samples.jsonl.gz"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    labels.main()
    rows = read_rows(out)
    assert [row.labels for row in rows] == [(0.3333, 1.0), (0.3333, 0.0), (0.3333, 0.0)]
    assert rows[0] == Row("t-1", "q", ("a", "b"), (0.3333, 1.0), "2", True, -0.25, "one-study")
    assert (rows[2].answer, rows[2].correct) == (None, False)
    with pytest.raises(InputError, match="line 1: no samples of a known problem"):
        labels.study_rows(study / "samples.jsonl.gz", {})
    with pytest.raises(InputError, match="has no samples"):
        labels.study_rows(tmp_path / "nothing.jsonl", {})


def test_figures_of_votes() -> None:
    outvoted = [
        Drawn("7", True, 0.9, -3.0),
        Drawn("8", False, 0.2, -1.0),
        Drawn("8.0", False, 0.3, -2.0),
        Drawn(None, False, 0.99, -1.0),
    ]
    assert votes(outvoted, 4) == {"majority": 0.0, "weighted": 1.0, "best_of_n": 1.0}
    tied = [outvoted[0], outvoted[1]]
    assert votes(tied, 4)["majority"] == 0.0  # the likelier of two lone answers
    assert 0 < votes(outvoted, 2)["weighted"] <= 1
    assert votes([outvoted[3]], 4) == {"majority": 0.0, "weighted": 0.0, "best_of_n": 0.0}
    assert within_question_auc(outvoted) == 1.0
    assert within_question_auc(outvoted[1:]) is None
    assert calibration_error([replace(outvoted[0], score=0.75), replace(outvoted[1], score=0.72)]) == pytest.approx(
        0.235
    )
    assert interval([1.0, 1.0]) == {"questions": 2, "value": 1.0, "low": 1.0, "high": 1.0}
    assert interval([]) == {"questions": 0}
    told = worth([outvoted, tied], counts=(4,))
    assert told["auc"] == 1.0


def test_a_gguf_gives_the_same_layers_and_tokens(qwen: Path, qwen_checkpoint: Path, tmp_path: Path) -> None:
    ours = Tokenizer.from_str(tokenizer_json(qwen))
    theirs = Tokenizer.from_file(str(qwen_checkpoint / "tokenizer.json"))
    theirs_spec = json.loads(theirs.to_str())
    theirs_spec["pre_tokenizer"]["pretokenizers"][0] = SPLITS["qwen2"][0]
    theirs = Tokenizer.from_str(json.dumps(theirs_spec))
    for text in (CHAT_PROMPT.replace("{question}", QUESTION), "It's 3\u00a0km — naïve 東京 🙂\r\n\n  x = 12"):
        assert ours.encode(text).ids == theirs.encode(text).ids
    assert ours.encode("<|im_end|>").ids == [theirs.token_to_id("<|im_end|>")]
    whole = load_policy(qwen_checkpoint, None, 2, reads="chat").backbone
    config = PrmConfig(layers=2, reads="chat", vocabulary=340)
    model, kept = train_prm.prepare([Row("q", QUESTION, ("pens = 12",))], tmp_path, config, qwen)
    assert model.backbone.config.vocab_size == 340
    for name, weight in whole.layers.named_parameters():
        assert torch.equal(model.backbone.layers.get_parameter(name), weight), name
    vocabulary = kept.get_vocab()
    old = [ours.token_to_id(token) for token in vocabulary]
    rows = list(vocabulary.values())
    assert torch.equal(model.backbone.embed_tokens.weight[rows], whole.embed_tokens.weight[old])


def test_a_line_may_hold_what_ends_lines_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "a\u2028b\x85c", "steps": ["x"]}, ensure_ascii=False) + "\n", "utf-8")
    assert [row.question for row in read_rows(path, labelled=False)] == ["a\u2028b\x85c"]


def test_another_kind_of_tokenizer_is_named(qwen: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(qwen.read_bytes().replace(b"qwen2", b"qwenX"))
    with pytest.raises(PackError, match="splits text as gpt2/qwenX"):
        tokenizer_json(path)
