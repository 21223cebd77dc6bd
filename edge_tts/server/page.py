"""The page at ``/``: its files, and the policy that binds them."""

from __future__ import annotations

from importlib.resources import files

from starlette.responses import Response

PATHS = {
    "/": ("index.html", "text/html"),
    "/page/style.css": ("style.css", "text/css"),
    "/page/main.js": ("main.js", "text/javascript"),
    "/page/models.js": ("models.js", "text/javascript"),
    "/page/turn.js": ("turn.js", "text/javascript"),
    "/page/tree.js": ("tree.js", "text/javascript"),
    "/page/text.js": ("text.js", "text/javascript"),
}
"""The file and the media type at each path."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Only files of this server are loaded, nothing in the page's text is run, and connections go to this server only."""
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def responses() -> dict[str, Response]:
    """What is sent for each path of ``PATHS``."""
    folder = files(__package__) / "web"
    return {
        path: Response((folder / name).read_bytes(), headers=_HEADERS, media_type=kind)
        for path, (name, kind) in PATHS.items()
    }
