"""Look for an inverse that is wrong and says nothing.

Operators are judged as `prepare` and `diagnose` do, and compared with dense matrices in extended
precision. Of chains with one bad step it is looked at whether the warning and the diagnosis name
it. How wrong an inverse is:

    |x' - x| / |x| in the largest entries, x' = conv.inverse(y) as it runs,

for y = conv.forward(x), whose x is known, and for random y, whose x is found step by step, unless
the grid is too large for a dense matrix. A 1x1 of factors runs in PyTorch, too, with parameters
that want gradients: it is solved factor by factor.

Draws by a seed (`beyond`) go on where these end: grids of 10^6 numbers, signs that alternate,
scales beyond the range, half types, blocks.
"""

import contextlib
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from rich.console import Console
from rich.progress import track

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.operators.base import judgement
from invconv.operators.pointwise.conv1x1 import Pointwise
from invconv_benchmarks.report.figures import Floats
from invconv_benchmarks.results.result import Verdict, judged
from invconv_benchmarks.studies import beyond, operators
from invconv_conformance.laws.trust import warned
from invconv_conformance.truth import oracle
from invconv_conformance.truth.oracle import EXTENDED, ExtendedLU

Solve = Callable[[Floats], Floats]

_FAMILY, _NEAR, _CHAINS, _LARGE, _BLAMED = 60, 40, 100, 10, 100
_QUICK = 10  # of each, one in so many
_MOST_FALSE, _NAMED = 0.01, 0.98
LOST, ENOUGH = 2.0, 3.0  # digits: what must warn, and what must not
CLOSE, FAR = 0.5, 1.0  # digits between what is said and what is left
PLACES = {"float32": 23, "float64": 52, "float16": 10, "bfloat16": 7}  # binary
_BEYOND = {"large": 330, "signs": 900, "underflowing": 600, "halves": 800, "streams": 600}
_CONDITION = 2**14  # numbers of an image up to which `condition` is asked
_KINDS = 3  # of samples
_SMALL = 2.0**-100  # images
_FEW, _SAMPLES, _SMALL_IMAGE = 24, 96, 2**10  # samples of large images and of small ones; numbers
_DENSE = 2**10  # numbers of an image of a dense matrix at most, but of autoregressive convolutions


@dataclass(frozen=True)
class Compared:
    """An operator's digits as they are said and as they are left, and what warns."""

    name: str
    conv: ic.InvertibleConv
    shape: Shape
    said: float
    left: float
    inverse_warns: bool
    forward_warns: bool  # where that has an inverse in it

    @property
    def hopeful(self) -> float:
        """How many digits too many are said; negative where too few are."""
        return self.said - self.left

    @property
    def silent(self) -> bool:
        """Whether an inverse is lost and nothing warns, by more than samples differ."""
        return not (self.inverse_warns or self.forward_warns) and self.left < LOST - CLOSE

    @property
    def false_alarm(self) -> bool:
        """Whether the inverse warns though three digits are left."""
        return self.inverse_warns and self.left >= ENOUGH


def compare(construction: operators.Construction, rng: np.random.Generator) -> Compared | None:
    """Return the comparison of an operator; None where it is refused as singular."""
    name, conv, shape = construction
    precision = str(conv._reference()[1].dtype)
    zeros = np.zeros((1, conv.channels, *shape), precision)
    with np.errstate(all="ignore"), _seeded():
        try:
            with warned() as of_inverse:
                conv.prepare(shape)
            with warned() as of_forward:
                conv.forward(zeros)
            left = digits(error_of(conv, shape, rng), precision)
        except (ic.SingularConvError, np.linalg.LinAlgError):
            return None
        with warned():
            said = judgement.judge(conv, shape, precision).digits(precision)
    return Compared(name, conv, shape, said, left, bool(of_inverse), bool(of_forward))


def _seeded() -> Any:
    """Return a context in which what a judgement draws anew is the same in every run."""
    seeds, seeded = itertools.count(), np.random.default_rng
    draw = lambda seed=None: seeded(next(seeds) if seed is None else seed)  # noqa: E731
    return mock.patch.object(np.random, "default_rng", draw)


