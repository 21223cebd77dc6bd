"""A search that the page has shown, as the HTML page that ``edge-reason why`` makes: told again, event by event."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field

from edge_tts.core import Budget, Usage
from edge_tts.errors import InputError
from edge_tts.events import Event, Result
from edge_tts.files.typed import typed
from edge_tts.questions.recording import Recording
from edge_tts.questions.results import Settings
from edge_tts.questions.saved_search import SavedSearch, Turn
from edge_tts.search.saved_page import page
from edge_tts.server.api_error import ApiError
from edge_tts.server.reply import EVENT_NAMES
from edge_tts.server.schema import MAX_MESSAGES, Edge, Strict

_KINDS = {name: kind for kind, name in EVENT_NAMES.items()}
_RESULT = {field.name for field in fields(Result)}


class Said(Strict):
    """An earlier message."""

    role: str
    content: str


class Shown(Strict):
    """The body of ``POST /page/search``: what was asked, and what a stream with ``events`` told."""

    question: str
    earlier: Annotated[list[Said], Field(max_length=MAX_MESSAGES)]
    model: str
    edge: Edge
    events: list[dict[str, Any]]
    """Each with the ``seconds`` since the search began."""
    result: dict[str, Any] | None
    """None where it was stopped."""


def page_of(shown: Shown) -> str:
    """The HTML page. Raises ApiError for events or a result that no search has."""
    try:
        return page(_search(shown))
    except (InputError, ArithmeticError, ValueError) as error:  # the last two: numbers that cannot be shown
        raise ApiError(400, str(error), "events", "invalid_value") from error


def _search(shown: Shown) -> SavedSearch:
    now = 0.0
    recording = Recording(lambda: now)
    for i, told in enumerate(shown.events):
        now = typed(float, told.get("seconds", now), f"events[{i}].seconds", InputError)
        if event := _event(told, f"events[{i}]"):
            recording.take(event)
    if shown.result is None:
        result = _stopped(recording, shown.edge)
    else:
        known = {name: value for name, value in shown.result.items() if name in _RESULT}
        result = typed(Result, {**known, "steps": []}, "result", InputError)
    edge = shown.edge
    budget = Budget(generations=edge.generations, seconds=edge.deadline_s)
    settings = Settings(edge.strategy, budget, result.seed, shown.model, True, edge.kind, edge.format)
    earlier = tuple(Turn(said.role, said.content) for said in shown.earlier)
    return SavedSearch.of(shown.question, settings, recording, result, earlier)


def _event(told: dict[str, Any], where: str) -> Event | None:
    """The event of which ``told`` tells; None for a kind that is not known here."""
    kind = _KINDS.get(str(told.get("type")))
    if kind is None:
        return None
    known = {field.name for field in fields(kind)}
    return typed(kind, {name: value for name, value in told.items() if name in known}, where, InputError)


def _stopped(recording: Recording, edge: Edge) -> Result:
    """What is known of a search that was stopped: the best answer so far and the votes."""
    best, groups = recording.best, recording.groups()
    voters = sum(len(group.attempts) for group in groups)
    votes = tuple((group.answer, len(group.attempts) / voters) for group in groups)
    answer = best.answer if best else None
    return Result(
        answer=answer,
        steps=(),
        finished=best is not None,
        strategy=recording.strategy or edge.strategy,
        reason="stopped by the user",
        difficulty=None,
        stop_reason="cancelled",
        support=dict(votes).get(answer or "", 0.0),
        usage=Usage(seconds=recording.moments[-1].seconds if recording.moments else 0.0),
        seed=0,
        prompt_tokens=0,
        confidence=best.confidence if best else 0.0,
        votes=votes,
    )
