"""``edge-reason serve``: an OpenAI-compatible server and a web page for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click

from edge_tts.commands.asking import open_solver
from edge_tts.commands.options import escalation_options, model_options
from edge_tts.commands.progress import progress_bar
from edge_tts.errors import InputError

if TYPE_CHECKING:
    from edge_tts.files.atomic import Progress
    from edge_tts.solver import Solver


PROMPT_TOKENS = 768
"""Room for a system prompt, what was said before and the question: the default model then still runs 16 samples at once
within 2 GB."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; not local: needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 picks a free port.")
@click.option("--token", envvar="EDGE_REASON_TOKEN", show_envvar=True, default=None, help="Token that clients send.")
@click.option("--parallel", type=click.IntRange(1, 64), default=None, help="Requests that run at the same time.")
@click.option("--queue", type=click.IntRange(0, 1000), default=16, show_default=True, help="Requests that may wait.")
@click.option(
    "--prompt-tokens",
    type=click.IntRange(1),
    default=PROMPT_TOKENS,
    show_default=True,
    help="Longest prompt: system prompt, what was said before, question. More takes more memory.",
)
@model_options
@escalation_options
@click.option("--isolate", is_flag=True, help="Run the models in a child process, which is restarted if it dies.")
def command(
    host: str,
    port: int,
    token: str | None,
    parallel: int | None,
    queue: int,
    prompt_tokens: int,
    model: str | None,
    pack: str | None,
    profile: str | None,
    memory: float | None,
    deadline: float | None,
    escalate: str | None,
    below: float,
    prices: tuple[float, float] | None,
    isolate: bool,
) -> None:
    """Serve OpenAI's chat API, and a web page at /."""
    try:
        from edge_tts.server.admission import Admission
        from edge_tts.server.serve import limit_arenas, listen, make_server, serve
        from edge_tts.server.served import ServedModel, slots_for
    except ImportError as error:
        missing = str(error.name).partition(".")[0]
        raise InputError(
            f"serve needs {missing}, which is not installed; run: pip install 'edge-reasoning-runtime[server]'"
        ) from error
    limit_arenas()

    def opened(name: str | None, progress: Progress) -> Solver:
        named = {"model": name} if name else {"model": model, "pack": pack}
        limits = {"memory_mb": memory, "deadline_s": deadline, "prompt_tokens": prompt_tokens}
        settings = {"profile": profile, "isolate": isolate, "progress": progress, **named, **limits}
        return open_solver(escalate, below, prices, **settings)

    # Listen before loading the models, so that a port in use is reported at once.
    listening, loopback = listen(host, port, token)
    click.echo(f"loading {model or pack or 'the default model'}; Ctrl-C stops", err=True)
    with listening:
        with progress_bar() as progress:
            solver = opened(None, progress)
        served = ServedModel(solver, Admission(slots_for(solver, parallel), queue), opened, parallel)
        with closing(served):
            address, bound, *_ = listening.getsockname()
            where = f"http://[{address}]:{bound}" if ":" in address else f"http://{address}:{bound}"
            for line in _said(solver, where):
                click.echo(line, err=True)
            serve(make_server(served, token, loopback), listening)
    click.echo("stopped", err=True)


def _said(solver: Solver, where: str) -> Iterator[str]:
    """What is running, where, and what it may take."""
    plan = solver.plan
    if solver.choice:
        yield f"model: {solver.pack.title} ({solver.choice})"
    yield f"{solver.pack.title} answers at {where}/v1; a web page is at {where}/"
    samples = f"{plan.engine.width} samples at once" if plan.engine.width > 1 else "one sample at a time"
    scored = ", scored by a verifier" if plan.verifier else ""
    yield (
        f"memory: about {plan.memory.total:.0f} of {plan.memory_cap_mb:g} MB, for {samples} of up to "
        f"{plan.engine.context} tokens each{scored}"
    )
    yield f"time: {plan.generations} samples in about {plan.seconds:.1f} s; an answer in {plan.deadline_s:g} s at most"
    for note in plan.notes:
        yield f"note: {note}"
