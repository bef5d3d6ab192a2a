"""Calls drawn at random, in every library and beside what one would take instead.

Before a call is timed, the libraries have to agree on its values as closely as rounding of all that
is given lets them. Times are the processor's, of one thread, warm; calls take turns.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks import runs
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.measure.timing import Call, Floats, Interval
from invconv_benchmarks.report.tables import duration, markdown
from invconv_benchmarks.results.result import Document, Verdict, judged, write_document
from invconv_benchmarks.studies.draws import Drawn, drawn
from invconv_conformance.libraries import KNOWN, settings

SCHEMA, COUNT = "invconv-survey/1", 200
_QUICK, _SHOWN = 20, 4  # calls, and the worst of them
_PATIENCE, _ROUNDS, _WARM = 2.5, 21, 0.02  # seconds for the samples of a call, turns
_SHORT, _CALL = 3e-4, 2e-4  # seconds of calls that are not judged, and of overhead
_ROUNDING, _EPS = 20, 1000  # of what rounding of the arguments changes, and of eps
_LIBRARIES = ("numpy", "torch", "jax")
# what is divided by what, less the overhead; limits of the worst call, of 95 in 100, of the median
_RATIOS: dict[str, tuple[str, str, float, tuple[float | None, ...]]] = {
    "PyTorch ÷ NumPy": ("torch", "numpy", _CALL, (3.0, 2.0, None)),
    "JAX ÷ NumPy": ("jax", "numpy", _CALL, (3.0, 2.0, None)),
    "NumPy ÷ instead": ("numpy", "instead", 0.0, (3.0, None, 0.8)),
    "NumPy ÷ instead, shorter calls": ("numpy", "instead", 0.0, (None, None, None)),
    "PyTorch, gradient of a filter ÷ filter": ("torch", "torch filter", _CALL, (8.0, None, None)),
    "JAX, gradient of a filter ÷ filter": ("jax", "jax filter", _CALL, (8.0, None, None)),
}
_PARTS = ("worst", "95 in 100", "median")


def measure(
    quick: bool, folder: Path, *, seed: int = 0, count: int | None = None, only: int | None = None
) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge the first calls of a seed, or one."""
    finished = environment.begin()
    numbers = range(count or (_QUICK if quick else COUNT)) if only is None else [only]
    shown: Any = {"total": len(numbers), "console": Console(stderr=True), "transient": True}
    calls = [*track(_all(seed, numbers), "timing", **shown)]
    document: Document = {"schema": SCHEMA, **finished(), "seed": seed, "calls": calls}
    write_document(folder / "survey.json", document)
    Console().print(Markdown("\n".join(block(document))))
    return [*verdicts(document)], {}


def _all(seed: int, numbers: Sequence[int]) -> Iterator[Document]:
    """Yield the measured calls; where a process dies, another one goes on."""
    left, names = [*numbers], [(name, "cpu") for name in _LIBRARIES]
    while left:
        with environment.pool(1, settings(1, ""), runs.begin, names, 1) as worker:
            try:
                while left:
                    yield worker.submit(measured, seed, left[0]).result()
                    left.pop(0)
            except BrokenProcessPool:
                words = drawn(seed, left[0]).words
                yield {"number": left.pop(0), "words": words, "error": "the process died"}


def measured(seed: int, number: int) -> Document:
    """Return a call's times, or an error where it raises one or libraries differ."""
    call = drawn(seed, number)
    found: Document = {"number": number, "words": call.words, "instead": call.instead}
    try:
        calls = ways(call, _LIBRARIES)
        compiling = timing.seconds(calls["jax"], time.process_time)
        _require_agreement(call, calls)
        once = {way: timing.seconds(run, time.process_time) for way, run in calls.items()}
        rounds = int(min(_ROUNDS, _PATIENCE / sum(once.values())))
        samples = timing.samples(calls, rounds, warm=_WARM, clock=time.process_time)
        times = samples if rounds else {way: [taken] for way, taken in once.items()}
        found |= {"seconds": times, "compiling": compiling}
    except Exception as error:  # any error of a library; the row reports it
        found["error"] = f"{type(error).__name__}: {str(error)[:300]}"
    KNOWN["jax"].forget()
    return found


def ways(call: Drawn, libraries: Sequence[str]) -> dict[str, Call]:
    """Return the call in libraries and what stands in for it; NumPy has no gradients of filters."""
    rng, filters = np.random.default_rng(0), call.way == "gradient"
    bars = [rng.standard_normal(call.x.shape).astype(call.x.dtype)]
    if call.way.endswith("vjp"):
        bars.append(np.ones(call.x.shape[0], call.x.dtype))
    calls: dict[str, Call] = {}
    for name in libraries:
        if not (filters and name == "numpy"):
            calls[name] = _BUILD[name](call, bars)
        if filters and name != "numpy":
            calls[f"{name} filter"] = _BUILD[name](call._replace(way=""), bars)
    if len(libraries) > 1:
        calls["instead"] = call.stand_in(call.given, call.x)
    return calls


def _in_numpy(call: Drawn, bars: list[Floats]) -> Call:
    if call.way.endswith("vjp"):
        return partial(getattr(call.given, call.way), call.x, *bars)
    return partial(call.run, _ready(call, call.given, call.x), call.x)


def _ready(call: Drawn, given: Any, x: Any) -> Any:
    return given.prepare(tuple(x.shape[2:])) if call.way == "prepared" else given


