"""The PRM that this project trains: learning, packing, resuming, export with its gate, the runtime's verifier."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import prm_checkpoints
import pytest
import torch
import transformers
from prm_checkpoints import OTHER, QUESTION, TRACES, WORDS
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from edge_tts.core import Scored
from edge_tts.errors import InputError, PackError
from edge_tts.export.prm_export import export_prm
from edge_tts.export.prm_measurements import Thresholds, torch_scores
from edge_tts.export.trace_rows import Row, read_rows
from edge_tts.export.train import train_prm as recipe
from edge_tts.export.train.packing import Packer
from edge_tts.export.train.train_prm import PrmConfig
from edge_tts.export.truncated_policy import POSITIONS, load_policy, load_run, step_encoder, step_layout
from edge_tts.export.vocabulary import trim_bpe
from edge_tts.planning.shapes import verifier_shape
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.onnx_verifier import OnnxVerifier
from edge_tts.runtimes.step_marks import MARKS

CONFIG = PrmConfig(layers=2, learning_rate=1e-3, vocabulary=340, warmup=0.0, batch_tokens=600)


def policy_tokenizer() -> Tokenizer:
    """Byte-level BPE with digits one by one, as SmolLM2's."""
    tokenizer = Tokenizer(models.BPE())
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=460, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    return tokenizer


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-layer Llama with random weights, as a checkpoint."""
    torch.manual_seed(0)
    tokenizer = policy_tokenizer()
    sizes = prm_checkpoints.DECODER | {"num_hidden_layers": 3, "tie_word_embeddings": True}
    config = transformers.LlamaConfig(**sizes, vocab_size=tokenizer.get_vocab_size())
    return prm_checkpoints.save(
        tmp_path_factory.mktemp("base") / "policy", transformers.LlamaForCausalLM(config), tokenizer
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two questions with a right and a wrong trace each; one of the right ones is a revision."""
    rows = []
    for name, question, right in (
        ("a", QUESTION, ["12*50=600", "600-100=500"]),
        ("b", OTHER, ["60*3=180", "180+20=200"]),
    ):
        for steps, label in ((right, 1.0), ([right[0], "7+7=14"], 0.0), (["2+2=4"], 0.0)):
            answer = steps[-1].rpartition("=")[2]
            row = {"id": name, "question": question, "steps": [*steps, f"#### {answer}"], "answer": answer}
            labels = [0.5 if step == right[0] else label for step in row["steps"]]
            attempts = {"attempts": ["2+2=4\n#### 4"]} if label and name == "a" else {}
            rows.append({**row, "labels": labels, "correct": label == 1.0, **attempts})
    path = tmp_path_factory.mktemp("data") / "rollouts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def trained(policy: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after 24 updates, with a checkpoint."""
    out = tmp_path_factory.mktemp("run")
    run, batches = recipe.start(data, out, CONFIG, policy, data)
    for _ in range(24):
        run.update(next(batches), progress=0.1)
    run.evaluate()
    run.save()
    return out


def test_training_separates_right_from_wrong_and_leaves_words_alone(trained: Path, policy: Path) -> None:
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if "loss" in row]
    assert len(losses) == 24
    assert losses[-1] < 0.7 * losses[0]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert log[-1]["auc"] > 0.9
    assert log[-1]["best_of_n"] == 1.0
    assert log[-1]["pass_at_1"] == pytest.approx(1 / 3, abs=1e-3)
    model = load_run(trained)
    before = transformers.LlamaForCausalLM.from_pretrained(policy).model
    tokenizer, full = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (trained, policy))
    for token, row in tokenizer.get_vocab().items():
        token = "abcdefghijklmnopqrstu"[row - 319] if token in MARKS else token
        assert torch.equal(model.backbone.embed_tokens.weight[row], before.embed_tokens.weight[full.token_to_id(token)])
    assert not torch.equal(model.backbone.layers[1].mlp.up_proj.weight, before.layers[1].mlp.up_proj.weight)
    assert len(model.backbone.layers) == 2


def test_a_run_resumes_from_its_checkpoint(trained: Path, data: Path, policy: Path) -> None:
    state = torch.load(trained / "state.pt", weights_only=True)
    run, _ = recipe.start(data, trained, CONFIG, policy, data)
    assert run.step == 24
    assert run.best == state["best"] < 0.6
    assert run.optimiser.state_dict()["state"][0]["step"] == 24
    trained_names = {name for name, weight in run.model.named_parameters() if weight.requires_grad}
    assert set(state["model"]) == trained_names
    assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in state["model"].items())


def test_frozen_layers_do_not_learn(policy: Path, data: Path, tmp_path: Path) -> None:
    run, batches = recipe.start(data, tmp_path, PrmConfig(layers=3, frozen_layers=2, vocabulary=340), policy)
    before = [layer.mlp.down_proj.weight.clone() for layer in run.model.backbone.layers]
    run.update(next(batches), progress=0.1)
    same = [
        torch.equal(old, new.mlp.down_proj.weight) for old, new in zip(before, run.model.backbone.layers, strict=True)
    ]
    assert same == [True, True, False]


