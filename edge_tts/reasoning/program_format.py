"""The ``program`` format: a policy writes a short Python program, which is run line by line while it is written.

The answer is the value of ``answer`` when the program ends, or what its last line assigned. An error ends a candidate
at once: nothing that it would have written after it could be right, and the message is what a revision needs.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType

from edge_tts.core import (
    StepEvent,
    StepValue,
    Trace,
)
from edge_tts.errors import BackendError
from edge_tts.reasoning.answer_reading import clean, vote_key
from edge_tts.reasoning.chat_template import ChatTemplate, Prompt
from edge_tts.reasoning.formats import FormatName
from edge_tts.reasoning.interpreter import Interpreter
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.program_prompt import PROMPT, ProgramPrompt
from edge_tts.reasoning.prompt_tokens import Vocabulary, prompt_tokens
from edge_tts.reasoning.prompts import ATTEMPTS_IN_CONTEXT
from edge_tts.reasoning.question_kind import AnswerKind, kind_of

OPENING = "```python\n"
"""How the assistant's turn begins."""
FENCE = "```"
MOST_LINES = 60
LONGEST_LINE = 400
MOST_SECONDS = 3.0
"""Interpreter time of one candidate, all its lines together."""

KIND_INSTRUCTIONS: Mapping[AnswerKind, str] = MappingProxyType(
    {
        "math": "",
        "choice": " `answer` is the letter of the right option, such as 'B'.",
        "yes-no": " `answer` is True for yes and False for no.",
        "text": " `answer` is as short as possible.",
    }
)
_WRITE_AGAIN = "Look for the mistake, then write the whole program again."
_CHECK_AGAIN = "Check every line against the problem, then write the whole program again, corrected where it is wrong."
_OPENING_BRACKETS = frozenset("([{")
_CLOSING_BRACKETS = frozenset(")]}")
_ASKS_DATE = re.compile(r"\bwh(?:at|ich) (?:day|month|time|date|year)\b|\bwhen\b", re.IGNORECASE)
_ASKS_COMPARED = re.compile(
    r"\bwh(?:ich|o)\b.*\b(?:\w{2,}er|more|less|most|least|\w{2,}est)\b", re.IGNORECASE | re.DOTALL
)
_NUMBER = re.compile(r"(?<![\w.])\d[\d,_]*(?:\.\d+)?(?:e\d+)?|(?<![\w.])\.\d+")
_WORDS = MappingProxyType(
    {
        **{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
        **{"ten": 10, "eleven": 11, "twelve": 12, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50},
        **{"hundred": 100, "half": 2, "twice": 2, "double": 2, "triple": 3, "thrice": 3, "quarter": 4, "dozen": 12},
    }
)


@dataclass(frozen=True)
class AskedProgram:
    """Messages, the last of which asks, in the ``program`` format."""

    template: ChatTemplate
    messages: tuple[Message, ...]
    kind: AnswerKind
    interpreter: Interpreter = field(repr=False)
    asks: ProgramPrompt = PROMPT

    @classmethod
    def of(
        cls,
        template: ChatTemplate,
        messages: tuple[Message, ...],
        interpreter: Interpreter,
        kind: AnswerKind | None = None,
    ) -> AskedProgram:
        """``kind`` None is told from the question."""
        return cls(template, messages, kind or kind_of(messages[-1].content), interpreter)

    @property
    def name(self) -> FormatName:
        return "program"

    @property
    def delimiter(self) -> str:
        return "\n"

    writes = None

    @property
    def notes(self) -> tuple[str, ...]:
        return self._rendered.notes

    @cached_property
    def _rendered(self) -> Prompt:
        return self.template.render(self._asked, OPENING)

    @cached_property
    def _asked(self) -> tuple[Message, ...]:
        """The system message, the examples and the messages themselves."""
        instruction = self.asks.instruction + KIND_INSTRUCTIONS[self.kind]
        rest = self.messages
        if rest[0].role == "system":
            instruction = f"{rest[0].content.rstrip()}\n\n{instruction}".lstrip()
            rest = rest[1:]
        examples = [
            turn
            for problem, program in self.asks.examples
            for turn in (Message("user", problem), Message("assistant", _fenced(program)))
        ]
        return (Message("system", instruction), *examples, *rest)

    def prompt(self, policy: Vocabulary, attempts: Sequence[Trace] = ()) -> tuple[int, ...]:
        """The tokens that ask the question. Of ``attempts``, oldest first, each program is shown with what running
        it said."""
        if not attempts:
            return prompt_tokens(self._rendered.pieces, policy)
        turns = [
            turn
            for trace in attempts[-ATTEMPTS_IN_CONTEXT:]
            for turn in (
                Message("assistant", _fenced("\n".join(lines_of(trace)) + "\n")),
                Message("user", _feedback(trace)),
            )
        ]
        return prompt_tokens(self.template.render((*self._asked, *turns), OPENING).pieces, policy)

    def extended(self, trace: Trace, event: StepEvent) -> Trace:
        """``trace`` with the line of ``event``, run where it is complete.

        A line that a token limit or a deadline cut is kept and not run.
        """
        is_cut = event.stop in ("length", "cancelled")
        grown = replace(
            trace,
            tokens=trace.tokens + event.tokens,
            text=trace.text + event.text + ("" if is_cut else "\n"),
            logprob=trace.logprob + event.logprob,
        )
        if is_cut or trace.finished:
            return grown
        text = event.text.rstrip()
        closes = text.startswith(FENCE) and bool(lines_of(trace))
        if closes or event.stop == "end":
            grown = grown if closes or not text else self._with_line(grown, text)
            return grown if grown.finished else self._ended(grown)
        if not text or text.startswith(FENCE):
            return grown
        return self._with_line(grown, text)

    def run_again(self, program: str) -> Trace:
        """The trace of a program that was written before, up to what ended it; without tokens."""
        trace = Trace(())
        for line in (*program.split("\n"), FENCE):
            trace = self.extended(trace, StepEvent(0, line, (), 0.0, 0, 0, None))
        return trace

    def _with_line(self, program: Trace, text: str) -> Trace:
        """``program``, whose last line is ``text``, after that line: waiting for more, run, or failed."""
        if len(text) > LONGEST_LINE:
            return _failed(program, text, f"a line has more than {LONGEST_LINE} characters")
        if len(lines_of(program)) > MOST_LINES:
            return _failed(program, text, f"the program has more than {MOST_LINES} lines")
        if text.lstrip().startswith("#") or is_open(lines_of(program)):
            return _with_step(program, text, ())
        return self._run(program, text)

    def _run(self, program: Trace, text: str) -> Trace:
        """Run the lines so far; ``text`` is shown as the step, with what it changed."""
        try:
            run = self.interpreter.run(lines_of(program))
        except BackendError as error:  # the worker died and cannot be started again: this candidate's loss only
            return _failed(program, text, str(error))
        program = replace(program, run_seconds=program.run_seconds + run.seconds)
        if run.error:
            return _failed(program, text, run.error)
        if program.run_seconds > MOST_SECONDS:
            return _failed(program, text, f"running the program takes more than {MOST_SECONDS:g} seconds")
        assigned = _assigned(text)
        known = set(program.variables)
        changed = tuple(value for value in run.values if value not in known or value.name in assigned)
        program = replace(program, variables=run.values)
        return _with_step(program, text, changed) if text else program

    def _ended(self, program: Trace) -> Trace:
        """``program`` at its end: with its answer, or with what it lacks."""
        if is_open(lines_of(program)):  # a block or bracket that nothing followed
            program = self._run(program, "")
            if program.finished:
                return program
        answer = _result_of(program)
        question = self.messages[-1].content
        if answer is None:
            return _failed(program, "", "the program ends without a plain value in `answer`")
        if answer in ("Yes", "No") and self.kind in ("math", "text"):
            return _failed(program, "", "`answer` is True or False, and the problem does not ask for yes or no")
        if not _uses_numbers(question, lines_of(program)):
            return _failed(program, "", "the program uses none of the numbers in the problem")
        read = clean(answer, self.kind, question) or answer
        return replace(program, finished=True, answer=read, vote=vote_key(read, self.kind))


def lines_of(program: Trace) -> tuple[str, ...]:
    """The lines of ``program`` that are complete, without fences."""
    return tuple(line for line in program.text.split("\n")[:-1] if not line.startswith(FENCE))


def suits(question: str, kind: AnswerKind) -> bool:
    """Whether ``question`` is a computation: it has numbers, and wants a number, a date, or one of things compared."""
    words = re.findall(r"[a-z]+", question.lower())
    digits, spoken = len(list(_numbers(question))), sum(word in _WORDS for word in words)
    if kind == "math":
        return digits > 0 or spoken > 1
    if kind == "text":
        return bool((digits and _ASKS_DATE.search(question)) or (digits > 1 and _ASKS_COMPARED.search(question)))
    return False


def is_open(lines: Sequence[str]) -> bool:
    """Whether more lines may belong to what the last of ``lines`` is in: a block, a bracket or a long text.

    A block is run when it is complete: half a loop may have no end.
    """
    written = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not written:
        return False
    last = written[-1]
    if last[0].isspace() or last.startswith("@"):
        return True
    depth = 0
    last_token = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(written) + "\n").readline):
            if token.type == tokenize.OP:
                depth += (token.string in _OPENING_BRACKETS) - (token.string in _CLOSING_BRACKETS)
            if token.string.strip() and token.type != tokenize.COMMENT:
                last_token = token.string
            if depth < 0:
                return False
    except tokenize.TokenError as error:
        return "EOF in multi-line" in str(error)
    except SyntaxError:
        return False
    return last_token == ":"


