"""The HTTP application: its routes, and the errors for requests that cannot be read."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import reprlib
import time
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from edge_tts.search.strategy import KINDS, Strategy
from edge_tts.server.admission import Admission
from edge_tts.server.answering import Answering
from edge_tts.server.api_error import ApiError
from edge_tts.server.guard import CLIENT_LEFT, Guard
from edge_tts.server.metrics import Metrics
from edge_tts.server.reply import Replier
from edge_tts.server.schema import MAX_CHOICES, ChatRequest, understand
from edge_tts.server.stream import KEEP_ALIVE_SECONDS, EventStream
from edge_tts.solver import AUTO, Solver


def create_app(solver: Solver, admission: Admission, token: str | None = None, loopback: bool = True) -> Guard:
    """An ASGI application that answers with ``solver``. ``token`` and ``loopback`` are described at :class:`Guard`."""
    metrics = Metrics(admission)
    app = FastAPI(openapi_url=None)  # FastAPI's documentation pages would load scripts from another host
    model, page = _model(solver), _page()

    @app.get("/")
    async def index() -> Response:
        return page

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [model]})

    @app.get("/v1/models/{name}")
    async def one_model(name: str) -> Response:
        if name != model["id"]:
            raise ApiError.unknown_model(name, model["id"])
        return JSONResponse(model)

    @app.post("/v1/chat/completions")
    async def complete(request: Request, body: ChatRequest) -> Response:
        asked = understand(body, solver)
        delimiter = "\n\n" if solver.pack.format == "text" else solver.pack.prompts.step_delimiter
        replier = Replier(body.model, delimiter, asked.stops, asked.events, asked.include_usage)
        answering = Answering(asked, solver, admission, metrics)
        try:
            if not asked.stream:
                await _unless_left(request, answering.results)
                return JSONResponse(replier.completion(answering.results.result()))
            # A refusal before the first event can still be sent as an HTTP status.
            await _unless_left(request, answering.begun, KEEP_ALIVE_SECONDS)
            if answering.results.done():
                answering.results.result()
            stream = EventStream(answering, replier, len(asked.seeds))
        except BaseException:
            await answering.close()
            raise
        return stream

    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_such_thing)
    app.add_exception_handler(Exception, _failed)
    return Guard(app, metrics, token, loopback)


async def _unless_left(request: Request, future: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Wait for ``future``, at most ``seconds``. Raises ApiError if the client disconnects first."""
    leaving = asyncio.create_task(_leaving(request))
    try:
        done, _ = await asyncio.wait({future, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
    if leaving in done and future not in done:
        raise ApiError(CLIENT_LEFT, "the client disconnected")


async def _leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# --- errors ---------------------------------------------------------------------


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response


async def _invalid(_: Request, error: Exception) -> Response:
    """The first problem that validation found, with the name of the field."""
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    kind, place = problem["type"], problem["loc"][1:]
    if kind == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {problem['ctx']['error']}, character {place[0]}").response
    if not place:
        return ApiError(400, "the body must be a JSON object, sent with Content-Type: application/json").response
    param = ".".join(map(str, place))
    if kind == "missing":
        return ApiError(400, f"{param} is missing", param, "missing_field").response
    if kind == "extra_forbidden":
        return ApiError(400, f"this server has no field {param}; leave it out", param, "unknown_field").response
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("List ")
    value = "" if kind in ("too_short", "too_long") else f"; got {reprlib.repr(problem['input'])}"
    return ApiError(400, f"{param} {message}{value}", param, "invalid_value").response


async def _no_such_thing(request: Request, error: Exception) -> Response:
    """An unknown path or method, or a body that the JSON parser cannot take."""
    assert isinstance(error, HTTPException)
    known = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.url.path} does not support {request.method}",
    }
    message = known.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=dict(error.headers or {})).response


async def _failed(_: Request, error: Exception) -> Response:
    """An unexpected exception. Starlette raises it again after this response, and :class:`Guard` logs it."""
    return ApiError.internal().response


# --- the fixed responses ----------------------------------------------------------------------


def _model(solver: Solver) -> dict[str, Any]:
    """The entry of ``/v1/models``; its ``edge`` holds the strategies and limits that a request may use."""
    usable = [kind for kind in KINDS if solver.plan.verifier or not Strategy.parse(kind).needs_verifier]
    return {
        "id": solver.pack.name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "edge-reason",
        "edge": {
            "version": solver.pack.version,
            "strategies": [AUTO, *usable],
            "generations": solver.plan.generations,
            "deadline_s": solver.deadline_s,
            "context": solver.plan.engine.context,
            "max_choices": MAX_CHOICES,
            "format": solver.pack.format,
            "answer_marker": "" if solver.pack.format == "text" else solver.pack.prompts.answer_marker.strip(),
        },
    }


def _page() -> Response:
    """The page at ``/``. Its policy allows only its own script and style, and connections only to this server."""
    text = files(__package__).joinpath("page.html").read_text("utf-8")
    script, style = (_hash(re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return HTMLResponse(text, headers=headers)


def _hash(found: re.Match[str] | None) -> str:
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"
