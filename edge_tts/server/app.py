"""The HTTP application: its routes, and the errors for requests that cannot be read."""

from __future__ import annotations

import asyncio
import reprlib
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from edge_tts.server.answering import Answering
from edge_tts.server.api_error import ApiError
from edge_tts.server.completions import CompletionReply
from edge_tts.server.description import answers, describe
from edge_tts.server.guard import CLIENT_LEFT, Guard
from edge_tts.server.metrics import Metrics
from edge_tts.server.page_api import add_page
from edge_tts.server.reply import ChatReply, Reply
from edge_tts.server.responses import ResponseReply
from edge_tts.server.schema import ChatRequest, CompletionRequest, ResponseRequest
from edge_tts.server.served import ServedModel
from edge_tts.server.stream import KEEP_ALIVE_SECONDS, EventStream
from edge_tts.server.understanding import Asked, understand_chat, understand_completion, understand_response


def create_app(served: ServedModel, token: str | None = None, loopback: bool = True) -> Guard:
    """An ASGI application that answers with ``served``. ``token`` and ``loopback`` are described at :class:`Guard`."""
    metrics = Metrics(served.admission)
    # FastAPI's documentation pages would load scripts from another host.
    app = FastAPI(title="edge-reason", version=version("edge-reasoning-runtime"), docs_url=None, redoc_url=None)
    describe(app, served)
    add_page(app, served)
    _add_fixed(app, served, metrics)

    @app.post("/v1/chat/completions", responses=answers("chat.completion", "id", "choices", "usage", "edge"))
    async def complete_chat(request: Request, body: ChatRequest) -> Response:
        asked = understand_chat(body, served.ready)
        return await answer(request, asked, ChatReply(body.model, asked.shape, asked.events, asked.include_usage))

    @app.post("/v1/completions", responses=answers("text_completion", "id", "choices", "usage", "edge"))
    async def complete(request: Request, body: CompletionRequest) -> Response:
        asked = understand_completion(body, served.ready)
        return await answer(request, asked, CompletionReply(body.model, asked.shape, asked.events, asked.include_usage))

    @app.post("/v1/responses", responses=answers("response", "id", "output", "usage", "edge"))
    async def respond(request: Request, body: ResponseRequest) -> Response:
        asked = understand_response(body, served.ready)
        return await answer(request, asked, ResponseReply(body.model, asked.shape, asked.events))

    async def answer(request: Request, asked: Asked, reply: Reply) -> Response:
        answering = Answering(asked, served.solver, served.admission, metrics)
        try:
            if not asked.stream:
                await _unless_left(request, answering.results)
                return JSONResponse(reply.whole(answering.results.result()))
            # A refusal before the first event can still be sent as an HTTP status.
            await _unless_left(request, answering.begun, KEEP_ALIVE_SECONDS)
            if answering.results.done():
                answering.results.result()
            stream = EventStream(answering, reply, len(asked.seeds))
        except BaseException:
            await answering.close()
            raise
        return stream

    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_such_thing)
    app.add_exception_handler(Exception, _failed)
    return Guard(app, metrics, token, loopback)


def _add_fixed(app: FastAPI, served: ServedModel, metrics: Metrics) -> None:
    """Add the routes that need no search: the model and the figures."""

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models", responses=answers("list", "data", stream=False))
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [served.about]})

    @app.get("/v1/models/{name}", responses=answers("model", "id", stream=False))
    async def one_model(name: str) -> Response:
        if name != served.about["id"]:
            raise ApiError.unknown_model(name, served.about["id"])
        return JSONResponse(served.about)


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
