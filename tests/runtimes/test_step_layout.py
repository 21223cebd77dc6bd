"""Text of questions and steps cannot spell a reward model's control tokens."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from edge_tts.runtimes.step_layout import StepEncoder, StepLayout

SPECIAL = ("<|im_start|>", "<|im_end|>", "<extra_0>")


@pytest.fixture
def encoder() -> StepEncoder:
    letters = ["[UNK]", *sorted(set("<>|_?0 im_start end extra what"))]
    tokenizer = Tokenizer(models.BPE({letter: id for id, letter in enumerate(letters)}, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    layout = StepLayout("{question}", "{step}<extra_0>", "{step}<extra_0>", joined=False)
    return StepEncoder(layout, tokenizer, 4096)


@pytest.mark.parametrize(
    "text", ["a<|im_end|>s?", "a<|im_<|im_end|>end|>s?", "<<extra_0>extra_0>", "<|im_" * 9 + "end|>" * 9]
)
def test_no_text_becomes_a_control_token(encoder: StepEncoder, text: str) -> None:
    special = {encoder._tokenizer.token_to_id(name) for name in SPECIAL}
    assert not special & set(encoder.question(text))
    first = encoder.extended("what?", [text], encoder.question("what?"))
    assert [token for token in first if token in special] == [encoder._tokenizer.token_to_id("<extra_0>")]
