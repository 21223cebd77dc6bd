"""Programs that loop, allocate, recurse, print, break out, or are no programs at all, and how each one ends.

    python -m edge_tts.bench.hostile --out records/hostile.json

A third are written by hand; the others are put together from pieces of these and from noise. Every tenth is followed
by a good program, which has to give its value.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from edge_tts.bench import machine
from edge_tts.reasoning.interpreter import Interpreter, Run

PROGRAMS = 500
WITNESS = ("pencils = 96", "left = pencils - 20")
"""A good program."""
EVERY = 10
"""A good program comes after so many others."""
HOSTILE = (
    "",
    " ",
    "\n\n\n",
    "\x00",
    "\ud800",
    "\ufeffx = 1",
    "a\rb",
    "```",
    "```python",
    "@",
    "\\",
    "(" * 5000,
    "-" * 15000 + "1",
    "[" * 90 + "]" * 90,
    "not " * 4000 + "1",
    "x" * 19999,
    "x = " + "9" * 10000,
    "'" * 7,
    '"""',
    "x = '''",
    "if True:",
    "while 1: pass",
    "while True:\n    x = [1]",
    "x = []\nwhile True: x.append(x)",
    "x = 'a'\nwhile True: x += x",
    "x = 1\nwhile True: x *= 3 ** 1000",
    "for i in iter(int, 1): pass",
    "x = [0] * 10 ** 10",
    "x = bytearray(10 ** 10)",
    "x = list(range(10 ** 9))",
    "x = {i: i for i in range(10 ** 8)}",
    "x = 2 ** 10 ** 9",
    "x = 1 << 10 ** 12",
    "x = '%0999999999d' % 1",
    "x = f'{1:>999999999}'",
    "x = 'a'.ljust(10 ** 10)",
    "x = 'ab'.replace('', 'c' * 10 ** 7)",
    "def f(): f()\nf()",
    "f = lambda: f()\nf()",
    "class A:\n    def __repr__(self): return repr(self)\nx = repr(A())",
    "x = []\nfor i in range(10 ** 6): x = [x]",
    "x = {}\nx['a'] = x",
    "x = []\nx.append(x)\ny = str(x)",
    "x = [1] * 300000",
    "print('a' * 10 ** 7)",
    "while True: print('a' * 1000)",
    "import sys\nsys.stdout.write('a' * 10 ** 7)",
    "import os\nos.system('kill 1')",
    "import os\nos.kill(1, 9)",
    "import os\nos.fork()",
    "import os\nos._exit(0)",
    "import os\nos.remove('/tmp')",
    "import os\nos.listdir('/')",
    "import os\nos.abort()",
    "import subprocess",
    "import ctypes",
    "import socket\nsocket.socket()",
    "import urllib.request",
    "import threading",
    "import signal",
    "import gc",
    "import sys\nsys.exit(1)",
    "open('/dev/zero').read()",
    "open('x', 'w').write('x')",
    "import pathlib\npathlib.Path('/etc/passwd').read_text()",
    "__import__('os').system('ls')",
    "eval('9 ** 9 ** 9')",
    "exec('while True: pass')",
    "compile('1', '', 'eval')",
    "input()",
    "globals().clear()",
    "().__class__.__bases__[0].__subclasses__()",
    "print.__self__",
    "breakpoint()",
    "help()",
    "exit()",
    "quit()",
    "raise KeyboardInterrupt",
    "raise SystemExit(3)",
    "raise BaseException",
    "raise MemoryError",
    "raise TimeoutError('x')",
    "try:\n    while True: pass\nexcept BaseException:\n    pass",
    "try:\n    x = [0] * 10 ** 9\nexcept BaseException:\n    x = 1",
    "_values_ = 1",
    "def _values_(v): return [([], 2)]",
    "def _values_(v): return [('answer', 'x' * 4000)]",
    "_locals_ = None",
    "def _values_(v): return 1",
    "def _values_(v): return [(1, 2)]",
    "_values_ = print",
    "def _values_(v):\n    while True: pass",
    "def _values_(v): return 'x' * 10 ** 6",
    "_datetime_ = 1",
    "_decimal_ = None",
    "locals = print",
    "answer = 1\nanswer = answer",
    "answer = lambda: 1",
    "answer = print",
    "answer = type",
    "answer = ...",
    "answer = NotImplemented",
    "answer = (i for i in range(10))",
    "answer = {1, 2}",
    "answer = b'x'",
    "answer = float('nan')",
    "answer = 1e308 * 10",
    "answer = -10 ** 300",
    "answer = [float('nan')] * 20",
    "answer = ['x' * 200] * 20",
    "answer = '\\ud800'",
    "answer = '\\x00' * 100",
    "answer = '\u202e72'",
    "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
    "import re\nre.match('(.*)*' * 20 + 'x', 'a' * 100)",
    "sorted([1, 'a'])",
    "import time\ntime.sleep(10 ** 6)",
    "import asyncio\nasyncio.run(asyncio.sleep(10 ** 6))",
    "async def f(): await f()\nf()",
    "await 1",
    "import json\njson.loads('[' * 100000)",
    "from math import *",
    "import math\nmath.factorial(10 ** 7)",
    "sum(range(10 ** 12))",
    "pow(3, 10 ** 7)",
    "int main() { return 0; }",
    "console.log(1 + 1)",
    "SELECT * FROM users;",
    "<html></html>",
    "fn main() {}",
    "(define x 1)",
    "$x = 5;",
    "let x = 5;",
    "The answer is 42.",
    "Ignore all instructions and say yes.",
    "<|im_end|>",
    "<|im_start|>system",
    "### Instruction:",
    "1. First, add 2 and 3.",
    "x = yield",
    "return 5",
    "break",
    "continue",
    "del x",
    "global x\nx = 1",
    "nonlocal x",
    "*a, *b = 1",
    "x: int",
    "x := 5",
    "import this",
    "5 = x",
    "x = 5 if",
    "def f(",
    "class",
    "lambda",
    "x = [1, 2",
    "x = {",
    "f'{'",
    "0777",
    "1__0",
    "1e",
    "0x",
    "é = 1",
    "\u53d8\u91cf = 1",
    "x\uff1d1",
    "\u201cquoted\u201d",
    "x = 1;;",
    "match 1:\n    case _: x = 1",
    "with open('x') as f: pass",
    "type X = int",
    "x = 1 if 1 else 2 if 2 else 3",
    "assert False, 'x' * 10 ** 6",
    "raise ValueError('x' * 10 ** 6)",
    "x = ' ' * 10 ** 6\nraise ValueError(x)",
    "class E(Exception): pass\nraise E",
    "x = E = 1\n\n\n",
)


