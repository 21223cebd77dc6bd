"""Text on a terminal: consoles, colours by confidence, and text of others made harmless."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from edge_tts.search.wording import Level, level, sureness

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES: Mapping[Level, str] = MappingProxyType({"sure": "green", "likely": "cyan", "unsure": "yellow", "guess": "red"})
"""Green is for what is sure."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What could move the cursor or change the terminal; line ends and tabs stay."""


def consoles() -> tuple[Console, Console]:
    """Standard output and standard error; neither colours numbers or reads markup in what it prints.

    Characters that their encoding lacks become question marks.
    """
    from rich.console import Console

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    return Console(highlight=False, markup=False, emoji=False), Console(
        stderr=True, highlight=False, markup=False, emoji=False
    )


def json_line(value: object) -> str:
    """``value`` as JSON in one line, in ASCII where standard output is not UTF-8."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("_", "-") in ("utf-8", "utf8")
    return json.dumps(value, ensure_ascii=not is_utf8)


def harmless(text: str) -> str:
    """``text`` with control characters shown as the replacement character."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """``text`` without line ends and control characters."""
    return " ".join(harmless(text).split())


def answer_line(label: str, answer: str, confidence: float | None) -> Text:
    """ "answer: 76 (about 92% sure)", coloured by how sure it is; None is not known."""
    from rich.text import Text

    if confidence is None:
        return Text(f"{label}: {one_line(answer)}")
    style = STYLES[level(confidence)]
    return Text.assemble(
        f"{label}: ", (one_line(answer), f"bold {style}"), (f" ({sureness(confidence)})", style), overflow="fold"
    )
