"""A model's own chat template: from messages to the text that the model is to continue.

The text of messages is data. A template is rendered with a private character in the place of every message, and
the messages are put in afterwards, so the template never decides anything by them and nothing written in them
can become a part of the template's own text. A prompt is therefore a row of pieces: control pieces, in which
special tokens are recognised, and data pieces, in which they are not (see
:mod:`edge_tts.reasoning.prompt_tokens`).

The rendering with the real messages is compared with this one, to learn what the template does to them, such as
trimming them or leaving out the reasoning of earlier turns.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from edge_tts.errors import EdgeError, InputError, PackError
from edge_tts.reasoning.messages import Message, checked_messages

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""What a model without a template of its own is asked with."""
MAX_SOURCE_CHARACTERS = 1_000_000
"""Longest template that is read."""
MAX_CHAT_CHARACTERS = 1_000_000
"""Longest chat that is rendered, all messages together."""

NO_TEMPLATE = "the model has no chat template of its own; it is asked in ChatML"
NO_SYSTEM = "the model's chat template takes no system message; its text was put before the question"
KEPT_PLAIN = "the model's chat template changes with the text of these messages; the text was passed on as it is"
SPACED = "the model's chat template rearranges messages; a space was put after each '<', '[' and '>' in them"

_PRIVATE = range(0xF0000, 0xFFFFE)
"""A plane of characters that mean nothing."""


