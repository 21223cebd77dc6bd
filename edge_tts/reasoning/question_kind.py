"""What kind of answer a question wants, and the options it offers."""

from __future__ import annotations

import re
from typing import Literal, get_args

from edge_tts.errors import InputError

AnswerKind = Literal["math", "choice", "yes-no", "text"]
"""A number or an expression, the letter of an option, yes or no, or a short text."""

_LABEL = re.compile(
    r"(?:(?<=\s)|(?<=^)|(?<=[,;:.?]))"
    r"(?:\(([A-Ea-e])\)|\*\*([A-Ea-e])[.):]?\*\*[.):]?|([A-E])[.):](?=\s|\*)|([a-e])\)(?=\s))\s*",
    re.MULTILINE,
)
_AUXILIARY = re.compile(
    r"(?:is|are|am|was|were|do|does|did|can|could|will|would|should|shall|has|have|had|may|might|must|isn't|aren't|"
    r"doesn't|don't|can't)\b",
    re.IGNORECASE,
)
_YES_NO = re.compile(r"\byes or no\b|\byes\s*/\s*no\b", re.IGNORECASE)
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|old|far|long|tall|fast|high|deep|heavy|wide|often|big|large)\b|\bwhat (?:number|percent\w*|"
    r"fraction|year|age|price)\b|\b(?:calculate|compute|evaluate|simplify|solve|factori[sz]e|differentiate|integrate)\b|"
    r"\b(?:value|sum|product|difference|quotient|remainder|average|mean|median|probability|area|volume|perimeter|"
    r"derivative|integral|square root|cube root|percentage|total) (?:of|from|when|that|cost|number|amount)\b|"
    r"\bin total\b",
    re.IGNORECASE,
)
_CALCULATION = re.compile(r"\d\s*(?:[-+*/^×÷%=]|divided by|times|plus|minus|percent)\s*[\d(a-z]?|\\[a-zA-Z]+|\$[^$]+\$")
_NUMBER = re.compile(r"\d+")
_ASKS_WORDS = re.compile(
    r"\b(?:who|whom|whose|where|why|which|what (?:day|month|time|date|colou?r|name|word|is the name))\b", re.IGNORECASE
)
_POLITE = re.compile(
    r"(?:can|could|would|will) (?:you|we|i) (?:please )?(?:tell me|help me|say|explain|find|work out)\s*", re.IGNORECASE
)
"""What only looks like a question for yes or no."""


def kind_of(question: str) -> AnswerKind:
    """The kind of answer ``question`` wants: by its options, else by how its last sentence asks."""
    if options(question):
        return "choice"
    asked = _POLITE.sub("", _last_question(question), count=1)
    if _YES_NO.search(question):
        return "yes-no"
    if _AUXILIARY.match(asked) and asked.endswith("?") and not re.search(r"\bor\b", asked):
        return "yes-no"
    if _ASKS_NUMBER.search(asked):
        return "math"
    if _ASKS_WORDS.search(asked):
        return "text"
    if _CALCULATION.search(question) or len(_NUMBER.findall(question)) >= 2 or _ASKS_NUMBER.search(question):
        return "math"
    return "text"


def as_kind(name: str) -> AnswerKind:
    """``name`` as a kind. Raises InputError for another."""
    for kind in get_args(AnswerKind):
        if name == kind:
            return kind  # type: ignore[no-any-return]
    raise InputError(f"the answer kind {name!r} does not exist; choose one of {', '.join(get_args(AnswerKind))}")


def options(question: str) -> dict[str, str]:
    """The options of a multiple-choice question by letter, "A" and on; empty where it offers none.

    Labels such as "(A)", "B." and "c)" count where they follow one another from A, at least two of them.
    """
    found: list[tuple[str, int, int]] = []
    for match in _LABEL.finditer(question):
        letter = next(filter(None, match.groups())).upper()
        if letter == "ABCDE"[min(len(found), 4)] and len(found) < 5:
            found.append((letter, match.start(), match.end()))
        elif letter == "A":
            found = [(letter, match.start(), match.end())]
    if len(found) < 2:
        return {}
    ends = [start for _, start, _ in found[1:]] + [len(question)]
    texts = [question[end:stop].partition("\n\n")[0] for (_, _, end), stop in zip(found, ends, strict=True)]
    return {letter: text.strip().strip(",;").strip() for (letter, _, _), text in zip(found, texts, strict=True)}


def _last_question(question: str) -> str:
    """The last sentence of ``question`` that asks something, else its last one."""
    sentences = [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", question) if part.strip()]
    asking = [sentence for sentence in sentences if sentence.endswith("?")]
    last = (asking or sentences or [""])[-1]
    # "If it rains, is the street wet?" asks after its comma.
    _, _, clause = last.rpartition(", ")
    return clause if _AUXILIARY.match(clause) and not _AUXILIARY.match(last) else last
