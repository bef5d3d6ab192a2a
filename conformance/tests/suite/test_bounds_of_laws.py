"""What laws let pass: an error just within the bound that they state, and none beyond it."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import count, product
from operator import attrgetter
from typing import Any
from unittest import mock
from warnings import warn

import numpy as np
import pytest

import invconv as ic
from invconv.extend import Transposed
from invconv.operators.base import judgement
from invconv.trust.round_trip import Judgement
from invconv_conformance import check_operator
from invconv_conformance.cases.calls import CALLS
from invconv_conformance.cases.table import Case
from invconv_conformance.laws import LAWS, values
from invconv_conformance.laws.law import truth
from invconv_conformance.laws.setting import Setting
from invconv_conformance.libraries import Column, target_of
from invconv_conformance.run import NAMED, check
from invconv_conformance.truth.bounds import LEAST, scales

WEIGHT, BIAS, LOGS = np.diag([4.0, 0.5]), np.asarray([3.0, 0.0]), np.log([4.0, 0.5])
GAIN, LOSS, CONDITION, SUM, TERMS = 4.0, 2.0, 8.0, math.log(8.0), 2  # SUM of |log|
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10}


class Still(Case):
    """A case whose images are zero in the second channel, where errors are planted as they are."""

    def images(self, _: int) -> Any:
        x = np.asarray([1.0, 2.0, 0.5, 1.5, 3.0, 0.25]).reshape(3, 1, 2) * [[1.0], [0.0]]
        return [x, 2 * x[::-1], 3 * x[:, :, ::-1]]


CASE = Still("diagonal", lambda rng: ic.Conv1x1(WEIGHT, BIAS), (2,), (3,))
X, Y, BAR = CASE.images(3)
OUT, BACK, X_BACK = 4 * X + BIAS[:, None], (Y - BIAS[:, None]) / 4, (X - BIAS[:, None]) / 4


def norm(x: Any) -> Any:
    return np.sqrt((x**2).sum(axis=(1, 2)))


class Stated:
    """The bounds of y = W x + b in a dtype, of each sample, as the docstrings state them."""

    def __init__(self, dtype: str) -> None:
        self.half, self.eps = dtype == "float16", EPS[dtype]
        self.single = EPS["float32"] if self.half else self.eps
        self.unit, self.b = 10 * TERMS * self.single, 3 * math.sqrt(2)

    def cast(self, x: Any) -> Any:
        return self.half * (self.eps * (norm(x) if np.ndim(x) else x) + 2.0**-24 * 2)

    def sums(self, x: Any, *others: Any) -> Any:
        return self.unit * (GAIN * norm(x) + self.b + sum(map(norm, others)))

    def solve(self, x: Any, times: float = 1) -> Any:
        return times * (self.unit * CONDITION * (norm(x) + LOSS * self.b) + self.cast(x))

    def precise(self, x: Any) -> Any:
        within = 10 * TERMS * EPS["float64"] * CONDITION * (norm(x) + LOSS * self.b)
        return 2 * self.single * norm(x) + self.cast(x) + within

    def linear(self, scale: float, x: Any, right: Any) -> Any:
        return self.unit * scale * norm(x) + self.cast(right)

    def log_det(self) -> float:
        rounding = 10 * self.single * (2 * (2 * SUM + 2 * CONDITION) + 2 * math.log(2.0) + 1)
        return rounding + 4 * CONDITION * float(np.finfo(np.longdouble).eps)

    def two_ways(self, size: float, casts: int = 1) -> Any:
        return self.unit * CONDITION**2 * size + casts * self.cast(size)

    def isolated(self, what: str, alone: int) -> Any:
        """Return the bound of a gradient of all samples, or of the first beside large ones."""
        one, inverse = slice(1 if alone else None), what == "inverse_vjp"
        reach = norm(Y if inverse else X) * norm(BAR)
        return self.two_ways((BAR * (BACK / 4 if inverse else X))[one].sum() + reach[one].sum(), 3)

    def slope(self, what: str, both: int, name: str) -> Any:
        """Return the bound of a slope, over the share that an entry of the gradient has in it."""
        inverse, rng = what == "inverse_vjp", CASE.rng().spawn(2)[1]
        ways = {"weight": rng.standard_normal((2, 2)), "bias": rng.standard_normal(2)}
        way = ways[name] / max(1.0, float(np.linalg.norm(ways[name])))
        log_det, solved = both * 1.5 * 2 * math.log(2.0), BAR * BACK
        size = abs(solved.sum() - log_det if inverse else (BAR * OUT).sum() + log_det)
        bar, points = (BAR / 4, BACK) if inverse else (BAR, X)
        slopes = np.einsum("bip,bjp->ij", bar, points) + 3 * both * np.diag([0.25, 2.0])
        reach = abs((slopes if name == "weight" else bar.sum(axis=(0, 2))) * way).sum()
        step = (GAIN if name == "weight" else 1.0) * 1e-3 / (1 + LOSS)
        parts = (1 + size + abs(solved).sum()) * 1e-3 / step + reach
        entry = abs(way[(1, 0)[: way.ndim]])
        return ((self.unit * CONDITION + 1e-9) * parts + self.cast(reach)) / entry


# a law; the method that is wrong, in which of its calls, and in which part of its result
BOUNDS: dict[str, Callable[[Stated], Any]] = {
    "forward.value forward 0": lambda s: s.sums(X) + s.cast(OUT),
    "forward.value forward_and_log_det 0 0": lambda s: s.sums(X) + s.cast(OUT),
    "inverse.value inverse 0": lambda s: s.solve(BACK),
    "inverse.value inverse 1": lambda s: s.solve(X),
    "inverse.value inverse_and_log_det 0 0": lambda s: s.solve(X),
    "inverse.residual inverse 0": lambda s: 2 * (s.sums(BACK, Y) + GAIN * s.cast(BACK)),
    "inverse.residual inverse 1": lambda s: 2 * (s.sums(X, OUT) + GAIN * s.cast(X)),
    "round_trip inverse 0": lambda s: s.solve(X, 2) + LOSS * s.cast(OUT),
    "round_trip forward 1": lambda s: 2 * s.sums(BACK, Y) + GAIN * s.cast(BACK) + s.cast(Y),
    "log_det.value log_det 0": Stated.log_det,
    "log_det.value forward_and_log_det 0 1": Stated.log_det,
    "log_det.inverse inverse_and_log_det 0 1": Stated.log_det,
    "log_det.inverse Inverse.log_det 0": Stated.log_det,
    "transpose forward 0": lambda s: s.linear(GAIN, Y, 4 * Y),
    "transpose.inverse log_det 0": lambda s: s.log_det() + 4 * CONDITION * s.unit,
    "transpose.inverse inverse 0": lambda s: s.linear(CONDITION, Y / 4, Y / 4),
    "composition Chain.forward_and_log_det 0 0": lambda s: s.solve(X, 2),
    "precision PreparedInverse.inverse 0": lambda s: s.precise(BACK),
    "precision PreparedInverse.inverse 1": lambda s: s.precise(X),
    "condition condition 1": lambda s: 8 * (1e-9 + 1e2 * 8 * EPS["float64"]),
    "condition condition 2": lambda s: 8 * (1e-9 + 1e2 * 8 * EPS["float64"]),
    "vjp.input forward_vjp 0 1": lambda s: s.linear(GAIN, BAR, 4 * BAR),
    "vjp.input forward_vjp 1 1": lambda s: s.linear(GAIN, BAR, 4 * BAR),
    "vjp.input inverse_vjp 0 1": lambda s: s.linear(CONDITION, BAR / 4, BAR / 4),
    "vjp.input inverse_vjp 1 1": lambda s: s.linear(CONDITION, BAR / 4, BAR / 4),
    "parity forward 1": lambda s: s.sums(X),
    "parity inverse 1": lambda s: s.solve(BACK, 2),
    "parity forward_vjp 1 0 weight": lambda s: (
        s.unit * CONDITION * ((BAR * X).sum() + np.linalg.norm(X) * np.linalg.norm(BAR))
    ),
    "layout forward 0": lambda s: s.sums(X) + s.cast(OUT),
    "layout inverse 0": lambda s: 2 * (s.sums(X_BACK, X) + GAIN * s.cast(X_BACK)),
    "layout forward_vjp 0 0 weight": lambda s: s.two_ways(2 * (X**2).sum()),
}
PULLBACKS = "forward_vjp", "inverse_vjp"
BOUNDS |= {
    f"isolation.gradients {what} {n} 0 weight": partial(Stated.isolated, what=what, alone=n % 2)
    for what, n in product(PULLBACKS, range(4))
}
BOUNDS |= {
    f"vjp.parameters {what} {n} 0 {name}": partial(Stated.slope, what=what, both=n, name=name)
    for what, n, name in product(PULLBACKS, range(2), ("weight", "bias"))
}
OF = {"precision": ("float32", "float16"), "parity": ("float64", "float32")}
OF["transpose.inverse log_det 0"] = OF["parity"]


@cache
def diagonal(dtype: str) -> Setting:
    return Setting(CASE, target_of(Column("numpy", "cpu", "eager", dtype)), dtype)


@pytest.mark.parametrize("row", BOUNDS)
def test_a_law_holds_to_its_bound(row: str) -> None:
    """In each sample."""
    law, name, call, *path = row.split()
    for dtype in OF.get(row, OF.get(law, EPS)):
        limits = np.broadcast_to(BOUNDS[row](Stated(dtype)), 3)
        for (sample, limit), share in product(enumerate(limits), (0.97, 1.03)):
            with planted(name, int(call), path, sample, share * limit):
                result = check(LAWS[law], diagonal(dtype))
            off = abs(result.error / result.bound - share)
            assert off < (0.02 if law == "vjp.parameters" else 0.005), result  # a slope is rounded
            assert result.status == ("pass" if share < 1 else "fail")


def test_no_number_of_a_half_type_is_below_its_least() -> None:
    assert [*diagonal("float16").cast(np.zeros(2))] == [2 * 2.0**-24] * 2  # of 4 unknowns
    assert LEAST["bfloat16"] == np.finfo(np.float32).smallest_normal * 2.0**-7


@pytest.mark.parametrize("share", [0.97, 1.03])
def test_a_bounded_inverse_exceeds_its_gain_by_rounding_alone(
    share: float, monkeypatch: Any
) -> None:
    weight = np.diag([1, 1 / (3 * (1 + share * 10 * TERMS * EPS["float32"]))])
    monkeypatch.setattr(ic, "bounded", lambda conv, gain: ic.Conv1x1(weight))
    assert check(LAWS["bounded"], diagonal("float32")).status == ("pass" if share < 1 else "fail")


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("said", [3.97, 4.03, 6.97, 7.03])
def test_digits_are_at_most_one_too_many_and_two_too_few(
    call: int, said: float, monkeypatch: Any
) -> None:
    """Of an inverse with six: an entry is off by a millionth of its sample's largest."""
    monkeypatch.setattr(judgement, "judge", lambda *_: Judgement(10.0**-said))
    for sample, largest in enumerate(abs((X, BACK)[call]).max(axis=(1, 2))):
        with planted("PreparedInverse.inverse", call, [], sample, 1e-6 * largest):
            status = check(LAWS["warning"], diagonal("float64")).status
        assert status == ("pass" if 4 < said < 7 else "fail")


