"""The processes that train a run: one, or several that torchrun starts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from invconv.arrays.errors import CommandError


@dataclass(frozen=True)
class Processes:
    """A group of processes, as one of them sees it.

    Attributes
    ----------
    rank : int
        Its number; 0 writes and reports.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """Return which images of a batch are this process's.

        Raises
        ------
        ValueError
            Unless every process has as many.
        """
        if batch % self.size:
            raise CommandError(
                f"batch: expected a multiple of the {self.size} processes, got {batch}"
            )
        each = batch // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


ALONE = Processes()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Yield the group that torchrun made, or this process alone, and this process's device."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE, device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()


@contextmanager
def stopping(processes: Processes) -> Iterator[list[int]]:
    """Yield a list that gets an entry when the user or the system asks the process to end.

    Of several processes none can stop alone: they end at once, and go on from their checkpoint.
    """
    asked: list[int] = []
    if processes.size > 1:
        yield asked
        return

    def hear(number: int, frame: object) -> None:
        if asked:  # a second signal ends the process at once
            raise KeyboardInterrupt
        asked.append(number)

    before = {kind: signal.signal(kind, hear) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
