"""Greedy answers of this runtime beside those of llama-cpp-python's own chat completion: same file, template, prompt.

    python -m edge_tts.bench.parity --model NAME_OR_GGUF --data FILE --first 60 --out records/parity.json

Both sides decode at temperature 0, with flash attention and equal batches of the prompt. ``--width 1`` (the default)
decodes one sequence at a time, as the other side does; wider batches add floats in other orders, so that near ties go
either way. Where texts part, the record has the gap between the logits of the two tokens, from one evaluation of what
both had written so far.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_tts.answers.equivalence import equivalent, is_correct
from edge_tts.bench import machine
from edge_tts.core import Request, Sampling, Trace
from edge_tts.export import command
from edge_tts.questions.reading import Question, read_questions
from edge_tts.reasoning.answer_reading import read_answer
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.text_format import ask
from edge_tts.runtimes.config import EngineConfig
from edge_tts.solver import Solver

TIE = 1e-3
"""Logits closer than this are a tie."""


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
    """Between the logits of the two tokens at the first difference; None where there is none."""


def ours(solver: Solver, questions: Sequence[Question], max_tokens: int) -> list[Trace]:
    """Greedy traces of all questions, decoded together."""
    asked = [solver.asked(question.question, "math", "text") for question in questions]
    sampling = Sampling(0, max_tokens=max_tokens)
    requests = [Request(one.prompt(solver.policy), 0, sampling, delimiter=one.delimiter) for one in asked]
    traces = [Trace(request.tokens) for request in requests]
    for event in solver.policy.generate(requests):
        traces[event.request] = asked[event.request].extended(traces[event.request], event)
    return traces


class Reference:
    """llama-cpp-python's own chat completion."""

    def __init__(self, path: Path, context: int, engine: EngineConfig) -> None:
        """With the batch size, cache and threads of ``engine``: other batches round otherwise."""
        import llama_cpp

        self._llama = llama_cpp.Llama(
            str(path),
            n_ctx=context,
            n_batch=engine.micro_batch,
            n_ubatch=engine.micro_batch,
            n_threads=engine.threads,
            n_threads_batch=engine.threads,
            flash_attn=True,
            verbose=False,
        )

    def complete(self, question: str, max_tokens: int) -> tuple[str, str]:
        """The text and its finish reason."""
        messages: Any = [asdict(message) for message in ask((Message("user", question),), "math")]
        reply: Any = self._llama.create_chat_completion(messages, temperature=0, max_tokens=max_tokens)
        choice = reply["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]

    def tokens(self, text: str) -> list[int]:
        found: list[int] = self._llama.tokenize(text.encode(), add_bos=False, special=False)
        return found

    def gap(self, prefix: Sequence[int], a: int, b: int) -> float:
        """Difference between the logits of tokens ``a`` and ``b`` after ``prefix``."""
        self._llama.reset()  # type: ignore[no-untyped-call]
        self._llama.eval(list(prefix))
        logits = np.asarray(self._llama._ctx.get_logits_ith(-1)[: self._llama.n_vocab()])
        return float(abs(logits[a] - logits[b]))


def compare(question: Question, trace: Trace, prompt: int, reference: Reference, max_tokens: int) -> Compared:
    text, finish = reference.complete(question.question, max_tokens)
    answer = read_answer(text, question.question, "math", is_cut=finish == "length")
    mine, theirs = list(trace.tokens[prompt:]), reference.tokens(text)
    length = min(len(mine), len(theirs))
    same = next((i for i in range(length) if mine[i] != theirs[i]), length)
    gap = reference.gap(trace.tokens[: prompt + same], mine[same], theirs[same]) if same < length else None
    equal = answer == trace.answer or (
        answer is not None and trace.answer is not None and equivalent(answer, trace.answer)
    )
    right = tuple(is_correct(found, question.answer or "") for found in (trace.answer, answer))
    return Compared(question.id, trace.answer, answer, equal, right, length, same, gap)  # type: ignore[arg-type]


def summary(rows: Sequence[Compared]) -> dict[str, Any]:
    decided = [row for row in rows if row.gap is None or row.gap > TIE]
    return {
        "problems": len(rows),
        "same_answer": sum(row.same_answer for row in rows),
        "right": [sum(row.right[side] for row in rows) for side in (0, 1)],
        "parted_at_a_tie": len(rows) - len(decided),
        "same_tokens": sum(row.same_tokens for row in decided) / max(1, sum(row.tokens for row in decided)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="GGUF, catalogue name or hub id")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with question and answer")
    parser.add_argument("--first", type=int, default=60, help="problems to take")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--width", type=int, default=1, help="sequences that this runtime decodes together")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    questions = read_questions(options.data)[: options.first]
    with Solver(
        model=options.model, memory_mb=4096, generations=options.width, max_tokens=options.max_tokens
    ) as solver:
        began = time.monotonic()
        traces = ours(solver, questions, options.max_tokens)
        seconds = time.monotonic() - began
        prompts = [len(solver.asked(q.question, "math", "text").prompt(solver.policy)) for q in questions]
        path, name, engine = solver.pack.policy_path, solver.pack.title, solver.plan.engine
    reference = Reference(path, max(len(trace.tokens) for trace in traces) + options.max_tokens, engine)
    began = time.monotonic()
    rows = []
    for question, trace, prompt in zip(questions, traces, prompts, strict=True):
        rows.append(compare(question, trace, prompt, reference, options.max_tokens))
        print(f"{len(rows)} of {len(questions)}: {summary(rows)}", file=sys.stderr)
    record = {
        "model": name,
        "made_on": machine.describe(),
        "width": options.width,
        "seconds": {"ours": round(seconds, 1), "reference": round(time.monotonic() - began, 1)},
        "summary": summary(rows),
        "rows": [asdict(row) for row in rows],
    }
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.write_text(json.dumps({**known, name: record}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(command.run(main))
