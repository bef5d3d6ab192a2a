"""A user's class of operators is in the register, and so as good as one of the library."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import KW_ONLY
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
from invconv import extend
from invconv.operators.base.register import own_operators

KERNEL = np.asarray([[[0.25, 1.0, 0.5]]])
X = np.random.default_rng(0).standard_normal((2, 1, 8))


class Scaled(ic.PeriodicConv):
    """A periodic convolution with a further array, a constant and a setting."""

    _: KW_ONLY
    unit: str = "m"


class Plain(ic.PeriodicConv):
    """A periodic convolution, unchanged."""


def test_the_library_knows_its_own() -> None:
    public = [getattr(of, name) for of in (ic, extend) for name in of.__all__]
    bases = ic.InvertibleConv, extend.Pointwise
    classes = {c for c in public if isinstance(c, type) and issubclass(c, ic.InvertibleConv)}
    expected = classes - {*bases}
    assert set(own_operators()) == expected
    assert Scaled not in own_operators()


@pytest.mark.parametrize("conv", [Scaled(KERNEL, unit="cm"), Plain(KERNEL)])
def test_it_is_saved_and_loaded(conv: ic.InvertibleConv, tmp_path: Path) -> None:
    ic.save(ic.Chain([conv, ic.Inverse(conv)]), tmp_path / "a.safetensors")
    found = ic.load(tmp_path / "a.safetensors")
    assert isinstance(found, ic.Chain)
    assert type(found[0]) is type(conv)
    assert vars(found[0]).get("unit") == vars(conv).get("unit")
    np.testing.assert_array_equal(found[0].forward(X), conv.forward(X))


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
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        assert output in done.stdout + done.stderr


def test_it_is_a_pytree_from_the_start() -> None:
    conv = Scaled(jnp.asarray(KERNEL), unit="cm")
    doubled = jax.jit(lambda conv: jax.tree.map(lambda a: 2 * a, conv))(conv)
    assert type(doubled) is Scaled
    assert doubled.unit == "cm"
    np.testing.assert_array_equal(doubled.kernel, 2 * KERNEL)
    gradient = jax.grad(lambda conv: conv.log_det((8,)))(conv)
    np.testing.assert_allclose(
        gradient.kernel, jax.grad(lambda conv: conv.log_det((8,)))(base(conv)).kernel
    )
    x = jnp.asarray(X)
    exported = export.export(jax.jit(lambda conv, x: conv.forward(x)))(conv, x)
    again = export.deserialize(exported.serialize())
    np.testing.assert_allclose(again.call(conv, x), conv.forward(x), rtol=1e-6)


def base(conv: Scaled) -> ic.PeriodicConv:
    return ic.PeriodicConv(conv.kernel, dilation=conv.dilation)


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