def _blames(conv: ic.Chain, shape: Shape, step: int) -> bool | None:
    """Tell whether warning and diagnosis name a chain's bad step; None without a lost inverse."""
    refused = contextlib.suppress(ic.SingularConvError)  # a scale may be 0 in float32
    with warned() as messages, np.errstate(all="ignore"), _seeded(), refused:
        conv.prepare(shape)
    if not messages:
        found = compare(("", conv, shape), np.random.default_rng(0))
        return False if found and found.silent else None
    with warned(), np.errstate(all="ignore"), _seeded():
        blame = ic.diagnose(conv, shape).blame
    named = any(re.search(rf"lost by {step}[. ]", message) for message in messages)
    return named and blame.partition(".")[0] == str(step)


@dataclass(frozen=True)
class Beyond(Compared):
    """An operator of `beyond`, and what `diagnose` says of it."""

    worst: float  # digits at worst, as said
    ratio: float  # the condition that is said over `condition`; NaN where it is not asked

    @property
    def false_alarm(self) -> bool:
        """Whether the inverse warns though three digits are left, or half types' own but one."""
        precision = str(self.conv._reference()[1].dtype).rpartition(".")[2]
        few = min(ENOUGH, PLACES[precision] * math.log10(2) - FAR)
        return self.inverse_warns and self.left >= few


def look_beyond(kind: str, count: int, seed: int) -> list[Beyond]:
    """Compare so many operators of a kind of `beyond`, which are refused as singular or told."""
    drawn: Iterable[Any] = getattr(beyond, kind)(count, seed)
    look = _stream if kind == "streams" else _beyond
    shown = track(drawn, kind, count, console=Console(stderr=True), transient=True)
    with np.errstate(all="ignore"):
        found = [look(one, np.random.default_rng(seed)) for one in shown]
    return [one for one in found if one is not None]


def _beyond(construction: operators.Construction, rng: np.random.Generator) -> Beyond | None:
    name, conv, shape = construction
    like = conv._reference()[1]
    precision = str(like.dtype).rpartition(".")[2]
    try:
        left = digits(beyond.error(conv, shape, rng), precision)
        with warned() as messages:
            conv.replace().prepare(shape)
        with warned():
            said = ic.diagnose(conv.replace(), shape)
            numbers = conv.channels * math.prod(shape)
            known = conv.replace().condition(shape) if numbers <= _CONDITION else math.nan
    except (ic.SingularConvError, np.linalg.LinAlgError):
        return None
    worst = said.worst_float64 if precision == "float64" else said.worst_float32
    ratio = said.condition / known if math.isfinite(known) else math.nan
    return Beyond(name, conv, shape, said.digits, left, bool(messages), False, worst, ratio)


def _stream(stream: beyond.Stream, rng: np.random.Generator) -> Beyond:
    conv, length, _, more = stream
    with warned() as messages:
        left = digits(beyond.run_stream(stream, rng), str(conv.kernel.dtype))
    shape = (length, *more)
    return Beyond("blocks", conv, shape, left, left, bool(messages), False, left, math.nan)


