"""A user's operator: held to the laws of any by `check_operator`, and in the register."""

import math
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import dask.array
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax
import invconv_torch as it
from invconv.extend import (
    Factor,
    Family,
    Householder,
    LogScale,
    Matrix,
    Pointwise,
    Scale,
    array,
    part,
)
from invconv.flows.architecture import mixing_words
from invconv_conformance import check_operator
from tests.flows.small_flows import glow, moved
from tests.libraries.onnx_programs import exported, run
from tests.programs import ROOT, python
from tests.selected import slow
from tests.suite.own_families import BUGS, Mixed, Rows, operator

RNG = np.random.default_rng(0)


class Mirrored(Pointwise, mixing="mirrored"):
    """W = H_1 ... H_m diag(exp(s))."""

    vectors: Any = array("m", "C")
    logs: Any = array("C")
    bias: Any = array("C", optional=True)
    mask: str = "none"

    def factors(self) -> Any:
        return [(LogScale(), self.logs), (Householder(), self.vectors)]

    def factors_vjp(self, bars: Any) -> Any:
        return {"logs": bars[0], "vectors": bars[1]}

    def within(self, gain: float) -> Any:
        limit = math.log(gain)
        return self.replace(logs=limit * self.logs / (limit + abs(self.logs)))

    def advice(self, channel: int | None) -> str:
        return "bring the logs closer to 0"

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"vectors": rng.standard_normal((2, channels)), "logs": np.zeros(channels)}


class Sandwich(ic.InvertibleConv):
    """K = A^-1 S A for a part A and scales S: a part that is undone."""

    inside: ic.InvertibleConv = part()
    scale: Any = array("C")

    def factors(self) -> Any:
        path = self.inside._path()
        back = [f._replace(inverted=not f.inverted) for f in reversed(path)]
        return [*path, (Scale(), self.scale), *back]

    def factors_vjp(self, bars: Any) -> Any:
        count = len(bars) // 2
        there, back = bars[:count], bars[:count:-1]
        gradients = self.inside._gradients([a + b for a, b in zip(there, back, strict=True)])
        return {"scale": bars[count]} | {f"inside.{n}": g for n, g in gradients.items()}


class Shifted(Sandwich):
    """K of a sandwich, with a bias that has to be."""

    bias: Any = array("C")


class Doubled(ic.InvertibleConv, mixing="doubled"):
    """K of a multiple of the kernel, as another operator has it."""

    kernel: Any = array("C", "C", "*k")
    order: Any = array("C", constant=True, optional=True)
    times: int = 2

    @classmethod
    def init(cls, *sizes: Any, rng: Any) -> Any:
        order = rng.permutation(sizes[0])
        return cls(ic.PeriodicConv.init(*sizes, rng=rng).kernel, order, sizes[0])

    def factors(self) -> Any:
        return ic.PeriodicConv(self.times * self.kernel).factors()

    def factors_vjp(self, bars: Any) -> Any:
        return {"kernel": self.times * bars[0]}


SETTINGS: tuple[Any, ...] = (
    (("a", 2), ("b", 3.5)),
    (("a", True), (), ((None, -0.0), np.float32(0.1), np.int64(2), np.bool_(True))),
    {"a": (1, 2)},
)


class Tabled(ic.InvertibleConv):
    """K = t diag(s) with the sum t of the numbers of a table of words and numbers."""

    scale: Any = array("C")
    unused: Any = array("C", optional=True)
    table: Any = ()

    def factors(self) -> Any:
        return [(Scale(), self._sum() * self.scale)]

    def factors_vjp(self, bars: Any) -> Any:
        return {"scale": self._sum() * bars[0]}

    def _sum(self) -> float:
        return sum(float(entry[1]) for entry in self.table if entry)


def mirrored() -> Mirrored:
    return Mirrored(RNG.standard_normal((2, 3)), RNG.standard_normal(3) / 3, RNG.standard_normal(3))


def weight(conv: Mirrored) -> np.ndarray[Any, Any]:
    w = np.diag(np.exp(conv.logs))
    for v in conv.vectors[::-1]:
        w = w - 2 * np.outer(v, v @ w) / (v @ v)
    return w


