"""CONTRIBUTING's walks, from a user's call down to the kernel, hold for the calls that run."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_torch

ROOT = Path(__file__).parents[3]
FOLDERS = ("invconv/", "backends/")
VOCABULARY = "invconv/arrays/"  # dtypes, namespaces, and the registry of native functions


def listed(title: str) -> list[str]:
    """Return the files that CONTRIBUTING names for a walk, one a step."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    walk = text.split(f"### {title}\n")[1].split("\n##")[0]
    files = re.findall(r"^\d\. `([\w/]+\.py)`", walk, re.MULTILINE)
    return [name if name.startswith(FOLDERS) else f"invconv/{name}" for name in files]


def stack_at(last: str, call: Callable[[], Any]) -> list[str]:
    """Return the files of ours on the stack when the file ``last`` is first entered by a call."""
    stacks: list[list[str]] = []

    def note(frame: FrameType | None, event: str, _: Any) -> None:
        if event != "call" or frame is None or not frame.f_code.co_filename.endswith(last):
            return
        files: list[str] = []
        while frame is not None:
            name = frame.f_code.co_filename.removeprefix(f"{ROOT}/")
            ours = name.startswith(FOLDERS) and not name.startswith(VOCABULARY)
            if ours and name not in files[-1:]:
                files.append(name)
            frame = frame.f_back
        stacks.append(files[::-1])

    call()  # compiles
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return stacks[0]


CONV = ic.EmergingConv.init(3, rng=np.random.default_rng(0))
PERIODIC = ic.PeriodicConv.init(3, rng=np.random.default_rng(0))
IMAGES, ON_JAX = np.ones((1, 3, 4, 4)), CONV.asarrays(jnp.ones(1))
CALLS: dict[str, Callable[[], Any]] = {  # of new operators, which remember nothing
    "`EmergingConv.inverse(y)`, NumPy": lambda: CONV.replace().inverse(IMAGES),
    "The torch layer's forward": lambda: invconv_torch.EmergingConv2d(3)(torch.ones(1, 3, 4, 4)),
    "JAX's jitted inverse": lambda: jax.jit(lambda y: ON_JAX.inverse(y))(jnp.asarray(IMAGES)),
    "`PeriodicConv.log_det(shape)`": lambda: PERIODIC.replace().log_det((4, 4)),
}


@pytest.mark.parametrize("title", CALLS)
def test_a_walk_goes_down_through_the_listed_files(title: str) -> None:
    steps = listed(title)
    assert len(steps) == 5
    assert stack_at(steps[-1], CALLS[title]) == steps
