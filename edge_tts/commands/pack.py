"""``edge-reason pack``: list, describe, verify, assemble, build and install packs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_tts.commands.progress import progress_bar
from edge_tts.errors import PackError

if TYPE_CHECKING:
    from edge_tts.packs.pack import Pack
    from edge_tts.reasoning.formats import FormatName

_FILE = click.Path(path_type=Path)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """List, check, build and install packs: a policy, its verifier, a strategy table and a manifest in one folder."""


@command.command("list")
@_AS_JSON
def list_packs(as_json: bool) -> None:
    """Show the built-in and installed packs."""
    from edge_tts.packs.pack import find_pack, pack_names

    rows: list[dict[str, str | None]] = []
    for name in pack_names():
        try:
            pack = find_pack(name)
            rows.append({"name": name, "version": pack.version, "licence": pack.licence, "state": _state(pack)})
        except PackError as error:
            rows.append({"name": name, "version": None, "licence": None, "state": f"damaged: {error}"})
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        click.echo(f"{row['name']:16} {row['version'] or '-':8} {row['licence'] or '-':12} {row['state']}")
    if not rows:
        click.echo("no packs")


@command.command()
@click.argument("name", required=False)
@_AS_JSON
def info(name: str | None, as_json: bool) -> None:
    """Describe the pack NAME (a name or a folder; the default pack if left out)."""
    from edge_tts.packs.pack import find_pack

    described = _description(find_pack(name))
    if as_json:
        _print_json(described)
        return
    click.echo(f"{described['name']} {described['version']}, {described['state']}")
    for name, lines in _readable(described).items():
        for number, line in enumerate(lines):
            click.echo(f"{'' if number else name:12} {line}")
    click.echo("--json prints everything")


@command.command()
@click.argument("name", required=False)
@_AS_JSON
def verify(name: str | None, as_json: bool) -> None:
    """Check every file of the pack NAME in full; exit code 3 when something is wrong."""
    from edge_tts.packs.pack import find_pack, pack_problems

    pack = find_pack(name)
    problems = pack_problems(pack)
    if as_json:
        _print_json({"name": pack.name, "folder": str(pack.folder), "ok": not problems, "problems": problems})
    else:
        for problem in problems:
            click.echo(problem)
        verdict = f"{len(problems)} problem(s)" if problems else "sound"
        click.echo(f"{pack.name} {pack.version}: {verdict} ({_state(pack)})")
    if problems:
        click.get_current_context().exit(PackError.exit_code)


@command.command()
@click.argument("name", required=False)
@click.option("--base", type=click.Path(path_type=Path), help="The base model's file; searched for if left out.")
def assemble(name: str | None, base: Path | None) -> None:
    """Assemble the pack NAME now instead of on first use."""
    from edge_tts.packs.pack import find_pack, prepare_pack

    with progress_bar() as progress:
        pack = prepare_pack(find_pack(name), progress, base)
    click.echo(f"{pack.name} {pack.version} is ready in {pack.folder}")


@command.command()
@click.option("--policy", type=_FILE, required=True, help="The policy, a GGUF file.")
@click.option("--prm", type=_FILE, help="The verifier, an ONNX file; needs --tokenizer.")
@click.option("--tokenizer", type=_FILE, help="The verifier's tokenizer.json.")
@click.option("--table", type=_FILE, help="Strategy table, a JSON file from `bench fit`.")
@click.option("--card", type=_FILE, help="Model card: data, licences, figures, limits.")
@click.option(
    "--format",
    type=click.Choice(("equations", "text", "program")),
    default="equations",
    show_default=True,
    help="How the policy reasons. A chat model: text, or program where it writes good programs for computations. A "
    "model fine-tuned for it: equations.",
)
@click.option(
    "--prompts",
    type=_FILE,
    help="Prompt templates for equations, a JSON object with any of: prompt, attempt, step_delimiter, answer_marker, "
    "end. A chat model has a template of its own.",
)
@click.option("--licence", required=True, help="SPDX expression, for example Apache-2.0.")
@click.option("--version", default="1.0.0", show_default=True)
@click.option(
    "--temperature", type=click.FloatRange(0), default=None, help="By default 0.8 for equations, 0.7 for a chat model."
)
@click.option(
    "--calculator",
    is_flag=True,
    help="Write the results of equations for the policy; it must have been trained that way.",
)
@click.option("--out", type=_FILE, required=True, help="New folder for the pack; its name becomes the pack's name.")
@click.option("--zip", "zipped", is_flag=True, help="Also write the pack as OUT.zip.")
def build(
    policy: Path,
    prm: Path | None,
    tokenizer: Path | None,
    table: Path | None,
    card: Path | None,
    format: FormatName,
    prompts: Path | None,
    licence: str,
    version: str,
    temperature: float | None,
    calculator: bool,
    out: Path,
    zipped: bool,
) -> None:
    """Build a pack from a policy and, if given, a verifier, a strategy table and prompts."""
    from edge_tts.packs.archive import write_zip
    from edge_tts.packs.build import PackFiles, PackSettings, build_pack, read_prompts, sampling_for
    from edge_tts.reasoning.prompts import CalculatorFormat

    files = PackFiles(policy, prm, tokenizer, table, card)
    notation = CalculatorFormat() if calculator else None
    templates = read_prompts(prompts) if prompts else None
    settings = PackSettings(licence, version, templates, notation, sampling_for(format, temperature), format)
    with progress_bar() as progress:
        pack = build_pack(files, settings, out.absolute(), progress)
        if zipped:
            write_zip(pack, pack.folder.with_name(f"{pack.name}.zip"), progress)
    click.echo(f"{pack.name} {pack.version} is in {pack.folder}{' and in ' + pack.name + '.zip' if zipped else ''}")


@command.command()
@click.argument("source", type=_FILE)
@click.option("--replace", is_flag=True, help="Replace an installed pack of the same name.")
def install(source: Path, replace: bool) -> None:
    """Install the pack in SOURCE, a zip file or a folder, so that it can be used by name."""
    from edge_tts.packs.archive import install_pack

    with progress_bar() as progress:
        pack = install_pack(source, replace, progress)
    click.echo(f"{pack.name} {pack.version} is installed in {pack.folder}")


def _state(pack: Pack) -> str:
    from edge_tts.packs.pack import is_assembled

    return f"ready in {pack.folder}" if is_assembled(pack) else "built in, assembled on first use"


def _description(pack: Pack) -> dict[str, Any]:
    from edge_tts.packs import manifest
    from edge_tts.packs.pack import is_assembled

    described: dict[str, Any] = {"name": pack.name, "version": pack.version, "licence": pack.licence}
    described |= {"state": _state(pack), "folder": str(pack.folder), "format": pack.reasoning}
    for part in ("policy", "verifier", "sampling", *(("prompts", "calculator") if pack.format == "equations" else ())):
        value = getattr(pack, part)
        described[part] = dataclasses.asdict(value) if value else None
    described["table"] = pack.table is not None
    described["controller"] = pack.controller is not None
    described["base"] = dataclasses.asdict(pack.recipe.base) if pack.recipe else None
    if manifest.VERIFIER_ACCOUNT in pack.files and is_assembled(pack):
        account = manifest.read_json(pack.folder / manifest.VERIFIER_ACCOUNT)
        described["verifier_account"] = {key: account.get(key) for key in ("quant", "good", "forced")}
    described["files"] = {file: record.bytes for file, record in pack.files.items()}
    return described


def _readable(described: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parts of a description in words, a list of lines for each."""
    policy, verifier, sampling = described["policy"], described["verifier"], described["sampling"]
    base = described["base"]
    drawn = f"temperature {sampling['temperature']:g}, at most {sampling['max_tokens']} tokens"
    parts = {
        "licence": [described["licence"]],
        "model": [f"{_network(policy)}, context of {policy['trained_context']} tokens"],
        "verifier": [f"{_network(verifier)}, up to {verifier['max_tokens']} tokens" if verifier else "none"],
        "sampling": [drawn + (f", the {sampling['top_k']} likeliest tokens" if sampling["top_k"] else "")],
        **_asked(described),
        "strategy": ["a table chooses by difficulty" if described["table"] else "a vote"],
        "confidence": ["fitted" if described["controller"] else "by the votes"],
    }
    if base:
        parts["made from"] = [f"{base['file']} ({_megabytes(base['bytes'])})", base["url"]]
    parts["files"] = [f"{name:20} {_megabytes(size):>8}" for name, size in described["files"].items()]
    return parts


def _asked(described: Mapping[str, Any]) -> dict[str, list[str]]:
    """How the policy is asked, in words."""
    if described["format"] != "equations":
        programs = described["format"] == "program"
        return {"format": ["a program for a computation, words for the rest" if programs else "words, step by step"]}
    prompts = described["prompts"]
    return {
        "prompt": prompts["prompt"].rstrip("\n").split("\n"),
        "answer": [f"behind {prompts['answer_marker'].strip()!r}"],
        "calculator": ["writes the results of equations" if described["calculator"] else "none"],
    }


def _network(shape: Mapping[str, Any]) -> str:
    from edge_tts.search.wording import amount

    return f"{amount(shape['parameters'])} parameters, {shape['layers']} layers, {_megabytes(shape['file_bytes'])}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1))
