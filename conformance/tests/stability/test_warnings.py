"""Every warning: a call that raises it, and the nearest one that does not.

That of CUDA's kernel is in test_cuda_launch.py.
"""

import ast
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import invconv as ic
from invconv.operators.base.judgement import require_invertible
from invconv.stability.guard import InverseGuard
from invconv_torch import Conv1x1, InvertibleModule
from invconv_torch.flows import Multiscale
from tests.programs import ROOT
from tests.selected import turned

Call = Callable[[], Any]
ONE = np.ones((1, 2, 4, 4), np.float32)
PSF = np.asarray([1.0, 2.0, 1.0]) * np.eye(2)[..., None]
WIDE = {"precision": "float64"}
RINGS = np.outer([1, 1, 3, 1], [1.0, 2, 4, 2, 1])[None, None]  # uneven around the ring


def conv(digits: float) -> ic.Conv1x1:
    """Return a matrix whose inverse loses so many digits; float32 has seven."""
    return turned(1.0, 10.0**-digits)


def undone(way: str) -> Callable[[float], Any]:
    """Return the call of a method of an inverse that loses so many digits."""
    return lambda digits: getattr(ic.Inverse(conv(digits)), way)(ONE)


def again(options: Any) -> None:
    """Prepare an inverse that was prepared without a look, and judged in its own precision."""
    made = ic.PeriodicConv(np.asarray([[[1, 1e-6 - 2, 1]]], np.float32))
    made.prepare((4,), check=False)
    if options == WIDE:
        with pytest.warns(ic.IllConditionedWarning):
            made.inverse(ONE[:, :1, 0])
    made.prepare((4,), **options)


def scaled(number: float) -> None:
    ic.Conv1x1(np.diag([number, 1.0]).astype(np.float32)).inverse(ONE)


def guarded(digits: float) -> None:
    """Judge an inverse that has 2.5 to 4 digits left."""
    InverseGuard(conv(3.5), (4, 4), digits=digits).step(conv(3.5))


def least_squares(damp: float, check: bool = True) -> None:
    """Solve without the digits of a blur that is nearly singular, but for the damp."""
    at = np.square(np.arange(15) - 7.0) / 4.5
    blur = ic.from_psf(np.exp(-np.add.outer(at, at)).astype(np.float32) / 14)
    solver = blur if check else blur.prepare((64, 64), check=False)
    solver.least_squares(np.ones((1, 1, 64, 64), np.float32), damp)


def flow(check: bool) -> None:
    """Prepare a flow of a layer without digits."""
    layer = Conv1x1(2)
    layer.weight.data = torch.as_tensor(conv(6.0).weight)
    Multiscale((2, 4, 4), [layer]).prepare(**({} if check else {"check": False}))


def loaded(number: float, folder: Path) -> None:
    """Load a number in float32, whose smallest is 1.4e-45: of half of it nothing is left."""
    ic.save(ic.ActNorm(np.asarray([number, 0.0]), None), folder / "conv.safetensors")
    ic.load(folder / "conv.safetensors", like=ONE)


class Row(NamedTuple):
    """A warning of a module, from a call with the first argument and not with the others."""

    module: str
    words: str
    call: Callable[..., Any]
    warns: Any
    beside: list[Any]


