"""``invconv conformance``: the laws, on every library, device and dtype."""

from __future__ import annotations

import argparse
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.progress import Progress

from invconv_conformance import report
from invconv_conformance.libraries import LIBRARIES, Target, targets
from invconv_conformance.runner import run as run_laws
from invconv_conformance.runner import select, select_laws

_SHOWN = 10  # failures that the terminal lists; the files have them all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    names = ", ".join(library.name for library in LIBRARIES)
    parser.add_argument(
        "--library", default="all", help=f"all, or a comma-separated list of {names}"
    )
    parser.add_argument("--device", help="only this device, such as cpu or cuda:0")
    parser.add_argument("--dtype", help="only this dtype, such as float64")
    parser.add_argument("--cases", default="*", help='names of cases, such as "periodic-*"')
    parser.add_argument("--laws", default="*", help='ids of laws, such as "vjp.*"')
    parser.add_argument("--quick", action="store_true", help="one case of each kind")
    parser.add_argument("--json", type=Path, help="write every result here")
    parser.add_argument("--junit", type=Path, help="write a JUnit report here")


def run(arguments: argparse.Namespace) -> int:
    """Run the laws, print the table, write the files; 1 if a law failed."""
    found, absent = choose(arguments)
    cases, laws = select(arguments.cases, arguments.quick), select_laws(arguments.laws)
    for option, chosen in (("cases", cases), ("laws", laws)):
        if not chosen:
            raise ValueError(f"--{option}: nothing is named {getattr(arguments, option)!r}")
    for path in (arguments.json, arguments.junit):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"there is no folder {path.absolute().parent} to write {path.name} in")
    console = Console()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(found) * len(cases))
        results = list(
            run_laws(
                found,
                cases,
                laws,
                lambda text: progress.update(task, advance=1, description=text),
            )
        )
    console.print("Share of its bound that the worst case of each law uses up:")
    for table in report.summaries(results):
        console.print(table)
    bad = [r for r in results if r.status != "pass"]
    for r in bad[:_SHOWN]:
        console.print(f"[red]{r.status}[/] {r.law}, {r.case}: {r.what}", highlight=False)
        console.print(
            f"  error {r.error:.3g}, bound {r.bound:.3g}\n  {r.reproduce}", highlight=False
        )
    for reason in absent:
        console.print(f"not run: {reason}")
    console.print(
        f"{len(results) - len(bad)} of {len(results)} hold: {len(laws)} laws on {len(cases)} cases"
    )
    if arguments.json is not None:
        report.write(arguments.json, report.dumps(report.as_json(results, absent)))
    if arguments.junit is not None:
        report.write(arguments.junit, ElementTree.tostring(report.as_junit(results), "unicode"))
    return 1 if bad else 0


def choose(arguments: argparse.Namespace) -> tuple[list[tuple[Target, str]], list[str]]:
    """Return what to run, and why the rest is not run.

    Raises
    ------
    ValueError
        If a library that was asked for by name cannot run, or nothing is left to run.
    """
    known = {library.name: library for library in LIBRARIES}
    names = list(known) if arguments.library == "all" else arguments.library.split(",")
    absent = []
    for name in names:
        if name not in known:
            raise ValueError(
                f"--library: expected all, or some of {', '.join(known)}, got {name!r}"
            )
        if reason := known[name].absent():
            if arguments.library != "all":
                raise ValueError(f"--library: {reason}")
            absent.append(reason)
    found = [
        (target, dtype)
        for target in targets()
        if target.library.name in names and arguments.device in (None, target.device)
        for dtype in target.library.dtypes
        if arguments.dtype in (None, dtype)
    ]
    if not found:
        raise ValueError(
            f"nothing to run: --library {arguments.library} has no device and dtype like "
            f"--device {arguments.device or 'any'} --dtype {arguments.dtype or 'any'}"
        )
    return found, absent