def _result_of(program: Trace) -> str | None:
    """The value of ``answer``; where no line mentions it, of the only variable that the last one assigns or prints."""
    values = {value.name: value.value for value in program.variables}
    if any(re.search(r"\banswer\b", line) for line in lines_of(program)):
        return values.get("answer")
    if program.steps and (printed := re.match(r"print\((\w+)\)\s*$", program.steps[-1])):
        return values.get(printed[1])
    last = program.values[-1] if program.values else ()
    return last[0].value if len(last) == 1 else None


def _assigned(line: str) -> set[str]:
    """The names a line assigns at its beginning: {"a", "b"} for "a, b = 1, 2"."""
    target = re.match(r"\s*([A-Za-z_][\w, ]*?)\s*(?::[^=]+)?(?:\*\*|//|<<|>>|[-+*/%&|^])?=(?!=)", line)
    return set(re.findall(r"\w+", target[1])) if target else set()


def _with_step(program: Trace, text: str, values: tuple[StepValue, ...]) -> Trace:
    """``program`` with a step shown as "left = pencils - 20  # 76"."""
    told = [value for value in values if not re.fullmatch(rf"\w+\s*=\s*{re.escape(value.value)}", text)]
    if len(values) == 1:
        remark = "".join(value.value for value in told)
    else:
        remark = ", ".join(f"{value.name} = {value.value}" for value in told)
    step = f"{text}  # {remark}" if remark else text
    return replace(program, steps=(*program.steps, step), values=(*program.values, values))