@pytest.mark.parametrize("xp", [np, torch, slow(jnp)])  # JAX compiles for seconds
def test_an_operator_of_ones_own_obeys_every_law(xp: Any) -> None:
    conv = mirrored()
    wide = jnp.zeros(1).dtype
    check_operator(conv, weight(conv), xp=xp)
    assert jnp.zeros(1).dtype == wide  # JAX's float64 is switched as before
    emerging = ic.EmergingConv.init(3, rng=RNG)
    check_operator(Sandwich(emerging, 1 + RNG.random(3)), xp=xp)
    check_operator(Doubled(ic.PeriodicConv.init(2, rng=RNG).kernel), xp=xp)
    check_operator(Tabled(1 + RNG.random(3), table=SETTINGS[1]), xp=xp)
    if xp is np:  # vectors, whose grid has no axes, and zeros
        check_operator(ic.Conv1x1(weight(conv), ndim=0), weight(conv))
        check_operator(ic.ActNorm.init(2), spatial_shape=())
        for vectors in (
            1e-3 * conv.vectors,
            np.ones((1, 1)),
            np.ones((0, 3)),
        ):  # the last say nothing
            check_operator(ic.OrthogonalConv1x1(vectors), spatial_shape=(2,))
        # scales that are small beside biases
        check_operator(ic.ActNorm(np.asarray([-8, -7.9, -7.8]), np.asarray([1, 0.7, 1.3])))


def test_what_is_wrong_is_said() -> None:
    conv = mirrored()
    with pytest.raises(AssertionError, match=r"Mirrored, numpy float64: forward.value, .*bound"):
        check_operator(conv, 1.001 * weight(conv))
    broken = {"factors_vjp": lambda self, bars: {"logs": bars[0], "vectors": bars[2]}}
    with pytest.raises(AssertionError, match=rf"IndexError: list (?s:.*){re.escape(__file__)}"):
        check_operator(type("Wrong", (Mirrored,), broken)(**conv.parameters()))
    with pytest.raises(
        ValueError, match=r"xp: expected numpy, .* or one with an adapter, got dask"
    ):
        check_operator(conv, xp=dask.array)
    with pytest.raises(ValueError, match=r"expected one of the shapes \[\(3, 3\), \(60, 60\)\]"):
        check_operator(conv, np.eye(4))


@pytest.mark.parametrize("family", [Mixed, Rows])
def test_bugs_of_a_researchers_own_family_are_found_and_the_method_is_named(family: Any) -> None:
    check_operator(operator(family, {}))
    bugs = [(bug, method) for cls, bug, method in BUGS if cls is family]
    assert len(bugs) >= 5
    for bug, method in bugs:
        with pytest.raises(AssertionError, match=rf"on the grid .*; look at .*\b{method}\b"):
            check_operator(operator(family, bug))


def scaled(self: Any) -> Any:
    return [(Scale(), self.scale)]


def vjp(method: Any) -> Any:
    return {"factors": scaled, "factors_vjp": method}


FIELDS = {"__annotations__": {"scale": Any}, "scale": array("C"), "__module__": __name__}
FACTORS = r"Wrong.factors: expected one or more pairs of a family, such as Matrix\(\)"


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        ({}, TypeError, "Wrong: expected a method `factors`, or parts"),
        ({"factors": scaled}, TypeError, "Wrong: expected a method `factors_vjp` beside `factors`"),
        ({"factors": lambda self: [Scale(), self.scale]}, TypeError, FACTORS),
        ({"factors": lambda self: [(Scale, self.scale)]}, TypeError, FACTORS),
        ({"factors": lambda self: []}, TypeError, FACTORS),
        (vjp(lambda self, bars: {"scales": bars[0]}), ValueError, "by scale, got one by scales"),
        (vjp(lambda self, bars: {}), ValueError, "by scale, got none by scale"),
        (vjp(lambda self, bars: None), TypeError, "a dict of gradients by scale, got None"),
        (
            vjp(lambda self, bars: {"scale": sum(bars[0])}),
            ValueError,
            r"shape \(2,\), got one of shape \(\)",
        ),
    ],
)
def test_what_a_class_lacks_is_said(methods: Any, error: Any, message: str) -> None:
    cls: Any = type("Wrong", (ic.InvertibleConv,), FIELDS | methods)
    x = np.ones((1, 2, 3))
    with pytest.raises(error, match=message):
        cls(np.ones(2)).forward_vjp(x, x)


