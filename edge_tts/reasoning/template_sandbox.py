"""A jinja2 environment for chat templates of unknown origin: as transformers sets it, and bounded.

jinja2's sandbox keeps a template away from Python's inside. It does not keep it from running or allocating
without end, so here every turn of a loop looks at the clock, and every operation that could make a text much
longer is checked before it is carried out.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn, TypeVar

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

RENDER_SECONDS = 2.0
"""Longest time one rendering may take; ordinary templates take a millisecond."""
MAX_CHARACTERS = 8_000_000
"""Longest text a template may produce, in between as at the end."""
_MAX_WORK = 16 * MAX_CHARACTERS
"""Greatest product of the sizes of one operation's operands, which bounds the size of its result."""
_MAX_ITEMS = 200_000
"""Most items of one list, those of lists within it included."""
_KNOWN_TAGS = {
    *("for", "if", "elif", "else", "block", "extends", "print", "macro", "include", "from", "import", "set", "with"),
    *("autoescape", "call", "filter", "raw", "break", "continue"),
}


class TemplateLimitError(TemplateError):
    """A template that runs too long or wants too much memory."""


class RefusedError(TemplateError):
    """What a template says through ``raise_exception``: it does not accept these messages."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox for one template. Not for several threads at once: the clock of a rendering is its own."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, source: str, now: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # nothing of a template runs before its clock does
            finalize=_checked,
            extensions=[LoopControlExtension, _unknown_tags(source)],
        )
        self._ends = math.inf
        self.filters["tojson"] = _tojson
        self.filters = {name: self._bounded(function) for name, function in self.filters.items()}
        self.globals["raise_exception"] = _refuse
        self.globals["strftime_now"] = lambda format: now().strftime(format)
        self.globals.pop("lipsum")
        self.globals[_TICK] = self._tick

    def start(self) -> None:
        """Begin the time of one rendering."""
        self._ends = time.monotonic() + RENDER_SECONDS

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self._tick()
        if operator == "**" and not _is_small_power(left, right):
            raise TemplateLimitError(f"a power of {right}")
        if operator == "%" and isinstance(left, str):
            _check_format(left)
        if operator != "+" or not isinstance(left, int | float):
            _check_work([left, right], add=operator == "+")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 (as in jinja2)
        __self._tick()
        owner = getattr(__obj, "__self__", None)
        _check_work([owner, *args, *kwargs.values()])
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        owner = getattr(value, "__self__", None)
        if isinstance(owner, str) and getattr(value, "__name__", "") in ("format", "format_map"):
            _check_format(owner)
        return super().wrap_str_format(value)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Bounding().visit(super()._parse(source, name, filename))
        return tree

    def _tick(self) -> str:
        """An empty text, or TemplateLimitError where the time is over."""
        if time.monotonic() > self._ends:
            raise TemplateLimitError(f"more than {RENDER_SECONDS:g} seconds of work")
        return ""

    def _bounded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)  # keeps what jinja2 notes on a filter about its first argument
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            if function.__name__ == "do_format":
                _check_format(str(args[0]))
            _check_work([*args, *kwargs.values()])
            return function(*args, **kwargs)

        return bounded


_TICK = "looks_at_the_clock"
_Loop = TypeVar("_Loop", nodes.For, nodes.Macro, nodes.CallBlock)


class _Bounding(NodeTransformer):
    """Lets loops and macros look at the clock, and turns ``a ~ b`` into additions, which are checked."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 (named after the node)
        return self._ticking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802
        return self._ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:  # noqa: N802
        return self._ticking(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        texts = [nodes.Filter(part, "string", [], [], None, None, lineno=node.lineno) for part in node.nodes]
        joined: nodes.Expr = texts[0]
        for text in texts[1:]:
            joined = nodes.Add(joined, text, lineno=node.lineno)
        return joined

    def _ticking(self, node: _Loop) -> _Loop:
        self.generic_visit(node)
        call = nodes.Call(nodes.Name(_TICK, "load"), [], [], None, None)
        node.body.insert(0, nodes.Output([call]).set_lineno(node.lineno))
        return node


def _unknown_tags(source: str) -> type[Extension]:
    """An extension that passes through the content of blocks jinja2 does not know, such as ``{% generation %}``."""
    names = set(re.findall(r"{%[-+]?\s*([A-Za-z_]\w*)", source))
    closing = {name for name in names if name.startswith("end") and name[3:] in names}
    unknown = names - _KNOWN_TAGS - closing - {"end" + name for name in _KNOWN_TAGS}

    class PassThrough(Extension):
        tags = unknown

        def parse(self, parser: Parser) -> list[nodes.Node]:
            tag = next(parser.stream).value
            while parser.stream.current.type != "block_end":
                next(parser.stream)
            if "end" + tag not in closing:
                return []
            return parser.parse_statements((f"name:end{tag}",), drop_needle=True)

    return PassThrough


def _refuse(message: object) -> NoReturn:
    raise RefusedError(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: jinja2's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _checked(value: Any) -> Any:
    """``value`` as it is to be written out; TemplateLimitError where its text would be too long."""
    if not isinstance(value, str):
        _size(value)
    return value


def _check_work(operands: list[Any], add: bool = False) -> None:
    """Raise TemplateLimitError where an operation on ``operands`` could give more than the memory for it."""
    sizes = [_size(operand) for operand in operands]
    if (sum(sizes) > MAX_CHARACTERS) if add else (math.prod(sizes) > _MAX_WORK):
        raise TemplateLimitError(f"texts of more than {MAX_CHARACTERS:,} characters")


def _size(operand: Any) -> int:
    """Characters of a text, the value of a whole number, or everything in a list or mapping together; at least 1."""
    if isinstance(operand, int):
        return max(1, min(abs(operand), _MAX_WORK + 1))
    size, open_items, seen = 0, [operand], 0
    while open_items:
        item = open_items.pop()
        seen += 1
        if seen > _MAX_ITEMS:
            raise TemplateLimitError(f"a list of more than {_MAX_ITEMS:,} items")
        if isinstance(item, str | bytes):
            size += len(item)
        elif isinstance(item, list | tuple | set):
            open_items.extend(item)
        elif isinstance(item, Mapping):
            open_items.extend(item.values())
        size += 1 if seen > 1 else 0
    return max(1, size)


def _is_small_power(base: Any, exponent: Any) -> bool:
    return not isinstance(base, int) or not isinstance(exponent, int) or (abs(base) < 2**32 and abs(exponent) <= 64)


def _check_format(text: str) -> None:
    """Raise TemplateLimitError for a format that asks for a wide field ("%9999999d")."""
    if re.search(r"\d{5}|\*", text):
        raise TemplateLimitError("a format with a wide field")
