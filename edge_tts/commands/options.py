"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_tts.commands.config import FORMATS, config_file
from edge_tts.errors import InputError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from edge_tts.core import Budget, Sampling

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UNITS = {"": "generations", "tok": "tokens", "flop": "flops", "j": "joules"}


def _models(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """What ``--model`` may become: names of the catalogue and of packs, or a path."""
    from click.shell_completion import CompletionItem

    from edge_tts.packs.catalogue import entries
    from edge_tts.packs.pack import pack_names

    if "/" in begun or begun.startswith("."):
        return [CompletionItem(begun, type="file")]
    try:
        return [CompletionItem(name) for name in (*entries(), *pack_names()) if name.startswith(begun)]
    except InputError:  # a catalogue of the user's that cannot be read; the command itself says so
        return []


def _model(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A model of the user's settings gives way to a pack of the command line, which brings its own.

    Raises InputError where the settings name a model that is not known.
    """
    from click.core import ParameterSource

    if value is None or context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT_MAP:
        return value
    if context.params.get("pack"):
        return None
    from edge_tts.packs.catalogue import resolve
    from edge_tts.packs.pack import pack_names

    try:
        if value not in pack_names():
            resolve(value)
    except InputError as error:
        raise InputError(f"{config_file()}: {error}") from error
    return value


def _prices(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """Two numbers with a comma between them. Raises InputError for anything else."""
    if value is None:
        return None
    try:
        price_in, price_out = map(float, value.split(","))
    except ValueError:
        raise InputError(f"--prices are two numbers such as 0.15,0.6; got {value!r}") from None
    return price_in, price_out


def _share(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"--min-confidence is a probability from 0 to 1, such as 0.8; got {value:g}")
    return value


def model_options(command: _Command) -> _Command:
    """``--model``, ``--pack``, ``--profile``, ``--memory`` and ``--deadline``: what is loaded, and its limits."""
    model = "GGUF file, name (see `model list`), or owner/repo[:file]."
    for option in reversed(
        (
            click.option("--model", default=None, help=model, shell_complete=_models, callback=_model),
            click.option("--pack", default=None, help="Pack, by name or folder: a model with its verifier and table."),
            click.option("--profile", default=None, help="Device profile, by name or file; detected by default."),
            click.option("--memory", type=float, default=None, help="Memory cap in MB; the profile's by default."),
            click.option("--deadline", type=float, default=None, help="Seconds a question may take, models loaded."),
        )
    ):
        command = option(command)
    return command


def escalation_options(command: _Command) -> _Command:
    """``--escalate``, ``--below`` and ``--prices``: a larger model for what the model is unsure of."""
    to = "Larger model for unsure questions, as --model takes it, or an endpoint."
    prices = "The endpoint's prices of a million prompt tokens and new tokens, such as 0.15,0.6."
    for option in reversed(
        (
            click.option("--escalate", default=None, metavar="MODEL|URL#MODEL", help=to),
            click.option(
                "--below", type=click.FloatRange(0, 1), default=0.5, help="Confidence below which it is asked."
            ),
            click.option("--prices", default=None, metavar="IN,OUT", callback=_prices, help=prices),
        )
    ):
        command = option(command)
    return command


def asking_options(command: _Command) -> _Command:
    """``--strategy``, ``--budget``, ``--format``, ``--explain``, ``--min-confidence`` and ``--seed``: how a question is
    searched, and when its answer is given."""
    from edge_tts.search.strategy import KINDS

    strategies = f"auto (default), {', '.join(KINDS[:-1])} or {KINDS[-1]}; with sizes: adaptive:n=8, beam:n=32,m=8."
    most = "Most generations (16), tokens (2000tok), FLOPs (1e12flop), joules (30j)."
    least = 'Say "not sure" below this confidence, from 0 to 1.'
    format = "In words, or as a program that is run; auto: programs for computations, if the model is good at them."
    for option in reversed(
        (
            click.option("--strategy", default="auto", help=strategies),
            click.option("--budget", default=None, help=most),
            click.option("--format", type=click.Choice(FORMATS), default="auto", show_default=True, help=format),
            click.option("--explain", is_flag=True, help="Have a chat model explain its answer in a few sentences."),
            click.option("--min-confidence", "least", type=float, default=None, callback=_share, help=least),
            click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
        )
    ):
        command = option(command)
    return command


def sampling_options(command: _Command) -> _Command:
    """How tokens are drawn; each is the model's own where it is left out."""
    for option in reversed(
        (
            click.option("--temperature", type=float, default=None, help="0 is greedy."),
            click.option("--top-k", type=int, default=None, help="Most likely tokens kept; 0 keeps all."),
            click.option("--top-p", type=float, default=None, help="Tokens kept until they reach this probability."),
            click.option("--min-p", type=float, default=None, help="Least share of the likeliest token's probability."),
            click.option("--max-tokens", type=int, default=None, help="New tokens a sample may take."),
            click.option("--stop", multiple=True, help="Text that ends a sample; may be repeated."),
        )
    ):
        command = option(command)
    return command


def overlaid(usual: Sampling, given: Mapping[str, Any]) -> Sampling:
    """``usual`` with those of ``given`` that are set. Raises InputError for a value out of range."""
    return replace(usual, **{name: value for name, value in given.items() if value not in (None, ())})


def parse_budget(text: str) -> Budget:
    """Read "16", "2000tok", "1e12flop" or "30j". Raises InputError."""
    from edge_tts.core import Budget

    number = text.strip().lower()
    unit = next((u for u in ("tok", "flop", "j") if number.endswith(u)), "")
    try:
        value = float(number.removesuffix(unit))
    except ValueError:
        value = float("nan")
    if not 0 < value < 1e30 or (unit in ("", "tok") and value != int(value)):
        raise InputError(f"a budget is a number such as 16, 2000tok, 1e12flop or 30j; got {text!r}")
    kind = _UNITS[unit]
    return Budget(**{kind: int(value) if kind in ("generations", "tokens") else value})  # type: ignore[arg-type]
