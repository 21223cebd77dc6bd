"""Data read from a file as a dataclass: every key known, every value of the type and in the range its field states."""

from __future__ import annotations

import contextlib
import re
import reprlib
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from edge_tts.errors import EdgeError

_T = TypeVar("_T")
_MISSING = re.compile(r"Object missing required field `(.+)`")
_EXPECTED = re.compile(r"Expected (.+?)(?:, got .+)?")
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "null": "nothing"}
_WORDS |= {"object": "an object of named values", "array": "a list"}


def typed(kind: type[_T], content: Any, where: str, error: type[EdgeError]) -> _T:
    """Convert ``content``, plain values as a JSON or TOML parser gives them, to the dataclass ``kind``.

    Raises ``error``: one sentence with ``where``, the key and the value that does not fit.
    """
    if unknown := _unknown_key(_described(kind), content, ""):  # type: ignore[arg-type]  # mypy: no class is hashable
        key, value, known = unknown
        raise error(f"{where}: unknown key {key} = {reprlib.repr(value)}; known keys are {', '.join(known)}")
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as problem:
        raise error(f"{where}: {_sentence(str(problem), content)}; correct the file") from None
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair
        raise error(f"{where}: a text in it has half of a character (a lone surrogate); correct the file") from None
    except EdgeError as problem:  # from a dataclass that checks its own values
        raise error(f"{where}: {problem}") from None


@lru_cache
def _described(kind: type) -> inspect.Type:
    """``kind`` as msgspec describes it, which takes longer than reading a file."""
    return inspect.type_info(kind)


def _unknown_key(kind: Any, content: Any, path: str) -> tuple[str, Any, list[str]] | None:
    """Find a key of ``content`` without a field in ``kind`` (a type as msgspec describes it), which msgspec ignores.

    Returns its path, its value and the fields there are.
    """
    parts: list[tuple[Any, Any, str]] = []
    if isinstance(kind, inspect.DataclassType) and isinstance(content, dict):
        fields = {field.name: field.type for field in kind.fields}
        for key, value in content.items():
            if key not in fields:
                return f"{path}{key}", value, sorted(fields)
            parts.append((fields[key], value, f"{path}{key}."))
    elif isinstance(kind, inspect.UnionType):
        parts = [(option, content, path) for option in kind.types]
    elif isinstance(kind, inspect.VarTupleType) and isinstance(content, list):
        parts = [(kind.item_type, item, f"{path.removesuffix('.')}[{i}].") for i, item in enumerate(content)]
    return next(filter(None, (_unknown_key(*part) for part in parts)), None)


def _sentence(message: str, content: Any) -> str:
    """msgspec's message in plain words, with the value that it leaves out."""
    message, _, path = message.partition(" - at `$")
    path = path.rstrip("`").removeprefix(".")
    if missing := _MISSING.fullmatch(message):
        return f"{f'{path}.{missing[1]}'.lstrip('.')} is missing"
    expected = _EXPECTED.fullmatch(message)
    if expected is None:
        return f"{path}: {message}" if path else message
    wanted = re.sub("|".join(_WORDS), lambda word: _WORDS[word[0]], expected[1])
    wanted = wanted.replace("`", "").replace(" | nothing", "").replace(" | ", " or ")
    return f"{path or 'the content'} must be {wanted}, found {reprlib.repr(_value(content, path))}"


def _value(content: Any, path: str) -> Any:
    """The value at a path such as ``speeds.decode[1].width``."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        with contextlib.suppress(LookupError, TypeError):  # msgspec writes "[...]" for the keys of a mapping
            content = content[int(index)] if index else content[name]
    return content