def judged(single: float, double: float) -> dict[str, Any]:
    judgements = {"float32": Judgement(10.0**-single), "float64": Judgement(10.0**-double)}
    return {"judgements": judgements}


LOG_DET = 2 * math.log(2.0)
SLACK = 1e-9 * (1 + LOG_DET) + 1e2 * 4 * CONDITION * EPS["float64"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"log_det": LOG_DET - 0.97 * SLACK}, "pass"),
        ({"log_det": LOG_DET + 1.03 * SLACK}, "fail"),
        ({"condition": 8.1}, "fail"),
        ({"condition": 8.1, "exact": False}, "pass"),
        (judged(4.97, 6), "pass"),
        (judged(5.03, 6), "fail"),
        (judged(5.03, 4) | {"precision": "float64"}, "fail"),
        (judged(4, 3.9), "fail"),
        (judged(2.1, 6), "pass"),
        (judged(1.9, 6), "fail"),  # which needs advice
        ({"name": "Other"}, "fail"),
        ({"norm": "1-norm", "pixel": (1,), "channel": 1}, "pass"),
        ({"norm": "1-norm", "pixel": (1,), "channel": 0}, "fail"),
    ],
)
def test_a_diagnosis_is_right(said: dict[str, Any], status: str, monkeypatch: Any) -> None:
    """Of an inverse with four digits."""
    setting = diagonal("float32")
    found = replace(ic.diagnose(setting.plain, (2,)), **judged(4, 6) | said)
    monkeypatch.setattr(ic, "diagnose", lambda *_: found)
    with planted("PreparedInverse.inverse", 0, [], 1, 1e-4 * X[1].max()):
        assert check(LAWS["diagnosis"], setting).status == status


