"""Whether a PRM can be used: it is loaded with its tokenizer and scores a trace."""

from __future__ import annotations

import json
import sys
from contextlib import closing, suppress
from pathlib import Path

from edge_tts.errors import EdgeError
from edge_tts.runtimes import trial

_QUESTION, _TRACE = "Tom has 3 boxes of 8 pencils. How many pencils are there?", ("3*8=24", "#### 24")


def prm_problems(model: Path, tokenizer: Path) -> list[str]:
    """One sentence for each reason why the PRM ``model`` cannot be used with ``tokenizer``; none if it can.

    It is tried in a process of its own, where there is an interpreter to start: on some damaged files ONNX Runtime ends
    the whole process.
    """
    if not trial.can_run():
        return tried(model, tokenizer)
    said, end = trial.run(__name__, str(model), str(tokenizer))
    if end:
        return [f"{model} is damaged: ONNX Runtime ends with {end} when it loads or runs it"]
    with suppress(ValueError):
        return [str(problem) for problem in json.loads(said)]
    return [f"{model} cannot be tried: the process that should do so failed; see `edge-reason doctor`"]


def tried(model: Path, tokenizer: Path) -> list[str]:
    """The same, tried in this process."""
    from edge_tts.runtimes.onnx_verifier import OnnxVerifier

    try:
        with closing(OnnxVerifier(model, tokenizer, device="cpu", threads=1)) as verifier:
            (scored,) = verifier.score(_QUESTION, [_TRACE])
    except EdgeError as error:
        return [str(error)]
    if len(scored.scores) != len(_TRACE) or not all(0 <= score <= 1 for score in scored.scores):  # False for NaN
        return [f"{model} gives a trace of {len(_TRACE)} steps the scores {scored.scores}, which must be in [0, 1]"]
    return []


if __name__ == "__main__":
    trial.without_core_dump()
    print(json.dumps(tried(Path(sys.argv[1]), Path(sys.argv[2]))))
