"""What kind of reward head a process reward model has, told from its files alone.

Families, and where each comes from:

- ``token-classification``: a label for each token, read at the line break after a step (TRL's PRMTrainer).
- ``step-token``: a causal LM that says "+" or "-" after the tag "ки" (Math-Shepherd, Wang et al. 2024,
  arXiv 2312.08935).
- ``chat``: a causal LM that answers each step, a user turn, with "+" or "-" (RLHFlow, Dong et al. 2024,
  arXiv 2405.07863).
- ``two-class``: two layers on the hidden state of ``<extra_0>`` (Qwen2.5-Math-PRM, Zhang et al. 2025,
  arXiv 2501.07301).
- ``value``: one number on the hidden state of the line break after a step (Skywork-o1-Open-PRM).
- ``ours``: a finished run of :mod:`edge_tts.export.train.train_prm`.

No code of a checkpoint is run: only its configuration, tokenizer files and tensor names are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from tokenizers import Tokenizer

from edge_tts.errors import InputError
from edge_tts.export.checkpoint import Checkpoint, open_checkpoint, read_config
from edge_tts.runtimes.step_layout import StepLayout

Kind = Literal["token-classification", "step-token", "chat", "two-class", "value", "ours"]
KINDS: tuple[Kind, ...] = get_args(Kind)

STEP_TAG = "ки"
QWEN_SEPARATOR = "<extra_0>"
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_CLASSIFIERS = ("classifier.weight", "score.weight")


@dataclass(frozen=True)
class Head:
    """A recognised reward head."""

    kind: Kind
    reason: str
    """The kind of head and the evidence for it, as one clause."""
    layout: StepLayout | None = None
    """How a trace becomes tokens; None for ``ours``, whose layout is fixed."""
    tensors: tuple[str, ...] = ()
    """Names of the head's tensors; the vocabulary projection for ``step-token`` and ``chat``."""
    candidates: tuple[int, int] | None = None
    """Token ids of "+" and "-" where the head is a vocabulary projection."""


@dataclass(frozen=True)
class _Source:
    """The parts of a checkpoint that recognition looks at."""

    checkpoint: Checkpoint
    config: dict[str, Any]
    tokenizer: Tokenizer
    tokenizer_config: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.checkpoint.folder

    @property
    def architecture(self) -> str:
        return self.checkpoint.architecture

    def tensor(self, ending: str) -> str | None:
        """The full name of the tensor ``ending``, with or without a prefix; None where there is none."""
        return next((n for n in sorted(self.checkpoint.tensors) if f".{n}".endswith(f".{ending}")), None)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.checkpoint.tensors[name].shape

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def special(self, name: str) -> str | None:
        """Text of the special token ``name``, such as "bos_token"."""
        token = self.tokenizer_config.get(name)
        return token.get("content") if isinstance(token, dict) else token

    def begin(self) -> tuple[int, ...]:
        """Token ids that the tokenizer puts before a text of its own accord."""
        framed, bare = self.tokenizer.encode("a").ids, self.encode("a")
        at = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
        return tuple(framed[:at])


def recognise(folder: Path, head: str = "auto") -> Head:
    """The reward head of the checkpoint (or training run) in ``folder``.

    ``head`` is "auto" or, for a checkpoint that does not say what it is, one of ``KINDS``. Raises InputError where
    the checkpoint cannot be used or has no head that scores steps, PackError where one of its files is damaged.
    """
    if head != "auto" and head not in KINDS:
        raise InputError(f"{head!r} is no kind of head; use auto or one of {', '.join(KINDS)}")
    if head in ("auto", "ours") and (folder / "model.pt").is_file() and (folder / "sample.jsonl").is_file():
        return Head("ours", f"a PRM training run: {folder} has model.pt and sample.jsonl")
    source = _open(folder)
    kind = _detect(source) if head == "auto" else cast(Kind, head)
    if kind == "ours":
        raise InputError(f"{folder} is no PRM training run (no model.pt and sample.jsonl); leave the head to auto")
    readers = {
        "token-classification": _token_classification,
        "step-token": _step_token,
        "chat": _chat,
        "two-class": _two_class,
        "value": _value,
    }
    return readers[kind](source)


def _open(folder: Path) -> _Source:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the folder of a Hugging Face checkpoint")
    checkpoint = open_checkpoint(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"{folder} has no tokenizer.json, which scoring on a device needs; write one where transformers is: "
            "AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)"
        )
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path} cannot be read as a tokenizer ({error}); download it again") from error
    settings = folder / "tokenizer_config.json"
    tokenizer_config = read_config(settings) if settings.is_file() else {}
    template = folder / "chat_template.jinja"
    if template.is_file():
        tokenizer_config["chat_template"] = template.read_text(encoding="utf-8")
    return _Source(checkpoint, read_config(folder / "config.json"), tokenizer, tokenizer_config)


