"""Calls drawn at random, in every library, and beside what one would take instead.

Before a call is timed all have to return the same, to what rounding of all that is given would
change. Times are the processor's, of one thread, warm; calls take turns.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks import runs
from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.measure.environment import told
from invconv_benchmarks.measure.timing import Call
from invconv_benchmarks.report.tables import duration, markdown
from invconv_benchmarks.results.result import Document, Verdict, judged, write_document
from invconv_benchmarks.studies.draws import Drawn, changed, drawn
from invconv_conformance.libraries import KNOWN, Target, settings

SCHEMA = "invconv-survey/1"
_LIBRARIES, _COUNT, _QUICK = ("numpy", "torch", "jax"), 200, 20
_SHARES = 0.5, 0.05, 0  # of the calls that are slower, in the table
_PATIENCE, _ROUNDS, _WARM = 2.5, 21, 0.02  # seconds for the samples of a call, turns
_SHORT, _OVERHEAD = 3e-4, 2e-4  # seconds of calls that are not judged, and that a call may take
_ROUNDING, _UNITS = 20, 1000  # how often what rounding would change, and eps
_INSTEAD, _FORWARD = "instead", ", forward"
# which time ÷ which, less the overhead, and limits by the share of calls that may exceed them
_RATIOS: list[tuple[str, str, str, float, dict[float, float]]] = [
    ("PyTorch ÷ NumPy", "torch", "numpy", _OVERHEAD, {0: 3.0, 0.05: 2.0}),
    ("JAX ÷ NumPy", "jax", "numpy", _OVERHEAD, {0: 3.0, 0.05: 2.0}),
    ("NumPy ÷ what one would take instead", "numpy", _INSTEAD, 0.0, {0: 3.0, 0.5: 0.8}),
    ("that of shorter calls", "numpy", _INSTEAD, 0.0, {}),
    ("PyTorch, a filter's gradient ÷ forward", "torch", f"torch{_FORWARD}", _OVERHEAD, {0: 8.0}),
    ("JAX, a filter's gradient ÷ forward", "jax", f"jax{_FORWARD}", _OVERHEAD, {0: 8.0}),
]


def measure(
    quick: bool, folder: Path, seed: int = 0, count: int = 0, only: int | None = None
) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge the first calls of a seed, or one."""
    finished, names = environment.begin(), [(name, "cpu") for name in _LIBRARIES]
    numbers = range(count or (_QUICK if quick else _COUNT)) if only is None else [only]
    shown: Any = {"total": len(numbers), "console": Console(stderr=True), "transient": True}
    with environment.pool(1, settings(1, ""), runs.begin, names, 1) as worker:
        calls = [*track(worker.map(partial(measured, seed), numbers), "timing", **shown)]
    document: Document = {"schema": SCHEMA, **finished(), "seed": seed, "calls": calls}
    write_document(folder / "survey.json", document)
    Console().print("\n".join(block(document)), soft_wrap=True, markup=False, highlight=False)
    return [*verdicts(document)], {}


def measured(seed: int, number: int) -> Document:
    """Return a call's times, or its error."""
    call = drawn(seed, number)
    found: Document = {"line": f"--seed {seed} --only {number}", "words": call.words}
    try:
        calls, once, results = ways(call), dict[str, float](), dict[str, Any]()
        for way, run in calls.items():
            found[f"first {way}"] = timing.seconds(run)  # compiles, plans, fills caches
            start = time.process_time()
            results[way] = run()
            once[way] = time.process_time() - start
        _require_agreement(call, results)
        rounds = int(min(_ROUNDS, _PATIENCE / sum(once.values())))
        times = timing.samples(calls, rounds, warm=_WARM, clock=time.process_time)
        found["seconds"] = times if rounds else {way: [taken] for way, taken in once.items()}
    except Exception as error:  # any error of a library; the row reports it
        found["error"] = f"{type(error).__name__}: {str(error)[:200]}"
    KNOWN["jax"].forget()  # what it compiled
    return found


def ways(call: Drawn, libraries: Sequence[str] = _LIBRARIES) -> dict[str, Call]:
    """Return the call in each library, and instead; NumPy has no gradients of filters."""
    calls, by_name = dict[str, Call](), isinstance(call.given, dict)
    gradient = call.way not in ("", "prepared")
    bars = [call.x, *[np.ones(len(call.x), call.x.dtype)] * (not by_name)]  # of log-determinants
    for name in libraries:
        if by_name and gradient and name == "numpy":
            continue
        library: Any = KNOWN[name]
        target, asarray = Target(library, "cpu", library.usual_mode), library.namespace().asarray
        x, *out = map(asarray, (call.x, *bars))  # with the strides, where arrays have any
        given = changed(call.given, asarray) if by_name else call.given.asarrays(x)
        run: Any = call.run
        arguments: Any = (given, x)
        if gradient and by_name:
            calls[name + _FORWARD] = _ended(target, run, arguments)
        if call.way == "prepared":
            run, arguments = partial(run, given.prepare(x.shape[2:])), (x,)
        elif gradient and name == "numpy":
            run, arguments = getattr(given, call.way), (x, *out)
        elif gradient:
            arrays = given if by_name else given.parameters()
            arguments = arrays, x, out[0] if by_name else tuple(out)
            of_arrays = lambda p, x, conv=given: call.run(conv.replace(**p), x)  # noqa: E731
            run = partial(library.pullback, call.run if by_name else of_arrays)
            if name == "torch":
                run, arguments = _trained(call.run, given, *arguments), ()
        calls[name] = _ended(target, run, arguments)
    return calls | {_INSTEAD: call.instead(call.given, call.x)}


