"""The ``program`` format: a policy writes a short Python program, which is run line by line while it is written.

The answer is the value of ``answer`` when the program ends. An error ends a candidate at once: nothing that it
would have written after it could be right, and the message is what a revision needs.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType

from edge_tts.core import Policy, StepEvent, Trace
from edge_tts.errors import BackendError
from edge_tts.reasoning.answer_reading import clean, vote_key
from edge_tts.reasoning.chat_template import ChatTemplate, Prompt
from edge_tts.reasoning.formats import FormatName
from edge_tts.reasoning.interpreter import Interpreter
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.program_values import StepValue
from edge_tts.reasoning.prompt_tokens import prompt_tokens
from edge_tts.reasoning.prompts import ATTEMPTS_IN_CONTEXT
from edge_tts.reasoning.question_kind import AnswerKind, kind_of

OPENING = "```python\n"
"""How the assistant's turn begins."""
FENCE = "```"
MOST_LINES = 60
LONGEST_LINE = 400
MOST_SECONDS = 3.0
"""Interpreter time of one candidate, all its lines together."""

INSTRUCTION = (
    "Solve the problem with a short Python program. Write only code: one assignment a line, with names that say what "
    "the values are. The last line assigns the result to `answer`."
)
KIND_INSTRUCTIONS: Mapping[AnswerKind, str] = MappingProxyType(
    {
        "math": "",
        "choice": " `answer` is the letter of the right option, such as 'B'.",
        "yes-no": " `answer` is True for yes and False for no.",
        "text": " `answer` is as short as possible.",
    }
)
EXAMPLES = (
    (
        "A baker fills 4 trays with 15 rolls each. He sells 38 rolls in the morning and half of the rest in the "
        "afternoon. How many rolls are left?",
        "rolls_baked = 4 * 15\n"
        "rolls_after_morning = rolls_baked - 38\n"
        "rolls_sold_afternoon = rolls_after_morning / 2\n"
        "answer = rolls_after_morning - rolls_sold_afternoon\n",
    ),
    (
        "Mia pays $24 for a book after a discount of 20%. Her brother pays the full price for the same book. How "
        "many dollars do they pay together?",
        "price_paid_by_mia = 24\n"
        "discount_rate = 20 / 100\n"
        "full_price = price_paid_by_mia / (1 - discount_rate)\n"
        "answer = price_paid_by_mia + full_price\n",
    ),
)
"""Problems and their programs, shown as earlier turns."""

_WRITE_AGAIN = "Look for the mistake, then write the whole program again."
_CHECK_AGAIN = "Check every line against the problem, then write the whole program again, corrected where it is wrong."
_OPENING_BRACKETS = frozenset("([{")
_CLOSING_BRACKETS = frozenset(")]}")
_NUMBER = re.compile(r"(?<![\w.])\d[\d,_]*(?:\.\d+)?(?:e\d+)?|(?<![\w.])\.\d+")
_WORDS = MappingProxyType(
    {
        **{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9},
        **{"ten": 10, "eleven": 11, "twelve": 12, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50},
        **{"hundred": 100, "half": 2, "twice": 2, "double": 2, "triple": 3, "thrice": 3, "quarter": 4, "dozen": 12},
    }
)


@dataclass(frozen=True)
class ProgramTrace(Trace):
    """A program as far as it is written, and what running it said."""

    values: tuple[tuple[StepValue, ...], ...] = ()
    """What each of ``steps`` assigned or changed; nothing where it only defines or continues something."""
    variables: tuple[StepValue, ...] = ()
    """All plain variables after the last line that was run."""
    error: str = ""
    """Why the program is no solution: an error of Python, or what it lacks. Then it is finished, without an answer."""
    seconds: float = 0.0
    """Interpreter time so far."""

    @classmethod
    def of(cls, trace: Trace) -> ProgramTrace:
        """``trace`` itself, or what it becomes when a program begins."""
        if isinstance(trace, cls):
            return trace
        return cls(**{item.name: getattr(trace, item.name) for item in fields(trace)})

    @property
    def lines(self) -> tuple[str, ...]:
        """The program's lines that are complete, without fences."""
        return tuple(line for line in self.text.split("\n")[:-1] if not line.startswith(FENCE))


