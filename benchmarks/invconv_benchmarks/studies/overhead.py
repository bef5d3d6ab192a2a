"""The number of Python functions that calls enter: their cost however small the arrays are."""

import cProfile
import gc
from pathlib import Path

import numpy as np
import torch

import invconv as ic
import invconv_torch as it
from invconv_benchmarks.contenders.layers import step_of
from invconv_benchmarks.measure.timing import Call
from invconv_benchmarks.results.result import Verdict, judged

_SHAPE = (1, 12, 8, 8)


def measure(quick: bool, folder: Path) -> tuple[list[Verdict], dict[str, Path]]:
    """Count the calls of Python of small inverses, forwards and steps, warm."""
    x, grid = torch.randn(_SHAPE), _SHAPE[2:]
    y = x.numpy()
    conv = ic.EmergingConv.init(_SHAPE[1], rng=np.random.default_rng(0), like=y)
    prepared, layer = conv.prepare(grid), it.EmergingConv2d(_SHAPE[1])
    fixed = it.EmergingConv2d(_SHAPE[1]).eval()
    counts = [
        ("EmergingConv inverse, NumPy", python_calls(lambda: conv.inverse(y)), 140),
        ("prepared inverse, NumPy", python_calls(lambda: prepared.inverse(y)), 40),
        ("EmergingConv2d forward", python_calls(lambda: layer(x)), 150),
        ("EmergingConv2d step", python_calls(step_of(layer, x)), 300),
    ]
    with torch.no_grad():
        calls = python_calls(lambda: fixed.inverse(x))
    counts.append(("EmergingConv2d inverse, eval, no_grad", calls, 60))
    name = "calls of Python, 1x12x8x8"
    return [judged(name, what, calls, most) for what, calls, most in counts], {}


def python_calls(function: Call) -> int:
    """Return how many functions of Python a warm function of Python enters, itself not counted."""
    for _ in range(5):
        function()
    profile = cProfile.Profile(builtins=False)
    gc.collect()  # a collection amid the call would count what it calls
    profile.runcall(function)
    return sum(entry.callcount for entry in profile.getstats()) - 1
