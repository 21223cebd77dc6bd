r"""The answer that a finished text gives: its last complete ``\boxed{}``, else what it states, else after a marker.

Nothing is guessed: a text that was cut, or that leaves a box open, answers nothing, and a number somewhere in it
is not an answer. What is read is cleaned for people; whether two answers mean the same is for
:mod:`edge_tts.answers.equivalence`, with :func:`vote_key` for answers in words. The boxed forms that are read here
are the ones math-verify reads; its own extraction needs sympy for each of them, and signals to be bounded.
"""

from __future__ import annotations

import re
import unicodedata

from edge_tts.reasoning.question_kind import AnswerKind, kind_of, options
from edge_tts.reasoning.thinking import split_thinking

MAX_ANSWER_CHARACTERS = 400
"""A longer answer is a text, not an answer."""
LONGEST_LINE = 120
"""Characters of a text that may be an answer as a whole."""
STATEMENTS_TRIED = 10
LONGEST_STATED = 60
"""Characters of a sentence with several numbers that is an answer as a whole, such as "3 hours and 20 minutes"."""

_BOX = re.compile(r"(?:\\(?:boxed|fbox)|(?<![\\A-Za-z])boxed)\s*\{")
_STATED = re.compile(
    r"\b(?:answer|solution|result)\b[\s*_]*"
    r"(?:to (?:the|this|your) (?:question|problem)\s*|choice\s*|option\s*|here\s*)?[\s*_]*"
    r"(?::|=|\b(?:is|are|was|would be|should be|must be|will be)\b)[\s*_:]*"
    r"|^#+ *\**(?:final )?answer\b[*: ]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<!\b[A-Z])(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bSt)[.!?](?=\s|\*|$)|\n|;\s")
_NUMBER = r"[-+\u2212]?\s*[$€£¥]?\s*(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_PLAIN = re.compile(rf"{_NUMBER}(?:\s*/\s*\d+|\s*:\s*\d+|\s+\d+/\d+)?(?:\s*(?:%|°)|\s+percent\b)?", re.IGNORECASE)
_MATH_SPAN = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$])\$([^$\n]+?)(?<!\\)\$", re.DOTALL)
_YES = {"yes", "true", "correct", "right"}
_NO = {"no", "false", "incorrect", "wrong"}
_MENTIONED = re.compile(r"(?:\b[Oo]ption |\b[Cc]hoice |\b[Aa]nswer |\()\(?([A-E])\b")
_NAME_OR_SUM = re.compile(
    r"\s*(?:\\?[A-Za-z][A-Za-z_ ]*(?:=[^=A-Za-z]+)?|(?:\\(?:frac|times|cdot|div)|[^A-Za-z\\<>!])+)\s*"
)
"""What stands left of "=" where the right side is the answer."""
MARKER = "####"
"""What begins the line with the answer in GSM8K's solutions, and in those of models that were trained on them."""
_LETTER = re.compile(
    r"(?:option |choice |answer )?\s*[(\[*_]*([A-E])[)\]*_]*(?![A-Za-z'])\s*(?:[-.,:)]|$|(?:is|because|since|as)\b)",
    re.IGNORECASE,
)


def read_answer(
    text: str,
    question: str = "",
    kind: AnswerKind | None = None,
    is_cut: bool = False,
    is_thinking: bool = False,
) -> str | None:
    """The answer ``text`` gives to ``question``, or None.

    ``kind`` is told from the question where it is None. ``is_cut`` says that the text ran out of tokens or time,
    ``is_thinking`` that the prompt opened its reasoning.
    """
    if is_cut:
        return None
    kind = kind or kind_of(question)
    said = split_thinking(text, is_thinking).text
    boxes, is_open = _boxes(said)
    if is_open:
        return None
    readings = [*boxes[-1:], *_stated(said, kind), *_marked(said, kind), *_whole(said, kind)]
    for raw in readings:
        if len(raw) <= MAX_ANSWER_CHARACTERS and (answer := clean(raw, kind, question)):
            return answer
    # A box of another kind than expected is an answer still.
    return _unwrapped(boxes[-1]) or None if boxes and len(boxes[-1]) <= MAX_ANSWER_CHARACTERS else None


