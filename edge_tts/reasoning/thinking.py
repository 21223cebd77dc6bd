"""Models that reason between ``<think>`` and ``</think>`` before they speak to the user."""

from __future__ import annotations

import re
from dataclasses import dataclass

_THINKING = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Thought:
    """A text of a model that reasons between ``<think>`` and ``</think>``."""

    thinking: str
    """The reasoning, without its tags; "" where there is none."""
    text: str
    """What the model says to the user; "" while it is still reasoning."""


def split_thinking(text: str, is_open: bool = False) -> Thought:
    """Take ``text`` apart. ``is_open`` says that the prompt has opened the reasoning already, as some templates do;
    a closing tag without an opening one says the same."""
    closing, opening = text.find("</think>"), text.find("<think>")
    if closing >= 0 and not 0 <= opening < closing:
        is_open = True
    if is_open:
        text = text if 0 <= opening == len(text) - len(text.lstrip()) else f"<think>{text}"
    thinking = "\n\n".join(match[1].strip() for match in _THINKING.finditer(text))
    return Thought(thinking.strip(), _THINKING.sub("", text).strip())