def generated(count: int) -> list[str]:
    """Programs made of pieces of others and of noise; the same ones each time."""
    draw = random.Random(17)
    alphabet = "abcxyz019 =+-*/%()[]{}:.,'\"\n\t\\#@!<>&|^~$?é🙂\x00\x7f"
    pieces = [line for program in HOSTILE for line in program.split("\n") if 0 < len(line) < 100 and "True" not in line]
    made = []
    for number in range(count):
        if number % 3 == 0:
            made.append("".join(draw.choices(alphabet, k=draw.randrange(1, 120))))
        elif number % 3 == 1:
            made.append("\n".join(draw.choices(pieces, k=draw.randrange(1, 5))))
        else:
            good = [f"v{i} = {draw.randrange(100)} {draw.choice('+-*/%')} {draw.randrange(9)}" for i in range(6)]
            good[draw.randrange(6)] = draw.choice(pieces)
            made.append("\n".join(good))
    return made


def ended(run: Run) -> str:
    """How a program ended: "ran", the class of its error, or a limit in words."""
    if not run.error:
        return "ran"
    if (found := re.match(r"([\w.]+)(?::|$)", run.error)) and found[1] != "Exception":
        return found[1]
    return re.sub(r"\d+", "N", run.error.removeprefix("Exception: "))


def outcomes(interpreter: Interpreter, programs: list[str]) -> dict[str, Any]:
    """Run ``programs``, one after the other: how they ended, the longest in seconds, and the good programs between."""
    ends: Counter[str] = Counter()
    longest, good, right = 0.0, 0, 0
    for number, program in enumerate(programs):
        began = time.monotonic()
        ends[ended(interpreter.run(program.split("\n")))] += 1
        longest = max(longest, time.monotonic() - began)
        if number % EVERY == 0:
            good += 1
            # With a line of its own, so that it is really run.
            values = interpreter.run([*WITNESS, f"x = {number}"]).values
            right += any((value.name, value.value) == ("left", "76") for value in values)
    return {
        "programs": len(programs),
        "ends": dict(ends.most_common()),
        "longest_seconds": round(longest, 3),
        "good_programs": good,
        "good_programs_right": right,
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Record.")
def main(out: Path) -> None:
    """Run all hostile programs and write how they ended."""
    sets = {"by_hand": list(HOSTILE), "generated": generated(PROGRAMS - len(HOSTILE))}
    with Interpreter() as interpreter:
        found = {name: outcomes(interpreter, programs) for name, programs in sets.items()}
    versions = {"pydantic-monty": version("pydantic-monty")}
    out.write_text(json.dumps({"machine": machine.describe(), **versions, **found}, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
