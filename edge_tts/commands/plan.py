"""``edge-reason plan``: what a run would need, computed without loading anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edge_tts.commands.options import model_options

if TYPE_CHECKING:
    from edge_tts.planning.planner import Plan


@click.command()
@model_options
@click.option(
    "--budget", type=click.IntRange(min=1), default=16, show_default=True, help="Samples of the answer to plan for."
)
@click.option("--strategy", default="auto", show_default=True, help="As for `solve`; some strategies load no verifier.")
@click.option("--max-tokens", type=click.IntRange(1), default=None, help="New tokens a sample may take.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: str | None,
    pack: str | None,
    profile: str | None,
    memory: float | None,
    deadline: float | None,
    max_tokens: int | None,
    budget: int,
    strategy: str,
    as_json: bool,
) -> None:
    """Show the memory plan and the predicted time of one answer; exit code 4 if nothing fits the memory cap."""
    from edge_tts.packs.planned import find, plan_for
    from edge_tts.profiles.loader import detect, load
    from edge_tts.search.call import uses_verifier

    device, reason = (load(profile), "asked for") if profile else detect()
    found, _ = find(pack, model, device.memory_mb if memory is None else memory)
    plan = plan_for(found, device, memory, deadline, budget, verifier=uses_verifier(strategy), max_tokens=max_tokens)
    if as_json:
        click.echo(json.dumps({"pack": found.name, **plan.to_dict(), "profile_reason": reason}, indent=1))
    else:
        _print_table(plan, found.name, reason)


def _print_table(plan: Plan, pack: str, reason: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    engine = plan.engine
    console.print(f"pack {pack}, profile {plan.profile} ({reason})", highlight=False)
    console.print(
        f"{engine.width} samples at a time, {engine.context} tokens each, {engine.kv_type} KV cache, "
        f"micro-batch {engine.micro_batch}, {'with' if plan.verifier else 'without'} verifier",
        highlight=False,
    )
    table = Table("part", "MB")
    table.columns[1].justify = "right"
    for part, size in plan.memory.to_dict().items():
        if part not in ("total_mb", "gpu_mb"):
            table.add_row(part.removesuffix("_mb").replace("_", " "), f"{size:.1f}")
    table.add_section()
    table.add_row("total", f"{plan.memory.total:.1f}")
    table.add_row("cap", f"{plan.memory_cap_mb:.1f}")
    if plan.gpu_cap_mb:
        table.add_section()
        table.add_row("on the GPU", f"{plan.memory.gpu:.1f}")
        table.add_row("cap there", f"{plan.gpu_cap_mb:.1f}")
    console.print(table)
    console.print(
        f"{plan.generations} samples in about {plan.seconds:.1f} s of {plan.deadline_s:g} s "
        f"and {plan.joules:.0f} J (speeds {plan.speeds})",
        highlight=False,
    )
    for note in plan.notes:
        console.print(f"note: {note}", highlight=False)
