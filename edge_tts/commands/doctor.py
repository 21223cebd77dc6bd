"""``edge-reason doctor``: what works here, what does not, and why."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Check this machine; exit code 1 when solving would not work."""
    from edge_tts.doctor import examine, works

    checks = examine()
    ready = works(checks)
    if as_json:
        click.echo(json.dumps({"works": ready, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        for check in checks:
            click.echo(f"{_MARKS[check.status]}  {check.name}: {check.detail}")
            if check.fix:
                click.echo(f"         -> {check.fix}")
        click.echo("solving works here" if ready else "solving does not work here; see what FAILED")
    if not ready:
        click.get_current_context().exit(1)
