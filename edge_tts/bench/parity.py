"""Greedy answers of this runtime beside those of llama-cpp-python's own chat completion: same file, template, prompt.

    python -m edge_tts.bench.parity --model NAME_OR_GGUF --data FILE --first 60 --out records/parity.json

Both sides decode at temperature 0, one sequence at a time, with flash attention and equal batches of the prompt: other
batches add floats in other orders, so that near ties go either way. Where texts part, the record has the gap between
the logits of the two tokens as llama-cpp-python saw them. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_tts.answers.equivalence import equivalent, is_correct
from edge_tts.bench import machine
from edge_tts.bench.engine import sound_kernels
from edge_tts.core import Request, Sampling, Trace
from edge_tts.export import command
from edge_tts.questions.reading import Question, read_questions
from edge_tts.reasoning.answer_reading import read_answer
from edge_tts.reasoning.formats import AskedText
from edge_tts.runtimes.config import EngineConfig
from edge_tts.solver import Solver

TIE = 1e-3
"""Logits closer than this are a tie."""
TOP = 64
"""Logits of a step that are kept."""


@dataclass(frozen=True)
class Written:
    """A greedy text of the reference."""

    tokens: tuple[int, ...]
    """As they were drawn, without the end token."""
    answer: str | None
    logits: tuple[dict[int, float], ...]
    """For each step, the largest logits by token."""


class Reference:
    """llama-cpp-python's own chat completion."""

    def __init__(self, path: Path, engine: EngineConfig) -> None:
        """With the context, batch size, cache and threads of ``engine``: other batches round otherwise."""
        import llama_cpp

        with sound_kernels():
            self._llama = llama_cpp.Llama(
                str(path),
                n_ctx=engine.context,
                n_batch=engine.micro_batch,
                n_ubatch=engine.micro_batch,
                n_threads=engine.threads,
                n_threads_batch=engine.threads,
                flash_attn=True,
                verbose=False,
            )

    def complete(self, asked: AskedText, prompt: Sequence[int], max_tokens: int) -> Written:
        """The answer to what is ``asked``, whose prompt has the tokens ``prompt`` on both sides."""
        import llama_cpp

        seen: list[int] = []
        logits: list[dict[int, float]] = []

        def look(tokens: NDArray[np.intc], scores: NDArray[np.single]) -> NDArray[np.single]:
            seen[:] = tokens.tolist()
            top = np.argpartition(scores, -TOP)[-TOP:]
            logits.append(dict(zip(top.tolist(), scores[top].tolist(), strict=True)))
            return scores

        messages: Any = [asdict(message) for message in asked.turns]
        reply: Any = self._llama.create_chat_completion(
            messages, temperature=0, max_tokens=max_tokens, logits_processor=llama_cpp.LogitsProcessorList([look])
        )
        if seen[: len(prompt)] != list(prompt):
            raise AssertionError(f"the prompts differ: {list(prompt)} and {seen[: len(prompt)]}")
        choice = reply["choices"][0]
        drawn = [*seen[len(prompt) :], max(logits[-1], key=logits[-1].__getitem__)]
        is_cut = choice["finish_reason"] == "length"
        answer = read_answer(choice["message"]["content"], asked.messages[-1].content, "math", is_cut=is_cut)
        return Written(tuple(drawn if is_cut else drawn[:-1]), answer, tuple(logits))


@dataclass(frozen=True)
class Compared:
    """One problem on both sides."""

    id: str
    ours: str | None
    theirs: str | None
    same_answer: bool
    right: tuple[bool, bool]
    tokens: int
    """Of the shorter text."""
    same_tokens: int
    """Until the first difference."""
    gap: float | None
    """Between the logits of the two tokens at the first difference, as the reference saw them, at least; None where
    there is none."""


def ours(solver: Solver, asked: AskedText, max_tokens: int) -> tuple[Trace, int]:
    """The greedy trace of what is ``asked``, and how many of its tokens are its prompt."""
    prompt = asked.prompt(solver.policy)
    trace = Trace(prompt)
    for event in solver.policy.generate(
        [Request(prompt, 0, Sampling(0, max_tokens=max_tokens), delimiter=asked.delimiter)]
    ):
        trace = asked.extended(trace, event)
    return trace, len(prompt)


def compare(question: Question, trace: Trace, prompt: int, written: Written) -> Compared:
    mine, theirs = trace.tokens[prompt:], written.tokens
    length = min(len(mine), len(theirs))
    same = next((i for i in range(length) if mine[i] != theirs[i]), length)
    gap = None
    if same < length:
        top = written.logits[same]
        gap = round(top[theirs[same]] - top.get(mine[same], min(top.values())), 4)
    answers = (trace.answer, written.answer)
    equal = answers[0] == answers[1] or (None not in answers and equivalent(answers[0] or "", answers[1] or ""))
    right = (is_correct(answers[0], question.answer or ""), is_correct(answers[1], question.answer or ""))
    return Compared(question.id, *answers, equal, right, length, same, gap)


def summary(rows: Sequence[Compared]) -> dict[str, Any]:
    decided = [row for row in rows if row.gap is None or row.gap > TIE]
    return {
        "problems": len(rows),
        "same_answer": sum(row.same_answer for row in rows),
        "same_text": sum(row.gap is None for row in rows),
        "right": [sum(row.right[side] for row in rows) for side in (0, 1)],
        "parted_at_a_tie": len(rows) - len(decided),
        "largest_gap": max((row.gap for row in rows if row.gap is not None), default=None),
        "same_tokens": sum(row.same_tokens for row in decided) / max(1, sum(row.tokens for row in decided)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="GGUF, catalogue name or hub id")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with question and answer")
    parser.add_argument("--first", type=int, default=60, help="problems to take")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    questions = read_questions(options.data)[: options.first]
    most = options.max_tokens
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    with Solver(model=options.model, memory_mb=4096, generations=1, max_tokens=most) as solver:
        name, engine = solver.pack.title, solver.plan.engine
        before = known.get(name, {})
        rows = {row["id"]: Compared(**row) for row in before.get("rows", ()) if before.get("max_tokens") == most}
        reference = Reference(solver.pack.policy_path, engine)
        for number, question in enumerate(questions, 1):
            if question.id in rows:
                continue
            asked = solver.asked(question.question, "math", "text")
            assert isinstance(asked, AskedText)
            trace, prompt = ours(solver, asked, most)
            written = reference.complete(asked, trace.tokens[:prompt], most)
            rows[question.id] = compare(question, trace, prompt, written)
            compared = [rows[one.id] for one in questions if one.id in rows]
            known[name] = {
                "model": name,
                "made_on": machine.describe(),
                "engine": asdict(engine),
                "max_tokens": most,
                "summary": summary(compared),
                "rows": [asdict(row) for row in compared],
            }
            options.out.write_text(json.dumps(known, indent=1) + "\n")
            print(f"{number} of {len(questions)}: {summary(compared)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(command.run(main))
