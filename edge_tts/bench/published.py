"""Published figures of larger models, cited; none was measured here."""

from __future__ import annotations

from edge_tts.bench.figures import Published

_CARD = "https://huggingface.co/HuggingFaceTB/SmolLM2-1.7B-Instruct"

FIGURES = (
    Published("SmolLM2-1.7B-Instruct", 1.71e9, "gsm8k", 0.482, "5 examples in the prompt, greedy", _CARD),
    Published(
        "SmolLM2-1.7B",
        1.71e9,
        "gsm8k",
        0.326,
        "5 examples in the prompt, greedy, base model",
        "https://arxiv.org/abs/2502.02737",
    ),
    Published(
        "SmolLM2-135M-Instruct",
        1.345e8,
        "gsm8k",
        0.014,
        "5 examples in the prompt, greedy",
        "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
)


def for_data(name: str) -> tuple[Published, ...]:
    """Figures on the data set of a study; its name begins with theirs, such as "gsm8k_test"."""
    return tuple(figure for figure in FIGURES if name.lower().replace("-", "").startswith(figure.data))
