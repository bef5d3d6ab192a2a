"""No lanes: signals of one channel, each solved number by number, from memory to memory."""

from __future__ import annotations

from invconv.kernels.cpu.geometry import Geometry
from invconv.kernels.cpu.program import Header, Parts, Segment

_REGISTERS = 8  # solved numbers, at most, that stay in registers


def possible(g: Geometry) -> bool:
    """Tell whether images are signals of one channel."""
    return g.channels == 1 and g.pixels == g.shape[0]


def parts(g: Geometry) -> Parts:
    """Return the parts of a program: one segment is a whole signal.

    The distance of a tap is the number of samples back.
    """
    back = [o[0] for o in g.reach]
    # of the numbers solved last, those that are all read stay in registers
    near = next(n for n in range(_REGISTERS + 1) if n == _REGISTERS or n + 1 not in back)
    start = 0 if g.direction[0] > 0 else g.pixels - 1
    return Parts(
        Header(images=1, units=1, row_step=g.direction[0], last_row=max(back)),
        [list(enumerate(back))],
        [[Segment(at=start, rows=g.pixels, columns=1)]],
        (near,),
    )
