"""The waves of `invconv.pitched` and `invconv.relay` with `torch.mm` into strided views."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch

from invconv.pitched import Layout
from invconv.relay import Relay
from invconv.workspaces import Workspaces

Tensor: TypeAlias = torch.Tensor

_NARROW = 8  # pixels of a row: transposing so short runs takes longer than copying the image first

P = TypeVar("P", Layout, Relay)
W = TypeVar("W")

_workspaces: Workspaces[Any] = Workspaces()


def _workspace(make: Callable[[P, Tensor, Tensor], W], plan: P, matrix: Tensor, y: Tensor) -> W:
    """Return a workspace, a kept one on the CPU; on CUDA, where a stream may not share one, new.

    New memory comes from torch's pool there, in a captured graph from the graph's own.
    """

    def new() -> W:
        with torch.inference_mode(False):
            return make(plan, matrix, y)

    if type(y) is not torch.Tensor or y.device.type != "cpu":
        return new()
    found: W = _workspaces.get((plan, matrix.shape[1], y.dtype), new)
    return found


def _buffer(plan: Layout | Relay, y: Tensor) -> Tensor:
    return torch.zeros(plan.length, dtype=y.dtype, device=y.device)


def _bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _tiled(plan: Layout | Relay, x: Tensor) -> Tensor:
    """View images (B, C, H, W) as (B, H / h, h, W / w, w, C)."""
    batch, rows, high, columns, wide, channels = plan.shape
    tiled = x.view(batch, channels, rows, high, columns, wide)
    return tiled.permute(0, 2, 3, 4, 5, 1)


def _leave(plan: Layout, images: Tensor, y: Tensor) -> Tensor:
    """Copy the images out of a buffer."""
    x = torch.empty_like(y, memory_format=torch.contiguous_format)
    if plan.shape[3] * plan.shape[4] <= _NARROW:
        rows = images.reshape(y.shape[0], -1, y.shape[1])
        x.view(*y.shape[:2], -1).copy_(rows.mT)
        return x
    target = _tiled(plan, x)
    for some in plan.exits:
        target[some].copy_(images[some])
    return x


@dataclass(frozen=True)
class Pitched:
    """A buffer's images, and (windows, x, sum, the sum's x) of each step.

    A sum is as wide as the weights, which may be padded.
    """

    images: Tensor
    steps: tuple[tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor], ...]
    nbytes: int

    @staticmethod
    def of(plan: Layout, matrix: Tensor, y: Tensor) -> Pitched:
        """Return a zeroed buffer and its views."""
        buffer, largest = _buffer(plan, y), max(count for _, count in plan.steps)
        scratch = buffer.new_empty((largest, matrix.shape[1]))
        steps = tuple(
            (*views, scratch[:count], scratch[:count, : plan.size])
            for views, (_, count) in zip(_views(plan, buffer), plan.steps, strict=True)
        )
        images = buffer.as_strided(plan.shape, plan.strides, plan.start)
        return Pitched(images, steps, _bytes(buffer, scratch))


def _views(plan: Layout, buffer: Tensor) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    """Return (windows, x) of each step."""
    row = (plan.strides[0], 1)
    return [
        (
            tuple(buffer.as_strided((n, k), row, place + shift) for shift, k in plan.windows),
            buffer.as_strided((n, plan.size), row, place),
        )
        for place, n in plan.steps
    ]


def pitched(
    plan: Layout, matrices: list[Tensor], y: Tensor, substitute: Callable[[Tensor], Tensor] | None
) -> Tensor:
    """Return x of the images y; ``substitute`` solves with D in rows where the weights do not."""
    work = _workspace(Pitched.of, plan, matrices[0], y)
    source = _tiled(plan, y)
    for some in plan.entries:
        work.images[some].copy_(source[some])
    first, *others = matrices
    with torch.inference_mode():  # which calls are quicker in
        for windows, x, total, found in work.steps:
            torch.mm(windows[0], first, out=total)
            for window, matrix in zip(windows[1:], others, strict=True):
                total.addmm_(window, matrix)
            x.copy_(found if substitute is None else substitute(found))
    return _leave(plan, work.images, y)


@dataclass(frozen=True)
class SolvedFirst:
    """A buffer's images, (windows, x) of each step, and how a chunk of images gets in.

    Of a chunk: which samples and rows, room for its pixels by rows of tiles and for their product
    with T^-T, that product as images, and those images in the buffer.
    """

    images: Tensor
    steps: list[tuple[tuple[Tensor, ...], Tensor]]
    chunks: tuple[tuple[tuple[slice, slice], Tensor, Tensor, Tensor, Tensor], ...]
    nbytes: int

    @staticmethod
    def of(plan: Layout, matrix: Tensor, y: Tensor) -> SolvedFirst:
        """Return a zeroed buffer and its views."""
        buffer = _buffer(plan, y)
        images = buffer.as_strided(plan.shape, plan.strides, plan.start)
        inside = [images[samples, band, 0] for samples, band in plan.chunks]
        room = buffer.new_empty((2, max(part.numel() for part in inside)))
        chunks = []
        for chunk, part in zip(plan.chunks, inside, strict=True):
            given, solved = room[:, : part.numel()]
            rows = (part.shape[0], math.prod(part.shape[1:-1]), part.shape[-1])
            chunks.append(
                (chunk, given.view(rows), solved.view(rows), solved.view(part.shape), part)
            )
        return SolvedFirst(images, _views(plan, buffer), tuple(chunks), _bytes(buffer, room))


def solved_first(plan: Layout, matrices: list[Tensor], y: Tensor) -> Tensor:
    """Return x of the images y, whose tiles are one row high; T^-T comes before the weights."""
    inverse, *taken_off = matrices
    work, size = _workspace(SolvedFirst.of, plan, inverse, y), plan.size
    for (samples, band), given, solved, found, inside in work.chunks:
        rows = y[samples, :, band].flatten(2).mT
        if size == y.shape[1]:
            torch.matmul(rows, inverse, out=solved)
        else:
            given.copy_(rows)
            torch.mm(given.view(-1, size), inverse, out=solved.view(-1, size))
        inside.copy_(found)
    with torch.inference_mode():
        for windows, x in work.steps:
            for window, matrix in zip(windows, taken_off, strict=True):
                x.addmm_(window, matrix)
    return _leave(plan, work.images, y)


@dataclass(frozen=True)
class Relayed:
    """y and x in a buffer, as they are copied, and (what is read, what is found) of each step."""

    given: tuple[Tensor, ...]
    found: tuple[Tensor, ...]
    steps: tuple[tuple[Tensor, Tensor], ...]
    nbytes: int

    @staticmethod
    def of(plan: Relay, matrix: Tensor, y: Tensor) -> Relayed:
        """Return a zeroed buffer and its views."""
        buffer, row = _buffer(plan, y), (plan.record, 1)
        steps = tuple(
            (
                buffer.as_strided((count, plan.reads), row, reads),
                buffer.as_strided((count, plan.finds), row, finds),
            )
            for reads, finds, count in plan.steps
        )
        images = (buffer.as_strided(plan.shape, plan.strides, at) for at in (plan.entry, plan.exit))
        given, found = (tuple(whole[some] for some in plan.copies) for whole in images)
        return Relayed(given, found, steps, _bytes(buffer))


def relayed(plan: Relay, matrix: Tensor, y: Tensor) -> Tensor:
    """Return x of the image y."""
    work = _workspace(Relayed.of, plan, matrix, y)
    source = _tiled(plan, y)
    for some, given in zip(plan.copies, work.given, strict=True):
        given.copy_(source[some])
    with torch.inference_mode():
        for reads, finds in work.steps:
            torch.mm(reads, matrix, out=finds)
    x = torch.empty_like(y, memory_format=torch.contiguous_format)
    target = _tiled(plan, x)
    for some, found in zip(plan.copies, work.found, strict=True):
        target[some].copy_(found)
    return x