def test_the_timed_loop_stops_and_leaves_a_model(policy: Path, data: Path, tmp_path: Path) -> None:
    recipe.train(data, tmp_path, replace(CONFIG, minutes=1e-4), policy)
    assert load_run(tmp_path).backbone.config.vocab_size == 340


def alone(run: Path, question: str, traces: list[tuple[str, ...]]) -> list[list[float]]:
    """The PyTorch model's scores of each trace by itself."""
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    rows = [Row("", question, steps) for steps in traces]
    return torch_scores(load_run(run).reward_model(tokenizer), step_encoder(tokenizer), rows)


def test_packed_traces_score_as_each_does_alone(trained: Path, data: Path) -> None:
    packer = Packer(step_encoder(Tokenizer.from_file(str(trained / "tokenizer.json"))), POSITIONS["equations"], 1000)
    rows = [row for row in read_rows(data) if row.question == QUESTION]
    [(_, pack)] = packer.packs(rows)
    assert len(pack.chunks) == 1 + 7  # the shared first step once
    other = Row("o", OTHER, ("60*3=180",), (1.0,))
    [(_, short)] = packer.packs([other])
    with torch.no_grad():
        scores = torch.sigmoid(recipe.chunk_logits(load_run(trained), [short, pack], "cpu")).tolist()
    wanted = alone(trained, QUESTION, [row.steps for row in rows])
    for exact, nodes in zip(wanted, pack.nodes, strict=True):
        assert [scores[2 + node] for node in nodes] == pytest.approx(exact, abs=1e-5)
    [[exact]] = alone(trained, OTHER, [other.steps])  # the first of the two packs is padded
    assert scores[1] == pytest.approx(exact, abs=1e-5)


def test_shared_prefixes_average_their_labels_and_long_traces_are_cut() -> None:
    class Letters:
        """An encoder with a token for each letter, two around a question and two after a step."""

        def question(self, question: str) -> tuple[int, ...]:
            return (0, *map(ord, question), 0)

        def extended(self, question: str, steps: tuple[str, ...], before: tuple[int, ...]) -> tuple[int, ...]:
            return (*before, *map(ord, steps[-1]), 0, 0)

    letters: Any = Letters()
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


def test_a_step_is_read_in_the_policys_own_format_with_marks(trained: Path) -> None:
    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    encoder = step_encoder(tokenizer)
    ids = list(encoder.extended(QUESTION, ["12*50=600"], encoder.question(QUESTION)))
    ids += encoder.extended(QUESTION, ["", "#### 5"], ())
    prompt = PromptFormat().render(QUESTION)
    seen = "[new0unused1][loose0whole]", "[new1unused3][loose0whole]"
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert text == f"{prompt}12*50=600\n{seen[0]}#### 5\n{seen[1]}"
    whole = tokenizer.encode(prompt, add_special_tokens=False).ids + tokenizer.encode("12*50=600\n").ids
    assert ids[: len(whole)] == whole


LENIENT = Thresholds(min_spearman=0.7, max_mean_error=0.3)
"""A model this narrow suffers more from rounding than a real one."""


def test_the_float_file_scores_as_torch_does(trained: Path, tmp_path: Path) -> None:
    measured = export_prm(trained, tmp_path, "fp32", shapes=())
    assert measured["good"]
    assert measured["comparison"]["parity"]["max_error"] < 1e-4


@pytest.mark.parametrize(("quant", "product"), [("int8", "MatMulInteger"), ("int4", "MatMulNBits")])
def test_the_exported_file_is_small_and_the_verifier_scores_as_torch_does(
    trained: Path, tmp_path: Path, quant: Any, product: str
) -> None:
    measured = export_prm(trained, tmp_path, quant, thresholds=LENIENT, shapes=())
    assert json.loads(json.dumps(measured)) == json.loads((tmp_path / "prm-account.json").read_text())
    assert measured["comparison"]["parity"]["spearman"] >= 0.7
    assert measured["comparison"]["parity"]["steps"] == 14
    graph = onnx.load(tmp_path / "prm.onnx").graph
    assert sum(node.op_type == product for node in graph.node) == 14
    assert {p.name for p in tmp_path.iterdir()} - {".lock"} == {"prm-account.json", "prm.onnx", "tokenizer.json"}
    shape = verifier_shape(tmp_path / "prm.onnx")
    assert (shape.layers, shape.hidden, shape.max_tokens, shape.vocabulary) == (2, 64, 512, 340)
    assert shape.kv_bytes == 2 * 2 * 32 * 4
    assert shape.parameters == sum(p.numel() for p in load_run(trained).parameters()) - 340 * 64
    assert measured["bytes"] < 0.5 * 4 * (shape.parameters + 340 * 64)
    verifier = OnnxVerifier(tmp_path / "prm.onnx", tmp_path / "tokenizer.json", "cpu")
    scored = verifier.score(QUESTION, TRACES)
    for exact, found in zip(alone(trained, QUESTION, TRACES), scored, strict=True):
        assert found.scores == pytest.approx(exact, abs=0.1 if quant == "int8" else 0.3)
    assert verifier.score(QUESTION, [TRACES[0]]) == [Scored(scored[0].scores, 0)]
    verifier.close()