def has_answered(text: str, is_thinking: bool = False) -> bool:
    """Whether ``text``, still growing, holds a complete box: more of it would not change what was meant."""
    boxes, is_open = _boxes(split_thinking(text, is_thinking).text)
    return bool(boxes) and not is_open


def clean(raw: str, kind: AnswerKind, question: str = "") -> str:
    """An answer as a person would write it, "" where there is none of this kind."""
    text = _unwrapped(raw)
    if kind == "math":
        return _math(text)
    if kind == "choice":
        return _choice(text, question)
    if kind == "yes-no":
        return _yes_no(text)
    return _words(text, question)


def vote_key(answer: str, kind: AnswerKind) -> str:
    """What answers that mean the same have in common, for kinds in words: "Paris." and "the Paris" give "paris".

    Answers of kind "math" are returned as they are: their meaning is arithmetic.
    """
    if kind == "math":
        return answer
    text = unicodedata.normalize("NFKC", answer).casefold().replace("\u2019", "'").replace("'", "")
    text = re.sub(r"[^\w\s./%+-]|[.](?!\d)", " ", text)
    words = text.split()
    while len(words) > 1 and words[0] in ("the", "a", "an"):
        words = words[1:]
    return " ".join(words) or answer.casefold()


def _boxes(text: str) -> tuple[list[str], bool]:
    """The contents of complete boxes, without empty ones, and whether the last box is left open."""
    boxes: list[str] = []
    position = 0
    while match := _BOX.search(text, position):
        end = _closing(text, match.end())
        if end is None:
            return boxes, True
        content = text[match.end() : end].strip()
        boxes += [content] if content.strip(" .…") else []
        position = end
    return boxes, False


