"""``edge-reason chat``: question after question, with the model kept loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edge_tts.commands.asking import Asking, Loading
from edge_tts.commands.options import asking_options, escalation_options, model_options, parse_budget

if TYPE_CHECKING:
    from edge_tts.search.call import Format


@click.command()
@asking_options
@model_options
@escalation_options
@click.option("-v", "--verbose", is_flag=True, help="Show votes, candidates and budget while it works.")
def command(
    strategy: str,
    budget: str | None,
    format: Format,
    explain: bool,
    least: float | None,
    seed: int,
    verbose: bool,
    **model: Any,
) -> None:
    """Ask question after question; follow-up questions know what was said before.

    Without a terminal every line of standard input is a question. /help shows what else can be typed.
    """
    from edge_tts.commands.chat_session import CHAT_TOKENS, ChatSession
    from edge_tts.commands.console import consoles
    from edge_tts.core import Budget
    from edge_tts.search.call import uses_verifier

    uses_verifier(strategy)  # an unknown strategy is said before anything is loaded
    limits = parse_budget(budget) if budget else Budget()
    asking = Asking(strategy, limits, seed, format=format, explain=explain, least=least)
    loading = Loading(**model, prompt_tokens=CHAT_TOKENS)
    with ChatSession(loading, asking, consoles(), verbose) as session:
        session.run()
