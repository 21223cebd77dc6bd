"""How a question and its steps become the tokens a process reward model reads.

Every family of models writes a trace in its own way, but all read a step's score at one token: the last one of the
text that ends with the step. A layout describes that text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from edge_tts.errors import PackError
from edge_tts.runtimes.step_marks import marks

MAX_QUESTION_TOKENS = 1024
"""A longer question keeps its last tokens: the actual question comes last."""
MAX_STEP_TOKENS = 256
"""A longer step keeps its first tokens."""


@dataclass(frozen=True)
class StepLayout:
    """Templates of a trace's text; ``{question}``, ``{step}`` and ``{n}`` (1 for the first step) are filled in."""

    prompt: str
    """Text before the first step."""
    first: str
    """The first step, up to and including the text whose last token is scored."""
    later: str
    """Every other step."""
    joined: bool
    """True if prompt and steps are tokenised as one text, false if each is tokenised by itself."""
    begin: tuple[int, ...] = ()
    """Token ids before the prompt."""
    end: tuple[int, ...] = ()
    """Token ids after each step; none where the text is joined."""
    marked: bool = False
    """True if the marks of :func:`edge_tts.runtimes.step_marks.marks`, each one token, follow each step."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The layout in ``text``. Raises ValueError or TypeError if there is none."""
        values = json.loads(text)
        return cls(**{**values, "begin": tuple(values["begin"]), "end": tuple(values["end"])})


class StepEncoder:
    """Turns questions and steps into token ids, by a layout and a tokenizer (``tokenizers.Tokenizer``).

    ``positions`` is the longest question plus trace, in tokens. Raises PackError if the layout's own text leaves too
    little room for question and steps.
    """

    def __init__(self, layout: StepLayout, tokenizer: Any, positions: int) -> None:
        self._layout = layout
        self._tokenizer = tokenizer
        self._positions = positions
        self._question_tokens = min(MAX_QUESTION_TOKENS, positions // 2)
        self._step_tokens = min(MAX_STEP_TOKENS, positions // 4)
        written = layout.prompt + layout.first + layout.later
        added = tokenizer.get_added_tokens_decoder().values()
        control = {t.content for t in added if t.special or (t.content in written and len(t.content.strip()) > 1)}
        # Text that spells a control token must not be read as one.
        self._control = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)")
        # Question and step are clipped to three quarters of the positions, so every first step fits.
        overhead = len(self.extended("", [""], self.question("")))
        if 5 * overhead > positions:
            raise PackError(
                f"the template around a step takes {overhead} of the reward model's {positions} positions, more than a "
                "fifth; use a model of longer context"
            )

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def question(self, question: str) -> tuple[int, ...]:
        """Token ids of the question alone."""
        return (*self._layout.begin, *self.encode(self._prompt(question)))

    def extended(self, question: str, steps: Sequence[str], before: Sequence[int]) -> tuple[int, ...]:
        """Token ids of the trace up to and including the last of ``steps``; its score is read at the last id.

        ``before`` are the ids up to the previous step (for the first step, of the question alone).
        """
        layout = self._layout
        if not layout.joined:
            said = marks(question, steps) if layout.marked else ()
            ids = map(self._tokenizer.token_to_id, said)
            return (*before, *self.encode(self._piece(steps[-1], len(steps))), *layout.end, *ids)
        text = self._prompt(question) + "".join(self._piece(step, n) for n, step in enumerate(steps, 1))
        return (*layout.begin, *self.encode(text))

    def prefixes(self, question: str, steps: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of the question alone, then up to each step, as long as they fit into the positions."""
        found = [self.question(question)]
        for n in range(1, len(steps) + 1):
            ids = self.extended(question, steps[:n], found[-1])
            if len(ids) > self._positions:
                break
            found.append(ids)
        return found

    def _prompt(self, question: str) -> str:
        text = self._harmless(question)
        if len(text.encode()) > self._question_tokens:  # no token is less than a byte
            offsets = self._offsets(text)
            text = text[offsets[-self._question_tokens][0] :] if len(offsets) > self._question_tokens else text
        return self._layout.prompt.replace("{question}", text)

    def _piece(self, step: str, n: int) -> str:
        text = self._harmless(step)
        if len(text.encode()) > self._step_tokens:
            offsets = self._offsets(text)
            text = text[: offsets[self._step_tokens][0]] if len(offsets) > self._step_tokens else text
        fill = {"{n}": str(n), "{step}": text}
        template = self._layout.first if n == 1 else self._layout.later
        return re.sub(r"\{n\}|\{step\}", lambda match: fill[match.group()], template)

    def _harmless(self, text: str) -> str:
        """``text`` without control tokens. What is left around one may spell another; a space keeps that apart."""
        return self._control.sub(" ", self._control.sub("", text))

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return offsets
