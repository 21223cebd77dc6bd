"""Records of strategies over pools that were drawn before: no model is loaded and nothing is sampled again.

``python -m edge_tts.bench.pool_records STUDY --data FILE`` writes the records of a study of a chat model anew, with
every strategy that chooses among its samples and with ``auto`` as the catalogue ships it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from edge_tts.bench.datasets import load
from edge_tts.bench.pool import read_pools
from edge_tts.bench.records import CONFIG, RECORDS, REPLAYED, SAMPLES, Record, compressed, read_config, stored
from edge_tts.bench.replay import Replay
from edge_tts.bench.study import choose
from edge_tts.core import ModelInfo, Sampling
from edge_tts.errors import InputError
from edge_tts.files.atomic import building, publish, write_text
from edge_tts.packs import catalogue
from edge_tts.packs.bare_model import catalogued
from edge_tts.questions.reading import Question
from edge_tts.reasoning.chat_template import ChatTemplate
from edge_tts.reasoning.formats import Asked, AskedText
from edge_tts.reasoning.interpreter import Interpreter, Limits
from edge_tts.reasoning.messages import Message
from edge_tts.reasoning.program_format import MOST_SECONDS, AskedProgram
from edge_tts.runtimes.program_verifier import ProgramVerifier, SignWeights
from edge_tts.search.call import AUTO, Format
from edge_tts.search.fit import parse

VOTES = ("majority", "adaptive")
SCORED = ("weighted", "best-of-n")
"""Where programs are scored."""
CONTEXT = 32_768
"""No sample is cut by it: those of a pool ended within the context they were drawn in."""


def pool_records(folder: Path, config: Mapping[str, Any], problems: Mapping[str, Question]) -> Iterator[Record]:
    """What strategies choose from the pools of a chat model's study at its budgets, and what that costs.

    ``problems`` are those of the study by id. Seconds are not known. Raises InputError for a damaged file, for a study
    of another kind, and for a problem that is missing.
    """
    seeds, budgets = int(config.get("seeds", 1)), tuple(config.get("budgets", ()))
    patient = Limits(seconds=MOST_SECONDS)  # the same outcome on a busy machine
    with closing(Interpreter(patient)) as interpreter:
        replay, format = _replay(config, interpreter), _format(config)
        names = (*VOTES, *(SCORED if replay.programs and format == "program" else ()), AUTO)
        for pool in read_pools(stored(folder / SAMPLES), lambda _, seed: 0 <= seed < seeds):
            if pool.id not in problems:
                raise InputError(f"--data lacks problem {pool.id} of the study; give the file that it was made with")
            cells = [(name, budget) for name in names for budget in budgets if budget <= len(pool.samples)]
            greedy = [("greedy", 1)] if pool.greedy else []
            yield from choose(replay, problems[pool.id], pool, [*greedy, *cells], format)


def _format(config: Mapping[str, Any]) -> Format:
    name = config.get("reasoning_format")
    if name not in ("program", "text"):
        raise InputError(f"only studies of programs or texts are replayed, and this one is of {name!r}; run it again")
    return "program" if name == "program" else "text"


def _replay(config: Mapping[str, Any], interpreter: Interpreter) -> Replay:
    """What the solver of the study's model would do; a model that the catalogue does not have brings nothing."""
    name, device = str(config.get("pack")), config.get("device") or {}
    entry = catalogue.entries().get(name)
    pack = catalogued(entry) if entry else None
    template = ChatTemplate(None, "", "", False)
    signs = pack.program_verifier if pack else None

    def ask(question: str, format: Format) -> Asked:
        messages = (Message("user", question),)
        if format == "program":
            return AskedProgram.of(template, messages, interpreter)
        return AskedText.of(template, messages)

    return Replay(
        ModelInfo(name, config.get("policy_parameters") or 0, CONTEXT, str(device.get("policy")), "replayed"),
        int(device.get("width", 1)),
        Sampling(**{**config.get("sampling", {}), "stop": ()}),
        ask,
        programs=ProgramVerifier(SignWeights.parse(signs)) if signs else None,
        fits=parse(pack.controller if pack else None),
    )


def write(folder: Path, data: str) -> int:
    """Write the records and settings of the study in ``folder`` anew, from its pools; gives how many records."""
    config = read_config(folder)
    problems = {problem.id: problem for problem in load(data).problems}
    records = list(pool_records(folder, config, problems))
    names = list(dict.fromkeys(record.strategy for record in records))
    lines = "".join(json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in records)
    target = compressed(folder / RECORDS)
    with building(folder) as temporary:
        (temporary / target.name).write_bytes(gzip.compress(lines.encode(), mtime=0))
        publish(temporary / target.name, target)
    (folder / RECORDS).unlink(missing_ok=True)
    settings = {**config, "strategies": names, REPLAYED: True}
    write_text(folder / CONFIG, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    return len(records)


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="The study's problems: JSON lines with answers.")
def command(study: Path, data: str) -> None:
    """Write the records of STUDY anew, from its samples."""
    click.echo(f"{write(study, data)} records in {study}")


if __name__ == "__main__":
    command()