JUDGEMENT = "invconv/operators/base/judgement.py"
ROWS = {
    "inverse": Row(JUDGEMENT, "or use float64", lambda d: conv(d).inverse(ONE), 6.0, [3.5]),
    "prepare": Row(JUDGEMENT, "is off by", lambda d: conv(d).prepare((4, 4)), 6.0, [3.5]),
    "forward": Row(JUDGEMENT, "is off by", undone("forward"), 6.0, [3.5]),
    "with log_det": Row(JUDGEMENT, "is off by", undone("forward_and_log_det"), 6.0, [3.5]),
    "pulled back": Row(
        JUDGEMENT, "is off by", lambda d: ic.Inverse(conv(d)).inverse_vjp(ONE, ONE), 6.0, [3.5]
    ),
    "no look": Row(JUDGEMENT, "is off by", again, {}, [{"check": False}, WIDE]),
    "flow": Row(JUDGEMENT, "is off by", flow, True, [False]),
    "NaN": Row(JUDGEMENT, "inf: weight holds NaN", scaled, np.nan, [2.0]),
    "squares": Row(JUDGEMENT, "by least squares", least_squares, 0.0, [1e-3]),
    "no look at squares": Row(
        JUDGEMENT, "by least squares", functools.partial(least_squares, 0.0), True, [False]
    ),
    "guard": Row("invconv/stability/guard.py", "lower the learning rate", guarded, 4.5, [2.0]),
    "half": Row("invconv/files/container.py", "1 of the 2", loaded, 7e-46, [0.0, 7.1e-46]),
    "a whole kernel": Row(
        "invconv/operators/symmetric.py",
        r"pass kernel\[..., 1:\]",
        ic.SymmetricConv,
        PSF,
        [PSF[..., 1:], PSF[..., :2], PSF * [1, 0.499, 1]],
    ),
    "a whole kernel beside a ring": Row(
        "invconv/operators/symmetric.py",
        r"pass kernel\[..., :, 2:\]",
        lambda k: ic.SymmetricConv(k, boundary=("periodic", "odd")),
        RINGS,
        [RINGS[..., 2:]],
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_it_is_raised_and_not_beside(row: Row, tmp_path: Path) -> None:
    more = (tmp_path,) if row.call is loaded else ()
    with pytest.warns(UserWarning, match=row.words) as caught, np.errstate(all="ignore"):
        row.call(row.warns, *more)
    # the gradients of an inverse's inverse need the solve, too
    assert [w.filename for w in caught] == [__file__] * (1 + (row is ROWS["pulled back"]))
    for other in row.beside:  # where a warning is an error
        row.call(other, *more)


def test_the_part_of_a_ring_is_no_whole_kernel(tmp_path: Path) -> None:
    """Of what it looks like nobody is warned, nor of its copies: a warning would be an error."""
    ring, half = ic.from_psf([0.1, 0.5, 0.1, 0.5, 0.1]), np.ones((1, 9), "float16")
    ic.save(ring, tmp_path / "ring")
    copies: list[Any] = [ic.load(tmp_path / "ring"), ring.replace(bias=np.ones(1))]
    for one in (*copies, ring.transpose(), ic.Chain([ring]).transpose()):
        one.asarrays(half).forward(half)
    InvertibleModule(ring)(torch.ones((1, 1, 9), dtype=torch.float64))


def test_no_warning_is_left_out() -> None:
    found = set()
    for path in [*ROOT.glob("invconv/**/*.py"), *ROOT.glob("backends/**/*.py")]:
        calls = (n.func for n in ast.walk(ast.parse(path.read_bytes())) if isinstance(n, ast.Call))
        if any(ast.unparse(call) == "warnings.warn" for call in calls):
            found.add(path.relative_to(ROOT).as_posix())
    elsewhere = {"invconv/kernels/cuda/launch.py", "invconv/files/saving.py"}  # that are tested
    elsewhere |= {f"invconv/operators/{name}.py" for name in ("autoregressive", "least_squares")}
    assert found == {row.module for row in ROWS.values()} | elsewhere


def test_least_squares_is_judged_by_itself() -> None:
    near = ic.PeriodicConv(np.asarray([[[1.0, -2 + 2e-15, 1.0]]]))  # what it loses is left out
    with pytest.raises(ValueError, match="the inverse of PeriodicConv on"):
        require_invertible("conv", near, (9,))
    near.least_squares(np.eye(9)[None, :1])
    mirror = ic.SymmetricConv(np.asarray([[[2 + 1e-6, 1.0]]], "f4"), boundary="mirror")
    with pytest.raises(ValueError, match="look fine; change the kernel"):  # it has none
        require_invertible("conv", mirror, (9,))
    assert not any("least_squares" in text for text in ic.diagnose(mirror, (9,)).advice)