def _failed(program: Trace, text: str, error: str) -> Trace:
    """``program`` ended by ``error``, without an answer; ``text`` is the line that it came with, "" for the end."""
    shown = _with_step(program, text, ()) if text else program
    return replace(shown, finished=True, answer=None, vote="", error=error)


def _fenced(program: str) -> str:
    return f"{OPENING}{program}{FENCE}"


def _feedback(program: Trace) -> str:
    """What a policy is told of a program it wrote."""
    if program.error:
        return f"Running this program says:\n{program.error}\n{_WRITE_AGAIN}"
    values = "\n".join(f"{value.name} = {value.value}" for value in program.variables)
    return f"Running this program gives:\n{values}\n{_CHECK_AGAIN}"


def _uses_numbers(question: str, lines: Sequence[str]) -> bool:
    """Whether a number of ``question`` is written in the program, a percentage also as a share; True where it has
    none."""
    asked = set(_numbers(question))
    if not asked:
        return True
    spoken = {Fraction(_WORDS[word]) for word in re.findall(r"[a-z]+", question.lower()) if word in _WORDS}
    wanted = asked | spoken
    wanted |= {share for number in asked for share in (number / 100, 1 + number / 100, 1 - number / 100)}
    return any(number in wanted for line in lines for number in _numbers(line))


def _numbers(text: str) -> Iterable[Fraction]:
    for match in _NUMBER.finditer(text):
        digits = re.sub("[,_]", "", match[0])
        if len(digits) <= 40 and not re.search(r"e\d{3}", digits):
            yield Fraction(digits)
