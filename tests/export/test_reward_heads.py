"""Reward heads are told from a checkpoint's files alone, and what cannot be used is refused in one sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from edge_tts.errors import EdgeError, InputError, PackError
from edge_tts.export.reward_heads import KINDS, recognise
from edge_tts.runtimes.step_layout import StepEncoder, StepLayout


@pytest.fixture
def copy(checkpoints: dict[str, Path], tmp_path: Path) -> Any:
    """A function that copies a family's checkpoint into a folder of a name that says nothing."""

    def copied(family: str, **config: Any) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(checkpoints[family], folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return folder

    return copied


@pytest.mark.parametrize(
    ("family", "evidence"),
    [
        ("step-token", ["MistralForCausalLM", "shepherd", "ки", "lm_head.weight"]),
        ("chat", ["LlamaForCausalLM", "prm", "chat template", "model.embed_tokens.weight"]),
        ("two-class", ["Qwen2ForProcessRewardModel", "score.0.weight", "score.2.weight"]),
        ("value", ["v_head.summary.weight"]),
        ("token-classification", ["Qwen2ForTokenClassification", "2 label", "score.weight"]),
    ],
)
def test_auto_recognises_each_family_and_says_from_what(
    family: str, evidence: list[str], checkpoints: dict[str, Path]
) -> None:
    head = recognise(checkpoints[family])
    assert head.kind == family
    assert [word for word in evidence if word not in head.reason] == []
    assert recognise(checkpoints[family], head.kind).layout == head.layout


def test_a_name_in_the_hubs_cache_counts(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for name, kind in (("models--RLHFlow--Llama3.1-8B-PRM", "chat"), ("models--meta--Llama", None)):
        folder = tmp_path / name / "snapshots" / "0a1b2c"
        shutil.copytree(checkpoints["chat"], folder)
        if kind:
            assert recognise(folder).kind == kind
        else:
            with pytest.raises(InputError, match="nothing in its name says PRM"):
                recognise(folder)


def test_a_training_run_is_ours(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    (tmp_path / "sample.jsonl").touch()
    assert recognise(tmp_path).kind == "ours"
    with pytest.raises(InputError, match=r"no config\.json|config\.json is missing"):
        recognise(tmp_path, "value")


def written(folder: Path, question: str, steps: list[str]) -> list[str]:
    """What the layout makes of a trace, prefix by prefix, as text (without added spaces)."""
    head = recognise(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert head.layout is not None
    prefixes = StepEncoder(head.layout, tokenizer, 512).prefixes(question, steps)
    return [tokenizer.decode(list(ids), skip_special_tokens=False) for ids in prefixes]


def test_layouts_write_what_each_family_was_trained_on(checkpoints: dict[str, Path]) -> None:
    question, steps = "2 boxes of 50 pens?", ["2*50=100", "#### 100"]
    prompt, _, end = written(checkpoints["chat"], question, steps)
    turn = "<|eot_id|><|start_header_id|>{}<|end_header_id|>\n\n"
    assert prompt == "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n" + question
    asked, answered = turn.format("assistant"), "+" + turn.format("user")
    assert end == f"{prompt} {steps[0]}{asked}{answered}{steps[1]}{asked}"
    assert written(checkpoints["two-class"], question, steps)[-1].endswith(
        f"boxed{{}}.<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        f"{steps[0]}<extra_0>{steps[1]}<extra_0>"
    )
    assert written(checkpoints["value"], question, steps)[-1] == f"<|endoftext|>{question}\n{steps[0]}\n{steps[1]}\n"
    assert written(checkpoints["token-classification"], question, steps)[-1] == f"{question}{steps[0]}\n{steps[1]}\n"
    tokenizer = Tokenizer.from_file(str(checkpoints["step-token"] / "tokenizer.json"))
    layout = recognise(checkpoints["step-token"]).layout
    assert layout is not None
    ids = StepEncoder(layout, tokenizer, 512).prefixes(question, steps)[-1]
    assert list(ids) == tokenizer.encode(f"{question} Step 1: {steps[0]} ки\nStep 2: {steps[1]} ки").ids


def test_text_cannot_spell_control_tokens_and_is_clipped(checkpoints: dict[str, Path]) -> None:
    plain = written(checkpoints["two-class"], "pens?", ["2*50=100"])
    assert written(checkpoints["two-class"], "pen<|im_end|>s?", ["2*50<extra_0>=100"]) == plain
    head = recognise(checkpoints["value"])
    assert head.layout is not None
    encoder = StepEncoder(head.layout, Tokenizer.from_file(str(checkpoints["value"] / "tokenizer.json")), 128)
    question, first = encoder.prefixes("box " * 500 + "left?", ["1+" * 500])
    assert 60 < len(question) <= 66
    assert 30 <= len(first) - len(question) <= 33
    assert written(checkpoints["value"], "{question}?", ["{step}{n}"])[-1] == "<|endoftext|>{question}?\n{step}{n}\n"
    assert len(encoder.prefixes("left?", ["1+2=3"] * 100)) < 40  # the rest does not fit


def test_a_template_that_leaves_no_room_is_a_pack_error(checkpoints: dict[str, Path]) -> None:
    layout = recognise(checkpoints["chat"]).layout
    assert layout is not None
    with pytest.raises(PackError, match="more than a fifth"):
        StepEncoder(layout, Tokenizer.from_file(str(checkpoints["chat"] / "tokenizer.json")), 64)


def test_layout_survives_json() -> None:
    layout = StepLayout('{question} "ки"', " {step}", "\n{step}", True, (1, 2), (3,))
    assert StepLayout.from_json(layout.to_json()) == layout


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("value", {"architectures": ["LlamaForSequenceClassification"]}, None),  # the value head speaks first
        ("chat", {"architectures": ["LlamaForSequenceClassification"]}, "outcome reward model"),
        ("chat", {"architectures": ["LlamaForQuestionAnswering"]}, "no reward head that is known here"),
        ("chat", {}, "looks like a language model, not a reward model"),
        ("chat", {"_name_or_path": "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data"}, None),
        ("token-classification", {"model_type": "bert"}, "'bert' cannot be exported"),
        ("token-classification", {"model_type": "t5"}, "'t5' cannot be exported"),
        ("token-classification", {"model_type": "mamba7"}, "'mamba7' cannot be exported"),
    ],
)
def test_what_the_configuration_says(family: str, config: dict[str, Any], message: str | None, copy: Any) -> None:
    folder = copy(family, **config)
    if message is None:
        assert recognise(folder).kind == family
    else:
        with pytest.raises(InputError, match=message):
            recognise(folder)


@pytest.mark.parametrize(
    ("family", "asked", "message"),
    [
        ("value", "two-class", "no two-class head"),
        ("two-class", "value", "no value head"),
        ("two-class", "step-token", "no causal language model"),
        ("chat", "token-classification", "no token classifier"),
        ("chat", "step-token", '"ки" is not one token'),
        ("step-token", "chat", "no chat template"),
        ("chat", "ours", "no PRM training run"),
        ("chat", "reward", "'reward' is no kind of head"),
    ],
)
def test_a_head_that_is_not_there(family: str, asked: str, message: str, checkpoints: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=message):
        recognise(checkpoints[family], asked)
    assert "reward" not in KINDS


def rewrite(folder: Path, **changes: torch.Tensor) -> None:
    """Replace tensors; dots in names are written as two underscores."""
    weights = load_file(folder / "model.safetensors")
    weights |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_heads_of_other_shapes_are_no_reward_heads(copy: Any) -> None:
    folder = copy("token-classification")
    rewrite(folder, score__weight=torch.zeros(9, 64))
    with pytest.raises(InputError, match="classifies tokens into 9 classes"):
        recognise(folder)
    shutil.rmtree(folder)
    folder = copy("two-class")
    rewrite(folder, score__2__weight=torch.zeros(1, 64))
    with pytest.raises(InputError, match="outcome reward model"):
        recognise(folder)


def test_damaged_checkpoints(copy: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        recognise(tmp_path / "nowhere")
    folder = copy("value")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for kept in (5, 200, len(content) // 2):
        weights.write_bytes(content[:kept])
        with pytest.raises(EdgeError, match=r"cut short|damaged"):
            recognise(folder)
    weights.write_bytes(b"\x10\0\0\0\0\0\0\0" + b"x" * 100)
    with pytest.raises(PackError, match="damaged"):
        recognise(folder)
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(InputError, match="pickle that can run code"):
        recognise(folder)


def test_damaged_tokenizers(copy: Any) -> None:
    folder = copy("chat", _name_or_path="a PRM")
    for template, message in (
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "changes or repeats"),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", "changes or repeats"),
        ("{% for m in messages %}x{{ m['content'] }}x{% endfor %}", None),
        ("{% for m in messages if m.role == 'user' %}{{ m['content'] }}{% endfor %}", "as a token of its own"),
        ("{{ raise_exception('no') }}", "fails"),
    ):
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
        if message is None:
            assert recognise(folder).kind == "chat"
            continue
        with pytest.raises(InputError, match=message):
            recognise(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read as a tokenizer"):
        recognise(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        recognise(folder)
