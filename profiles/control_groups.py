"""What the control groups of this process allow it (Linux): a container, a service or a job has limits of its own.

A limit of any group above counts, too. Both hierarchies are read: version 2, and version 1 with a hierarchy for each
controller. Where there are none, or they cannot be read, there is no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
"""The groups of this process, a line for each hierarchy: "number:controllers:path"."""
_MEMORY_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes of memory that this process may use, None for no limit. Beyond ``memory.high``, Linux slows it down."""
    found = (_number(folder / name) for folder in _groups("memory", root, membership) for name in _MEMORY_FILES)
    return min((limit for limit in found if limit is not None and limit > 0), default=None)


def cpu_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """CPU time per time that this process may use, in cores; None for no limit."""
    found = (quota for folder in _groups("cpu", root, membership) for quota in _quotas(folder))
    return min(found, default=None)


def _groups(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """Folders of the groups that ``controller`` may limit this process by, its own first."""
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            bases = (root, root / "unified")  # where both versions are in use, version 2 has a folder of its own
        elif controller in controllers.split(","):
            bases = (root / controllers, root / controller)
        else:
            continue
        parts = PurePosixPath(path).parts[1:]
        # A container sees its own group as the root, and may be told a path that only its host has.
        depths = range(0 if ".." in parts else len(parts), -1, -1)
        yield from (base.joinpath(*parts[:depth]) for base in dict.fromkeys(bases) for depth in depths)


def _quotas(folder: Path) -> Iterator[float]:
    """Cores that the group in ``folder`` may use, once for each version."""
    words = _text(folder / "cpu.max").split()
    quota, period = (_whole(words[0]), _whole(words[1])) if len(words) == 2 else (None, None)
    for given, each in (
        (quota, period),
        (_number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")),
    ):
        if given is not None and each is not None and given > 0 and each > 0:
            yield given / each


def _number(path: Path) -> int | None:
    return _whole(_text(path))


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # "max", or nothing
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # a path with a null byte is a ValueError
        return ""
