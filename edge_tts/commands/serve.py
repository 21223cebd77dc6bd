"""``edge-reason serve``: an OpenAI-compatible server and a web page for it."""

from __future__ import annotations

import click

from edge_tts.commands.options import model_options
from edge_tts.commands.progress import progress_bar
from edge_tts.errors import InputError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; not local: needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 picks a free port.")
@click.option("--token", envvar="EDGE_REASON_TOKEN", show_envvar=True, default=None, help="Token that clients send.")
@click.option("--parallel", type=click.IntRange(1, 64), default=None, help="Requests that run at the same time.")
@click.option("--queue", type=click.IntRange(0, 1000), default=16, show_default=True, help="Requests that may wait.")
@model_options
@click.option("--isolate", is_flag=True, help="Run the models in a child process, which is restarted if it dies.")
def command(
    host: str,
    port: int,
    token: str | None,
    parallel: int | None,
    queue: int,
    model: str | None,
    pack: str | None,
    profile: str | None,
    memory: float | None,
    deadline: float | None,
    isolate: bool,
) -> None:
    """Serve OpenAI's chat API, and a web page at /."""
    try:
        from edge_tts.server.admission import Admission
        from edge_tts.server.serve import limit_arenas, listen, make_server, serve
    except ImportError as error:
        missing = str(error.name).partition(".")[0]
        raise InputError(
            f"serve needs {missing}, which is not installed; run: pip install 'edge-reasoning-runtime[server]'"
        ) from error
    from edge_tts.solver import Solver

    limit_arenas()
    # Listen before loading the models, so that a port in use is reported at once.
    listening, loopback = listen(host, port, token)
    with listening:
        with progress_bar() as progress:
            solver = Solver(pack, profile, memory, deadline, isolate=isolate, progress=progress, model=model)
        with solver:
            width, generations = solver.plan.engine.width, solver.plan.generations
            address, bound, *_ = listening.getsockname()
            where = f"http://[{address}]:{bound}" if ":" in address else f"http://{address}:{bound}"
            click.echo(solver.plan.summary(), err=True)
            click.echo(f"{solver.pack.title} answers at {where}/v1; a web page is at {where}/", err=True)
            admission = Admission(parallel or max(2, 2 * width // generations), queue)
            serve(make_server(solver, admission, token, loopback), listening)
    click.echo("stopped", err=True)
