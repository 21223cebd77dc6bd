"""The user's settings: ``config.toml``, whose values take the place of the options' defaults."""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edge_tts.errors import InputError
from edge_tts.files.folders import profiles_folder
from edge_tts.files.typed import typed

_Positive = Annotated[float, msgspec.Meta(gt=0, le=sys.float_info.max)]

FORMATS = ("auto", "text", "program")
_LOADING = ("model", "memory", "deadline")
_OPTIONS = {
    "solve": (*_LOADING, "format", "strategy"),
    "chat": (*_LOADING, "format", "strategy"),
    "plan": (*_LOADING, "strategy"),
    "serve": _LOADING,
}
"""The settings that each verb has an option for."""


@dataclass(frozen=True)
class Config:
    """The keys of ``config.toml``; what is left out stays as it is without the file."""

    model: str | None = None
    """As ``--model``."""
    memory: _Positive | None = None
    """MB, as ``--memory``."""
    deadline: _Positive | None = None
    """Seconds, as ``--deadline``."""
    format: str | None = None
    """As ``--format``: one of ``FORMATS``."""
    strategy: str | None = None

    def __post_init__(self) -> None:
        if self.model is not None and not self.model.strip():
            raise InputError('model is ""; name a model, or leave the key out')
        if self.format not in (None, *FORMATS):
            raise InputError(f"format is {self.format!r}; choose one of {', '.join(FORMATS)}")
        if self.strategy is not None:
            from edge_tts.search.call import uses_verifier

            uses_verifier(self.strategy)


def config_file() -> Path:
    """Where the file is read from, if there is one: beside the user's profiles and catalogue."""
    return profiles_folder().parent / "config.toml"


def read_config() -> Config:
    """The user's settings. Raises InputError in one sentence for a file that cannot be used."""
    path = config_file()
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read the settings in {path}: {error}; correct or delete the file") from error
    return typed(Config, content, str(path), InputError)


def defaults(verb: str) -> dict[str, Any]:
    """Defaults of the options of ``verb``, by the names of its parameters. Raises InputError as :func:`read_config`.

    The model is left out where the environment names one.
    """
    from edge_tts.packs.bare_model import VARIABLE

    names = [name for name in _OPTIONS.get(verb, ()) if name != "model" or not os.environ.get(VARIABLE)]
    if not names:
        return {}
    values = asdict(read_config())
    return {name: values[name] for name in names if values[name] is not None}
