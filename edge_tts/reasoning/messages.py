"""Messages of a chat: who says what, and whether a list of them is something a model can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from edge_tts.errors import InputError

Role = Literal["system", "user", "assistant"]

_ROLES = {**{role: role for role in get_args(Role)}, "developer": "system"}


@dataclass(frozen=True)
class Message:
    """One turn of a chat. Raises InputError for a role or a content that cannot be used."""

    role: Role
    """"developer", the newer name of "system", is stored as "system"."""
    content: str

    def __post_init__(self) -> None:
        if not isinstance(self.role, str) or self.role not in _ROLES:
            raise InputError(f"a message has the role {self.role!r}; use one of {', '.join(_ROLES)}")
        object.__setattr__(self, "role", _ROLES[self.role])
        if not isinstance(self.content, str):
            raise InputError(f"the content of a message is {type(self.content).__name__}, not text; send a string")
        try:
            self.content.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"a message holds half a surrogate pair at character {error.start}; send valid text"
            ) from error


def as_messages(question: str | Iterable[Message | Mapping[str, object]]) -> tuple[Message, ...]:
    """``question`` as a chat: a text becomes one user message; a list may hold messages or mappings with "role" and
    "content", as chat APIs have them. Raises InputError where the chat cannot be asked."""
    if isinstance(question, str):
        return checked_messages((Message("user", question),))
    if not isinstance(question, Iterable):
        raise InputError(f"a question is a text or a list of messages, not {type(question).__name__}")
    return checked_messages([_read(item, number) for number, item in enumerate(question, start=1)])


def checked_messages(messages: Sequence[Message]) -> tuple[Message, ...]:
    """``messages`` themselves. Raises InputError unless the last one is a user's and says something."""
    if not messages:
        raise InputError("there are no messages; give at least one with the role 'user'")
    last = messages[-1]
    if last.role != "user":
        raise InputError(f"the last message has the role {last.role!r}; the question comes last, in the role 'user'")
    if not last.content.strip():
        raise InputError("the last message is empty; write the question there")
    return tuple(messages)


def transcript(messages: Sequence[Message]) -> str:
    """What was said in the chat, a paragraph a turn, without the system's messages."""
    return "\n\n".join(message.content.strip() for message in messages if message.role != "system")


def _read(item: object, number: int) -> Message:
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping):
        raise InputError(f"message {number} is {type(item).__name__}; give a mapping with 'role' and 'content'")
    missing = [key for key in ("role", "content") if key not in item]
    if missing:
        raise InputError(f"message {number} has no {missing[0]!r}; give both 'role' and 'content'")
    try:
        return Message(item["role"], item["content"])
    except InputError as error:
        raise InputError(f"message {number}: {error}") from error