@dataclass(frozen=True)
class Piece:
    """A part of a prompt."""

    text: str
    control: bool
    """Whether special tokens written in ``text`` count: true for the template's own text, false for messages."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked, its assistant turn left open."""

    pieces: tuple[Piece, ...]
    """None of them empty."""
    notes: tuple[str, ...] = ()
    """What was done to messages that the template does not take as they are; a clause each."""

    @property
    def text(self) -> str:
        """All pieces joined, for people to read: to tokenise it would mix data and control."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def opens_thinking(self) -> bool:
        """Whether the template has written ``<think>``, so that the model begins inside its reasoning."""
        controls = [piece.text for piece in self.pieces if piece.control]
        return bool(controls) and controls[-1].rstrip().endswith("<think>")


class _EndlessError(PackError):
    """A template that was stopped; it is not tried again in another way."""


class ChatTemplate:
    """A compiled template; safe to use from several threads."""

    def __init__(
        self,
        source: str | None,
        bos: str = "",
        eos: str = "",
        adds_bos: bool = False,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Compile ``source``, a GGUF's ``tokenizer.chat_template``; ChatML where it is None or blank.

        ``bos`` and ``eos`` are the texts of the model's tokens of those names, "" where it has none.
        ``adds_bos`` says that the tokenizer begins every text with BOS: then the prompt does too, once.
        ``now`` is the time that templates with a date write. Raises PackError for a template that
        cannot be compiled.
        """
        from edge_tts.reasoning.template_sandbox import BoundedEnvironment

        self._notes: tuple[str, ...] = ()
        if source is None or not source.strip():
            source, self._notes = CHATML, (NO_TEMPLATE,)
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise _broken(f"it has {len(source):,} characters, and at most {MAX_SOURCE_CHARACTERS:,} are read")
        self._source = source
        self._bos, self._eos, self._adds_bos = bos, eos, adds_bos
        self._environment = BoundedEnvironment(source, now)
        self._lock = threading.Lock()
        try:
            self._template = self._environment.from_string(source)
        except Exception as error:  # SyntaxError of jinja2, RecursionError, and what its compiler raises on garbage
            raise _broken(str(error)) from error

    def render(self, messages: Sequence[Message], opening: str = "") -> Prompt:
        """The prompt for ``messages``, the last of which is a user's.

        ``opening`` begins the assistant's turn, as data: the model continues it. Raises InputError where the template
        refuses the messages, and PackError where it fails, or runs or grows without end.
        """
        asked = checked_messages(messages)
        length = sum(len(message.content) for message in asked)
        if length > MAX_CHAT_CHARACTERS:
            raise InputError(f"the chat has {length:,} characters; send at most {MAX_CHAT_CHARACTERS:,}")
        refused: EdgeError | None = None
        incomplete: tuple[Message, ...] | None = None
        for shape in _shapes(asked):
            try:
                pieces, notes = self._pieces(shape)
            except _EndlessError:
                raise
            except EdgeError as error:  # another shape may be taken
                refused = refused or error
                continue
            if pieces:
                folded = (NO_SYSTEM,) if _has_system(asked) and not _has_system(shape) else ()
                return Prompt(tuple(self._framed(pieces, opening)), (*self._notes, *folded, *notes))
            incomplete = incomplete or shape
        if incomplete is None:
            assert refused is not None  # there is at least one shape
            raise refused
        text = self._spaced(incomplete)
        return Prompt(tuple(self._framed([Piece(text, control=True)], opening)), (*self._notes, SPACED))

    def _spaced(self, messages: Sequence[Message]) -> str:
        """A rendering with the messages inside, where nothing in them can be read as a special token."""
        spaced = [replace(message, content=re.sub(r"[<\[>]", r"\g<0> ", message.content)) for message in messages]
        text = self._run(spaced)
        if text == self._run([*spaced[:-1], replace(spaced[-1], content=f"{spaced[-1].content}?")]):
            raise _broken("it leaves the question out")
        return text

    def _pieces(self, messages: Sequence[Message]) -> tuple[list[Piece], tuple[str, ...]]:
        """The pieces of a rendering and what there is to say of it; no pieces where a message would be lost or cut."""
        marks = self._marks([message.content for message in messages])
        # As long as the message, for templates that look at lengths; a blank one has nothing to protect.
        shown = [
            replace(message, content=mark * len(message.content)) if message.content.strip() else message
            for message, mark in zip(messages, marks, strict=True)
        ]
        rendered = self._run(shown)
        controls, slots, end = [], [], 0
        for run in re.finditer(rf"([{''.join(marks)}])\1*", rendered):
            controls.append(rendered[end : run.start()])
            slots.append(marks.index(run[1]))
            end = run.end()
            if run[0] != shown[slots[-1]].content:
                return [], ()
        controls.append(rendered[end:])
        if {index for index, message in enumerate(messages) if message.content.strip()} - set(slots):
            return [], ()
        notes: tuple[str, ...] = ()
        texts = self._as_written(messages, controls, slots)
        if texts is None:
            texts = [_without_reasoning(messages[index]) for index in slots]
            notes = (KEPT_PLAIN,)
        pieces = [Piece(controls[0], control=True)]
        for text, control in zip(texts, controls[1:], strict=True):
            pieces += [Piece(text, control=False), Piece(control, control=True)]
        return [piece for piece in pieces if piece.text], notes

    def _marks(self, contents: Sequence[str]) -> list[str]:
        """A character for each message that neither the template nor any message holds."""
        used = {character for text in (self._source, *contents) for character in text if ord(character) in _PRIVATE}
        free = [number for number in _PRIVATE if chr(number) not in used] if used else _PRIVATE
        if len(free) < len(contents):
            raise InputError(f"a chat of {len(contents):,} messages is too long; send fewer")
        return [chr(number) for number in random.sample(free, len(contents))]

    def _as_written(
        self, messages: Sequence[Message], controls: Sequence[str], slots: Sequence[int]
    ) -> list[str] | None:
        """The text in each slot, so that together with ``controls`` it is what the template makes of the real
        messages; None where nothing fits, since the template does more than to cut them at their ends."""
        try:
            real = self._run(messages)
        except _EndlessError:
            raise
        except EdgeError:
            return None
        reached: dict[int, tuple[str, ...]] = {len(controls[0]): ()} if real.startswith(controls[0]) else {}
        for index, control in zip(slots, controls[1:], strict=True):
            after: dict[int, tuple[str, ...]] = {}
            for position, texts in reached.items():
                for text in _cuts(messages[index].content):
                    if real.startswith(text, position) and real.startswith(control, position + len(text)):
                        after.setdefault(position + len(text) + len(control), (*texts, text))
            reached = after
        found = reached.get(len(real))
        return None if found is None else list(found)

    def _run(self, messages: Sequence[Message]) -> str:
        """One rendering. Raises InputError where the template says no, PackError where it fails."""
        from edge_tts.reasoning.template_sandbox import MAX_CHARACTERS, RefusedError, TemplateLimitError

        values: dict[str, Any] = {
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "bos_token": self._bos,
            "eos_token": self._eos,
            "add_generation_prompt": True,
            "enable_thinking": True,
            "thinking": True,
            "tools": None,
            "documents": None,
        }
        parts: list[str] = []
        length = 0
        with self._lock:
            self._environment.start()
            try:
                for part in self._template.generate(values):
                    parts.append(part)
                    length += len(part)
                    if length > MAX_CHARACTERS:
                        raise TemplateLimitError(f"texts of more than {MAX_CHARACTERS:,} characters")
            except RefusedError as error:
                reason = _short(str(error))
                raise InputError(
                    f"the model's chat template refuses these messages: {reason}; change their roles or order"
                ) from error
            except TemplateLimitError as error:
                raise _EndlessError(str(_broken(f"it asks for {error}"))) from error
            except Exception as error:  # a template may do anything to values: TypeError, KeyError, RecursionError, ...
                raise _broken(str(error) or type(error).__name__) from error
        return "".join(parts)

    def _framed(self, pieces: list[Piece], opening: str) -> Iterator[Piece]:
        """``pieces`` with BOS once where it belongs, without EOS at the end, and with ``opening``."""
        first, last = pieces[0], pieces[-1]
        if self._bos and first.control:
            while first.text.startswith(self._bos * 2):
                first = Piece(first.text.removeprefix(self._bos), control=True)
        has_bos = first.control and first.text.startswith(self._bos)
        middle = [first, *pieces[1:]]
        if self._eos and last.control:
            middle[-1] = Piece(middle[-1].text.removesuffix(self._eos), control=True)
        if self._adds_bos and self._bos and not has_bos:
            yield Piece(self._bos, control=True)
        yield from (piece for piece in middle if piece.text)
        if opening:
            yield Piece(opening, control=False)


