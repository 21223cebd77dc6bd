"""Damage to files, drawn at random from a seed: to bytes, and to the values of JSON and TOML."""

from __future__ import annotations

import json
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge_tts.errors import EdgeError

ALTOGETHER = int(os.environ.get("EDGE_REASON_TEST_MUTATIONS", "210"))
"""Damaged files of all kinds; raise it to 2100 for a thorough run."""
SEED = os.environ.get("EDGE_REASON_TEST_SEED", "")
"""Another one draws other damage."""
SHARES = 21
SECONDS = 10.0
"""Most time for one file."""

Damage = Callable[[bytes, random.Random], bytes]
Use = Callable[[Path], object]
NUMBERS = (0, 1, 2, 127, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
WRONG: tuple[Any, ...] = (None, True, False, -1, 0, 1, 0.5, -1e308, 10**17, 10**30, "", "x", "\ud800", "../x", [], {})
WRONG += ([[]], {"x": 1}, float("nan"), float("inf"), 10**400, [None], "9" * 5000)
WRONG_TOML = ("nan", "-1", "0", "1e400", "9" * 30, '""', '"x"', "[]", "{}", "true", "1979-05-27", "[[]]")


def damaged(content: bytes, chance: random.Random, first: int = 0, last: int | None = None) -> bytes:
    """``content`` with one to three kinds of damage to the bytes from ``first`` up to ``last``."""
    front, middle, back = content[:first], bytearray(content[first:last]), content[last:] if last else b""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        _damage(middle, chance)
    return front + bytes(middle) + back


def _damage(data: bytearray, chance: random.Random) -> None:
    at, length = chance.randrange(len(data) + 1), chance.randrange(1, 64)
    match chance.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 1 if at < len(data):
            data[at] = chance.randrange(256)
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = chance.randbytes(length)
        case 4:
            data[at:at] = data[at : at + length]
        case 5:
            size = chance.choice((4, 8))
            data[at : at + size] = (chance.choice(NUMBERS) % 256**size).to_bytes(size, "little")
        case 6 if chance.random() < 0.3:
            del data[at:]
        case _:
            other = chance.randrange(len(data) + 1)
            data[at : at + length] = data[other : other + length]


def changed(value: Any, chance: random.Random) -> Any:
    """JSON's ``value`` with one to three of its parts replaced, left out, doubled, or taken from elsewhere in it."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        value = json.loads(json.dumps(value))
        places = list(_places(value))
        if not places:
            return chance.choice(WRONG)
        holder, key = chance.choice(places)
        other, there = chance.choice(places)
        match chance.randrange(6):
            case 0:
                del holder[key]
            case 1:
                holder[key] = json.loads(json.dumps(other[there]))
            case 2 if isinstance(holder, list):
                holder.insert(key, holder[key])
            case 2:
                holder[f"{key}2"] = holder[key]
            case 3 if isinstance(holder[key], int | float):
                holder[key] = chance.choice((-holder[key], holder[key] * 10**6, holder[key] / 3, str(holder[key])))
            case _:
                holder[key] = chance.choice(WRONG)
    return value


def _places(value: Any) -> Any:
    """Every part of ``value``, as the object or list that holds it and its key there."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def damaged_json(content: bytes, chance: random.Random) -> bytes:
    """A JSON text of which values are changed, or bytes."""
    if chance.random() < 0.25:
        return damaged(content, chance)
    if chance.random() < 0.03:
        return b"[" * 100_000
    return json.dumps(changed(json.loads(content), chance)).encode()


def damaged_toml(content: bytes, chance: random.Random) -> bytes:
    """A TOML text of which the values of some lines are changed, or bytes."""
    if chance.random() < 0.25:
        return damaged(content, chance)
    if chance.random() < 0.03:
        return b"x = " + b"[" * 100_000
    lines = content.decode().splitlines()
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(lines))
        key, equals, _ = lines[at].partition(" = ")
        match chance.randrange(4):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case _ if equals:
                lines[at] = f"{key} = {chance.choice(WRONG_TOML)}"
            case _:
                lines[at] = chance.choice(("[models]", "[x]", "[[models.x]]", "[models.'é ']"))
        if not lines:
            break
    return "\n".join(lines).encode()


def files(path: Path, damage: Damage, shares: int = 1) -> Iterator[int]:
    """Write damaged contents of ``path`` in turn; yields the number of each."""
    whole, chance = path.read_bytes(), random.Random(f"{path.name}{SEED}")
    for number in range(max(1, ALTOGETHER * shares // SHARES)):
        content = damage(whole, chance)
        path.write_bytes(content)
        yield number
    path.write_bytes(whole)


def all_used_or_refused(path: Path, damage: Damage, use: Use, shares: int = 1) -> None:
    """Damage ``path`` again and again and ``use`` what is there then; some must be refused."""
    use(path)
    refused, problems = 0, {}
    for number in files(path, damage, shares):
        began = time.monotonic()
        try:
            use(path)
        except EdgeError as error:
            refused += 1
            if "\n" in (text := str(error)) or not text:
                problems[f"{number}: {text!r}"] = error
        except Exception as error:
            problems[f"{number}: {path.read_bytes()[:400]!r}: {error!r}"] = error
        if time.monotonic() - began > SECONDS:
            problems[f"{number}: {time.monotonic() - began} s"] = None
    assert refused
    if problems:
        for text, error in problems.items():
            print(text, *(traceback.format_tb(error.__traceback__)[-2:] if error else ()), sep="\n")
    assert not problems
