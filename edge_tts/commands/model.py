"""``edge-reason model``: list, fetch, describe and remove models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_tts.commands.progress import progress_bar
from edge_tts.errors import InputError

if TYPE_CHECKING:
    from edge_tts.packs.catalogue import Entry, Model
    from edge_tts.packs.sources import HubFile

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
NOT_MEASURED = "not measured here"


@click.group()
def command() -> None:
    """Models known by name, and any GGUF on the Hugging Face hub."""


@command.command("list")
@_AS_JSON
def list_models(as_json: bool) -> None:
    """Show the models known by name, and which are on this machine."""
    from edge_tts.packs.catalogue import entries

    rows = [_row(entry) for entry in entries().values()]
    if as_json:
        _print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "params", "size", "here", "formats", "GSM8K, majority"):
        table.add_column(name, justify="right" if name in ("params", "size") else "left", no_wrap=name != "formats")
    for row in rows:
        size, parameters = f"{row['bytes'] / 1e6:.0f} MB", f"{row['parameters'] / 1e9:.1f}B"
        table.add_row(row["name"], parameters, size, row["here"], ", ".join(row["formats"]), row["measured"])
    Console(highlight=False).print(table)


@command.command()
@click.argument("name")
@_AS_JSON
def pull(name: str, as_json: bool) -> None:
    """Fetch the model NAME: a name of the list, or a hub id OWNER/REPO[:FILE]."""
    from edge_tts.packs import download

    model = _fetchable(name, "pulled")
    with progress_bar() as progress:
        path = download.pull(model, progress)
    if as_json:
        _print_json({"name": name, "path": str(path), "bytes": _total(path)})
    else:
        click.echo(f"{name} is in {path} ({_total(path) / 1e6:.0f} MB, verified)")


@command.command()
@click.argument("name")
@_AS_JSON
def info(name: str, as_json: bool) -> None:
    """Describe the model NAME: a name of the list, a hub id, or the path of a GGUF."""
    from edge_tts.packs.catalogue import resolve

    described = _description(resolve(name))
    if as_json:
        _print_json(described)
        return
    for key, value in described.items():
        for line in value if isinstance(value, list) else [value]:
            click.echo(f"{key:16} {line if isinstance(line, str) else json.dumps(line)}")


@command.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_AS_JSON
def remove(name: str, yes: bool, as_json: bool) -> None:
    """Delete the files of the model NAME from this machine, a begun download included."""
    from edge_tts.files.atomic import exclusive
    from edge_tts.packs import model_files

    model = _fetchable(name, "removed")
    path, begun = model_files.find(model), model_files.partly(model)
    if path is None and not begun:
        raise InputError(f"{name} is not on this machine; `edge-reason model list` shows what is")
    if not yes:
        what = f"{path} ({_total(path) / 1e6:.0f} MB)" if path else f"a begun download ({begun / 1e6:.0f} MB)"
        click.confirm(f"Delete {what}?", abort=True, err=True)
    with exclusive(model_files.work_folder(model)):
        freed = model_files.remove(model)
    if as_json:
        _print_json({"name": name, "freed_bytes": freed})
    else:
        click.echo(f"{name} is removed; {freed / 1e6:.0f} MB are free again")


def _fetchable(name: str, done: str) -> Entry | HubFile:
    from edge_tts.packs.catalogue import LocalModel, resolve

    model = resolve(name)
    if isinstance(model, LocalModel):
        raise InputError(f"{name} is a file of your own and is not {done}; give a catalogue name or a hub id")
    return model


def _row(entry: Entry) -> dict[str, Any]:
    from edge_tts.packs.model_files import find

    return {
        "name": entry.name,
        "parameters": entry.shape.parameters,
        "bytes": entry.size,
        "here": _here(entry),
        "path": str(found) if (found := find(entry)) else None,
        "formats": [format.name for format in entry.formats],
        "measured": _best_gsm8k(entry),
        "licence": entry.licence,
    }


def _here(model: Entry | HubFile) -> str:
    from edge_tts.packs.model_files import find, partly

    if find(model):
        return "yes"
    begun = partly(model)
    return f"{begun / 1e6:.0f} MB of it" if begun else "no"


def _best_gsm8k(entry: Entry) -> str:
    """The majority on the most GSM8K problems that were tried: fewer say less."""
    found = [
        (row.problems, f"{row.majority:g}% ({format.name})")
        for format in entry.formats
        for row in format.measured
        if row.task == "GSM8K" and row.majority is not None
    ]
    return max(found)[1] if found else NOT_MEASURED


def _description(model: Model) -> dict[str, Any]:
    from edge_tts.packs.catalogue import Entry, LocalModel
    from edge_tts.packs.model_files import find

    if isinstance(model, LocalModel):
        return _of_file(model.path)
    if not isinstance(model, Entry):
        found = find(model)
        return {"hub": str(model), "here": _here(model)} | (_of_file(found) if found else {})
    found = find(model)
    described: dict[str, Any] = {"name": model.name, "title": model.title, "licence": model.licence}
    described |= {"licence note": model.licence_note} if model.licence_note else {}
    described |= {"here": _here(model), "path": str(found) if found else None}
    described |= {"bytes": model.size, "sha256": model.sha256 or "checked against the hub's own"}
    described |= {"parameters": model.shape.parameters, "context": model.shape.trained_context}
    described["sampling"] = dataclasses.asdict(model.sampling)
    described["sources"] = [str(source) for source in model.sources]
    described["formats"] = [
        {"name": format.name, "measured": [_without_none(row) for row in format.measured] or NOT_MEASURED}
        for format in model.formats
    ]
    return described | ({"measured on": model.measured_on} if model.measured_on else {})


def _without_none(row: Any) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(row).items() if value is not None}


def _of_file(path: Path) -> dict[str, Any]:
    """What a GGUF says of itself."""
    from edge_tts.files.gguf_header import read_header

    header = read_header(path)
    family = header.get("general.architecture")
    return {
        "path": str(path),
        "bytes": _total(path),
        "title": header.get("general.name"),
        "licence": header.get("general.license"),
        "architecture": family,
        "layers": header.get(f"{family}.block_count"),
        "context": header.get(f"{family}.context_length"),
        "chat template": "yes" if header.get("tokenizer.chat_template") else "no",
    }


def _total(path: Path) -> int:
    from edge_tts.packs.model_files import split_parts

    return sum(part.stat().st_size for part in split_parts(path))


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1))