def _closing(text: str, start: int) -> int | None:
    """Where the brace that was opened before ``start`` is closed; braces after a backslash are only shown."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def _stated(text: str, kind: AnswerKind) -> list[str]:
    """What follows the last "the answer is" or the like that says something, to the end of its sentence."""
    for match in list(_STATED.finditer(text))[: -STATEMENTS_TRIED - 1 : -1]:
        rest = text[match.end() : match.end() + 2 * MAX_ANSWER_CHARACTERS].lstrip(" \n*_:")
        if span := _MATH_SPAN.match(rest):
            return [_first_group(span) if kind == "math" else rest[: span.end()]]
        end = _SENTENCE_END.search(rest)
        sentence = rest[: end.start()] if end else rest
        stated = _leading_math(sentence) if kind == "math" else sentence
        if stated.strip():
            return [stated]
    return []


def _leading_math(sentence: str) -> str:
    """The formula or number that a sentence states; "" where there is none."""
    sentence = sentence.replace("**", "").strip()
    if span := _MATH_SPAN.search(sentence):
        return _first_group(span)
    if re.fullmatch(r"[^A-Za-z]*[A-Za-z]?[^A-Za-z]*|\\.+", sentence):
        return sentence  # a short expression such as "2x + 1" or "\frac{1}{2}"
    numbers = [match[0] for match in _PLAIN.finditer(sentence)]
    if len(numbers) > 1 and len(sentence) <= LONGEST_STATED:
        return sentence  # "3 hours and 20 minutes", "3 + 4 = 7"
    return numbers[0] if numbers else ""


def _marked(text: str, kind: AnswerKind) -> list[str]:
    """What follows ``MARKER`` on the last line of ``text``."""
    lines = _lines(text)
    if not lines or not lines[-1].startswith(MARKER):
        return []
    marked = lines[-1].removeprefix(MARKER).strip()
    return [marked] if kind != "math" or re.search(r"\d|\\", marked) else []


def _whole(text: str, kind: AnswerKind) -> list[str]:
    """A text that is nothing but the answer, as models give it that do not follow instructions."""
    lines = _lines(text)
    if kind == "yes-no":
        return [line for line in (*lines[:1], *lines[-1:]) if _yes_no(_unwrapped(line[:MAX_ANSWER_CHARACTERS]))][:1]
    if len(lines) != 1 or len(lines[0]) > LONGEST_LINE:
        return []
    line = lines[0]
    if kind == "math":
        return [line] if _PLAIN.fullmatch(_unwrapped(line)) else []
    return [] if kind == "text" and _SENTENCE_END.search(line.rstrip(" .!*")) else [line]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _unwrapped(raw: str) -> str:
    """``raw`` without math delimiters, LaTeX text commands, markdown, quotes and a closing full stop."""
    text = " ".join(raw.split())
    for old, new in (("\\!", ""), ("\\,", " "), ("\\;", " "), ("\\ ", " "), ("~", " ")):
        text = text.replace(old, new)
    text = re.sub(r"\\[dt]frac\b", r"\\frac", text)
    before = None
    while text != before:
        before = text
        text = re.sub(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|textrm)\s*\{([^{}]*)\}", r" \1 ", text)
        text = re.sub(r"\\boxed\s*\{([^{}]*)\}", r"\1", text)
        text = re.sub(r"^(?:\$\$?(.*?)\$?\$|\\\((.*)\\\)|\\\[(.*)\\\])[.,]?$", _first_group, text)
        text = re.sub(r"(\*\*|__|`)(.+?)\1", r"\2", text)
        text = re.sub(r"^\*+|\*+$", "", text)
        text = re.sub(r"^[\"“”\u2018'«]([^\"“”\u2018«]*)[\"“”\u2019'»]$", r"\1", text)
        text = " ".join(text.split()).strip()
        text = re.sub(r"(?<!\.)(?<!\\right)[.,;:!]$", "", text).strip()
    return text


def _first_group(match: re.Match[str]) -> str:
    return next((group for group in match.groups() if group is not None), "")


def _math(text: str) -> str:
    """A number or an expression. "x = 5" and "3 + 4 = 7" answer with their right sides, "2x + 1 = 0" with all."""
    text = text.replace("\\%", "%").replace("\\$", "$").replace("{,}", ",")
    left, equals, right = text.rpartition("=")
    return right.strip() if equals and right.strip() and _NAME_OR_SUM.fullmatch(left) else text


def _choice(text: str, question: str) -> str:
    """The letter of an option: the option's text, or a letter that is written."""
    offered = options(question)
    wanted = vote_key(text, "text")
    for letter, option in offered.items():
        if wanted and wanted == vote_key(_unwrapped(option), "text"):
            return letter
    letters = {match[1].upper()} if (match := _LETTER.match(text)) else set(_MENTIONED.findall(text))
    letter = letters.pop() if len(letters) == 1 else ""
    return letter if not offered or letter in offered else ""


def _yes_no(text: str) -> str:
    word = re.match(r"[A-Za-z]+", text)
    first = word[0].casefold() if word else ""
    return "Yes" if first in _YES else "No" if first in _NO else ""


def _words(text: str, question: str) -> str:
    """A short text; of a sentence that repeats the question ("The capital of France is Paris") only what is new."""
    match = re.fullmatch(r"(.+?)\s+(?:is|are|was|were)\s+(?:called\s+|named\s+)?(.+)", text)
    if match is None:
        return text
    asked = set(vote_key(question, "text").split())
    left, right = match[1], match[2]
    if asked:
        if set(vote_key(left, "text").split()) <= asked:
            return right
        if set(vote_key(right, "text").split()) <= asked | {"the", "a", "an"}:
            return left
        return text
    return right if re.match(r"(?:the|its|it|this|that)\b", left, re.IGNORECASE) else text
