"""The OpenAPI description of the server, at ``/openapi.json``."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from edge_tts.server.served import ServedModel

_TEXT = {"type": "string"}
_NULLABLE = {"type": ["string", "null"]}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": _TEXT, "type": _TEXT, "param": _NULLABLE, "code": _NULLABLE},
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_REFUSED = {"description": "refused or failed", "content": {"application/json": {"schema": _ERROR}}}
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": _REFUSED, "5XX": _REFUSED}
"""The answers to a request that is refused or failed, as a route's ``responses``."""


def answers(name: str, *fields: str, stream: bool = True) -> dict[int | str, dict[str, Any]]:
    """The answers of a route whose object is ``name`` and has ``fields`` at least, as a route's ``responses``."""
    properties = {"object": {"const": name}}
    content: dict[str, Any] = {
        "application/json": {"schema": {"type": "object", "properties": properties, "required": ["object", *fields]}}
    }
    if stream:
        content["text/event-stream"] = {}  # OpenAPI 3.1 has no schema for the events of a stream
    return {200: {"description": "the answer", "content": content}, **ERRORS}


def describe(app: FastAPI, served: ServedModel) -> None:
    """Make ``app`` say in its description which model it serves at the time."""
    usual = app.openapi

    def described() -> dict[str, Any]:
        description = usual()
        for properties in (schema.get("properties", {}) for schema in description["components"]["schemas"].values()):
            if "model" in properties:
                properties["model"] = {**_TEXT, "enum": [served.about["id"]]}
        return description

    app.openapi = described  # type: ignore[method-assign]
