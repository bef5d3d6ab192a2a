"""Parts of a batch by several threads: programs of calls that OpenMP's threads share out.

They are the threads of the library whose arrays are solved. Others would have to wait for these,
which look for work in a loop for milliseconds before they sleep.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from invconv.replay import Loops, Step, Steps, address, keeping, loops, pointer, table_of


class Team(NamedTuple):
    """Threads of OpenMP.

    Attributes
    ----------
    parallel : function of ctypes
        Lets them all run a function.
    thread, threads : int
        Addresses of functions that tell which of them one is, and how many they are.
    size : callable
        Returns how many are wanted. Asked for another number, OpenMP would start and end some.
    """

    parallel: Any
    thread: int
    threads: int
    size: Callable[[], int]

    @classmethod
    def of(cls, library: str | None, size: Callable[[], int]) -> Team | None:
        """Return the threads that a shared library uses, None where they are of another kind."""
        if library is None:
            return None
        try:
            linked = ctypes.CDLL(library)
            names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
            parallel, thread, threads = (address(getattr(linked, name)) for name in names)
        except (OSError, AttributeError):
            return None
        return cls(ctypes.CFUNCTYPE(None)(parallel), thread, threads, size)

    def program(self, parts: list[list[Any]]) -> Program | None:
        """Return what makes the calls of all parts; None where they are not all steps."""
        found = loops()
        if found is None or not all(isinstance(c, Step | Steps) for calls in parts for c in calls):
            return None
        return Program(found, self, parts)


class Program:
    """Parts that are independent: the steps of each are made in order, by one thread of a team.

    Parameters
    ----------
    loops : Loops
    team : Team
    parts : list of list of Step and Steps
        Steps come first, if at all.
    """

    def __init__(self, loops: Loops, team: Team, parts: list[list[Any]]) -> None:
        tables = [table_of(steps) for steps in parts]
        ends = itertools.chain.from_iterable((t.ctypes.data, len(t)) for t in tables)
        program = np.asarray([team.thread, team.threads, len(parts), *ends], np.int64)
        self._size, self._threads = team.size, ctypes.c_uint()
        arguments = [ctypes.c_void_p(loops.share), pointer(program), self._threads]
        steps = [s.step if isinstance(s, Steps) else s for part in parts for s in part]
        reads = [loops, program, tables, steps]
        self._run = keeping(team.parallel, [*arguments, ctypes.c_uint(0)], reads)
        self.nbytes = sum(table.nbytes for table in tables)
        self._given = list[tuple[Any, int]]()  # addresses, and what they are counted from
        for table, part in zip(tables, parts, strict=True):
            if part and isinstance(part[0], Steps):
                column = table[: part[0].times, 1 + part[0].given]
                self._given.append((column, int(column[0])))  # which is the array's own address

    def read(self, arrays: list[np.ndarray[Any, Any]]) -> None:
        """Let the next run read these arrays, one for each part, wherever Steps are given one."""
        for i, ((addresses, before), array) in enumerate(zip(self._given, arrays, strict=True)):
            now = array.__array_interface__["data"][0]
            addresses += now - before
            self._given[i] = addresses, now

    def __call__(self) -> None:
        """Run it."""
        self._threads.value = self._size()
        self._run()
