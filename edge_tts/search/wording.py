"""What people read about a search, in plain words: how sure the answer is, why the search stopped, what it cost.

The terminal, the web page and the desktop app use these words, so that a number means the same everywhere.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from edge_tts.core import Usage
from edge_tts.events import Escalated

SURE = 0.9
"""From this confidence on an answer is called sure."""
LIKELY = 0.6
"""From here on it is called likely."""
GUESS = 0.5
"""Below this it is called a guess."""

Level = Literal["sure", "likely", "unsure", "guess"]

_MOST_SHOWN = 99
"""No search is certain, so 100% is never shown."""
_STOPS = {
    "complete": "all samples were drawn",
    "decided": "the vote was settled",
    "sure": "that is sure enough",
    "no gain": "more samples would hardly change the answer",
    "deadline": "the time was up",
    "cancelled": "it was cancelled",
    "budget: generations": "the budget of samples was used up",
    "budget: tokens": "the budget of tokens was used up",
    "budget: flops": "the budget of FLOPs was used up",
    "budget: joules": "the budget of energy was used up",
    "budget: total": "the total budget of all questions was used up",
}
_TREES = ("beam", "lookahead", "dvts", "particles")
_FORMATS = {"text": "in words", "program": "as a program", "equations": "as equations"}


def level(confidence: float) -> Level:
    """How sure an answer with ``confidence`` in [0, 1] is."""
    if confidence >= SURE:
        return "sure"
    if confidence >= LIKELY:
        return "likely"
    return "unsure" if confidence >= GUESS else "guess"


def percent(share: float) -> str:
    """``share`` of [0, 1] as "92%"."""
    return f"{100 * share:.0f}%"


def sureness(confidence: float) -> str:
    """``confidence`` in [0, 1] in words: "about 92% sure", "likely, about 72%", "unsure, 55%", "a guess, 20%"."""
    shown = f"{min(_MOST_SHOWN, int(100 * confidence + 0.5))}%"
    match level(confidence):
        case "sure":
            return f"about {shown} sure"
        case "likely":
            return f"likely, about {shown}"
        case "unsure":
            return f"unsure, {shown}"
        case "guess":
            return f"a guess, {shown}"


def why_stopped(stop_reason: str) -> str:
    """A ``stop_reason`` of an outcome as a clause; one that is not known stays as it is."""
    return _STOPS.get(stop_reason, stop_reason)


def in_format(format: str) -> str:
    """How a format reasons: "in words"."""
    return _FORMATS.get(format, format)


def duration(seconds: float) -> str:
    """ "0.4 s", "19.9 s", "2 min 5 s"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def amount(count: float) -> str:
    """A count as people write it: "940", "12,300", "1.2 million"."""
    if count >= 999_500:
        return f"{count / 1e6:.3g} million"
    return f"{float(f'{count:.3g}'):,.0f}"


def counted(candidates: int, strategy: str = "") -> str:
    """A number of candidates: "1 sample", "8 samples", or "103 branches" of a search over steps."""
    name, many = ("branch", "branches") if strategy.startswith(_TREES) else ("sample", "samples")
    return f"{candidates} {name if candidates == 1 else many}"


def cost(usage: Usage, candidates: int = 0, strategy: str = "") -> str:
    """What an answer cost: "19.9 s, 8 samples, 488 tokens". ``candidates`` and tokens are left out where they are 0."""
    parts = [duration(usage.seconds)]
    parts += [counted(candidates, strategy)] if candidates else []
    tokens = usage.policy_tokens + usage.verifier_tokens
    return ", ".join([*parts, f"{amount(tokens)} tokens"] if tokens else parts)


def escalated(asked: Escalated) -> str:
    """That a larger model was asked, and what came of it."""
    before = (
        "no answer" if asked.answer_before is None else f"{asked.answer_before} ({sureness(asked.confidence_before)})"
    )
    kept = "its answer was taken" if asked.kept else "its answer was not taken"
    took = [duration(asked.seconds)]
    if tokens := asked.prompt_tokens + asked.completion_tokens:
        took.append(f"{amount(tokens)} tokens")
    took += [] if asked.price is None else [f"price {money(asked.price)}"]
    return f"{asked.model} ({asked.where}) was asked too: {', '.join(took)}; before: {before}; {kept}"


def money(price: float) -> str:
    """A sum in the currency of the prices it was made from: "1.27", "0.000075"."""
    return f"{Decimal(f'{price:.2f}' if price >= 1 else f'{price:.2g}'):f}"
