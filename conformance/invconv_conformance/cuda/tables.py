"""What the proof prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from invconv_conformance.cuda.compiler import Report
from invconv_conformance.cuda.faults import Fault
from invconv_conformance.cuda.values import Verdict


def values_line(name: str, found: Sequence[Verdict]) -> str:
    """Return one line on many solves."""
    compared = [v for v in found if v.same_bits is not None]
    bits = (
        f"bits as the CPU's kernel: {sum(v.same_bits is True for v in compared)} of {len(compared)}"
    )
    ran = [v.error for v in found if not v.failure]
    parts = (
        f"{name}: {len(found)} solves",
        f"worst backward error {max(ran, default=0.0):.1f} eps",
        bits if compared else "bits not compared: the CPU's kernel does not run here",
        f"{sum(v.substitutes for v in found)} substitute at the pixel",
    )
    return ", ".join(parts)


def wrong(verdict: Verdict) -> str:
    """Return what went wrong with a solve, and how to find it."""
    job = verdict.job
    return (
        f"  {job.name}: kernel {job.conv.kernel.shape}, {job.conv.mask}, {job.conv.direction}, "
        f"dilation {job.conv.dilation}, y {job.y.shape} {job.y.dtype}, {job.launch}, "
        f"{job.resident} blocks at a time: error {verdict.error} eps of {verdict.bound}, "
        f"bits {verdict.same_bits} {verdict.failure[:2000]}"
    )


def faults_table(planted: Sequence[Fault], found: Sequence[str | None]) -> Table:
    """Return what was planted where, and how it was caught."""
    table = Table("place", "fault", "caught as", title="planted faults")
    for fault, how in zip(planted, found, strict=True):
        table.add_row(f"{fault.file}:{fault.line}", fault.what, how or "[red]not caught[/]")
    return table


def compiler_table(found: Sequence[Report]) -> Table:
    """Return registers and memory of "solve", and of whatever spills."""
    columns = ("solve", "architecture", "registers", "spills", "threads", "shared bytes")
    table = Table(*columns, title="compiled by NVRTC")
    for r in found:
        if r.function == "solve" or not r.right:
            memory = f"{r.shared} of {r.limit}"
            numbers = (f"sm_{r.architecture}", r.registers, r.spilled + r.stack, r.threads, memory)
            table.add_row(
                r.name if r.right else f"[red]{r.name} {r.function}[/]", *map(str, numbers)
            )
    return table
