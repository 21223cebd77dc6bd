"""Errors as a client sees them: an HTTP status and OpenAI's error object."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from edge_tts.errors import EdgeError, InputError, ResourceError


class ApiError(Exception):
    """A request that is refused or failed. ``status`` is the HTTP status, 400 to 599; ``param`` the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers or {}

    @classmethod
    def of(cls, error: EdgeError, source: str = "messages") -> ApiError:
        """The error of a failed search. An InputError there means that the question, which came in the field
        ``source``, does not fit into the context."""
        if isinstance(error, InputError):
            return cls(400, str(error), source, "context_length_exceeded")
        return cls(503 if isinstance(error, ResourceError) else 500, str(error), code="solver_failed")

    @classmethod
    def unknown_model(cls, asked: str, model: str) -> ApiError:
        return cls(404, f"there is no model {asked!r} on this server; use {model!r}", "model", "model_not_found")

    @classmethod
    def internal(cls) -> ApiError:
        return cls(500, "internal error; see the server's log", code="internal_error")

    @property
    def body(self) -> dict[str, Any]:
        """``{"error": {"message", "type", "param", "code"}}``."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """The error as an HTTP response."""
        return JSONResponse(self.body, self.status, self.headers)
