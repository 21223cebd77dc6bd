"""The command line ``edge-reason``. Each verb is a module in ``edge_tts/commands``, imported when it is used."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from edge_tts.errors import INTERRUPTED, EdgeError, ResourceError, say

VERBS = {
    "solve": "Answer a question, or a file of them.",
    "chat": "Question after question, with the model kept loaded.",
    "why": "Show how a saved answer was found.",
    "plan": "Show what a run would need, before loading anything.",
    "profile": "Device profiles: list, show, detect, calibrate.",
    "model": "Models: list, pull, info, remove.",
    "pack": "Packs: list, info, verify, assemble, build, install.",
    "export": "Make a pack's parts: a policy as GGUF, a PRM as ONNX.",
    "serve": "An OpenAI-compatible server, and a page to try it.",
    "bench": "Benchmarks: run a study, fit what auto does, report.",
    "doctor": "Check what works on this machine, what does not, and why.",
}
"""Each verb and its line in ``--help``; listed here so that ``--help`` imports none of them."""
CONFIGURED = ("solve", "chat", "plan", "serve")
"""The verbs whose defaults the user's ``config.toml`` sets."""

INTERNAL_ERROR = 70


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"edge_tts.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edge-reasoning-runtime", prog_name="edge-reason")
@click.pass_context
def group(context: click.Context) -> None:
    """On-device reasoning: a small language model with well-spent test-time compute."""
    verb = context.invoked_subcommand
    if verb in CONFIGURED:
        from edge_tts.commands.config import defaults

        context.default_map = {verb: defaults(verb)}


def run() -> int:
    """Run the command line and return its exit code. Errors are printed on standard error, one line each."""
    try:
        code = group.main(prog_name="edge-reason", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return say("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output is gone, as in `| head`
        _discard_output()
        return 1
    except EdgeError as error:
        return say(f"error: {error}", error.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            _discard_output()  # the library names the files that it cannot write
            said = f"the output cannot be written ({error.strerror}); free some space and run the same command again"
            return say(f"error: {said}", ResourceError.exit_code)
        if os.environ.get("EDGE_REASON_DEBUG"):
            raise
        summary = f"{type(error).__name__}: {error}".partition("\n")[0]
        return say(f"internal error: {summary} (EDGE_REASON_DEBUG=1 shows the traceback)", INTERNAL_ERROR)


def _discard_output() -> None:
    """Let what is left of standard output go nowhere: flushing it at exit would raise again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