def _shapes(messages: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    """``messages`` in the ways a template may take them, the best first: as they are, with system texts put before
    the next question, and with neighbours of one role joined."""
    yield messages
    folded: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
        elif message.role == "user" and waiting:
            folded.append(replace(message, content="\n\n".join([*waiting, message.content])))
            waiting = []
        else:
            folded.append(message)
    if len(folded) < len(messages):
        yield tuple(folded)
    joined: list[Message] = []
    for message in folded:
        if joined and joined[-1].role == message.role:
            joined[-1] = replace(message, content=f"{joined[-1].content}\n\n{message.content}")
        else:
            joined.append(message)
    if len(joined) < len(folded):
        yield tuple(joined)


def _has_system(messages: Sequence[Message]) -> bool:
    return any(message.role == "system" for message in messages)


def _cuts(content: str) -> list[str]:
    """What templates make of a content, the whole first: trimmed, and without reasoning."""
    wholes = [content]
    if "</think>" in content:
        wholes.append(content.rpartition("</think>")[2])
    cuts: list[str] = []
    for whole in wholes:
        cuts += [whole, whole.strip(), whole.lstrip(), whole.rstrip()]
        cuts += [whole.strip("\n"), whole.lstrip("\n"), whole.rstrip("\n")]
    return list(dict.fromkeys(cuts))


def _without_reasoning(message: Message) -> str:
    """The content; of an assistant's turn only what follows its reasoning, as models want their earlier turns."""
    return message.content.rpartition("</think>")[2].strip() if message.role == "assistant" else message.content


def _broken(reason: str) -> PackError:
    return PackError(
        f"the model's chat template cannot be used: {_short(reason)}; take another GGUF of this model, "
        "or declare a template in a pack"
    )


def _short(reason: str) -> str:
    """``reason`` as a clause."""
    line = " ".join(reason.split()).rstrip(".")
    return line if len(line) <= 200 else line[:199] + "…"