def test_a_result_that_the_next_call_overwrites_is_noticed(monkeypatch: Any) -> None:
    held, right = np.empty(X.shape), ic.Conv1x1.forward_and_log_det

    def wrong(self: Any, x: Any) -> Any:
        held[...], log_det = right(self, x)
        return held, log_det

    monkeypatch.setattr(ic.Conv1x1, "forward_and_log_det", wrong)
    result = check(LAWS["determinism"], diagonal("float64"))
    assert (result.status, result.what) == ("fail", "forward_and_log_det keeps its result")


COUNTED, KEPT = count(), dict[str, Any]()
WARN = partial(warn, "", ic.IllConditionedWarning)
# a law, a case, a method or function, and what of its argument and its results is wrong: of y and
# the log-determinant d, or of the gradients g and that by the image, xb
MISTAKES: dict[str, Callable[..., Any]] = {
    "vjp.parameters qrconv1x1-m2 forward_vjp": lambda conv, x, g, xb: (
        g | {"reflectors": 0 * g["reflectors"]},
        xb,
    ),
    # samples along the second axis of a batch
    "isolation periodic-bias forward_and_log_det": lambda conv, x, y, d: (y + 0 * x[:, ::-1], d),
    "isolation corner-bias forward_and_log_det": lambda conv, x, y, d: (
        y + 0 * np.nan_to_num(x, posinf=math.inf)[::-1],
        d,
    ),
    "isolation.gradients emerging-biases forward_vjp": lambda conv, x, g, xb: (
        g,
        xb + 0 * x[:, ::-1],
    ),
    "no_mutation conv1x1-2d forward_vjp": lambda conv, x, g, xb: (x.fill(7.0) or g, xb),
    "kind conv1x1-2d forward_vjp": lambda conv, x, g, xb: (g, xb.astype("float32")),
    "kind conv1x1-2d inverse_and_log_det": lambda conv, x, y, d: (y, d[:1]),
    "empty conv1x1-2d forward_vjp": lambda conv, x, g, xb: (
        {name: bar + 1 for name, bar in g.items()},
        xb,
    ),
    "edits conv1x1-2d forward_and_log_det": lambda conv, x, y, d: (
        conv._conditions.setdefault("y", y),
        d,
    ),
    "edits conv1x1-2d inverse_and_log_det": lambda conv, x, y, d: (y, y[:, 0, 0, 0]),
    "determinism conv1x1-2d forward_and_log_det": lambda conv, x, y, d: (y + next(COUNTED), d),
    "updates conv1x1-2d replace": lambda conv, copy: (
        np.negative(conv.weight, out=conv.weight) is None or copy
    ),
    "updates actnorm-2d replace": lambda conv, copy: (
        copy.__dict__.setdefault("made", vars(conv).get("made")),
        copy,
    )[1],
    "copies conv1x1-2d inverse": lambda conv, y, x: x + (KEPT.setdefault("conv", conv) is not conv),
    "copies conv1x1-2d PreparedInverse.inverse": lambda prepared, y, x: x + 1,
    "prepared conv1x1-2d PreparedInverse.inverse_and_log_det": lambda prepared, y, x, d: (x + 1, d),
    "prepared actnorm-2d PreparedInverse.inverse_and_log_det": lambda prepared, y, x, d: (x, d + 1),
    "file.same conv1x1-2d load": lambda path, conv: conv.replace(bias=conv.bias + 1),
    "file.same corner-one-channel load": lambda path, conv: replace(conv, channel_order="upper"),
    "condition conv1x1-2d operators.base.judgement.bound": lambda host, bound: 0.0,
    "warning conv1x1-2d inverse": lambda conv, y, x: WARN() or x,
    "guard conv1x1-2d stability.guard.InverseGuard.step": lambda guard, chain, worst: (
        WARN() or worst
    ),
    "guard actnorm-2d stability.guard.InverseGuard.step": lambda guard, chain, worst: (
        guard.known.update(more=worst) or worst
    ),
    "guard qrconv1x1-2d stability.guard.InverseGuard.step": lambda guard, chain, worst: max(
        guard.known.values(), key=attrgetter("digits")
    ),
    "drop_in conv1x1-batch-axes forward_and_log_det": lambda conv, x, y, d: (x.ndim * y, d),
    "layout conv1x1-2d forward_vjp": lambda conv, x, g, xb: (
        {name: bar * x.flags.c_contiguous for name, bar in g.items()},
        xb,
    ),
    "layout conv1x1-2d inverse_vjp": lambda conv, x, g, xb: (
        {name: bar * conv.weight.flags.c_contiguous for name, bar in g.items()},
        xb,
    ),
}