def verdicts_beyond(quick: bool, seed: int) -> list[Verdict]:
    """Return verdicts on operators of each kind of `beyond`, by a seed; a sixtieth if quick."""
    verdicts = []
    for kind, count in _BEYOND.items():
        found = look_beyond(kind, count // (60 if quick else 1), seed)
        lost, false = (
            sum(map(holds, found))
            for holds in (lambda one: one.left < LOST - CLOSE, lambda one: one.false_alarm)
        )
        what = f"{kind}, seed {seed}: of {len(found)}, {lost} have fewer than 1.5 digits"
        verdicts += _verdicts(what, found)
        verdicts.append(judged("false alarms where three digits are left", what, false, 0))
        at_worst = max((one.worst - one.left for one in found), default=0.0)
        verdicts.append(judged("digits said at worst beyond those left", what, at_worst, CLOSE))
        ratios = [one.ratio for one in found if not math.isnan(one.ratio)]
        if ratios:
            title = "condition said ÷ condition(), the least"
            verdicts.append(judged(title, what, min(ratios), 1 / 30, least=True))
    return verdicts


def compare_all(constructions: Iterable[operators.Construction], what: str) -> list[Compared]:
    """Compare operators, with a bar that shows how far it is."""
    rng = np.random.default_rng(0)
    shown = track(list(constructions), what, console=Console(stderr=True), transient=True)
    compared = (compare(one, rng) for one in shown)
    return [one for one in compared if one is not None]


def measure(quick: bool, folder: Path, seed: int = 0) -> tuple[list[Verdict], dict[str, Path]]:
    """Judge constructions and random operators; ``quick`` takes a tenth of these.

    The ``seed`` is that of the draws that go beyond small grids (`beyond`).
    """
    fewer = _QUICK if quick else 1
    constructed = compare_all([*operators.constructions(), *operators.grey()], "constructions")
    drawn = compare_all(operators.random_operators(_FAMILY // fewer), "random operators")
    chains, large = operators.chains(_CHAINS // fewer), operators.large_grids(_LARGE // fewer)
    others = compare_all([*chains, *large], "chains and large grids")
    near = compare_all(operators.near_threshold(_NEAR // fewer), "near the threshold")
    false = sum(one.false_alarm for one in [*drawn, *near]) / len([*drawn, *near])
    verdicts = []
    for one in constructed:
        condition = f"condition {one.conv.condition(one.shape):.2g}"
        warns = "warns" if one.inverse_warns else "is silent"
        what = f"{one.name}: {condition}, {one.said:.1f} said, {one.left:.1f} left, {warns}"
        verdicts += _verdicts(what, [one])
    every = [*drawn, *near, *others]
    for name, some in itertools.groupby(every, key=lambda one: one.name):
        several = list(some)
        what = f"{name}: of {len(several)}, {sum(one.left < LOST for one in several)} have fewer "
        what += f"than two digits, {_close(several)} are said within half a digit"
        verdicts += _verdicts(what, several)
    title = "share that warns though three digits are left"
    what = f"{len(drawn)} random operators and {len(near)} near the threshold"
    verdicts.append(judged(title, what, false, _MOST_FALSE))
    title, share = "share said within half a digit", _close(every) / len(every)
    verdicts.append(judged(title, f"{len(every)}", share, 0.95, least=True))
    told = (_blames(*one) for one in operators.blamed(_BLAMED // fewer))
    blamed = [one for one in told if one is not None]
    title = "chains with one bad step that name it"
    verdicts.append(judged(title, f"{len(blamed)}", sum(blamed) / len(blamed), _NAMED, least=True))
    return verdicts + verdicts_beyond(quick, seed), {}


def _verdicts(what: str, compared: Sequence[Compared]) -> list[Verdict]:
    silent = sum(one.silent for one in compared)
    most = max(one.hopeful for one in compared)
    return [
        judged("inverses of fewer than 1.5 digits that are silent", what, silent, 0),
        judged("digits said beyond those left, at most", what, most, FAR),
    ]


def _close(compared: Sequence[Compared]) -> int:
    return sum(abs(one.hopeful) <= CLOSE for one in compared)


def digits(error: float, dtype: str) -> float:
    """Return the decimal digits that an error leaves, between none and all of a dtype."""
    return -math.log10(min(1.0, max(error, 2.0 ** -PLACES[dtype]))) if error < 1 else 0.0


def error_of(conv: ic.InvertibleConv, shape: Shape, rng: np.random.Generator) -> float:
    """Return the largest error over samples of an operator of NumPy arrays; inf for NaN."""
    dtype = conv._reference()[1].dtype
    count = _SAMPLES if conv.channels * math.prod(shape) <= _SMALL_IMAGE else _FEW
    x, y = (_samples((count, conv.channels, *shape), rng).astype(dtype) for _ in range(2))
    with warned():  # of an inverse on the way
        images = np.asarray(conv.forward(x))
    if 0 < (size := np.abs(images).max()) < _SMALL:  # of ordinary y, x may be beyond the range
        y = (y * 2.0 ** np.floor(np.log2(size))).astype(dtype)
    truth, given = x.astype(EXTENDED), images
    if x[0].size <= _DENSE:
        right = maps(conv.asarrays(np.empty(0)), shape)[1](y.astype(EXTENDED))
        truth, given = np.concatenate([truth, right]), np.concatenate([images, y])
    ways = [conv.prepare(shape, check=False).inverse]
    if _has_factors(conv):
        ways.append(functools.partial(_recorded, conv))
    return max(_relative(way(given), truth) for way in ways)


def _has_factors(conv: ic.InvertibleConv) -> bool:
    parts = conv._parts().values()
    return isinstance(conv, ic.PLUConv1x1 | ic.QRConv1x1) or any(
        isinstance(part, ic.InvertibleConv) and _has_factors(part) for part in parts
    )


def _recorded(conv: ic.InvertibleConv, y: Floats) -> Floats:
    """Return conv.inverse(y) as it runs where derivatives are recorded."""
    import torch

    there = conv.asarrays(torch.as_tensor(y[:0]))
    wanted = {name: p.clone().requires_grad_() for name, p in there.parameters().items()}
    prepared = there.replace(**wanted).prepare(tuple(y.shape[2:]), check=False)
    return np.asarray(prepared.inverse(torch.as_tensor(y)).detach())


def maps(conv: ic.InvertibleConv, shape: Shape) -> tuple[Solve, Solve]:
    """Return K x + b and its inverse on arrays (B, C, *shape), in extended precision."""
    if isinstance(conv, ic.Inverse):
        return maps(conv.conv, shape)[::-1]
    if isinstance(conv, ic.Chain | ic.EmergingConv):
        steps = conv.steps if isinstance(conv, ic.Chain) else (conv.first, conv.second)
        pairs = [maps(step, shape) for step in steps]
        forwards, inverses = zip(*pairs, strict=True)
        return (
            lambda x: functools.reduce(lambda x, step: step(x), forwards, x),
            lambda y: functools.reduce(lambda y, step: step(y), reversed(inverses), y),
        )
    if isinstance(conv, ic.AutoregressiveConv):
        zeros = np.zeros((conv.channels, *shape))
        shift = zeros if conv.bias is None else (zeros.T + conv.bias).T
        return (
            lambda x: np.stack([oracle.convolve(conv, image) + shift for image in x]),
            lambda y: np.stack([oracle.substitute(conv, image - shift) for image in y]),
        )
    grid = (1,) * len(shape) if isinstance(conv, Pointwise) else shape
    matrix, shift = oracle.affine(conv, grid, EXTENDED)
    factors, offset = ExtendedLU(matrix), np.asarray(shift).reshape(-1, 1)
    columns: Solve = lambda x: x.reshape(len(x), len(matrix), -1)  # noqa: E731
    return (
        lambda x: np.stack([matrix @ c + offset for c in columns(x)]).reshape(x.shape),
        lambda y: np.stack([factors.solve(c - offset) for c in columns(y)]).reshape(y.shape),
    )


def _samples(shape: Shape, rng: np.random.Generator) -> Floats:
    normal, one_sign = rng.standard_normal(shape), rng.uniform(size=shape)
    even = np.broadcast_to(rng.uniform(0.5, 1, (shape[0], *(1 for _ in shape[1:]))), shape)
    kinds = np.arange(shape[0]).reshape(-1, *(1 for _ in shape[1:])) % _KINDS
    return np.where(kinds == 0, normal, np.where(kinds == 1, one_sign, even))


def _relative(computed: Floats, right: Floats) -> float:
    """Return the largest error of an entry over the largest one of its sample.

    A sample counts for no less than the median one of its kind, of y = K x and of random y.
    """
    off, largest = (np.abs(a).reshape(len(a), -1).max(axis=1) for a in (computed - right, right))
    if not np.isfinite(off).all():
        return math.inf
    for half in np.split(largest, 1 + (len(largest) not in (_FEW, _SAMPLES))):
        for kind in range(_KINDS):
            half[kind::_KINDS] = np.maximum(half[kind::_KINDS], np.median(half[kind::_KINDS]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(off > 0, off / largest, 0.0).max())
