"""Published figures of larger models, cited; none was measured here."""

from __future__ import annotations

from edge_tts.bench.figures import Published

_QWEN = "https://arxiv.org/abs/2412.15115"
_CARD = "https://huggingface.co/HuggingFaceTB/SmolLM2-1.7B-Instruct"

FIGURES = (
    Published("Qwen2.5-0.5B-Instruct", 4.9e8, "gsm8k", 0.496, "4 examples in the prompt, 16 bits", _QWEN),
    Published("Qwen2.5-1.5B-Instruct", 1.54e9, "gsm8k", 0.732, "4 examples in the prompt, 16 bits", _QWEN),
    Published("Qwen2.5-3B-Instruct", 3.09e9, "gsm8k", 0.867, "4 examples in the prompt, 16 bits", _QWEN),
    Published("Qwen2.5-7B-Instruct", 7.61e9, "gsm8k", 0.916, "4 examples in the prompt, 16 bits", _QWEN),
    Published(
        "Llama-3.2-3B-Instruct",
        3.21e9,
        "gsm8k",
        0.777,
        "8 examples in the prompt, 16 bits",
        "https://huggingface.co/meta-llama/Llama-3.2-3B-Instruct",
    ),
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
