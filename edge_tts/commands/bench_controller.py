"""``edge-reason bench controller``, ``escalation`` and ``plot``: fitted on, and measured with, pools of samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_tts.errors import InputError

if TYPE_CHECKING:
    from edge_tts.bench.controller_replay import Problem
    from edge_tts.bench.escalation_study import Side
    from edge_tts.reasoning.formats import FormatName
    from edge_tts.search.fit import Fit

_MOST = click.option("--most", type=click.IntRange(2), default=16, show_default=True, help="Samples of a whole vote.")
_DATA = click.option("--data", help="The study's problems: votes then weigh what the program verifier gives programs.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")


@click.command("controller")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--other", type=click.Path(path_type=Path), default=None, help="The same problems, --format text.")
@_DATA
@_MOST
@click.option("--check", type=click.Path(path_type=Path), default=None, help="Measure this fit instead of making one.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The fit, or what was measured, as JSON.")
@_JSON
def controller_command(
    study: Path, other: Path | None, data: str | None, most: int, check: Path | None, out: Path, as_json: bool
) -> None:
    """Fit confidence and stopping to the samples of STUDY. Use problems that no result is reported on.

    With --check, say what a fit made on other problems brings on STUDY's.
    """
    from edge_tts.bench import controller_fit
    from edge_tts.bench.records import read_config
    from edge_tts.files.atomic import write_text

    config = read_config(study)
    usual = config["reasoning_format"]
    made = origin(config)
    problems = _problems(study, other, data, held_out=check is None)
    if check is None:
        fitted = controller_fit.fit(problems, most, "text" if other else None)
        evidence, content = fitted[1], controller_fit.to_json({usual: fitted}, made)
    else:
        found = _fit_in(check, usual, study)
        _require_scores(found, problems)
        evidence = controller_fit.measure(problems, found, most)
        content = {**made, "fit": check.name, **evidence}
    write_text(out, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    click.echo(json.dumps(evidence) if as_json else "\n".join(_controller_lines(evidence)))


def origin(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a fit says of the study it was made on."""
    return {name: config.get(name) for name in ("pack", "data", "sampling", "made_on")}


def _controller_lines(evidence: Mapping[str, Any]) -> list[str]:
    found = evidence["controller"]
    lines = [
        f"{evidence['problems']} problems: {found['accuracy']['value']:.1%} right with {found['samples']:g} samples "
        f"and {found['tokens']:g} tokens; calibration error {found['expected_calibration_error']:.3f}"
    ]
    for name, row in evidence["against"].items():
        gain = row["gain"]
        lines.append(
            f"against {name}: {row['accuracy']:.1%} right, {row['times_the_tokens']:g} times the tokens; "
            f"gain {gain['value']:+.1%} ({gain['low']:+.1%} to {gain['high']:+.1%})"
        )
    return lines


@click.command("escalation")
@click.argument("small", type=click.Path(path_type=Path))
@click.argument("large", type=click.Path(path_type=Path))
@click.option("--fit", type=click.Path(path_type=Path), default=None, help="The small model's; default: as shipped.")
@click.option("--larger-fit", type=click.Path(path_type=Path), default=None, help="The same of the larger model.")
@_DATA
@_MOST
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The curve, as JSON.")
@_JSON
def escalation_command(
    small: Path,
    large: Path,
    fit: Path | None,
    larger_fit: Path | None,
    data: str | None,
    most: int,
    out: Path,
    as_json: bool,
) -> None:
    """What handing unsure questions of SMALL over to LARGE brings: two studies of the same problems.

    Accuracy, tokens and FLOPs against the share handed over, and where that equals the larger model alone.
    """
    from edge_tts.bench.escalation_study import escalate
    from edge_tts.bench.records import read_config
    from edge_tts.files.atomic import write_text

    found = escalate(_side(small, fit, data, most), _side(large, larger_fit, data, most))
    named = {"small": read_config(small).get("pack"), "large": read_config(large).get("pack")}
    content = {**named, "data": read_config(large).get("data"), **found}
    write_text(out, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    click.echo(json.dumps(content) if as_json else "\n".join(_escalation_lines(content)))


def _escalation_lines(content: Mapping[str, Any]) -> list[str]:
    alone = content["larger_alone"]
    lines = [f"{content['problems']} problems: {content['large']} alone {alone['accuracy']['value']:.1%}"]
    for point in content["curve"]:
        below = "all" if point["below"] is None else f"below {point['below']:.0%}"
        lines.append(
            f"{below}: {point['share']:.0%} handed over, {point['accuracy']['value']:.1%} right, "
            f"{point['times_the_flops_of_the_larger']:g} times the FLOPs of the larger alone"
        )
    equal = content["equals_the_larger"]
    lines.append(
        f"as good as the larger alone from {equal['share']:.0%} handed over, for "
        f"{equal['times_the_flops_of_the_larger']:g} times its FLOPs"
        if equal
        else "nowhere as good as the larger alone"
    )
    return lines


@click.command("plot")
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the plots, as SVG and PNG.")
def plot_command(record: Path, out: Path) -> None:
    """Draw what `controller` or `escalation` wrote: reliability, accuracy against tokens, the curve of escalation."""
    from edge_tts.bench.controller_plots import draw
    from edge_tts.packs.manifest import read_json

    for panel in draw(read_json(record), out):
        click.echo(f"{panel.svg}: {panel.alt}")


def _problems(study: Path, other: Path | None, data: str | None, held_out: bool) -> list[Problem]:
    """The problems of a study; with ``data``, which has their texts, programs are scored."""
    from edge_tts.bench import controller_replay, datasets, program_scores
    from edge_tts.packs.bare_model import PROGRAM_VERIFIER
    from edge_tts.packs.manifest import read_json

    problems = controller_replay.read(study, other)
    if data is None:
        return problems
    questions = {problem.id: problem.question for problem in datasets.load(data).problems}
    return program_scores.scored(problems, questions, read_json(PROGRAM_VERIFIER), held_out)


def _require_scores(fit: Fit, problems: Sequence[Problem]) -> None:
    from edge_tts.bench.controller_replay import are_scored

    if fit.calibration.weighs_scores and not are_scored(problems):
        raise InputError("the fit weighs scores and the study's samples have none; give its problems with --data")


def _side(study: Path, fit: Path | None, data: str | None, most: int) -> Side:
    from edge_tts.bench.controller_replay import are_scored
    from edge_tts.bench.escalation_study import Side
    from edge_tts.bench.records import read_config
    from edge_tts.packs.bare_model import FITS
    from edge_tts.search.fit import Fit

    config = read_config(study)
    shipped = FITS / f"{config.get('pack')}.json"
    chosen = fit or (shipped if shipped.exists() else None)
    found = _fit_in(chosen, config["reasoning_format"], study) if chosen else Fit()
    parameters = config.get("policy_parameters")
    if not isinstance(parameters, int):
        raise InputError(f"{study}/study.json does not say how many parameters its model has; draw the study again")
    problems = _problems(study, None, data, held_out=False)
    _require_scores(found, problems)
    return Side(problems, found.controller(most, are_scored(problems)), parameters)


def _fit_in(file: Path, format: FormatName, study: Path) -> Fit:
    from edge_tts.packs.manifest import read_json
    from edge_tts.search.fit import parse

    fits = parse(read_json(file))
    if format not in fits:
        raise InputError(f"{file} has no fit for the format {format!r} of {study}; it has {', '.join(fits)}")
    return fits[format]