def _in_torch(call: Drawn, bars: list[Floats]) -> Call:
    import torch

    x, out = torch.as_tensor(call.x), [torch.as_tensor(bar) for bar in bars]  # with its strides
    operator = isinstance(call.given, ic.InvertibleConv)
    given = call.given.asarrays(x) if operator else tuple(map(torch.as_tensor, call.given))
    if call.way in ("", "prepared"):
        return partial(call.run, _ready(call, given, x), x)
    arrays = given.parameters() if operator else dict(enumerate(given))
    leaves = {n: arrays[n].clone().requires_grad_() for n in sorted(arrays)}
    x = x.detach().requires_grad_()
    given = given.replace(**leaves) if operator else tuple(leaves.values())

    def gradient() -> Any:
        results = call.run(given, x)
        results = results if operator else (results,)
        wanted = [*leaves.values(), x]
        return torch.autograd.grad(results, wanted, out, materialize_grads=True)

    return gradient


def _in_jax(call: Drawn, bars: list[Floats]) -> Call:
    import jax
    import jax.numpy as jnp

    x, out = jnp.asarray(call.x), tuple(map(jnp.asarray, bars))
    operator = isinstance(call.given, ic.InvertibleConv)
    given = call.given.asarrays(x) if operator else tuple(map(jnp.asarray, call.given))
    arguments: tuple[Any, ...] = (given, x)
    if call.way == "prepared":
        run, arguments = jax.jit(partial(call.run, _ready(call, given, x))), (x,)
    elif call.way:
        out = out if operator else out[0]
        run = jax.jit(lambda given, x, out: jax.vjp(call.run, given, x)[1](out))
        arguments = given, x, out
    else:
        run = jax.jit(call.run)
    return lambda: jax.block_until_ready(run(*arguments))


_BUILD: dict[str, Any] = {"numpy": _in_numpy, "torch": _in_torch, "jax": _in_jax}


def _leaves(result: Any) -> list[Floats]:
    if isinstance(result, ic.InvertibleConv):
        result = result.parameters()
    if isinstance(result, dict):
        result = [result[name] for name in sorted(result)]
    if isinstance(result, tuple | list):
        return [leaf for part in result for leaf in _leaves(part)]
    return [to_numpy(result)]


def _require_agreement(call: Drawn, calls: dict[str, Call]) -> None:
    """Raise unless all return the same, to what rounding of all that is given would change."""
    first, *others = (name for name in calls if name != "instead" or call.same)
    rng, eps, given = np.random.default_rng(0), float(np.finfo(call.x.dtype).eps), call.given

    def moved(v: Floats) -> Floats:
        return (v * (1 + 8 * eps * rng.standard_normal(v.shape))).astype(v.dtype)

    if isinstance(given, ic.InvertibleConv):
        given = given.replace(**{n: moved(v) for n, v in given.parameters().items()})
    else:
        given = tuple(map(moved, given))
    near = ways(call._replace(given=given, x=moved(call.x)), [first])[first]
    here, there = _leaves(calls[first]()), _leaves(near())
    for name in others:
        if " " in name:
            continue
        for a, b, c in zip(here, _leaves(calls[name]()), there, strict=True):
            bound = _ROUNDING * np.abs(a - c).max() + _EPS * eps * np.abs(a).max()
            off = np.abs(a - b).max()
            if not off <= bound:
                raise ValueError(f"{name} differs from {first} by {off:.2g}, at most {bound:.2g}")


def _ratios(document: Document) -> Iterator[tuple[str, list[tuple[Interval, Document]]]]:
    """Yield each kind of ratio with those of all calls, the worst first."""
    for name, (ours, theirs, overhead, _) in _RATIOS.items():
        found, judged = [], "shorter" not in name
        for call in document["calls"]:
            times = call.get("seconds", {})
            if not {ours, theirs} - {*times} and (np.median(times[ours]) > _SHORT) == judged:
                less = [t - overhead for t in times[ours]]
                found.append((timing.ratio([less], [times[theirs]]), call))
        yield name, sorted(found, key=lambda pair: -pair[0].value)


def verdicts(document: Document) -> Iterator[Verdict]:
    """Yield the verdicts on the worst call, on 95 in 100, and on the median of each ratio."""
    for name, found in _ratios(document):
        for part, place, limit in zip(_PARTS, (0, 1 / 20, 1 / 2), _RATIOS[name][3], strict=True):
            if found and limit is not None:
                ratio, call = found[int(place * len(found))]
                yield judged(f"survey, {name}, {part}", _line(document, call), ratio, limit)
    errors = [call for call in document["calls"] if "error" in call]
    what = "; ".join(f"{_line(document, call)}: {call['error']}" for call in errors)
    yield judged("survey, calls that raise or differ", what, len(errors), 0)


def _line(document: Document, call: Document) -> str:
    return f"--seed {document['seed']} --only {call['number']}: {call['words']}"


def block(document: Document) -> list[str]:
    """Return the table of the distribution, and that of the worst calls, in Markdown."""
    rows, worst = [], []
    for name, found in _ratios(document):
        at = [f"{found[int(p * len(found))][0].value:.2g}" for p in (1 / 2, 1 / 20, 0) if found]
        rows.append([name, str(len(found)), *(at or ["–"] * 3)])
        for ratio, call in found[:_SHOWN]:
            line, _, words = _line(document, call).partition(": ")
            worst.append(
                f"- {name}: **{ratio.value:.2g}**, {words} ({_times(call)}; the latter "
                f"{call['instead']}): `python -m invconv benchmark survey {line}`"
            )
    heads = ["time ÷ time", "calls", "median", "95 in 100", "worst"]
    lines = markdown(heads, rows)
    return [*lines, "", *worst]


def _times(call: Document) -> str:
    return ", ".join(f"{n} {duration(float(np.median(t)))}" for n, t in call["seconds"].items())