@pytest.mark.parametrize("row", MISTAKES)
def test_a_law_notices(row: str) -> None:
    law, case, called = row.split()
    column = Column("numpy", "cpu", "eager", "float32" if law == "guard" else "float64")
    setting = Setting(NAMED[case], target_of(column), column.dtype)
    assert check(LAWS[law], setting).status == "pass"
    where, _, name = called.rpartition(".")
    own = ic if called == "load" else type(setting.plain)
    owner = attrgetter(where)(ic) if where else own
    right = getattr(owner, name)

    def wrong(self: Any, *arguments: Any, **options: Any) -> Any:
        found = right(self, *arguments, **options)
        results = found if isinstance(found, tuple) else (found,)
        return MISTAKES[row](self, *arguments[:1], *results)

    with mock.patch.object(owner, name, wrong):
        result = check(LAWS[law], setting)
    assert result.status == "fail", result


REASONS = "the checksum, 'weight' holds NaN, no whole safetensors file, twice, ndim: expected, "
REASONS += "unknown class 'O"
RANGE = "holds weight, numbers of weight, "


@pytest.mark.parametrize(
    ("row", "effect"),
    [
        ("errors conv1x1-2d Conv1x1.forward", ValueError("no")),
        ("singular singular-conv1x1 Conv1x1.inverse", ic.SingularConvError("no")),
        ("singular singular-conv1x1 Conv1x1.forward_vjp", ic.SingularConvError("no")),
        ("singular singular-conv1x1 Conv1x1.inverse", lambda x: math.nan * x),
        ("singular singular-conv1x1 Conv1x1.forward_vjp", lambda x, *_: ({"": math.nan * x}, x)),
        ("file conv1x1-2d load", ic.InvalidFileError(f"{RANGE}conv.safetensors")),
        ("file conv1x1-2d load", ic.InvalidFileError(RANGE + REASONS)),
        ("file conv1x1-2d load", ic.InvalidFileError(f"{REASONS}, conv.safetensors")),
    ],
)
def test_a_law_notices_what_is_not_refused_or_not_as_it_says(
    row: str, effect: Any, monkeypatch: Any
) -> None:
    law, case, called = row.split()
    setting = Setting(NAMED[case], target_of(Column("numpy", "cpu", "eager", "float64")), "float64")
    monkeypatch.setattr(f"invconv.{called}", mock.Mock(side_effect=effect))
    assert check(LAWS[law], setting).status == "fail"


