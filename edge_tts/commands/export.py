"""``edge-reason export``: quantise models into the parts of a pack. Needs the extra ``export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_tts.commands.progress import progress_bar
from edge_tts.errors import InputError, ResourceError

if TYPE_CHECKING:
    from edge_tts.export.graph_quantisation import Quant
    from edge_tts.export.policy_measurements import LadderMeasurements, Task

_FILE = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Turn models into parts of a pack, and measure what quantising cost."""


@command.command()
@click.argument("source")
@click.option("--quant", "quants", multiple=True, required=True, help="Q4_0, Q8_0, Q4_K_M ...; several make a ladder.")
@click.option("--out", type=_FILE, required=True, help="Folder for the rungs; finished ones are kept.")
@click.option("--lora", type=_FILE, help="PEFT adapter to merge first.")
@click.option("--imatrix", type=_FILE, help="Text file to measure an importance matrix on, for better quantisation.")
@click.option("--text", type=_FILE, help="Text file to compare next-token distributions on.")
@click.option("--problems", type=_FILE, help='JSON lines with "question" and "answer".')
@click.option("--first", type=click.IntRange(1), default=50, show_default=True, help="How many of the problems.")
@click.option("--prompts", type=_FILE, help="JSON with prompt templates, as for `pack build`.")
@click.option("--calculator", is_flag=True, help="Write results of equations for the policy.")
@click.option("--profile", default=None, help="Device to recommend a rung for; detected by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def policy(
    source: str,
    quants: tuple[str, ...],
    out: Path,
    lora: Path | None,
    imatrix: Path | None,
    text: Path | None,
    problems: Path | None,
    first: int,
    prompts: Path | None,
    calculator: bool,
    profile: str | None,
    as_json: bool,
) -> None:
    """Write SOURCE (a Hugging Face folder, a hub id or a .gguf) as GGUF, one file for each --quant."""
    from edge_tts.profiles.loader import detect, load

    _require_extra()
    from edge_tts.export import ladder, policy_measurements
    from edge_tts.packs.manifest import POLICY_ACCOUNT

    device = load(profile) if profile else detect()[0]
    content = _read_text(text, "--text") if text else None
    important = _read_text(imatrix, "--imatrix") if imatrix else None
    task = _task(problems, first, prompts, calculator) if problems else None
    with progress_bar() as progress:
        files = ladder.build(source, quants, out, lora, important, progress)
        measured = policy_measurements.measure_ladder(files, device, content, task, progress=progress)
    (out / POLICY_ACCOUNT).write_text(json.dumps(measured.to_dict(), indent=1) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(measured.to_dict()))
    else:
        _show(measured)


@command.command()
@click.argument("source")
@click.option("--out", type=_FILE, required=True, help="Folder for prm.onnx, tokenizer.json and the measurements.")
@click.option("--quant", type=click.Choice(["fp32", "fp16", "int8", "int4"]), default="int8", show_default=True)
@click.option("--head", default="auto", show_default=True, help="Kind of reward head, where it is not recognised.")
@click.option("--traces", type=_FILE, help='JSON lines with "question" and "steps" to compare scores on.')
@click.option("--min-spearman", type=click.FloatRange(-1, 1), default=0.98, show_default=True)
@click.option("--max-mean-error", type=click.FloatRange(0, 1), default=0.05, show_default=True)
@click.option("--max-f1-loss", type=click.FloatRange(0, 1), default=0.02, show_default=True)
@click.option("--max-accuracy-loss", type=click.FloatRange(0, 1), default=0.02, show_default=True)
@click.option("--force", is_flag=True, help="Write it even where it misses a threshold; the measurements say so.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON on one line.")
def prm(
    source: str,
    out: Path,
    quant: Quant,
    head: str,
    traces: Path | None,
    min_spearman: float,
    max_mean_error: float,
    max_f1_loss: float,
    max_accuracy_loss: float,
    force: bool,
    as_json: bool,
) -> None:
    """Write the process reward model SOURCE (a Hugging Face folder, a hub id or a training run) as ONNX."""
    _require_extra()
    from edge_tts.export.checkpoint import locate
    from edge_tts.export.prm_export import export_prm
    from edge_tts.export.prm_measurements import Thresholds
    from edge_tts.export.trace_rows import read_rows

    thresholds = Thresholds(min_spearman, max_mean_error, max_f1_loss, max_accuracy_loss)
    rows = read_rows(traces, labelled=False) if traces else ()
    with progress_bar() as progress:
        measured = export_prm(locate(source), out, quant, head, rows, thresholds, force=force, progress=progress)
    click.echo(json.dumps(measured, indent=None if as_json else 1))


def _require_extra() -> None:
    try:
        import safetensors  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ResourceError(
            f"exporting needs {error.name}, which is not installed: pip install 'edge-reasoning-runtime[export]'"
        ) from error


def _read_text(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error}); give another {option}") from error


def _task(problems: Path, first: int, prompts: Path | None, calculator: bool) -> Task:
    from edge_tts.export.policy_measurements import Task
    from edge_tts.packs.build import read_prompts
    from edge_tts.questions.reading import read_questions
    from edge_tts.reasoning.prompts import CalculatorFormat

    questions = read_questions(problems)[:first]
    if missing := [q.id for q in questions if q.answer is None]:
        raise InputError(f"{problems}: problem {missing[0]} has no answer; accuracy needs one for each")
    return Task(questions, read_prompts(prompts), CalculatorFormat() if calculator else None)


def _show(measured: LadderMeasurements) -> None:
    from rich.console import Console
    from rich.table import Table

    from edge_tts.export.policy_measurements import WIDTHS

    table = Table()
    columns = ("rung", "MB", "perplexity", "KL (nats)", "same first", "right", "95% interval")
    for name in (*columns, *(f"tok/s at {width}" for width in WIDTHS)):
        table.add_column(name, justify="left" if name == "rung" else "right")
    for rung in measured.rungs:
        f, a = rung.fidelity, rung.accuracy
        table.add_row(
            rung.name,
            f"{rung.bytes / 1e6:.1f}",
            *((f"{f.perplexity:.2f}", f"{f.mean_kl:.4f}", f"{f.top1_agreement:.1%}") if f else ("-", "-", "-")),
            f"{a.right}/{a.problems}" if a else "-",
            f"{a.interval95[0]:.1%} to {a.interval95[1]:.1%}" if a else "-",
            *(f"{rung.tokens_per_s[width]:.0f}" for width in WIDTHS),
        )
    Console().print(table)
    click.echo(f"recommended: {measured.recommended}, {measured.reason}")