def _detect(source: _Source) -> Kind:
    """The kind, from tensor names, the architecture and, where these are not enough, the model's own name."""
    if source.tensor("v_head.summary.weight"):
        return "value"
    if source.tensor("score.0.weight") and source.tensor("score.2.weight"):
        return "two-class"
    if source.architecture.endswith("ForTokenClassification"):
        return "token-classification"
    if source.architecture.endswith("ForSequenceClassification"):
        raise InputError(
            f"{source.folder} is an outcome reward model ({source.architecture} scores a whole text); "
            "a process reward model scores every step"
        )
    if not source.architecture.endswith("ForCausalLM"):
        raise InputError(
            f"{source.folder} has no reward head that is known here (architecture {source.architecture}); "
            f"known heads are {', '.join(KINDS)}"
        )
    name = _name(source)
    if "shepherd" in name:
        return "step-token"
    if "prm" in name or "reward" in name:
        return "chat" if source.tokenizer_config.get("chat_template") else "step-token"
    raise InputError(
        f"{source.folder} looks like a language model, not a reward model: {source.architecture} without a reward "
        "head, and nothing in its name says PRM; if it is one that answers + or -, give the head step-token or chat"
    )


def _name(source: _Source) -> str:
    folder = source.folder.resolve()
    if folder.parent.name == "snapshots":  # in the hub's cache, the name is two levels up
        folder = folder.parent.parent
    return f"{source.config.get('_name_or_path', '')} {folder.name}".lower()


def _token_classification(source: _Source) -> Head:
    name = next((t for t in map(source.tensor, _CLASSIFIERS) if t), None)
    if name is None:
        raise InputError(f"{source.folder} has no token classifier ({' or '.join(_CLASSIFIERS)}); choose another head")
    labels = source.shape(name)[0]
    if labels not in (1, 2) or len(source.shape(name)) != 2:
        raise InputError(
            f"{source.folder} classifies tokens into {labels} classes ({name}); "
            "a reward head has one (a score) or two (wrong, right)"
        )
    onnx_config_class(str(source.config.get("model_type")))
    # TRL tokenises prompt, steps and separators one by one, and adds the start token itself.
    start = source.special("bos_token")
    begin = (source.tokenizer.token_to_id(start),) if start else ()
    layout = StepLayout("{question}", "{step}", "{step}", False, begin, tuple(source.encode("\n")))
    reason = f"token classification: architecture {source.architecture}, {labels} label(s) in tensor {name}"
    return Head("token-classification", reason, layout, _with_bias(source, name))


def onnx_config_class(model_type: str) -> Any:
    """optimum's ONNX configuration class for causal models of this type. Raises InputError where there is none."""
    import optimum.exporters.onnx.model_configs  # noqa: F401 (registers the types)
    from optimum.exporters.onnx.config import TextDecoderOnnxConfig
    from optimum.exporters.tasks import TasksManager

    try:
        found = TasksManager.get_exporter_config_constructor(
            "onnx", model_type=model_type, task="feature-extraction", library_name="transformers"
        ).func
    except (KeyError, ValueError):
        found = object
    if not issubclass(found, TextDecoderOnnxConfig):
        raise InputError(
            f"models of type {model_type!r} cannot be exported: optimum knows no causal language model of that type; "
            "use a PRM of a common one such as qwen2, llama or mistral"
        )
    return found


def _step_token(source: _Source) -> Head:
    projection = _projection(source)
    if len(source.encode(STEP_TAG)) != 1:
        raise InputError(
            f'the step tag "{STEP_TAG}" is not one token of the tokenizer of {source.folder} '
            f"({len(source.encode(STEP_TAG))} tokens), so this is not a Math-Shepherd model; choose another head"
        )
    good, bad = (source.encode(f"{STEP_TAG} {label}")[-1] for label in "+-")
    step = f"Step {{n}}: {{step}} {STEP_TAG}"
    layout = StepLayout("{question}", f" {step}", f"\n{step}", True, source.begin())
    reason = (
        f"step token: {source.architecture}, {_told_by(source)}, and the tag {STEP_TAG} is one token; "
        f"rows {good} (+) and {bad} (-) of tensor {projection}"
    )
    return Head("step-token", reason, layout, _with_bias(source, projection), (good, bad))