@dataclass(frozen=True)
class AskedProgram:
    """Messages, the last of which asks, in the ``program`` format."""

    template: ChatTemplate
    messages: tuple[Message, ...]
    kind: AnswerKind
    interpreter: Interpreter = field(repr=False)
    calculator: bool = False

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

    @property
    def notes(self) -> tuple[str, ...]:
        return self._rendered.notes

    @cached_property
    def _rendered(self) -> Prompt:
        return self.template.render(self._asked, OPENING)

    @cached_property
    def _asked(self) -> tuple[Message, ...]:
        """The system message, the examples and the messages themselves."""
        instruction = INSTRUCTION + KIND_INSTRUCTIONS[self.kind]
        rest = self.messages
        if rest[0].role == "system":
            instruction = f"{rest[0].content.rstrip()}\n\n{instruction}".lstrip()
            rest = rest[1:]
        examples = [
            turn
            for problem, program in EXAMPLES
            for turn in (Message("user", problem), Message("assistant", _fenced(program)))
        ]
        return (Message("system", instruction), *examples, *rest)

    def prompt(self, policy: Policy, attempts: Sequence[Trace] = ()) -> tuple[int, ...]:
        """The tokens that ask the question. Of ``attempts``, oldest first, each program is shown with what running
        it said."""
        if not attempts:
            return prompt_tokens(self._rendered.pieces, policy)
        turns = [
            turn
            for trace in map(ProgramTrace.of, attempts[-ATTEMPTS_IN_CONTEXT:])
            for turn in (
                Message("assistant", _fenced("\n".join(trace.lines) + "\n")),
                Message("user", _feedback(trace)),
            )
        ]
        return prompt_tokens(self.template.render((*self._asked, *turns), OPENING).pieces, policy)

    def extended(self, trace: Trace, event: StepEvent) -> ProgramTrace:
        """``trace`` with the line of ``event``, run where it is complete.

        A line that a token limit or a deadline cut is kept and not run.
        """
        program = ProgramTrace.of(trace)
        is_cut = event.stop in ("length", "cancelled")
        grown = replace(
            program,
            tokens=program.tokens + event.tokens,
            text=program.text + event.text + ("" if is_cut else "\n"),
            logprob=program.logprob + event.logprob,
        )
        if is_cut or program.finished:
            return grown
        text = event.text.rstrip()
        closes = text.startswith(FENCE) and bool(program.lines)
        if closes or event.stop == "end":
            grown = grown if closes or not text else self._with_line(grown, text)
            return grown if grown.finished else self._ended(grown)
        if not text or text.startswith(FENCE):
            return grown
        return self._with_line(grown, text)

    def _with_line(self, program: ProgramTrace, text: str) -> ProgramTrace:
        """``program``, whose last line is ``text``, after that line: waiting for more, run, or failed."""
        if len(text) > LONGEST_LINE:
            return _failed(program, text, f"a line has more than {LONGEST_LINE} characters")
        if len(program.lines) > MOST_LINES:
            return _failed(program, text, f"the program has more than {MOST_LINES} lines")
        if text.lstrip().startswith("#") or is_open(program.lines):
            return _with_step(program, text, ())
        return self._run(program, text)

    def _run(self, program: ProgramTrace, text: str) -> ProgramTrace:
        """Run the lines so far; ``text`` is shown as the step, with what it changed."""
        try:
            run = self.interpreter.run(program.lines)
        except BackendError as error:  # the worker died and cannot be started again: this candidate's loss only
            return _failed(program, text, str(error))
        program = replace(program, seconds=program.seconds + run.seconds)
        if run.error:
            return _failed(program, text, run.error)
        if program.seconds > MOST_SECONDS:
            return _failed(program, text, f"running the program takes more than {MOST_SECONDS:g} seconds")
        assigned = _assigned(text)
        known = set(program.variables)
        changed = tuple(value for value in run.values if value not in known or value.name in assigned)
        program = replace(program, variables=run.values)
        return _with_step(program, text, changed) if text else program

    def _ended(self, program: ProgramTrace) -> ProgramTrace:
        """``program`` at its end: with its answer, or with what it lacks."""
        if is_open(program.lines):  # a block or bracket that nothing followed
            program = self._run(program, "")
            if program.finished:
                return program
        answer = next((value.value for value in program.variables if value.name == "answer"), None)
        question = self.messages[-1].content
        if answer is None:
            return _failed(program, "", "the program ends without a plain value in `answer`")
        if not _uses_numbers(question, program.lines):
            return _failed(program, "", "the program uses none of the numbers in the problem")
        read = clean(answer, self.kind, question) or answer
        return replace(program, finished=True, answer=read, vote=vote_key(read, self.kind))


def suits(question: str, kind: AnswerKind) -> bool:
    """Whether ``question`` is a computation: it wants a number or an expression and states numbers."""
    words = re.findall(r"[a-z]+", question.lower())
    return kind == "math" and (any(_numbers(question)) or sum(word in _WORDS for word in words) > 1)


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


def _assigned(line: str) -> set[str]:
    """The names a line assigns at its beginning: {"a", "b"} for "a, b = 1, 2"."""
    target = re.match(r"\s*([A-Za-z_][\w, ]*?)\s*(?::[^=]+)?(?:\*\*|//|<<|>>|[-+*/%&|^])?=(?!=)", line)
    return set(re.findall(r"\w+", target[1])) if target else set()


def _with_step(program: ProgramTrace, text: str, values: tuple[StepValue, ...]) -> ProgramTrace:
    """``program`` with a step shown as "left = pencils - 20  # 76"."""
    told = [value for value in values if not re.fullmatch(rf"\w+\s*=\s*{re.escape(value.value)}", text)]
    if len(values) == 1:
        remark = "".join(value.value for value in told)
    else:
        remark = ", ".join(f"{value.name} = {value.value}" for value in told)
    step = f"{text}  # {remark}" if remark else text
    return replace(program, steps=(*program.steps, step), values=(*program.values, values))


def _failed(program: ProgramTrace, text: str, error: str) -> ProgramTrace:
    """``program`` ended by ``error``, without an answer; ``text`` is the line that it came with, "" for the end."""
    shown = _with_step(program, text, ()) if text else program
    return replace(shown, finished=True, answer=None, vote="", error=error)


def _fenced(program: str) -> str:
    return f"{OPENING}{program}{FENCE}"


def _feedback(program: ProgramTrace) -> str:
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
