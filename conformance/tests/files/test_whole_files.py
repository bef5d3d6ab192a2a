"""Files are whole: after a kill in mid-write, on a full disk, and whatever else goes wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import invconv as ic
from invconv.files.whole_files import write_text
from tests.programs import python

BEYOND_A_LIMIT = """
import resource, sys
import numpy as np
import invconv as ic
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    ic.save(ic.Conv1x1(np.full((1000, 1000), 2.0)), sys.argv[1])
except OSError as error:
    print(error)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_at_a_limit_of_the_file_size_the_old_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "conv.safetensors"
    ic.save(ic.Conv1x1(np.eye(3)), path)
    before = path.read_bytes()
    done = python("-c", BEYOND_A_LIMIT, path)
    assert "cannot be written" in done.stdout
    assert "File too large" in done.stdout
    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "conv.safetensors", tmp_path / "link"
    ic.save(ic.Conv1x1(np.eye(2)), path)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode  # as the umask says
    path.chmod(0o640)
    link.symlink_to(path.name)
    ic.save(ic.Conv1x1(np.eye(3)), link)
    assert link.is_symlink()
    assert ic.load(path).channels == 3
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not an ordinary file"):
        write_text(pipe, "text")
    with pytest.raises(OSError, match="not an ordinary file"):
        write_text(tmp_path, "text")
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        write_text(tmp_path / "nowhere" / "text", "text")
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]
