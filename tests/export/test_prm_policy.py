"""The truncated policy as a base of the PRM recipe: learning, packing, export, the runtime's verifier."""

import json
from dataclasses import replace
from pathlib import Path

import prm_checkpoints
import pytest
import torch
import transformers
from prm_checkpoints import OTHER, QUESTION, TRACES, WORDS
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from edge_tts.core import Scored
from edge_tts.errors import InputError, PackError
from edge_tts.export import prm
from edge_tts.export.prm_policy import PolicyScorer, load_policy, step_layout
from edge_tts.export.scorer import score_trace
from edge_tts.export.train import train_prm as recipe
from edge_tts.export.train.packing import Packer
from edge_tts.export.train.rows import Row, read_rows
from edge_tts.export.train.sft import load_base
from edge_tts.export.train.train_prm import PrmConfig
from edge_tts.export.vocabulary import trim_bpe
from edge_tts.packs.base_model import SMOLLM2_135M, locate
from edge_tts.planning.shapes import verifier_shape
from edge_tts.reasoning.prompts import PromptFormat
from edge_tts.runtimes.chunks import RESULT_MARKS, SOURCE_MARKS
from edge_tts.runtimes.onnx_decoder import DecoderVerifier
from edge_tts.runtimes.verifiers import open_verifier

CONFIG = PrmConfig(layers=2, learning_rate=1e-3, dropout=0.0, vocabulary=340, warmup=0.0, batch_tokens=600)


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
    run, batches = recipe.start(data, out, CONFIG, data, policy)
    for _ in range(24):
        run.update(next(batches), progress=0.1)
    run.evaluate()
    run.save()
    return out


def test_training_separates_right_from_wrong_and_leaves_words_alone(trained: Path, policy: Path) -> None:
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert log[23]["loss"] < 0.7 * log[0]["loss"]
    assert log[-1]["auc"] > 0.9
    assert log[-1]["best_of_n"] == 1.0
    model = prm.load_run(trained)
    assert isinstance(model, PolicyScorer)
    before = transformers.LlamaForCausalLM.from_pretrained(policy).model
    tokenizer, full = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (trained, policy))
    marks = {*SOURCE_MARKS, *RESULT_MARKS}
    for token, row in tokenizer.get_vocab().items():
        token = "abcdefghijklmnopqrstu"[row - 319] if token in marks else token
        assert torch.equal(model.backbone.embed_tokens.weight[row], before.embed_tokens.weight[full.token_to_id(token)])
    assert not torch.equal(model.backbone.layers[1].mlp.up_proj.weight, before.layers[1].mlp.up_proj.weight)
    assert len(model.backbone.layers) == 2


def test_a_run_resumes_from_its_checkpoint(trained: Path, data: Path, policy: Path) -> None:
    state = torch.load(trained / "state.pt", weights_only=True)
    run, _ = recipe.start(data, trained, CONFIG, data, policy)
    assert run.step == 24
    assert all(torch.equal(value, state["model"][name]) for name, value in run.model.state_dict().items())


def test_frozen_layers_do_not_learn(policy: Path, data: Path, tmp_path: Path) -> None:
    run, batches = recipe.start(data, tmp_path, PrmConfig(layers=3, frozen_layers=2, vocabulary=340), None, policy)
    assert isinstance(run.model, PolicyScorer)
    before = [layer.mlp.down_proj.weight.clone() for layer in run.model.backbone.layers]
    run.update(next(batches), progress=0.1)
    same = [
        torch.equal(old, new.mlp.down_proj.weight) for old, new in zip(before, run.model.backbone.layers, strict=True)
    ]
    assert same == [True, True, False]


def test_packed_traces_score_as_each_does_alone(trained: Path, data: Path) -> None:
    model = prm.load_run(trained)
    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    rows = [row for row in read_rows(data) if row.question == QUESTION]
    [(_, pack)] = Packer(model.chunks(tokenizer), model.positions, 1000).packs(rows)
    other = Row("o", OTHER, ("60*3=180",), (1.0,))
    [(_, short)] = Packer(model.chunks(tokenizer), model.positions, 1000).packs([other])
    with torch.no_grad():
        scores = torch.sigmoid(recipe.chunk_logits(model, [short, pack], "cpu")).tolist()  # the first is padded
    for row, nodes in zip(rows, pack.nodes, strict=True):
        alone = score_trace(model, tokenizer, QUESTION, row.steps)
        assert [scores[2 + node] for node in nodes] == pytest.approx(alone, abs=1e-5)
    assert scores[1] == pytest.approx(score_trace(model, tokenizer, OTHER, other.steps)[0], abs=1e-5)


def test_a_step_is_read_in_the_policys_own_format_with_marks(trained: Path) -> None:
    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    chunks = prm.load_run(trained).chunks(tokenizer)
    ids = [*chunks.question(QUESTION), *chunks.step(QUESTION, ["12*50=600"]), *chunks.step(QUESTION, ["", "#### 5"])]
    prompt = PromptFormat().render(QUESTION)
    seen = "[new0unused1][loose0whole]", "[new1unused3][loose0whole]"
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert text == f"{prompt}12*50=600\n{seen[0]}#### 5\n{seen[1]}"
    whole = tokenizer.encode(prompt, add_special_tokens=False).ids + tokenizer.encode("12*50=600\n").ids
    assert ids[: len(whole)] == whole