def test_memory_is_what_it_is_called() -> None:
    ways = diagonal("float64").memories()
    held = {how: hold(np.ones((2, 3, 4, 5))) for how, hold in ways.items()}
    strides = {how: [n // 8 for n in x.strides] for how, x in held.items()}
    assert strides["Fortran's order"] == [1, 2, 6, 24]
    assert strides["channels last"] == [60, 1, 15, 3]
    assert strides["every other number"] == [120, 40, 10, 2]
    assert strides["backwards"] == [-60, -20, -5, -1]
    assert not held["read-only memory"].flags.writeable
    assert not held["odd addresses"].flags.aligned


@pytest.mark.parametrize(
    ("law", "dtype", "share"),
    [
        ("function.value", "float16", 0.0),
        ("function.memory", "float16", 0.0),
        ("function.value", "float64", 1 + 1e-12),
        ("function.gradient", "float64", 1 + 1e-3),
    ],
)
def test_a_function_that_is_off_is_noticed(law: str, dtype: str, share: float) -> None:
    call = next(call for call in CALLS if call.name == "unsqueeze-4-3-haar")
    target = target_of(Column("torch" if "gradient" in law else "numpy", "cpu", "eager", dtype))
    for times, status in ((1.0, "pass"), (share, "fail")):
        wrong = replace(call, function=lambda n=times, **o: n * call.function(**o))
        assert check(LAWS[law], Setting(wrong, target, dtype)).status == status


def planted(name: str, call: int, path: list[str], sample: int, error: float) -> Any:
    """Return a context in which one call of a method is off by an error, in one number."""
    where, _, method = name.rpartition(".")
    cls, calls = getattr(ic, where or "Conv1x1"), count()
    right = getattr(cls, method)

    def off(found: Any, path: list[str]) -> Any:
        if path:
            parts = dict(found) if isinstance(found, dict) else list(found)
            key: Any = path[0] if isinstance(found, dict) else int(path[0])
            parts[key] = off(parts[key], path[1:])
            return parts if isinstance(found, dict) else tuple(parts)
        found = np.array(found)  # a gradient is zero in these entries
        entries = {(2, 2): (1, 0), (2,): (1,), (3,): (sample,), (): ()}
        found[entries.get(found.shape, (sample, 1, 0))] += error
        return found

    def wrong(self: Any, *arguments: Any, **options: Any) -> Any:
        found = right(self, *arguments, **options)
        return off(found, path) if next(calls) == call else found

    return mock.patch.object(cls, method, wrong)


# of operators that are W at both pixels: m, and the bound of the log-determinant
MIDDLE, FIRST, NONE = np.asarray([0, 1, 0]), np.asarray([1, 0, 0]), np.zeros((2, 2))
ONES, TURNS = np.ones(2), np.eye(2)[[0, 0, 1, 1]]
RASTER = WEIGHT[..., None, None] * [MIDDLE, 0 * MIDDLE]
SCALES: tuple[tuple[Any, float, float], ...] = (
    (ic.Conv1x1(WEIGHT), 2, 2 * (2 * SUM + 16)),
    (ic.AutoregressiveConv(WEIGHT[..., None] * FIRST), 6, 4 * SUM),
    (ic.AutoregressiveConv(RASTER, mask="raster"), 12, 4 * SUM),
    (ic.PeriodicConv(WEIGHT[..., None] * MIDDLE), 6 + 2, 4 * SUM + 8 * 16),
    (ic.SymmetricConv(WEIGHT[..., None] * FIRST), 10 + 2, 4 * SUM + 12 * 16),
    (ic.QRConv1x1(TURNS, NONE, np.exp(LOGS)), 10, 4 * SUM),
    (ic.CirculantConv1x1(np.exp(LOGS), np.eye(2)[0], ONES), 4, 2 * (4 * SUM + 16)),
    (ic.PLUConv1x1(np.arange(2), NONE, NONE, ONES, LOGS), 4, 4 * SUM),
    (ic.ActNorm(LOGS, None), 4, 4 * SUM),
    (ic.Inverse(ic.ActNorm(-LOGS, None)), 4, 4 * SUM),
    (Transposed(ic.ActNorm(LOGS, None)), 4, 4 * SUM),
    (ic.Chain([ic.Conv1x1(np.eye(2)), ic.ActNorm(LOGS, None)]), 6, 4 + 4 * SUM),
    (ic.Chain([ic.OrthogonalConv1x1(TURNS), ic.ActNorm(LOGS, None)]), 14, 4 * SUM),
    (ic.ExponentialConv(np.diag(LOGS)[..., None] * MIDDLE), 32 * (1 + LOGS[0]), 4 * SUM + 1),
)


@pytest.mark.parametrize("row", SCALES, ids=lambda row: type(row[0]).__name__)
def test_what_bounds_depend_on(row: Any) -> None:
    conv, terms, logs = row
    found = scales(conv, (1, 2)[2 - (conv.ndim or 1) :])
    assert (found.gain, found.loss, found.condition) == pytest.approx((4, 2, 8))
    assert (found.terms, found.logs) == pytest.approx((terms, logs))


@pytest.mark.parametrize(
    ("law", "pixels"),
    [("forward.value, y", 7), ("forward.value, y", 1), ("log_det.value, log_det", 7)],
)
def test_bounds_of_an_operator_of_ones_own_count_all_unknowns(law: str, pixels: int) -> None:
    conv, unit, size = ic.Conv1x1(WEIGHT, BIAS, ndim=1), 10 * EPS["float64"], 2 * pixels
    x = Case("Conv1x1", lambda rng: conv, (pixels,)).images(1)[0]
    bound, call = unit * size * (GAIN * norm(x)[1] + 3 * math.sqrt(pixels)), 1
    if "log_det" in law:
        bound, call = unit * (14 * (7 * SUM + 14 * CONDITION) + 7 * math.log(2.0) + 1), 0
    text = re.escape(f"{law} on the grid ({pixels},): error 1, bound {bound:.3g} ")
    method = law.partition(".")[0]
    with planted(method, call, [], 1, 1.0), pytest.raises(AssertionError, match=text):
        check_operator(conv, WEIGHT, spatial_shape=(pixels,))


@pytest.mark.parametrize(
    ("law", "what", "bias", "libraries"),
    [
        ("errors", "log_scale of twice the rows: the message", BIAS, {"numpy": True}),
        ("errors", "log_scale of twice the rows is taken", None, {"numpy": False}),  # rightly
        ("updates", "replace", BIAS, {"numpy": True, "jax": True}),
        ("updates", "in place", BIAS, {"numpy": True, "jax": False}),
        ("updates", "a pytree, of a class that keeps weights", BIAS, {"numpy": False, "jax": True}),
        ("updates", "a layer, in place, of a class that keeps weights", BIAS, {"torch": True}),
        ("bounded", "|K^-1|", BIAS, {"jax": True}),
        ("isolation.gradients", "recomputed", BIAS, {"numpy": False, "torch": True, "jax": True}),
    ],
)
def test_what_a_law_asks(law: str, what: str, bias: Any, libraries: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(values, "_recomputed", lambda *_: [truth(True, "recomputed")])
    case = Case("actnorm", lambda rng: ic.ActNorm(LOGS, bias), (2,), (3,))
    for name, is_asked in libraries.items():
        target = target_of(Column(name, "cpu", "eager", "float64"))
        asked = LAWS[law].check(Setting(case, target, "float64"))
        assert (what in {measure.what for measure in asked}) == is_asked, name