class Undone(Pointwise):
    """W = A^-1 diag(s)."""

    scale: Any = array("C")
    weight: Any = array("C", "C")

    def factors(self) -> Any:
        return [(Scale(), self.scale), Factor(Matrix(), self.weight, inverted=True)]


def test_a_matrix_may_be_undone() -> None:
    scale, weight, y = (
        1 + RNG.random(3),
        RNG.standard_normal((3, 3)),
        RNG.standard_normal((2, 3, 1)),
    )
    conv, dense = Undone(scale, weight), np.linalg.inv(weight) * scale
    np.testing.assert_allclose(conv.matrix(), dense)
    np.testing.assert_allclose(conv.transpose().forward(y), dense.T @ y)
    np.testing.assert_allclose(conv.least_squares(y), np.linalg.solve(dense, y))


def test_kernels_of_one_channel_each_and_of_none() -> None:
    """A kernel (C, k) of other sizes is none of several that are stacked."""
    types = {"__annotations__": {"scale": Any, "kernel": Any}, "__module__": __name__}
    fields = {"scale": array("C"), "kernel": array("C", "*k", optional=True)}
    Depthwise: Any = type("Depthwise", (ic.InvertibleConv,), fields | types | vjp(None))
    assert Depthwise(np.full(3, 2.0), np.ones((3, 5))).forward(np.ones((3, 8))).sum() == 48
    assert Depthwise(np.full(3, 2.0), None).forward(np.ones((1, 3, 8, 8))).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": array("c")}, 'a part, or an array with an axis "C"'),
        ({"inverse": array("C")}, ".* names of their own, got inverse, which operators have"),
        ({"scale": array("C"), "_path": 1}, ".* names of their own, got _path, which operators"),
        ({"scale": array("C"), "bias": 0.0}, "bias to be an array"),
        ({"scale": array("C"), "sum": field(init=False)}, "fields that are arguments, got sum"),
    ],
)
def test_a_field_that_cannot_be_is_refused_as_the_class_is_defined(
    fields: Any, message: str
) -> None:
    types = {"__annotations__": dict.fromkeys(fields, Any), "__module__": __name__}
    with pytest.raises(TypeError, match=f"class Wrong: expected {message}"):
        type("Wrong", (ic.InvertibleConv,), fields | types | vjp(lambda self, bars: {}))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (([True],), TypeError, "order: expected real numbers or integers, got bool"),
        (([1j],), TypeError, "order: expected real numbers or integers, got complex128"),
        ((np.ones(1, np.longdouble),), TypeError, "order: expected a real floating dtype"),
        ((np.ones(1, "f4"),), TypeError, "order: expected dtype float64 as scale has, got float32"),
        ((torch.ones(1, dtype=int),), TypeError, "order: expected an array of numpy as scale is"),
        (([0], None), ValueError, "Wrong: expected a part or a trained array, got none"),
    ],
)
def test_arrays_that_cannot_be_are_refused(values: Any, error: Any, message: str) -> None:
    types = {"__annotations__": {"order": Any, "scale": Any}, "__module__": __name__}
    fields = {"order": array("C", constant=True), "scale": array("C", optional=True)}
    cls: Any = type("Wrong", (ic.InvertibleConv,), fields | types | vjp(None))
    order = values[0] if hasattr(values[0], "dtype") else np.asarray(values[0])
    scale = np.ones(1)
    with pytest.raises(error, match=message):
        cls(order, *(values[1:] or (scale,)))


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        ({}, r"Wrong: expected a class method `drawn\(channels, rng\)`"),
        ({"drawn": lambda *_: 1}, "Wrong.drawn: expected arrays by name, got 1"),
    ],
)
def test_init_needs_arrays_by_name(drawn: Any, message: str) -> None:
    cls: Any = type("Wrong", (Pointwise,), FIELDS | drawn)
    with pytest.raises(TypeError, match=message):
        cls.init(2)


