"""What the kernel computes on a CPU, against the definition and against the CPU's own kernel."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

import invconv as ic
from invconv.kernels.cpu.assembly import program
from invconv.kernels.cpu.compiled import compiled_solve
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.cpu.machine import reason
from invconv.kernels.cpu.program import address_of
from invconv_conformance.cuda.build import Builder, CudaSolve, Floats, RunError, in_precision
from invconv_conformance.truth.oracle import EXTENDED, convolve


@dataclass(frozen=True)
class CudaVerdict:
    """What was found of a job."""

    job: CudaSolve
    # in eps; for a singular D infinite where the solution seems to be a finite one, else 0
    error: float = math.nan
    # whether weights and solution are those of the CPU's kernel; None where that does not run
    same_bits: bool | None = None
    substitutes: bool = False  # whether D^-1 was not folded in
    failure: str = ""  # what ended the run

    @property
    def wrong(self) -> str:
        """What is not as it should be: the sums have C terms for each tap."""
        bound = 10 + self.job.conv.channels * (1 + len(self.job.plan.order))
        if not self.failure and self.error <= bound and self.same_bits is not False:
            return ""
        bits = f"bits {self.same_bits} {self.failure[:2000]}"
        return f"{self.job}: error {self.error} eps of {bound}, {bits}"


def grouped(jobs: Iterable[CudaSolve]) -> list[list[CudaSolve]]:
    """Return jobs of the same constants together."""
    groups = defaultdict(list)
    for job in jobs:
        groups[job.plan.constants].append(job)
    return list(groups.values())


def judge(builder: Builder, group: Sequence[CudaSolve]) -> list[CudaVerdict]:
    """Run jobs of the same constants."""
    try:
        results = builder.solve(group)
    except RunError as error:
        return [CudaVerdict(job, failure=str(error)) for job in group]
    return [_verdict(job, r.weights, r.x) for job, r in zip(group, results, strict=True)]


def _verdict(job: CudaSolve, weights: Floats, x: Floats) -> CudaVerdict:
    flag = bool(weights[-1 - 2 * job.conv.channels] != 0)
    if not np.all(np.diagonal(job.matrices[0])):
        return CudaVerdict(job, math.inf if np.all(np.isfinite(x)) else 0.0, None, flag)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is wrong
        error = backward_error(job.conv, x, job.y)
    return CudaVerdict(job, error, _same_bits(job, weights, x), flag)


def backward_error(conv: ic.AutoregressiveConv, x: Floats, y: Floats) -> float:
    """Return the largest of the images' |K x - y| / (|K| |x| + |y|), in largest norms and eps."""
    wide = in_precision(conv, "float64")
    sizes = wide.replace(kernel=np.abs(wide.kernel))
    errors = []
    for x_one, y_one in zip(x.astype(EXTENDED), y.astype(EXTENDED), strict=True):
        off = np.abs(convolve(wide, x_one) - y_one).max()
        size = (convolve(sizes, np.abs(x_one)) + np.abs(y_one)).max()
        errors.append(off / size / np.finfo(x.dtype).eps)
    return float(np.max(errors, initial=0.0))


def _same_bits(job: CudaSolve, weights: Floats, x: Floats) -> bool | None:
    if not comparable(x.itemsize):
        return None
    c, y = job.conv._causal(), np.ascontiguousarray(job.y)
    state = compiled_solve(job.matrices, c.sweep.on(y.shape[2:]))
    expected = np.full_like(y, np.nan)
    state.run(address_of(y), address_of(expected), len(y), 1, y, expected)
    channels, square = job.conv.channels, job.conv.channels**2
    ends = weights[-1 - 2 * channels - square :][: square + 1]  # D, and the flag
    layout = program(state.geometry, "images")
    own, size = state.weights(layout), layout.flag - square
    columns = own[size : layout.flag].reshape(channels, channels)
    pairs = [(x, expected), (ends, np.append(columns.T, own[layout.flag]))]
    if state.geometry.single:  # else the CPU's weights lie in blocks
        pairs.append((weights[:size], own[:size]))
    return all(np.array_equal(one, other, equal_nan=True) for one, other in pairs)


def comparable(itemsize: int) -> bool:
    """Tell whether the CPU's kernel runs here, and with fused multiply-adds."""
    return reason(itemsize) is None and host().fma
