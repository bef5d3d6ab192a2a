"""Kept files: those of 0.2.0 are read, a flipped bit is refused, a good file stays whole."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax
import invconv_torch
from invconv.files import container
from invconv.files.container import write_text
from invconv.files.saving import describe
from tests.flows.small_flows import glow

OF_0_2_0 = Path(__file__).with_name("of_0_2_0")  # its `save` wrote them
SAVERS: dict[str, Callable[[Path], Any]] = {
    "operator": lambda path: ic.save(small(), path),
    "torch": lambda path: invconv_torch.save(glow("plu", levels=1), path),
    "jax": lambda path: invconv_jax.save(invconv_jax.load(OF_0_2_0 / "flow.safetensors"), path),
}


def numbers(shape: tuple[int, ...], first: int) -> np.ndarray[Any, Any]:
    return ((7 * np.arange(np.prod(shape, dtype=int)) + first) % 32 - 15.5).reshape(shape) / 128


def small() -> ic.InvertibleConv:
    return ic.AutoregressiveConv(numbers((1, 1, 2, 2), 1), numbers((1,), 2), dilation=1)


def assert_near(found: ic.InvertibleConv, expected: ic.InvertibleConv, rtol: float) -> None:
    assert describe(found, {}) == describe(expected, {})
    for name, array in expected._arrays().items():
        np.testing.assert_allclose(found._arrays()[name], array, rtol, err_msg=name)


def test_operators_of_0_2_0_are_read(tmp_path: Path) -> None:
    found = ic.load(OF_0_2_0 / "operator.safetensors")
    lower, upper = np.tril(numbers((2, 2), 1), -1) + np.eye(2), np.triu(numbers((2, 2), 2), 1)
    order, sign = np.asarray([1, 0]), np.asarray([1.0, -1.0])
    plu = ic.PLUConv1x1(order, lower, upper, sign, numbers((2,), 3), ndim=2)
    kernel, bias = numbers((2, 2, 2, 3), 4), numbers((2,), 5)
    conv = ic.AutoregressiveConv(kernel, bias, direction=(1, -1), dilation=(1, 2))
    bounded = ic.bounded(ic.PeriodicConv(numbers((2, 2, 3, 3), 6), dilation=3), 4.0)
    expected = ic.Chain([plu, ic.Inverse(conv), bounded]).asarrays(np.empty(0, np.float32))
    assert_near(found, expected, 1e-6)
    ic.save(found, tmp_path / "again")
    assert b"invconv-crc32" in (tmp_path / "again").read_bytes()
    assert describe(ic.load(tmp_path / "again"), {}) == describe(expected, {})


def test_every_class_of_0_2_0_is_read() -> None:
    """An operator of each class of 0.2.0 that its other file leaves out."""
    first = ic.AutoregressiveConv(numbers((2, 2, 2, 2), 15), direction=-1)
    second = ic.AutoregressiveConv(numbers((2, 2, 2, 2), 16), direction=1)
    steps = [
        ic.ActNorm(numbers((2,), 1), numbers((2,), 2)),
        ic.Conv1x1(numbers((2, 2), 3), numbers((2,), 4)),
        ic.QRConv1x1(numbers((1, 2), 5), numbers((2, 2), 6), numbers((2,), 7)),
        ic.OrthogonalConv1x1(numbers((2, 2), 8)),
        ic.CirculantConv1x1(*(numbers((2,), i) for i in (9, 10, 11))),
        ic.EmergingConv(first, second, numbers((2,), 12)),
        ic.SymmetricConv(numbers((2, 2, 2, 1), 13)),
        ic.ExponentialConv(numbers((2, 2, 3, 1), 14), padding="circular", dilation=(2, 1)),
    ]
    assert_near(ic.load(OF_0_2_0 / "classes.safetensors"), ic.Chain(steps), 0)


def test_flows_of_0_2_0_are_read_by_both_libraries() -> None:
    flow = invconv_torch.load(OF_0_2_0 / "flow.safetensors")
    assert flow.initialized
    for first, (name, tensor) in enumerate(sorted(flow.state_dict().items())):
        if tensor.is_floating_point() and not name.endswith(("sign", "initialized")):
            np.testing.assert_array_equal(tensor, numbers(tuple(tensor.shape), first), name)
    x, context = numbers((2, 1, 4, 4), 0).astype("f4") + 0.5, np.ones((2, 1), "f4")
    said = np.asarray([-172.67425537109375, -172.67324829101562])  # by 0.2.0
    with torch.no_grad():
        log_prob = flow.log_prob(torch.from_numpy(x), context=torch.from_numpy(context))
    np.testing.assert_allclose(log_prob, said, rtol=1e-5)
    same: Any = invconv_jax.load(OF_0_2_0 / "flow.safetensors")
    np.testing.assert_allclose(same.log_prob(x, context), said, rtol=1e-5)


def all_of(loaded: Any) -> Any:
    if isinstance(loaded, ic.InvertibleConv):
        return describe(loaded, {}), {n: a.tobytes() for n, a in loaded._arrays().items()}
    tensors = {name: t.numpy().tobytes() for name, t in loaded.state_dict().items()}
    return loaded.architecture, loaded.initialized, tensors


# of steps of bits that have no factor in common with 8
@pytest.mark.parametrize("flow", [False, True])
def test_no_flipped_bit_is_silent(flow: bool, tmp_path: Path) -> None:
    load, step = (invconv_torch.load, 45) if flow else (ic.load, 5)
    path = tmp_path / "file"
    ic.save(glow("plu", (1, 2, 2), levels=1, width=1) if flow else small(), path)
    wanted, content, ends = all_of(load(path)), path.read_bytes(), []
    for place in range(0, 8 * len(content), step):
        at, bit = divmod(place, 8)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        try:
            ends.append(all_of(load(path)) == wanted)
        except ic.InvalidFileError:
            ends.append(None)
    assert False not in ends
    assert 0 < ends.count(True) < 200 / step  # of white space, and of the checksum's name


@pytest.mark.parametrize("what", SAVERS)
def test_a_file_is_read_before_it_replaces_one(what: str, tmp_path: Path, monkeypatch: Any) -> None:
    path, written = tmp_path / "file", container._contents
    SAVERS[what](path)
    before = path.read_bytes()

    def as_a_faulty_disk(*contents: Any) -> Iterator[Any]:
        *most, last = map(bytes, written(*contents))
        yield from most
        yield last[:-1] + bytes([last[-1] ^ 1])

    monkeypatch.setattr(container, "_contents", as_a_faulty_disk)
    with pytest.raises(ValueError, match="cannot be saved: damaged: its contents do not fit the"):
        SAVERS[what](path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_at_a_limit_of_the_file_size_the_old_file_is_whole(tmp_path: Path) -> None:
    path, (soft, hard) = tmp_path / "conv.safetensors", getrlimit(RLIMIT_FSIZE)
    ic.save(ic.Conv1x1(np.eye(3)), path)
    before = path.read_bytes()
    setrlimit(RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(OSError, match="cannot be written: File too large"):
            ic.save(ic.Conv1x1(np.full((1000, 1000), 2.0)), path)
    finally:
        setrlimit(RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_on_disk_takes_the_place_of_a_file_and_then_the_folder_is(
    tmp_path: Path, monkeypatch: Any
) -> None:
    path, done, open_ = tmp_path / "conv.safetensors", list[Any](), list[int]()

    def sync(descriptor: int) -> None:
        open_.append(descriptor)
        done.append(os.fstat(descriptor).st_ino)

    def replace(part: Path, target: Path, move: Any = os.replace) -> None:
        done.append(("then", part.stat().st_ino))
        move(part, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    ic.save(ic.Conv1x1(np.eye(2)), path)
    new = path.stat().st_ino
    assert done == [new, ("then", new), tmp_path.stat().st_ino]
    for descriptor in open_:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_link_stays_a_link_and_permissions_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "conv.safetensors", tmp_path / "link"
    ic.save(ic.Conv1x1(np.eye(2)), path)
    plain = tmp_path / "plain"
    plain.write_text("")
    with container.replacing(tmp_path / "drawn") as part:
        part.unlink()  # as a library does that writes a file of its own in its place
        part.touch(0o600)
    for new in (path, tmp_path / "drawn"):
        assert new.stat().st_mode == plain.stat().st_mode  # as the umask says
    path.chmod(0o640)
    link.symlink_to(path.name)
    ic.save(ic.Conv1x1(np.eye(3)), link)
    assert link.is_symlink()
    assert ic.load(path).channels == 3
    assert path.stat().st_mode & 0o777 == 0o640
    write_text(plain, "x\udcff.html")  # a name of bytes that are no UTF-8, as Python has it
    assert plain.read_text() == r"x\udcff.html"


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(OSError, match="not an ordinary file"):
            write_text(path, "text")
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        write_text(tmp_path / "nowhere" / "text", "text")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