def _trained(run: Any, given: Any, arrays: Any, x: Any, out: Any) -> Call:
    """Return PyTorch's gradients by arrays that an operator has held from the start."""
    import torch

    leaves = {name: v.detach().requires_grad_() for name, v in arrays.items()}
    given, x = leaves if given is arrays else given.replace(**leaves), x.detach().requires_grad_()

    def gradient() -> Any:
        wanted = [*leaves.values(), x]
        *bars, x_bar = torch.autograd.grad(run(given, x), wanted, out, materialize_grads=True)
        return dict(zip(leaves, bars, strict=True)), x_bar

    return gradient


def _ended(target: Target, run: Any, arguments: Any) -> Call:
    """Return a call that ends when what it computes is there."""
    compiled = target.compile(run)

    def call() -> Any:
        result = compiled(*arguments)
        timing.wait(target, _leaves(result))
        return result

    return call


def _leaves(result: Any) -> list[Any]:
    if isinstance(result, dict):
        result = [result[name] for name in sorted(result)]
    if isinstance(result, tuple | list):
        return [leaf for part in result for leaf in _leaves(part)]
    return [result]


def _require_agreement(call: Drawn, results: dict[str, Any]) -> None:
    """Raise unless all are the same to what rounding of the arguments changes."""
    rng, eps = np.random.default_rng(0), float(np.finfo(call.x.dtype).eps)

    def moved(v: Any) -> Any:
        return (v * (1 + 8 * eps * rng.standard_normal(v.shape))).astype(v.dtype)

    first, *others = (w for w in results if _FORWARD not in w and (w != _INSTEAD or call.same))
    near = ways(call._replace(given=changed(call.given, moved), x=moved(call.x)), [first])[first]()
    for way in others:
        for triple in zip(*(_leaves(r) for r in (results[first], results[way], near)), strict=True):
            a, b, c = map(to_numpy, triple)
            bound = _ROUNDING * np.abs(a - c).max() + _UNITS * eps * np.abs(a).max()
            if not (off := np.abs(a - b).max()) <= bound:
                raise ValueError(f"{way} differs from {first} by {off:.2g}, beyond {bound:.2g}")


def _ratios(document: Document) -> Iterator[tuple[str, dict[float, float], list[Any]]]:
    """Yield each kind of ratio with its limits, and with those of all calls, the largest first."""
    for name, ours, theirs, overhead, limits in _RATIOS:
        timed = [c for c in document["calls"] if {ours, theirs} <= {*c.get("seconds", {})}]
        found = [
            (timing.ratio([[t - overhead for t in c["seconds"][ours]]], [c["seconds"][theirs]]), c)
            for c in timed
            if (np.median(c["seconds"][ours]) > _SHORT) == bool(limits)
        ]
        yield name, limits, sorted(found, key=lambda pair: -pair[0].value)


def verdicts(document: Document) -> Iterator[Verdict]:
    """Yield the verdict on each limit, with the line of the call that decides."""
    for name, limits, found in _ratios(document):
        for share, limit in limits.items() if found else ():
            ratio, call = found[int(share * len(found))]
            which = f"all but {100 * share:g} %" if share else "all"
            yield judged(f"{name}, {which}", f"{call['line']}: {call['words']}", ratio, limit)
    errors = [c for c in document["calls"] if "error" in c]
    what = "; ".join(f"{c['line']}: {c['words']}: {c['error']}" for c in errors)
    yield judged("calls that raise, or differ between libraries", what, len(errors), 0)


def block(document: Document, worst: int = 3) -> list[str]:
    """Return the distributions and the worst calls, in Markdown."""
    rows, lines = list[list[str]](), list[str]()
    for name, _, found in _ratios(document):
        ends = [f"{found[int(share * len(found))][0].value:.2g}" for share in _SHARES if found]
        rows += [[name, str(len(found)), *ends]] if found else []
        for ratio, call in found[:worst]:
            times = (f"{w} {duration(float(np.median(t)))}" for w, t in call["seconds"].items())
            why = f"{name} **{ratio.value:.2g}**: {call['words']}; {', '.join(times)}"
            lines += [f"- `{call['line']}`, {why}"]
    there, versions = document["environment"], told(document, "numpy", "scipy", "torch", "jax")
    about = f"{len(document['calls'])} calls of the seed {document['seed']}, {there['cpu']}, one "
    about += f"thread, processor time, {versions}. Of a library's time 200 µs are left out, and so "
    about += "are calls that take it at most 0.3 ms."
    return [about, "", *markdown(["", "calls", "median", "95 %", "worst"], rows), "", *lines]