@pytest.mark.parametrize("quant", ["int8", "int4"])
def test_the_exported_file_is_small_and_the_verifier_scores_as_torch_does(
    trained: Path, data: Path, tmp_path: Path, quant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prm, "MIN_SPEARMAN", 0.7)  # a model this narrow suffers more from rounding than a real one
    account = prm.export(trained, tmp_path, quant=quant)  # type: ignore[arg-type]
    assert account == json.loads((tmp_path / "parity.json").read_text())
    assert account["float32"]["max_error"] < 1e-4
    assert account[quant]["bytes"] < 0.5 * account["float32"]["bytes"]
    assert account["operators"][{"int8": "MatMulInteger", "int4": "MatMulNBits"}[quant]] == 14
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parity.json", "prm.onnx", "tokenizer.json"]
    shape = verifier_shape(tmp_path / "prm.onnx")
    assert (shape.layers, shape.hidden, shape.max_tokens, shape.vocabulary) == (2, 64, 512, 340)
    assert shape.kv_bytes == 2 * 2 * 32 * 4
    model, tokenizer = prm.load_run(trained), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert shape.parameters == sum(p.numel() for p in model.parameters()) - 340 * 64
    verifier = open_verifier(tmp_path / "prm.onnx", tmp_path / "tokenizer.json", "cpu")
    assert isinstance(verifier, DecoderVerifier)
    for steps, scored in zip(TRACES, verifier.score(QUESTION, TRACES), strict=True):
        assert scored.scores == pytest.approx(
            score_trace(model, tokenizer, QUESTION, steps), abs=0.1 if quant == "int8" else 0.3
        )
    assert verifier.score(QUESTION, [TRACES[0]]) == [Scored(verifier.score(QUESTION, TRACES)[0].scores, 0)]
    verifier.close()


def test_poor_parity_is_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prm, "MIN_SPEARMAN", 1.01)
    with pytest.raises(PackError, match=r"int4 step scores rank unlike .* --quant"):
        prm.export(trained, tmp_path, quant="int4")
    assert not (tmp_path / "prm.onnx").exists()


def test_bases_that_do_not_fit_are_named(policy: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 layers; the first 4"):
        recipe.start(data, tmp_path, PrmConfig(layers=4), None, policy)
    with pytest.raises(InputError, match="6 layers; the first 7"):
        recipe.start(data, tmp_path, PrmConfig(layers=7), None)
    with pytest.raises(InputError, match="no folder of a base model"):
        recipe.is_policy(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="'gpt2' model"):
        recipe.is_policy(tmp_path)


def test_a_trimmed_bpe_splits_kept_texts_as_before_and_any_other_without_unknown_tokens(policy: Path) -> None:
    source = policy / "tokenizer.json"
    full = Tokenizer.from_file(str(source))
    text = f"{PromptFormat().render(QUESTION)}12*50=600\n#### 500"
    trimmed, kept = trim_bpe(source, [text], 350)
    small = Tokenizer.from_str(trimmed)
    assert small.get_vocab_size() == len(kept) == 350 < full.get_vocab_size()
    names = {i: token for token, i in full.get_vocab().items()}
    marks = {*SOURCE_MARKS, *RESULT_MARKS}
    assert {token for token, i in small.get_vocab().items() if names[kept[i]] != token} == marks
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


def test_only_byte_level_bpe_can_be_trimmed_as_such(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no byte-level BPE"):
        trim_bpe(prm.minilm_folder() / "tokenizer.json", [], 3000)


def test_the_layout_is_the_prompt_format_of_packs(policy: Path) -> None:
    tokenizer = Tokenizer.from_file(str(policy / "tokenizer.json"))
    layout = step_layout(tokenizer)
    assert layout.prompt.format(question="x") == PromptFormat().render("x")
    assert tokenizer.decode(list(layout.end)) == "\n"


def test_a_base_may_be_a_gguf(home: Path, data: Path, tmp_path: Path) -> None:
    gguf = locate(SMOLLM2_135M)
    assert recipe.is_policy(gguf)
    model, tokenizer = recipe.prepare(read_rows(data), tmp_path, replace(recipe.POLICY, layers=1, vocabulary=600), gguf)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    whole, words = load_base(gguf)
    assert isinstance(model, PolicyScorer)
    for name, weight in model.backbone.layers[0].named_parameters():
        assert torch.equal(weight, whole.model.layers[0].get_parameter(name))
    kept = {token: id for token, id in tokenizer.get_vocab().items() if token not in (*SOURCE_MARKS, *RESULT_MARKS)}
    old = words.convert_tokens_to_ids(list(kept))
    assert old != list(kept.values())
    assert torch.equal(model.backbone.embed_tokens.weight[list(kept.values())], whole.model.embed_tokens.weight[old])


def test_weights_of_the_kept_words_come_from_their_old_rows(policy: Path) -> None:
    model = load_policy(policy, [5, 1, 9], 1)
    before = transformers.LlamaForCausalLM.from_pretrained(policy).model.embed_tokens.weight
    assert torch.equal(model.backbone.embed_tokens.weight, before[[5, 1, 9]])
