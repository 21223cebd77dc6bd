"""What the page needs beside searches: its files, formulas, the choice of a model, and a search as a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import Field

from edge_tts.server import page
from edge_tts.server.mathematics import LONGEST, MOST_FORMULAS, tree
from edge_tts.server.saving import Shown, page_of
from edge_tts.server.schema import Strict
from edge_tts.server.served import ServedModel


class Formula(Strict):
    """A formula of the page."""

    tex: Annotated[str, Field(max_length=LONGEST)]
    display: bool = False


class Formulas(Strict):
    """The body of ``POST /page/formulas``."""

    formulas: Annotated[list[Formula], Field(max_length=MOST_FORMULAS)]


class Choice(Strict):
    """The body of ``POST /page/model``."""

    name: str


def add_page(app: FastAPI, served: ServedModel) -> None:
    """Add the routes of the page, which are not part of the API that is described."""
    for path, response in page.responses().items():
        app.add_route(path, _always(response), include_in_schema=False)

    @app.post("/page/formulas", include_in_schema=False)
    def formulas(body: Formulas) -> Response:
        return JSONResponse([tree(formula.tex, formula.display) for formula in body.formulas])

    @app.post("/page/search", include_in_schema=False)
    def search(body: Shown) -> Response:
        return HTMLResponse(page_of(body))

    @app.get("/page/models", include_in_schema=False)
    def models() -> Response:
        return JSONResponse(served.choices())

    @app.post("/page/model", include_in_schema=False)
    async def change(body: Choice) -> Response:
        served.change(body.name)
        return JSONResponse(served.choices(), 202)

    @app.delete("/page/model", include_in_schema=False)
    async def cancel_change() -> Response:
        served.cancel_change()
        return JSONResponse(served.choices(), 202)


def _always(response: Response) -> Callable[[Request], Awaitable[Response]]:
    async def respond(_: Request) -> Response:
        return response

    return respond