def test_it_is_judged_and_a_part_that_is_undone_in_the_forward_map() -> None:
    conv: ic.InvertibleConv = mirrored().replace(logs=np.asarray([-20.0, 0.0, 1.0]))
    with pytest.warns(ic.IllConditionedWarning, match="Mirrored"):
        conv.asarrays(np.zeros(1, np.float32)).prepare((2, 2))
    assert ic.diagnose(conv, (2, 2), "float32").advice[0].startswith("bring the logs")
    growing = ic.AutoregressiveConv(np.asarray([[[1.0, -3.0]]], np.float32))
    conv, x = Sandwich(growing, np.full(1, 2.0, np.float32)), np.ones((1, 1, 30), np.float32)
    with pytest.warns(ic.IllConditionedWarning, match="Sandwich"):
        conv.forward(x)


def test_without_a_bias_that_has_to_be_it_is_zero() -> None:
    inside, x = ic.EmergingConv.init(2, rng=RNG), RNG.standard_normal((2, 3, 3))
    conv = Shifted(inside.replace(bias=np.ones(2)), 1 + RNG.random(2), np.ones(2))
    linear = ic.aslinearoperator(conv, (3, 3))
    wanted = conv.forward(x) - conv.forward(0 * x)
    np.testing.assert_allclose(linear.matvec(x.ravel()), wanted.ravel(), atol=1e-12)
    again = conv.transpose().transpose().parameters()
    assert [name for name in again if name.endswith("bias")] == ["bias"]


def test_a_dense_matrix_of_the_whole_grid() -> None:
    conv = ic.AutoregressiveConv(np.asarray([[[1.0, -0.5]]]))
    dense = np.eye(5) - 0.5 * np.eye(5, k=-1)
    check_operator(conv, dense, spatial_shape=(5,))
    with pytest.raises(AssertionError, match=r"forward\.value"):
        check_operator(conv, dense.T, spatial_shape=(5,))


