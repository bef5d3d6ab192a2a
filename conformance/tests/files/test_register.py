"""A user's class of operators is in the register, and so as good as one of the library."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
from invconv import extend
from invconv.operators.base.register import own_operators
from tests.programs import python


class Plain(ic.PeriodicConv):
    """A periodic convolution, unchanged."""


def test_the_library_knows_its_own() -> None:
    public = [getattr(of, name) for of in (ic, extend) for name in of.__all__]
    bases = ic.InvertibleConv, extend.Pointwise
    classes = {c for c in public if isinstance(c, type) and issubclass(c, ic.InvertibleConv)}
    expected = classes - {*bases}
    assert set(own_operators()) == expected
    assert Plain not in own_operators()


def test_a_file_says_what_to_import(tmp_path: Path) -> None:
    (tmp_path / "sharpening.py").write_text(
        "import invconv\n\n\nclass Sharpen(invconv.Conv1x1):\n    pass\n", encoding="utf-8"
    )
    save = "import numpy, invconv, sharpening as s; invconv.save(s.Sharpen(numpy.eye(2)), 'a.st')"
    load = "import invconv; print(type(invconv.load('a.st')).__name__)"
    for program, status, output in (
        (save, 0, ""),
        (load, 1, "unknown class 'Sharpen'; first import sharpening, which defines it"),
        (f"import sharpening; {load}", 0, "Sharpen"),
    ):
        done = python("-c", program, cwd=tmp_path, status=status)
        assert output in done.stdout + done.stderr


def test_two_classes_of_one_name_are_refused() -> None:
    """Where they differ; one that is defined once more, as in a notebook, takes its own place."""

    def define(name: str, module: str) -> type[ic.Conv1x1]:
        return type(name, (ic.Conv1x1,), {"__module__": module})

    old, new = (define("Twice", "a_notebook") for _ in range(2))
    with pytest.raises(TypeError, match=r"class Twice: .* got that of a_notebook.Twice; give"):
        define("Twice", "another")
    with pytest.raises(TypeError, match=r"got that of invconv\..*\.PeriodicConv"):
        define("PeriodicConv", "mine")
    with pytest.raises(TypeError, match="of the class Twice as it is defined now"):
        ic.save(old(np.eye(2)), "never.safetensors")
    assert jax.tree.leaves(new(jnp.eye(2)))