def test_poor_parity_is_refused_unless_forced(trained: Path, tmp_path: Path) -> None:
    strict = Thresholds(min_spearman=1.01)
    with pytest.raises(PackError, match=r"int4 model is not good enough \(Spearman .* --quant.* --force"):
        export_prm(trained, tmp_path, "int4", thresholds=strict, shapes=())
    assert not (tmp_path / "prm.onnx").exists()
    export_prm(trained, tmp_path, "int4", thresholds=strict, force=True, shapes=())
    assert (tmp_path / "prm.onnx").exists()


def test_a_damaged_run_is_a_pack_error(trained: Path, tmp_path: Path) -> None:
    for name in ("sample.jsonl", "tokenizer.json"):
        shutil.copy(trained / name, tmp_path)
    for content in (b"", b"nothing", (trained / "model.pt").read_bytes()[:5000]):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(PackError, match="no trained PRM or is damaged"):
            export_prm(tmp_path, tmp_path / "out")


def test_bases_that_do_not_fit_are_named(policy: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 layers; the first 4"):
        recipe.start(data, tmp_path, PrmConfig(layers=4), policy)
    with pytest.raises(InputError, match="give a folder that save_pretrained wrote"):
        recipe.start(data, tmp_path, PrmConfig(), tmp_path / "nothing")
    other = Path(shutil.copytree(policy, tmp_path / "other"))
    (other / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="is a gpt2 of 12 layers"):
        recipe.start(data, tmp_path, PrmConfig(), other)


def test_a_trimmed_bpe_splits_kept_texts_as_before_and_any_other_without_unknown_tokens(policy: Path) -> None:
    source = policy / "tokenizer.json"
    full = Tokenizer.from_file(str(source))
    text = f"{PromptFormat().render(QUESTION)}12*50=600\n#### 500"
    trimmed, kept = trim_bpe(source, [text], 350)
    small = Tokenizer.from_str(trimmed)
    assert small.get_vocab_size() == len(kept) == 350 < full.get_vocab_size()
    names = {i: token for token, i in full.get_vocab().items()}
    assert {token for token, i in small.get_vocab().items() if names[kept[i]] != token} == set(MARKS)
    assert small.encode(text).tokens == full.encode(text).tokens
    assert [kept[i] for i in small.encode(text).ids] == full.encode(text).ids
    for other in (OTHER, "Ω ≈ 3\u00a0km — naïve 東京 🙂\t\r\n", "\x00\x7f", "1,234.50$"):
        ids = small.encode(other).ids
        assert small.decode(ids, skip_special_tokens=False) == other
    assert len(small.encode(OTHER).ids) > len(full.encode(OTHER).ids)  # pieces stand for words that went
    assert small.token_to_id("<|im_end|>") == small.encode("<|im_end|>").ids[0]


def test_trimming_keeps_what_a_merge_is_made_of_within_the_size(policy: Path) -> None:
    trimmed, kept = trim_bpe(policy / "tokenizer.json", [QUESTION] * 3, 320)
    spec = json.loads(trimmed)
    vocabulary = spec["model"]["vocab"]
    assert len(kept) <= 320
    made = {first + second for first, second in spec["model"]["merges"]}
    assert made == {token for token in vocabulary if len(token) > 1}
    assert all(part in vocabulary for pair in spec["model"]["merges"] for part in pair)


def test_only_byte_level_bpe_can_be_trimmed(policy: Path, tmp_path: Path) -> None:
    spec = json.loads((policy / "tokenizer.json").read_text())
    for change in ({"byte_fallback": True}, {"type": "WordPiece"}):
        (tmp_path / "tokenizer.json").write_text(json.dumps({**spec, "model": {**spec["model"], **change}}))
        with pytest.raises(InputError, match="no byte-level BPE"):
            trim_bpe(tmp_path / "tokenizer.json", [], 3000)


def test_the_layout_is_the_prompt_format_of_packs(policy: Path) -> None:
    tokenizer = Tokenizer.from_file(str(policy / "tokenizer.json"))
    layout = step_layout(tokenizer)
    assert layout.prompt.format(question="x") == PromptFormat().render("x")
    assert tokenizer.decode(list(layout.end)) == "\n"


def test_weights_of_the_kept_words_come_from_their_old_rows(policy: Path) -> None:
    model = load_policy(policy, [5, 1, 9], 1)
    before = transformers.LlamaForCausalLM.from_pretrained(policy).model.embed_tokens.weight
    assert torch.equal(model.backbone.embed_tokens.weight, before[[5, 1, 9]])
