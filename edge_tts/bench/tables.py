"""The figures of a report as CSV files, one for each kind, and as one JSON file."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from edge_tts.bench.figures import Cost, Report, Share
from edge_tts.files.atomic import building, disk_errors, publish

JSON = "report.json"


def write_csv(report: Report, folder: Path) -> list[Path]:
    """Write ``report`` into ``folder``: a CSV file for each of its lists of figures, empty ones too, and report.json.

    A share has three columns, such as ``accuracy``, ``accuracy_low`` and ``accuracy_high``; a figure that is not
    known is an empty cell. Each file is replaced as a whole. Raises InputError where the folder cannot be written,
    ResourceError where the disk is full.
    """
    import pandas as pd

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with building(folder) as temporary:
        for name, hint in get_type_hints(Report).items():
            kind = get_args(hint)[0]
            if is_dataclass(kind) and isinstance(kind, type):
                rows = [_flat(kind, row) for row in getattr(report, name)]
                pd.DataFrame(rows, columns=list(_flat(kind)), dtype=object).to_csv(
                    temporary / f"{name}.csv", index=False
                )
        text = json.dumps(report.to_dict(), ensure_ascii=False, indent=1)
        (temporary / JSON).write_text(text + "\n", encoding="utf-8")
        written = [folder / file.name for file in sorted(temporary.iterdir())]
        for path in written:
            publish(temporary / path.name, path)
    return written


def _flat(kind: type[Any], row: object = None) -> dict[str, Any]:
    """The columns of a ``kind`` of figure with the values of ``row``, or with None where there is no row."""
    found: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for name in (field.name for field in fields(kind)):
        value = getattr(row, name, None)
        if hints[name] is Share:
            found |= {
                f"{name}{end}": part
                for end, part in zip(("", "_low", "_high"), _flat(Share, value).values(), strict=True)
            }
        elif hints[name] is Cost:
            found |= _flat(Cost, value)
        else:
            found[name] = "; ".join(value) if isinstance(value, tuple) else value
    return found
