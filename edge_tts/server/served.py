"""The model that the server answers with, and the change to another one."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, get_args

from edge_tts.errors import EdgeError
from edge_tts.files.atomic import Progress
from edge_tts.packs.bare_model import find_model
from edge_tts.packs.fetching import Fetching
from edge_tts.packs.offers import Offer, offers
from edge_tts.packs.pack import Pack, is_ready
from edge_tts.reasoning.question_kind import AnswerKind
from edge_tts.search.call import AUTO, Format
from edge_tts.search.strategy import KINDS, Strategy
from edge_tts.server.admission import Admission
from edge_tts.server.api_error import ApiError
from edge_tts.server.schema import MAX_CHOICES
from edge_tts.solver import Solver

Opening = Callable[[str | None, Progress], Solver]
"""Loads a model by its name; None stands for the one that the server was started with."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading:
    """A change that is under way."""

    name: str
    share: float
    """Done, in [0, 1]."""
    doing: str
    can_cancel: bool = False
    """Whether it is a download, which can be cancelled."""


class ServedModel:
    """The loaded model. The owner must call ``close``.

    One change at a time. While a model is fetched, the present one goes on answering; then new requests are refused,
    those accepted finish, and the present model gives its memory back before the next is loaded.
    """

    def __init__(
        self, solver: Solver, admission: Admission, open_model: Opening | None = None, parallel: int | None = None
    ) -> None:
        """Without ``open_model`` the model cannot be changed. ``parallel`` is what ``slots_for`` takes."""
        self.solver, self.admission = solver, admission
        self._open, self._parallel = open_model, parallel
        self.about = described(solver)
        """The entry of ``/v1/models``."""
        self._first = solver.pack.name
        self._loading: Loading | None = None
        self._problem = ""
        """Why the latest change failed."""
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        """Fetches and loads."""
        self._fetching: Fetching | None = None

    @property
    def ready(self) -> Solver:
        """The solver for a new request. Raises ApiError (503) while a model is being loaded."""
        self.admission.require_open()
        return self.solver

    def choices(self) -> dict[str, Any]:
        """The models there are to choose, the present one, and how a change goes. Raises ApiError."""
        loading = asdict(self._loading) if self._loading else None
        models = [asdict(offer) for offer in self._offers()]
        return {"current": self.about["id"], "models": models, "loading": loading, "problem": self._problem}

    def change(self, name: str) -> None:
        """Begin to answer with the model ``name`` instead; ``choices`` tells how that goes.

        Raises ApiError: 404 for a name that is not offered, 409 while another change is under way.
        """
        if self._loading:
            raise ApiError(409, f"{self._loading.name} is being loaded; wait until that is done", "name", "loading")
        if name not in [offer.name for offer in self._offers()]:
            raise ApiError(404, f"there is no model {name!r} to choose that fits", "name", "model_not_found")
        if name != self.about["id"]:
            self._problem = ""
            self._loading = Loading(name, 0.0, "starting")
            self._task = asyncio.create_task(self._change(name))

    def cancel_change(self) -> None:
        """End the download of a change that is under way; the next one goes on where it stopped.

        Raises ApiError (409) where nothing is being downloaded.
        """
        fetching, loading = self._fetching, self._loading
        if fetching is None or loading is None:
            raise ApiError(409, "no model is being downloaded", code="not_downloading")
        fetching.cancel()
        self._loading = Loading(loading.name, loading.share, "cancelling the download")

    def cancel(self) -> None:
        """End every search with the best answer it has."""
        self.solver.cancel()

    def close(self) -> None:
        """Release the model. A download ends, and goes on the next time."""
        if fetching := self._fetching:
            fetching.close()
        if self._thread:
            self._thread.join()
        self.solver.close()

    def _offers(self) -> tuple[Offer, ...]:
        names = (self._first, self.about["id"])
        try:
            known = offers(self.solver.plan.memory_cap_mb) if self._open else ()
        except EdgeError as error:
            raise ApiError(500, str(error), code="catalogue") from error
        others = [name for name in dict.fromkeys(names) if name not in [offer.name for offer in known]]
        return (*(Offer(name, True, 0) for name in others), *known)

    async def _change(self, name: str) -> None:
        try:
            if name != self._first and not is_ready(pack := find_model(name)) and not await self._fetch(name, pack):
                return
            self._progress(name)(1.0, "waiting for running searches")
            self.admission.pause(f"{name} is being loaded")
            try:
                await self.admission.idle()
                self._progress(name)(1.0, "loading")
                await self._in_thread(lambda: self._swap(name))
            finally:
                self.about = described(self.solver)
                self.admission.resume(slots_for(self.solver, self._parallel))
        except EdgeError as error:
            self._problem = f"{name} was not loaded: {error}"
        except Exception as error:
            _log.error("internal error while %s was loaded: %r", name, error)
            self._problem = f"{name} was not loaded; the server's log says why"
        finally:
            self._loading = None

    async def _fetch(self, name: str, pack: Pack) -> bool:
        """Fetch ``pack``; whether that was not cancelled. Raises BackendError."""
        self._fetching = fetching = Fetching(pack)

        def follow() -> None:
            try:
                fetching.follow(self._progress(name, True))
            finally:
                self._fetching = None

        await self._in_thread(follow)
        return not fetching.cancelled

    def _swap(self, name: str) -> None:
        assert self._open is not None
        before = self.about["id"]
        self.solver.close()  # before the next is loaded: both need not fit the memory
        try:
            self.solver = self._open(self._reference(name), self._progress(name))
        except Exception:
            self.solver = self._open(self._reference(before), self._progress(before))
            raise

    def _reference(self, name: str) -> str | None:
        return None if name == self._first else name

    def _progress(self, name: str, can_cancel: bool = False) -> Progress:
        def tell(share: float, doing: str) -> None:
            self._loading = Loading(name, share, doing, can_cancel)

        return tell

    async def _in_thread(self, work: Callable[[], object]) -> None:
        """Run ``work`` in a thread that does not keep the process alive: a download may take an hour. Raises what it
        raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def end(error: Exception | None) -> None:
            if done.done():  # nobody waits any more
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def run() -> None:
            failed: Exception | None = None
            try:
                work()
            except Exception as error:
                failed = error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(end, failed)

        self._thread = threading.Thread(target=run, name="edge-model", daemon=True)
        self._thread.start()
        await done


def slots_for(solver: Solver, parallel: int | None = None) -> int:
    """Requests that run at the same time: ``parallel``, by default as many as fill the batch twice, at least 2."""
    return parallel or max(2, 2 * solver.plan.engine.width // solver.plan.generations)


def described(solver: Solver) -> dict[str, Any]:
    """The entry of ``/v1/models``; its ``edge`` holds what a request may use, and the plan it runs under."""
    pack, plan = solver.pack, solver.plan
    scores = plan.verifier or pack.program_verifier is not None
    usable = [kind for kind in KINDS if scores or not Strategy.parse(kind).needs_verifier]
    chats = pack.format == "text"
    return {
        "id": pack.name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "edge-reason",
        "edge": {
            "version": pack.version,
            "title": pack.title,
            "strategies": [AUTO, *usable],
            "formats": list(get_args(Format)) if chats else [],
            "kinds": list(get_args(AnswerKind)) if chats else [],
            "chats": chats,
            "generations": plan.generations,
            "deadline_s": solver.deadline_s,
            "context": plan.engine.context,
            "max_choices": MAX_CHOICES,
            "max_tokens": pack.sampling.max_tokens,
            "format": pack.format,
            "plan": {
                "memory_mb": round(plan.memory.total),
                "memory_cap_mb": round(plan.memory_cap_mb),
                "parallel": plan.engine.width,
                "seconds": round(plan.seconds, 1),
                "notes": list(plan.notes),
            },
        },
    }