@pytest.mark.parametrize("word", ["mirrored", "emerging_mirrored", "doubled"])
def test_flows_know_it_by_its_word(word: str, tmp_path: Path) -> None:
    flow = moved(glow(word, (2, 4, 4), levels=1), 0.1, torch.float32)
    assert all(p.is_meta for p in glow(word, device="meta").parameters())
    images, noise = torch.randint(256, (3, 2, 4, 4), dtype=torch.uint8), torch.rand(3, 2, 4, 4)
    ic.save(flow, tmp_path / "flow.safetensors")
    same = invconv_jax.load(tmp_path / "flow.safetensors")
    bits = same.bits_per_dim(jnp.asarray(images.numpy()), jnp.asarray(noise.numpy()))
    np.testing.assert_allclose(bits, flow.bits_per_dim(images, noise).detach(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
def test_it_is_a_layer_compiled_mapped_and_exported() -> None:
    conv, x = mirrored(), RNG.standard_normal((4, 3, 4, 5))
    layer, images = it.InvertibleModule(conv), torch.asarray(x)
    expected = layer(images)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), expected)
    mapped = torch.func.vmap(lambda image: layer(image[None])[0][0])(images)
    torch.testing.assert_close(mapped, expected[0])
    on_jax = conv.asarrays(jnp.zeros(()))
    jitted = jax.jit(lambda conv, x: conv.inverse(conv.forward(x)))(on_jax, jnp.asarray(x))
    np.testing.assert_allclose(jitted, x, atol=1e-5)
    layer, images = layer.float(), images.float()
    z, log_det = run(exported(layer, (images,)), (images,))
    np.testing.assert_allclose(z, conv.forward(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, [20 * conv.logs.sum()] * 4, rtol=1e-5)


def test_a_layers_constants_may_be_called_as_anything_of_a_module() -> None:
    def called(name: str, **options: Any) -> Any:
        types = {"__annotations__": {"scale": Any, name: Any}, "__module__": __name__}
        fields = {"scale": array("C"), name: array("C", **options)}
        factors = {"factors": lambda self: [(Scale(), self.scale * getattr(self, name))]}
        cls: Any = type("Called", (ic.InvertibleConv,), fields | types | vjp(None) | factors)
        return it.InvertibleModule(cls(np.ones(2), np.full(2, 2.0)))

    for name in ("half", "type", "apply", "operator", "buffers", "_kind"):
        layer = called(name, constant=True).eval()
        assert layer(torch.ones((1, 2, 3), dtype=torch.float64))[0].sum() == 12
        assert [*layer.state_dict()] == ["scale", name]
    for constant in (False, True):
        with pytest.raises(TypeError, match="conv: expected no field of the name training"):
            called("training", constant=constant)


@pytest.mark.parametrize("table", SETTINGS, ids=str)
def test_settings_come_back_as_they_were(table: Any, tmp_path: Path) -> None:
    conv = Tabled(1 + RNG.random(3), table=table)
    ic.save(conv, tmp_path / "conv.safetensors")
    back = ic.load(tmp_path / "conv.safetensors")
    assert (back.table, back.unused) == (table, None)


@pytest.mark.parametrize("table", [{1: 2}, [1], ([1],), np.ones(1), 1j, {2}, print], ids=str)
def test_settings_that_would_not_are_refused(table: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Tabled\.table: expected None, text, a number or a tuple"):
        ic.save(Tabled(1 + RNG.random(3), table=table), tmp_path / "conv.safetensors")


def test_settings_of_a_serialised_program_are_as_they_were() -> None:
    conv = Tabled(1 + jnp.ones(3), table=SETTINGS[0])
    program = jax.export.export(jax.jit(lambda conv: conv))(conv)
    again = jax.export.deserialize(program.serialize()).call(conv)
    assert again.table == conv.table


@pytest.fixture(scope="module")
def along() -> Any:
    """Return an operator of the family that the guide shows."""
    text = (ROOT / "benchmarks/guide/check-a-library.md").read_text(encoding="utf-8")
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Along" in c)
    scope: dict[str, Any] = {}
    exec(code.partition("\nline, places")[0], scope)  # the checks are a test of the guide
    return scope["AlongConv"](1 + RNG.random((2, 2, 3)), np.ones(2))


@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
def test_a_family_of_ones_own_is_compiled_mapped_and_differentiated_twice(along: Any) -> None:
    x = torch.asarray(RNG.standard_normal((3, 2, 4, 5)))
    layer = it.InvertibleModule(along)
    z, log_det = layer(x)
    np.testing.assert_allclose(log_det.detach(), [along.log_det((4, 5))] * 3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x)[0], z)
    torch.testing.assert_close(torch.func.vmap(lambda one: layer(one[None])[0][0])(x), z)
    torch.testing.assert_close(layer.inverse(z)[0], x)
    kernel = layer.kernel.detach().requires_grad_()

    def inverse(kernel: Any) -> Any:
        parameters = {"conv.kernel": kernel, "conv.bias": layer.bias}
        there = it.InvertibleModule(ic.Inverse(along))
        return torch.func.functional_call(there, parameters, (x[:1],))[0]

    assert torch.autograd.gradgradcheck(inverse, (kernel,))
    prepared = along.asarrays(jnp.zeros(())).prepare((4, 5))
    y = jnp.asarray(z.detach().numpy())
    found = jax.jit(lambda prepared, y: prepared.inverse(y))(prepared, y)
    np.testing.assert_allclose(found, x, atol=1e-4)
    with pytest.raises(Exception, match=r"expected maps that lower to taps, .* got Along, which"):
        exported(layer.float(), (x.float(),))


def test_a_family_in_a_function_with_any_numbers_is_mapped(along: Any) -> None:
    Along: Any = type(along.factors()[0][0])

    @dataclass(frozen=True)
    class Limited(Along):  # type: ignore[misc]
        limit: float = 0.0

        def transpose(self) -> Any:
            return Limited.of(self.taps, not self.forth, self.limit)

    class LimitedConv(type(along)):  # type: ignore[misc]
        limit: float = 0.0

        def factors(self) -> Any:
            return [(Limited.of(3, True, self.limit), self.kernel)]

    x = torch.asarray(RNG.standard_normal((3, 2, 4, 5)))
    for limit in (np.float64(1), 1.0, math.inf):
        layer = it.InvertibleModule(LimitedConv(along.kernel, along.bias, limit=limit))
        mapped = torch.func.vmap(lambda one, layer=layer: layer(one[None])[0][0])(x)
        torch.testing.assert_close(mapped, layer(x)[0])


def test_integers_that_another_library_lacks_are_refused(tmp_path: Path) -> None:
    def keyed(key: int) -> Any:
        return Doubled(np.ones((2, 2, 1)), np.asarray([0, key], np.uint64))

    path = tmp_path / "conv.safetensors"
    ic.save(keyed(2**31), path)
    with jax.enable_x64(False):
        assert keyed(2**31 - 1).asarrays(jnp.zeros(1)).order[1] == 2**31 - 1
        for carry in (keyed(2**31).asarrays, partial(ic.load, path)):
            with pytest.raises(ValueError, match=r"like: .* 0 to 2147483648, got jax with int32"):
                carry(like=jnp.zeros(1))
    with pytest.raises(ValueError, match=r"like: .* 0 to 9223372036854775808, got torch"):
        keyed(2**63).asarrays(torch.zeros(1))
    with pytest.raises(ValueError, match="order: expected integers within int64, got 92233720"):
        ic.save(keyed(2**63), path)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("Causal(centre=Scale())", "expected a family whose settings are words, numbers or tuples"),
        ("Elsewhere(taps=3)", "Elsewhere: expected a known family; first import its module"),
    ],
)
def test_a_family_that_a_graph_cannot_hold_is_refused(family: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        torch.ops.invconv.run("apply", family, (0,), torch.ones(1, 1, 3), torch.ones(1, 1, 5))


def test_a_rule_that_a_family_lacks_is_named(along: Any) -> None:
    family = type(along.factors()[0][0])
    Short: Any = type("Short", (family,), {"gram": Family.gram})
    with pytest.raises(NotImplementedError, match="Short: expected a method gram, got none"):
        Short(3).gram(None, None)


def test_a_file_says_what_to_import(tmp_path: Path) -> None:
    text = "import invconv\n\n\nclass Sharpen(invconv.Conv1x1):\n    pass\n"
    (tmp_path / "sharpening.py").write_text(text, encoding="utf-8")
    save = "import numpy, invconv, sharpening as s; invconv.save(s.Sharpen(numpy.eye(2)), 'a.st')"
    load = "import invconv; print(type(invconv.load('a.st')).__name__)"
    for program, status, output in (
        (save, 0, ""),
        (load, 1, "unknown class 'Sharpen'; first import sharpening, which defines it"),
        (f"import sharpening; {load}", 0, "Sharpen"),
        (f"import invconv as ic; exec({text!r}); {load}", 0, "of sharpening, which the file names"),
    ):
        done = python("-c", program, cwd=tmp_path, status=status)
        assert output in done.stdout + done.stderr


def test_two_classes_of_one_name_are_refused() -> None:
    """Where they differ; one that is defined once more, as in a notebook, takes its own place."""

    def define(name: str, module: str) -> type[ic.Conv1x1]:
        return type(name, (ic.Conv1x1,), {"__module__": module}, mixing=name)

    old, new = (define("Twice", "a_notebook") for _ in range(2))
    with pytest.raises(TypeError, match=r"class Twice: .* got that of a_notebook.Twice; give"):
        define("Twice", "another")
    with pytest.raises(TypeError, match=r"got that of invconv\..*\.PeriodicConv"):
        define("PeriodicConv", "mine")
    with pytest.raises(TypeError, match=r"mixing of its own, .* got 'Twice', that of a_n.*\.Twice"):
        type("Other", (ic.Conv1x1,), {}, mixing="Twice")
    type("Emerged", (ic.Conv1x1,), {}, mixing="emerging_mine")
    assert mixing_words()["emerging_mine"] is None  # a word of its own
    with pytest.raises(TypeError, match="of the class Twice as it is defined now"):
        ic.save(old(np.eye(2)), "never.safetensors")
    assert jax.tree.leaves(new(jnp.eye(2)))
    with pytest.raises(TypeError, match=r"class Scale: .* family, got that of invconv\..*\.Scale"):
        type("Scale", (Family,), {"__module__": "mine"})
    for factor in (1, 2):  # what compiled code runs is defined again, too
        type("Rescaled", (Family,), {"apply": lambda _, w, x, factor=factor: factor * w * x})
        found = torch.ops.invconv.run("apply", "Rescaled()", (0,), *torch.ones(2, 1, 1, 3))
        assert (found == factor).all()
