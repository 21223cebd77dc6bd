"""How an answer was found, as a tree on the terminal: the candidates, grouped by what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_tts.commands.console import STYLES, answer_line, harmless, one_line
from edge_tts.search.saved_page import alike, facts
from edge_tts.search.wording import counted, level, percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from edge_tts.questions.recording import Attempt
    from edge_tts.questions.saved_search import SavedSearch


def print_search(out: Console, search: SavedSearch) -> None:
    """Draw ``search``: question, answer and confidence, then the candidates by answer, then what it took."""
    from rich.text import Text
    from rich.tree import Tree

    result = search.result
    tree = Tree(Text(harmless(search.question), "bold"), guide_style="dim")
    shares = dict(result.votes)
    for group in search.groups():
        chosen = group.answer == result.answer
        style = STYLES[level(result.confidence)] if chosen else ""
        share = f", {percent(shares[group.answer])} of the vote" if group.answer in shares else ""
        label = Text.assemble(
            (one_line(group.answer), f"bold {style}"), f"  {counted(len(group.attempts), result.strategy)}{share}"
        )
        _add(tree, label, group.attempts)
    for name, attempts in (("failed", search.failed), ("unfinished", search.unfinished)):
        if attempts:
            _add(tree, Text(f"{name}  {counted(len(attempts), result.strategy)}", "dim"), attempts)
    out.print(tree)
    if result.answer is None:
        out.print("no answer", style="yellow")
    else:
        if result.explanation:
            out.print(Text(harmless(result.explanation)))
        out.print(answer_line("answer", result.answer, result.confidence), soft_wrap=True)
    for line in facts(search):
        out.print(Text(harmless(line), "dim"))


def _add(tree: Tree, label: Text, attempts: Sequence[Attempt]) -> None:
    from rich.text import Text

    branch = tree.add(label)
    for numbers, attempt in alike(attempts):
        score = "" if attempt.score is None else f"  score {attempt.score:.2f}"
        lines = [Text(f"{numbers}{score}", "bold dim"), *(Text(harmless(step)) for step in attempt.steps)]
        lines += [Text(f"doubtful: {harmless(doubt)}", "yellow") for doubt in attempt.doubts]
        lines += [Text(harmless(attempt.error), "dim")] if attempt.error else []
        branch.add(Text("\n").join(lines))
