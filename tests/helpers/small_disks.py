"""Small file systems in memory, to be filled up or made read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SmallDisk:
    """A mounted tmpfs.

    Attributes:
        path: where it is mounted.
    """

    path: Path

    def fill(self, left: int) -> Path:
        """Write a file that leaves `left` bytes free, rounded down to pages."""
        path = self.path / "filler"
        free = shutil.disk_usage(self.path).free
        path.write_bytes(bytes(max(0, free - left)))
        return path

    def resize(self, size: int) -> None:
        """Change the size in bytes."""
        _call("mount", "-o", f"remount,size={size}", str(self.path))

    def set_read_only(self, read_only: bool) -> None:
        """Refuse all writing from now on, or allow it again."""
        _call("mount", "-o", f"remount,{'ro' if read_only else 'rw'}", str(self.path))

    def unmount(self) -> None:
        """Remove the file system with its files, also while a file is open."""
        _call("umount", "--lazy", str(self.path))


def mount_small_disk(path: Path, size: int) -> SmallDisk:
    """Mount a tmpfs of `size` bytes.

    Raises:
        OSError: mounting is not permitted here.
    """
    path.mkdir()
    owner = f"uid={os.getuid()},gid={os.getgid()}" if hasattr(os, "getuid") else ""
    _call("mount", "-t", "tmpfs", "-o", f"size={size},{owner}", "tmpfs", str(path))
    return SmallDisk(path)


def _call(*command: str) -> None:
    """Run a command as root: as this user, or with sudo on a machine of continuous integration."""
    if shutil.which(command[0]) is None:
        raise OSError(f"there is no command {command[0]}")
    if hasattr(os, "geteuid") and os.geteuid() != 0 and os.environ.get("CI"):
        command = ("sudo", "-n", *command)
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise OSError(run.stderr.strip() or f"{command[0]} ended with status {run.returncode}")
