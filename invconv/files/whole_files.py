"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new file beside ``path``, which takes its place when the block ends without error.

    A process killed at any moment, a full disk or a power cut leave the old file as it was. A link
    stays a link, and a file that is there already keeps its permissions.
    """
    from pathlib import Path  # here, so that importing invconv is quicker

    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(target.parent))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "not an ordinary file, so it cannot be replaced", str(path))
    part = target.with_name(f".{os.urandom(8).hex()}.part")
    try:
        part.touch(exist_ok=False)
        mode = stat.S_IMODE(part.stat().st_mode)
        yield part
        part.chmod(mode)  # the writer may have replaced the file, readable by its owner alone
        if target.exists():
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        _sync(part, os.O_RDWR)
        os.replace(part, target)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _sync(target.parent, os.O_RDONLY)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text; a file that is written in part never replaces a good one."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
