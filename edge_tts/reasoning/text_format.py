r"""The ``text`` format: any chat model reasons in words and puts its answer into ``\boxed{}``.

A step is a paragraph. Displayed mathematics and code stay whole, blank lines in them included.
"""

from __future__ import annotations

import codecs
import re

LONGEST_DISPLAY = 2000
"""Characters after which a formula or code that was opened and not closed no longer holds a step together."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_DISPLAY = re.compile(r"(?<!\\)\\[\[\]]|\$\$")
"""Not the "\\\\[2pt]" of a line break within a formula."""


def split_steps(text: str) -> tuple[str, ...]:
    """The steps of a whole text, without the space around them. None is empty."""
    splitter = StepSplitter()
    return (*splitter.feed(text), *splitter.finish())


class StepSplitter:
    """Steps of a text that comes in parts; how it is cut into parts makes no difference."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._step: list[str] = []
        self._fence = ""
        """The marks that opened the code we are in."""
        self._display = ""
        """What closes the formula we are in."""
        self._open = 0
        """Characters since a fence or a formula was opened."""

    def feed(self, part: str | bytes) -> list[str]:
        """The steps that are finished with ``part``: a blank line was seen after them. Bytes are UTF-8, and may end
        inside a character."""
        lines = (self._line + (self._decoder.decode(part) if isinstance(part, bytes) else part)).split("\n")
        self._line = lines.pop()
        steps = []
        for line in lines:
            if step := self._take(line):
                steps.append(step)
        return steps

    def finish(self) -> list[str]:
        """What is left when the text ends; at most one step."""
        self._step.append(self._line + self._decoder.decode(b"", final=True))
        self._line = ""
        rest = self._close()
        return [rest] if rest else []

    def _take(self, line: str) -> str:
        """Add a whole line; the step it ends, or ""."""
        if not line.strip() and not self._is_inside:
            return self._close()
        self._step.append(line)
        self._follow(line)
        return ""

    @property
    def _is_inside(self) -> bool:
        return bool(self._fence or self._display) and self._open <= LONGEST_DISPLAY

    def _follow(self, line: str) -> None:
        """Note what ``line`` opens and closes."""
        self._open += len(line) + 1
        fence = _FENCE.match(line)
        if self._fence:
            if fence and fence[1].startswith(self._fence) and not line.strip().strip(self._fence[0]):
                self._fence = ""
            return
        if fence and not self._display:
            self._fence, self._open = fence[1], 0
            return
        for mark in _DISPLAY.findall(line):
            if mark == self._display:
                self._display = ""
            elif not self._display and mark != r"\]":
                self._display, self._open = (r"\]" if mark == r"\[" else mark), 0

    def _close(self) -> str:
        step = "\n".join(self._step).strip()
        self._step, self._fence, self._display, self._open = [], "", "", 0
        return step