def _chat(source: _Source) -> Head:
    projection = _projection(source)
    question, first, second = "\ue000question\ue000", "\ue000first\ue000", "\ue000second\ue000"

    def render(label: str) -> str:
        turns = [f"{question} {first}", label, second, label]
        roles = ("user", "assistant")
        return _render(source, [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)])

    good, bad = render("+"), render("-")
    if any(good.count(mark) != 1 for mark in (question, first, second)):
        raise InputError(f"the chat template of {source.folder} changes or repeats what a turn says")
    prompt, opened, middle = re.split(f"{question}|{first}", good.partition(second)[0])
    asking, label, turn = middle.partition("+")
    # A space before the label may be part of its token; it belongs to the next step's text, as the label does.
    gap = asking[len(asking.rstrip(" ")) :]
    asking = asking.rstrip(" ")
    asked = source.encode(prompt + question + opened + first + asking)
    at = len(asked)
    plus, minus = source.encode(good), source.encode(bad)
    if not label or plus[:at] != asked or minus[:at] != asked or plus[at] == minus[at]:
        raise InputError(
            f'the chat template of {source.folder} does not write "+" as a token of its own, so this is not a chat PRM'
        )
    layout = StepLayout(
        prompt + "{question}", f"{opened}{{step}}{asking}", f"{gap}+{turn}{{step}}{asking}", joined=True
    )
    reason = (
        f"chat: {source.architecture}, {_told_by(source)}, and its chat template gives each step a user turn; "
        f"rows {plus[at]} (+) and {minus[at]} (-) of tensor {projection}"
    )
    return Head("chat", reason, layout, _with_bias(source, projection), (plus[at], minus[at]))


def _two_class(source: _Source) -> Head:
    inner, outer = source.tensor("score.0.weight"), source.tensor("score.2.weight")
    if inner is None or outer is None:
        raise InputError(f"{source.folder} has no two-class head (score.0.weight, score.2.weight); choose another head")
    classes = source.shape(outer)[0]
    if classes != 2:
        raise InputError(
            f"{source.folder} is an outcome reward model: its head {outer} gives {classes} value(s), "
            "where one that scores steps has 2 classes"
        )
    if len(source.encode(QWEN_SEPARATOR)) != 1:
        raise InputError(f"the tokenizer of {source.folder} has no token {QWEN_SEPARATOR}, where scores are read")
    question, steps = "\ue000question\ue000", "\ue000steps\ue000"
    roles = (("system", QWEN_SYSTEM), ("user", question), ("assistant", steps))
    text = _render(source, [{"role": role, "content": content} for role, content in roles])
    if text.count(question) != 1 or text.count(steps) != 1:
        raise InputError(f"the chat template of {source.folder} changes or repeats what a turn says")
    before, _, rest = text.partition(question)
    step = "{step}" + QWEN_SEPARATOR
    layout = StepLayout(before + "{question}" + rest.partition(steps)[0], step, step, True)
    reason = f"two classes: architecture {source.architecture}, tensors {inner} and {outer} with 2 classes"
    tensors = (*_with_bias(source, inner), *_with_bias(source, outer))
    return Head("two-class", reason, layout, tensors)


def _value(source: _Source) -> Head:
    name = source.tensor("v_head.summary.weight")
    if name is None:
        raise InputError(f"{source.folder} has no value head (v_head.summary.weight); choose another head")
    if source.shape(name)[0] != 1:
        raise InputError(f"the value head {name} of {source.folder} gives {source.shape(name)[0]} values instead of 1")
    start = source.special("bos_token") or ""
    end = tuple(source.encode("\n")[-1:])
    layout = StepLayout(start + "{question}\n", "{step}", "{step}", False, (), end)
    reason = f"value head: tensor {name} with one output, architecture {source.architecture}"
    return Head("value", reason, layout, _with_bias(source, name))


def _projection(source: _Source) -> str:
    """The vocabulary projection; the embedding where the two are tied."""
    name = source.tensor("lm_head.weight") or source.tensor("embed_tokens.weight")
    if not source.architecture.endswith("ForCausalLM") or name is None:
        raise InputError(
            f"{source.folder} is no causal language model (architecture {source.architecture}), so it cannot answer "
            "+ or -; choose another head"
        )
    for key in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if source.config.get(key) is not None:
            raise InputError(
                f"{source.folder} changes its logits after the projection ({key}), which no head here does"
            )
    return name


def _with_bias(source: _Source, weight: str) -> tuple[str, ...]:
    bias = weight.removesuffix("weight") + "bias"
    return (weight, bias) if bias in source.checkpoint.tensors else (weight,)


def _told_by(source: _Source) -> str:
    """The evidence that this language model is a reward model: its name, or the user's word."""
    name = _name(source)
    words = [word for word in ("shepherd", "prm", "reward") if word in name]
    return f'its name says "{words[0]}"' if words else "head as asked for"


def _render(source: _Source, turns: list[dict[str, str]]) -> str:
    """``turns`` as text, by the checkpoint's chat template, which transformers renders in a sandbox."""
    from jinja2 import TemplateError
    from transformers import PreTrainedTokenizerFast

    template = source.tokenizer_config.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    if not template:
        raise InputError(f"the tokenizer of {source.folder} has no chat template, which a head of this kind needs")
    specials = {name: source.special(name) for name in ("bos_token", "eos_token")}
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=source.tokenizer, **{name: text for name, text in specials.items() if text}
    )
    try:
        return str(tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False))
    except TemplateError as error:
        raise InputError(f"the chat template of {source.folder} fails ({error}); correct or replace it") from error
