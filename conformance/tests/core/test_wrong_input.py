"""Wrong inputs: each error says what was expected, what came, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import array_api_strict as strict
import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic

jax.config.update("jax_enable_x64", True)

RNG = np.random.default_rng(0)
CORNER = ic.AutoregressiveConv.init(3, rng=RNG)
PERIODIC = ic.PeriodicConv.init(3, rng=RNG)
ONE = ic.Conv1x1.init(3, rng=RNG)
X = RNG.standard_normal((2, 3, 4, 5))
KERNEL = CORNER.kernel
EYE = np.eye(3)


def plu(**changes: Any) -> ic.PLUConv1x1:
    fields: dict[str, Any] = {
        "permutation": np.arange(3),
        "lower": EYE,
        "upper": EYE,
        "sign": np.ones(3),
        "log_scale": np.zeros(3),
    }
    return ic.PLUConv1x1(**(fields | changes))


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # the array
    "channels": (
        lambda: CORNER.forward(X[:, :2]),
        ValueError,
        r"x: expected shape \(\*batch, 3, \*spatial\) with 3 channel\(s\) and 2 spatial axes, got "
        r"\(2, 2, 4, 5\)",
    ),
    "rank": (lambda: CORNER.forward(X[0, 0]), ValueError, r"x: expected shape .* got \(4, 5\)"),
    "rank-1x1": (lambda: ONE.forward(X[0, :, 0, 0]), ValueError, r"x: expected shape \(batch, 3"),
    "no-pixels": (lambda: ONE.forward(X[..., :0]), ValueError, r"at least one pixel"),
    "list": (lambda: CORNER.forward(X.tolist()), TypeError, r"x: expected an array .* got list;"),
    "integers": (
        lambda: CORNER.forward(X.astype(int)),
        TypeError,
        r"x: expected a real floating dtype .* got int64; cast it",
    ),
    "complex": (lambda: CORNER.inverse(X + 0j), TypeError, r"y: .* got complex128; cast it"),
    "long-double": (
        lambda: CORNER.inverse(X.astype(np.longdouble)),
        TypeError,
        r"got \w*float\d+;",
    ),
    "mixed-dtype": (
        lambda: CORNER.forward(X.astype(np.float32)),
        TypeError,
        r"x: expected dtype float64 as kernel has, got float32; nothing is promoted",
    ),
    "mixed-library": (
        lambda: CORNER.forward(torch.ones(2, 3, 4, 5, dtype=torch.float64)),
        TypeError,
        r"x: expected an array of numpy as kernel is, got one of torch; .*asarrays\(like=",
    ),
    "mixed-library-jax": (lambda: CORNER.forward(jnp.ones((2, 3, 4, 5))), TypeError, r"of jax"),
    "mixed-device": (
        lambda: CORNER.asarrays(strict.zeros((), dtype=strict.float64)).forward(
            strict.ones((2, 3, 4, 5), dtype=strict.float64, device=strict.Device("device1"))
        ),
        ValueError,
        r"x: expected an array on device .*CPU_DEVICE.* got one on .*device1",
    ),
    "cotangent-shape": (
        lambda: CORNER.forward_vjp(X, X[:1]),
        ValueError,
        r"y_bar: expected the shape of x, \(2, 3, 4, 5\), got \(1, 3, 4, 5\)",
    ),
    "cotangent-of-log-det": (
        lambda: CORNER.forward_vjp(X, X, np.ones(3)),
        ValueError,
        r"log_det_bar: expected the batch shape \(2,\), one number a sample, got \(3,\)",
    ),
    # the grid
    "grid-rank": (lambda: CORNER.log_det((4,)), ValueError, r"spatial_shape: expected 2 spatial"),
    "grid-float": (lambda: CORNER.log_det((4.0, 5)), TypeError, r"tuple of integers .* got \(4\.0"),  # type: ignore[arg-type]
    "grid-int": (lambda: CORNER.prepare(4), TypeError, r"spatial_shape: expected a tuple"),  # type: ignore[arg-type]
    "grid-zero": (lambda: PERIODIC.prepare((0, 4)), ValueError, r"at least one pixel"),
    "other-grid": (
        lambda: CORNER.prepare((3, 5)).inverse(X),
        ValueError,
        r"y: expected the grid \(3, 5\) that this inverse was prepared for, got \(4, 5\)",
    ),
    "grid-huge": (lambda: CORNER.log_det((2**70, 5)), ValueError, r"one pixel .* at most, got"),
    "check-array": (
        lambda: CORNER.prepare((4, 5), check=np.ones(2)),  # type: ignore[arg-type]
        TypeError,
        r"check: expected True or False, got array",
    ),
    # the operators
    "kernel-rank": (
        lambda: ic.PeriodicConv(EYE),
        ValueError,
        r"kernel: expected shape \(C, C, \*k",
    ),
    "kernel-square": (
        lambda: ic.PeriodicConv(KERNEL[:2]),
        ValueError,
        r"kernel: expected shape \(C, C, \*k\), got \(2, 3, ",
    ),
    "kernel-list": (lambda: ic.PeriodicConv([[[1.0]]]), TypeError, r"kernel: expected an array"),
    "bias-shape": (
        lambda: ic.PeriodicConv(KERNEL, np.ones(2)),
        ValueError,
        r"bias: expected shape \(C,\) with C = 3 as kernel has, got \(2,\)",
    ),
    "bias-dtype": (
        lambda: ic.PeriodicConv(KERNEL, np.ones(3, np.float32)),
        TypeError,
        r"bias: expected dtype float64 as kernel has, got float32",
    ),
    "even-emerging": (
        lambda: ic.EmergingConv.init(3, kernel_size=4, rng=RNG),
        ValueError,
        r"kernel_size: expected odd sizes, .* got 4",
    ),
    "dilation-0": (lambda: ic.PeriodicConv(KERNEL, dilation=0), ValueError, r"dilation: .* got 0"),
    "dilation-huge": (
        lambda: ic.PeriodicConv(KERNEL, dilation=2**63),
        ValueError,
        r"dilation: expected at least 1 along every axis, 2147483647 at most, got 92",
    ),
    "mask-array": (
        lambda: ic.AutoregressiveConv(KERNEL, mask=np.ones(2)),  # type: ignore[arg-type]
        ValueError,
        r"mask: expected 'corner' or 'raster', got array",
    ),
    "steps-none": (
        lambda: ic.Chain(None),  # type: ignore[arg-type]
        TypeError,
        r"steps: expected a list of operators, got None",
    ),
    "dilation-float": (
        lambda: ic.PeriodicConv(KERNEL, dilation=1.0),  # type: ignore[arg-type]
        TypeError,
        r"dilation: expected an integer, or 2 of them, one per spatial axis, got 1\.0",
    ),
    "dilation-count": (
        lambda: ic.PeriodicConv(KERNEL, dilation=(1, 1, 1)),
        ValueError,
        r"dilation: .* got 3",
    ),
    "direction-2": (
        lambda: ic.AutoregressiveConv(KERNEL, direction=2),
        ValueError,
        r"direction: expected \+1 or -1 along every axis, got 2",
    ),
    "direction-raster": (
        lambda: ic.AutoregressiveConv.init(2, mask="raster", direction=(1, -1), rng=RNG),
        ValueError,
        r"direction: a raster mask has one direction for all axes, got \(1, -1\)",
    ),
    "raster-even": (
        lambda: ic.AutoregressiveConv(KERNEL, mask="raster"),
        ValueError,
        r"kernel: a raster mask needs an odd size along every axis but the first, got \(2, 2\)",
    ),
    "mask": (
        lambda: ic.AutoregressiveConv(KERNEL, mask="square"),
        ValueError,
        r"mask: expected 'corner' or 'raster', got 'square'",
    ),
    "order": (
        lambda: ic.AutoregressiveConv(KERNEL, channel_order="up"),
        ValueError,
        r"channel_order: expected 'lower' or 'upper', got 'up'",
    ),
    "same-direction": (
        lambda: ic.EmergingConv(CORNER, CORNER),
        ValueError,
        r"second: expected the direction opposite to first's \(1, 1\), got \(1, 1\)",
    ),
    "emerging-parts": (
        lambda: ic.EmergingConv(PERIODIC, CORNER),  # type: ignore[arg-type]
        TypeError,
        r"first: expected an AutoregressiveConv, got PeriodicConv",
    ),
    "emerging-axes": (
        lambda: ic.EmergingConv(CORNER, ic.AutoregressiveConv.init(3, ndim=1, rng=RNG)),
        ValueError,
        r"second: expected 2 spatial axes as first has, got 1",
    ),
    "permutation": (
        lambda: plu(permutation=np.asarray([0, 0, 1])),
        ValueError,
        r"permutation: expected each of 0 to 2 once, got \[0, 0, 1\]",
    ),
    "permutation-dtype": (
        lambda: plu(permutation=np.ones(3)),
        TypeError,
        r"permutation: expected integers, got float64",
    ),
    "permutation-library": (
        lambda: plu(permutation=torch.arange(3)),
        TypeError,
        r"permutation: expected an array of numpy as lower is, got one of torch",
    ),
    "sign": (
        lambda: plu(sign=np.asarray([1.0, 0.0, 1.0])),
        ValueError,
        r"sign: expected a positive or negative number a channel",
    ),
    "zero-reflector": (
        lambda: ic.QRConv1x1(np.asarray([[1.0, 0, 0], [0, 0, 0]]), EYE, np.ones(3)),
        ValueError,
        r"reflectors: expected no zero vector, got one in row 1",
    ),
    "reflector-shape": (
        lambda: ic.QRConv1x1(np.ones((2, 2)), EYE, np.ones(3)),
        ValueError,
        r"upper: expected shape \(C, C\) with C = 2 as reflectors has, got \(3, 3\)",
    ),
    "weight-shape": (
        lambda: ic.Conv1x1(np.ones((2, 3))),
        ValueError,
        r"weight: expected shape \(C, C\), got \(2, 3\)",
    ),
    "ndim": (lambda: ic.Conv1x1(EYE, ndim=-1), ValueError, r"ndim: expected None or a number"),
    "ndim-float": (lambda: ic.Conv1x1(EYE, ndim=2.0), TypeError, r"ndim: .* got 2\.0"),  # type: ignore[arg-type]
    "ndim-bool": (lambda: ic.Conv1x1(EYE, ndim=True), TypeError, r"ndim: .* got True"),
    "kernel-size-bool": (
        lambda: ic.PeriodicConv.init(2, (True, 3), rng=RNG),
        TypeError,
        r"kernel_size: .* got True",
    ),
    "channels-zero": (lambda: ic.ActNorm.init(0), ValueError, r"channels: expected a positive"),
    "channels-float": (lambda: ic.ActNorm.init(2.0), TypeError, r"channels: .* got 2\.0"),  # type: ignore[arg-type]
    "kernel-size-zero": (
        lambda: ic.PeriodicConv.init(2, kernel_size=0, rng=RNG),
        ValueError,
        r"kernel_size: expected at least 1",
    ),
    "chain-empty": (lambda: ic.Chain([]), ValueError, r"steps: expected at least one operator"),
    "chain-type": (
        lambda: ic.Chain([ONE, np.eye(3)]),  # type: ignore[list-item]
        TypeError,
        r"steps\[1\]: expected an InvertibleConv, got ndarray",
    ),
    "chain-channels": (
        lambda: ic.Chain([ONE, ic.Conv1x1.init(2, rng=RNG)]),
        ValueError,
        r"steps\[1\]: expected 3 channels as steps\[0\] has, got 2",
    ),
    "chain-axes": (
        lambda: ic.Chain([CORNER, ic.PeriodicConv.init(3, ndim=1, rng=RNG)]),
        ValueError,
        r"steps\[1\]: expected 2 spatial axes as steps\[0\] has, got 1",
    ),
    "chain-dtype": (
        lambda: ic.Chain([CORNER, ic.Conv1x1(np.eye(3, dtype=np.float32))]),
        TypeError,
        r"steps\[1\]\.weight: expected dtype float64 as steps\[0\] has, got float32",
    ),
    "inverse-type": (lambda: ic.Inverse(EYE), TypeError, r"conv: expected an InvertibleConv"),  # type: ignore[arg-type]
    "replace-name": (
        lambda: ic.EmergingConv.init(2, rng=RNG).replace(**{"third.kernel": KERNEL}),
        ValueError,
        r"replace: EmergingConv has no array named 'third.kernel'; it has first.kernel,",
    ),
    "squeeze-divisor": (
        lambda: ic.squeeze(X, 2),
        ValueError,
        r"x: .* divisible by 2, got \(4, 5\)",
    ),
    "squeeze-rank": (lambda: ic.squeeze(X[0, 0]), ValueError, r"x: expected shape .* got \(4, 5\)"),
    "unsqueeze-channels": (lambda: ic.unsqueeze(X), ValueError, r"x: .* divisible by 4, got 3"),
    "squeeze-list": (lambda: ic.squeeze([1.0]), TypeError, r"x: expected an array .* got list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(name: str) -> None:
    """The error is of its kind, says what is wrong, and names what to do."""
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error
    to_do = r"expected|no array named|has one direction|needs an odd"
    assert re.search(to_do, str(caught.value))
