"""The control groups of Linux that this process is in: of a container, of a job or of a service."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
LISTING = Path("/proc/self/cgroup")


def own_and_around(
    controller: str = "", *, root: Path = ROOT, listing: Path = LISTING
) -> list[Path]:
    """Folders of this process's group and of those around it, from the inside out.

    Args:
        controller: of version 1, such as memory; "": version 2.
        root: where the groups are mounted.
        listing: the groups of this process, as the kernel names them.
    """
    root = root / controller
    with suppress(OSError, UnicodeError):
        for line in listing.read_text().splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            named = controller in controllers.split(",") if controller else number == "0"
            if named and path.startswith("/") and ".." not in path:
                inner = root / path.lstrip("/")
                around = [inner, *inner.parents]
                return around[: around.index(root) + 1]
    return [root]
