"""The figures of a report as CSV files, one for each kind, and as one JSON file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any, get_args, get_type_hints

from edge_tts.bench.figures import Report, Share
from edge_tts.files.atomic import building, disk_errors, publish

JSON = "report.json"


def write_csv(report: Report, folder: Path) -> list[Path]:
    """Write ``report`` into ``folder``: a CSV file for each of its lists of figures, empty ones too, and report.json.

    A share has three columns, such as ``accuracy``, ``accuracy_low`` and ``accuracy_high``; what is not known is empty.
    Each file is replaced whole. Raises InputError where the folder cannot be written, ResourceError where the disk is
    full.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with building(folder) as temporary:
        for name, kind in _lists():
            columns = list(_columns(kind))
            with (temporary / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([heading for heading, _ in columns])
                writer.writerows(
                    [_cell(reduce(getattr, path, row)) for _, path in columns] for row in getattr(report, name)
                )
        text = json.dumps(report.to_dict(), ensure_ascii=False, indent=1)
        (temporary / JSON).write_text(text + "\n", encoding="utf-8")
        written = [folder / file.name for file in sorted(temporary.iterdir())]
        for path in written:
            publish(temporary / path.name, path)
    return written


def _lists() -> Iterator[tuple[str, type[Any]]]:
    """The lists of figures in a report, and what they hold."""
    for name, hint in get_type_hints(Report).items():
        kind = get_args(hint)[0]
        if is_dataclass(kind) and isinstance(kind, type):
            yield name, kind


def _columns(kind: type[Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Headings, and the attributes that lead to the value."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        inner = hints[field.name]
        if inner is Share:
            yield field.name, (field.name, "value")
            yield f"{field.name}_low", (field.name, "low")
            yield f"{field.name}_high", (field.name, "high")
        elif is_dataclass(inner):
            for part in fields(inner):
                yield part.name, (field.name, part.name)
        else:
            yield field.name, (field.name,)


def _cell(value: Any) -> Any:
    return "; ".join(value) if isinstance(value, tuple) else value
