"""The core's own promises: parameters, copies, plans, any precision; how it finds a library."""

import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import array_api_strict as strict
import jax
import numpy as np
import pytest
import torch

import invconv as ic
from invconv.arrays import namespaces, registry
from invconv.arrays.registry import agnostic
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.pitched import NUMPY, PitchedSolver
from invconv.kernels.primitives import add_pivots
from invconv.kernels.wavefront import inverse_keeps_accuracy
from invconv.operators.base.calls import as_batch
from tests.programs import ROOT, python
from tests.selected import cases_named, libraries

RNG = np.random.default_rng(0)


# those of array-api-strict without float64, no_float64 and no_x64, which it has from 2.6 on
@pytest.mark.parametrize("device", strict.__array_namespace_info__().devices()[3:], ids=str)
@pytest.mark.parametrize("version", ["2023.12", "2024.12"])
def test_no_float64_and_older_standards(version: str, device: Any) -> None:
    """A library without float64, or without int64, runs the whole core."""
    with strict.ArrayAPIStrictFlags(api_version=version):
        like = strict.zeros((), dtype=strict.float32, device=device)
        for case in cases_named("pluconv1x1-2d", "chain-flow-step", "chain-merged"):
            conv = case.conv()
            if "no_x64" not in str(
                device
            ):  # where integers of the library do not go with their dtype
                conv = conv.asarrays(strict.zeros(()))
            conv = conv.asarrays(like)
            x = strict.asarray(case.images(1)[0], dtype=strict.float32, device=like.device)
            y, log_det = conv.forward_and_log_det(x)
            assert float(strict.max(strict.abs(conv.inverse(y) - x))) < 1e-4
            for gradients, _ in (conv.forward_vjp(x, y, log_det), conv.inverse_vjp(y, x, log_det)):
                kinds = {(g.dtype, g.device) for g in gradients.values()}
                assert kinds == {(strict.float32, like.device)}


def test_parameters_and_replace() -> None:
    conv = ic.EmergingConv.init(2, rng=RNG)
    assert list(conv.parameters()) == ["first.kernel", "second.kernel"]
    biased = conv.replace(bias=np.ones(2), **{"first.bias": np.ones(2)})
    assert list(biased.parameters()) == ["first.kernel", "first.bias", "second.kernel", "bias"]
    assert list(biased.replace(bias=None).parameters())[-1] == "second.kernel"
    assert biased.replace(**biased.parameters()).first.kernel is conv.first.kernel
    chain = ic.Chain([ic.PLUConv1x1.init(2, rng=RNG), ic.Inverse(conv)])
    kernels = "1.conv.first.kernel", "1.conv.second.kernel"
    assert list(chain.parameters()) == ["0.lower", "0.upper", "0.log_scale", *kernels]
    assert (chain.ndim, chain.channels) == (2, 2)
    replaced = chain.replace(**{"0.permutation": np.asarray([1, 0])})
    assert replaced.steps[0].permutation.tolist() == [1, 0]  # type: ignore[attr-defined]


def test_the_log_dets_of_many_steps_and_of_their_inverses_cancel_exactly() -> None:
    for cls in (ic.PeriodicConv, ic.AutoregressiveConv):
        chain = ic.Chain([cls.init(3, rng=np.random.default_rng(n)) for n in range(20)])
        assert ic.Chain([chain, ic.Inverse(chain)]).log_det((5, 7)) == 0
    assert ic.Inverse(ic.Conv1x1(2 * np.eye(2))).log_det((3,)) == pytest.approx(-6 * math.log(2))


@pytest.mark.parametrize("boundary", ["zero", "odd", "symmetric", "periodic"])
def test_a_matrix_that_goes_into_taps_leaves_the_border_as_it_is(boundary: str) -> None:
    one, conv = ic.Conv1x1.init(2, rng=RNG), ic.SymmetricConv.init(2, boundary=boundary, rng=RNG)
    x, chain = RNG.standard_normal((1, 2, 5, 6)), ic.Chain([one, conv])
    np.testing.assert_allclose(chain.forward(x), conv.forward(one.forward(x)), rtol=0, atol=1e-13)
    legs = [len(chain._route(x[..., :n, :n]).legs) for n in (3, 4)]  # of 9 taps
    assert legs == [2, 1 if boundary == "periodic" else 2]


def test_operators_are_frozen_compare_by_identity_and_print_shapes() -> None:
    conv = ic.PeriodicConv.init(2, rng=RNG)
    with pytest.raises(AttributeError):
        conv.kernel = conv.kernel  # type: ignore[misc]
    assert conv != ic.PeriodicConv(conv.kernel)
    assert len({conv, conv}) == 1
    shown = "PeriodicConv(kernel=<(2, 2, 3, 3) float64 numpy>, bias=None, dilation=(1, 1))"
    assert repr(conv) == shown


def test_asarrays_stays_differentiable_within_a_library() -> None:
    weight = torch.eye(2, requires_grad=True)
    conv = ic.Conv1x1(weight).asarrays(torch.zeros((), dtype=torch.float64))
    conv.log_det((3,)).backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, 3 * torch.eye(2))
    psf = torch.tensor([1.0, 2, 1], requires_grad=True)
    ic.from_psf(psf, like=torch.zeros((), dtype=torch.float64)).kernel.sum().backward()
    assert psf.grad.tolist() == [0.5, 1, 0.5]
    again = conv.asarrays(conv.weight)  # a copy of its own
    assert again.weight.data_ptr() != conv.weight.data_ptr()


def test_pivots_are_added_at_the_centre_of_a_kernel_that_is_no_cube() -> None:
    kernel, v, centre = RNG.standard_normal((2, 2, 2, 3, 5)), RNG.standard_normal(2), (0, 1, 2)
    found = add_pivots.agnostic(strict.asarray(kernel), centre, strict.asarray(v))
    kernel[([0, 1], [0, 1], *centre)] += v
    assert np.array_equal(np.asarray(found), kernel)


@libraries
def test_no_constant_promotes_and_usual_images_are_taken_as_they_are(carry: Any) -> None:
    one = carry(np.ones(2, np.float32))
    made = namespaces.zeros((2,), one), namespaces.identity(2, one), namespaces.diagonal_matrix(one)
    assert {array.dtype for array in made} == {one.dtype}
    for ndim in (0, 1, None):
        x = carry(np.ones((3, 2, *[4] * (ndim or 0)), np.float32))
        call = as_batch(ic.ActNorm.init(2, like=one, ndim=ndim), "x", x)
        assert (call.x is x) == ("strict" not in repr(type(x)))  # without a look at each property


def test_init_is_the_papers() -> None:
    conv = ic.EmergingConv.init(12, kernel_size=5, rng=RNG)
    assert conv.first.kernel.shape == (12, 12, 3, 3)
    assert (conv.first.direction, conv.second.direction) == ((-1, -1), (1, 1))
    assert (conv.first.channel_order, conv.second.channel_order) == ("lower", "upper")
    corner = conv.first.kernel[:, :, 0, 0]
    assert np.abs(corner - np.eye(12)).max() < 0.1
    assert not np.triu(corner, 1).any()
    periodic = ic.PeriodicConv.init(24, rng=RNG).kernel
    centre = periodic[:, :, 1, 1]
    assert np.abs(centre @ centre.T - np.eye(24)).max() < 0.3
    symmetric = ic.SymmetricConv.init(24, (5, 3), rng=RNG).kernel
    assert symmetric.shape == (24, 24, 3, 2)
    assert ic.ExponentialConv.init(1, dilation=(1, 2), rng=RNG).dilation == (1, 2)
    exponential = 5 * ic.ExponentialConv.init(24, 5, rng=RNG).kernel
    taps = conv.first.kernel[:, :, 1:, 1:], periodic[:, :, 0], symmetric[:, :, 1:], exponential
    assert all(0.018 < noise.std() < 0.022 for noise in taps)
    pointwise = ic.Conv1x1, ic.PLUConv1x1, ic.OrthogonalConv1x1, ic.CirculantConv1x1, ic.QRConv1x1
    for cls in pointwise:
        weight = cls.init(6, rng=RNG).matrix()
        np.testing.assert_allclose(weight @ weight.T, np.eye(6), atol=1e-14)
    like = torch.zeros((), dtype=torch.float32)
    assert ic.PLUConv1x1.init(3, rng=RNG, like=like).permutation.dtype == torch.int64
    raster = ic.AutoregressiveConv.init(2, (2, 2), mask="raster", rng=RNG)
    assert raster.kernel.shape == (2, 2, 2, 3)
    assert not raster.kernel[:, :, 0, 0].any()


def test_plans_say_how_a_solve_runs() -> None:
    conv = ic.AutoregressiveConv.init(2, rng=RNG)
    vectors = f"vectors='{host().bits // 64} numbers of 64 bits'"
    kernel = f"Plan(method='compiled kernel', at_the_pixel='cached inverse', {vectors})"
    product = "at_the_pixel='product with the inverse')"
    for cls, stated in (
        (ic.AutoregressiveConv, kernel),
        (ic.EmergingConv, f"Plan(method='steps, last first', steps=({kernel}, {kernel}))"),
        (
            ic.PeriodicConv,
            "Plan(method='spectral', per_frequency='cached inverse', frequencies=12)",
        ),
        (ic.Conv1x1, f"Plan(method='LU factorisation', {product}"),
        (ic.PLUConv1x1, f"Plan(method='factors', {product}"),
    ):
        assert repr(cls.init(2, rng=RNG).prepare((4, 4)).plan) == stated
    ill = ic.Conv1x1(np.diag([1.0, 1e5])).prepare((4,), check=False).plan
    assert repr(ill) == "Plan(method='QR factorisation')"
    raster = ic.AutoregressiveConv.init(2, (2, 3), mask="raster", dilation=2, rng=RNG)
    with agnostic():
        assert [conv.prepare((3, 5)).plan.levels, raster.prepare((6, 7)).plan.levels] == [7, 10]
    dilated = ic.AutoregressiveConv(conv.kernel, dilation=2)
    apart = PitchedSolver(dilated._causal(), None, (6, 7), NUMPY)
    assert apart.plan.levels == 2 * (3 + 4 - 1) + 2 * (3 + 3 - 1)  # one residue class after another
    assert apart(np.ones((0, 2, 6, 7))).shape == (0, 2, 6, 7)
    for size, counts in ((2.0, "times=1, terms=33"), (1e9, "times=0, terms=0")):
        series = ic.ExponentialConv(np.full((1, 1, 3), size)).prepare((9,), check=False).plan
        assert repr(series) == f"Plan(method='Taylor series of exp(-M)', {counts})"
    steps = ic.Chain([conv, ic.ActNorm.init(2)]).prepare((3, 5)).plan.steps
    assert [plan.method for plan in steps] == ["compiled kernel", "division"]


@pytest.mark.parametrize("carry", [np.asarray, strict.asarray, torch.as_tensor])
@pytest.mark.parametrize("room", [0.999, 1.001])
def test_an_inverse_is_kept_up_to_a_condition(room: float, carry: Any) -> None:
    """|W|_F |W^-1|_F <= 10 C; of the triangle at a pixel |D|_1 |D^-1|_1 <= 10, of many sqrt(C)."""
    kept, square = room < 1, np.diag([1, 10 * room + math.sqrt((10 * room) ** 2 - 1)])

    def plan(conv: Any) -> Any:
        prepared = conv.asarrays(carry(square)).prepare((4,), check=False)
        assert prepared.inverse(carry(np.zeros((0, conv.channels, 4)))).shape[0] == 0  # either way
        return prepared.plan

    assert (plan(ic.Conv1x1(square)).at_the_pixel == "product with the inverse") == kept
    assert (plan(ic.PeriodicConv(square[:, :, None])).per_frequency == "cached inverse") == kept
    turns, none = np.arange(2), np.zeros((2, 2))
    above = math.sqrt(200 * room - 101) * np.eye(2, k=1)  # |W|_F |W^-1|_F = 20 room
    plu = ic.PLUConv1x1(turns, none, above, np.ones(2), np.zeros(2))
    uneven = ic.Chain([ic.ActNorm(np.log([1, 0.1]), None), plu])
    assert (plan(uneven).at_the_pixel == "product with the inverse") == kept
    for channels, limit in ((3, 10), (62, 19)):
        triangle = 3 * np.eye(channels)
        triangle[1:, 0] = 3 * (math.sqrt(limit * room) - 1) / (channels - 1)
        corner, inverse = ic.AutoregressiveConv(triangle[:, :, None]), np.linalg.inv(triangle)
        assert (plan(corner).at_the_pixel == "cached inverse") == kept
        assert inverse_keeps_accuracy(carry(triangle), carry(inverse)) == kept  # if it is traced


def test_a_prepared_inverse_has_the_values_that_there_were() -> None:
    kernel, y = np.asarray([[[1.0, -0.5]]], np.float32), np.ones((1, 1, 4), np.float32)
    prepared = ic.AutoregressiveConv(kernel).prepare((4,), precision="float64")
    kernel *= 2
    prepared.conv.kernel[...] = 7.0  # a copy each time
    found = prepared.inverse(y, before=y[..., :1])
    np.testing.assert_array_equal(found, [[[1.5, 1.75, 1.875, 1.9375]]])
    x, log_dets = prepared.inverse_and_log_det(y)
    np.testing.assert_array_equal(x, [[[1, 1.5, 1.75, 1.875]]])
    assert (log_dets, log_dets.dtype) == (0, np.float32)
    assert type(prepared.inverse_and_log_det(y[0])[1]) is np.ndarray  # of a sample alone, too


def test_a_prepared_inverse_pickles_small() -> None:
    conv = ic.EmergingConv.init(12, rng=np.random.default_rng(0), like=np.empty(0, np.float32))
    prepared = conv.prepare((256, 256))
    y = np.random.default_rng(1).standard_normal((1, 12, 256, 256)).astype(np.float32)
    x = prepared.inverse(y)  # what a solve keeps for the next one is not sent
    text = pickle.dumps(prepared)
    assert len(text) < 40_000
    alone = pickle.dumps(conv.second)
    conv.second.condition((8, 8))  # nor is what an operator remembers
    assert pickle.dumps(conv.second) == alone
    np.testing.assert_array_equal(pickle.loads(text).inverse(y), x)


def test_a_chain_is_a_sequence_of_its_steps() -> None:
    steps = [ic.ActNorm.init(3), ic.QRConv1x1.init(3, rng=RNG), ic.PeriodicConv.init(3, rng=RNG)]
    chain = ic.Chain(steps)
    assert len(chain) == 3
    assert list(chain) == steps
    assert chain[-1] is steps[2]
    assert isinstance(chain[1:], ic.Chain)
    assert list(chain[1:]) == steps[1:]
    with pytest.raises(IndexError):
        chain[3]


CONV: Any = ic.AutoregressiveConv.init(4, rng=RNG, like=np.empty(0, np.float32))


def test_a_float64_inverse_of_narrower_data_says_so_and_has_gradients() -> None:
    """The law "precision" has its values."""
    for conv, said in ((CONV, "float64"), (CONV.asarrays(np.empty(0)), None)):
        assert conv.prepare((4, 5), precision="float64").plan.precision == said
    y, gradients = RNG.standard_normal((2, 4, 6, 7)).astype(np.float32), []
    for dtype in (torch.float32, torch.float64):
        there = CONV.asarrays(torch.empty(0, dtype=dtype))
        kernel = there.kernel.clone().requires_grad_()
        data = torch.as_tensor(y, dtype=dtype).requires_grad_()
        prepared = there.replace(kernel=kernel).prepare((6, 7), precision="float64")
        prepared.inverse(data).square().sum().backward()
        gradients.append((data.grad, kernel.grad))
    for single, double in zip(*gradients, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")  # JAX's own
def test_jax_without_float64_says_so() -> None:
    y = jax.numpy.ones((1, CONV.channels, 4, 4), "float32")
    conv = CONV.asarrays(y)
    elsewhere = conv.prepare((4, 4), precision="float64")
    calls: Any = partial(conv.prepare, (4, 4), precision="float64"), partial(elsewhere.inverse, y)
    for call in calls:
        with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
            call()
    assert elsewhere.inverse(y).dtype == y.dtype


def test_importing_the_core_imports_no_framework() -> None:
    code = (
        "import sys, invconv, numpy as np;"
        "assert not {'scipy', 'llvmlite'} & set(sys.modules), 'each takes as long as the rest';"
        "conv = invconv.EmergingConv.init(2, rng=np.random.default_rng(0));"
        "conv.inverse(conv.forward(np.ones((1, 2, 3, 3))));"
        "found = {'torch', 'jax', 'cupy', 'rich', 'matplotlib', 'skimage'} & set(sys.modules);"
        "assert not found, found"
    )
    python("-c", code)


@pytest.mark.parametrize("imported", ["torch", "torch, invconv_torch"])
def test_code_in_an_archive_that_is_not_installed_has_its_adapters(
    imported: str, tmp_path: Path
) -> None:
    archive = tmp_path / "vendored.zip"
    python("-m", "zipfile", "-c", archive, "invconv", "backends/invconv_torch", cwd=ROOT)
    code = (
        "import importlib.metadata; importlib.metadata.entry_points = lambda **_: ();"
        f"import invconv, numpy, {imported}; from invconv.arrays.namespaces import ops_of;"
        "assert 'vendored.zip' in invconv.__file__;"
        "conv = invconv.AutoregressiveConv.init(2, rng=numpy.random.default_rng(0));"
        "print(conv.prepare((3, 4)).plan.method);"
        "print(ops_of(torch.ones(1)).primitives.__name__)"
    )
    found = python("-c", code, cwd=tmp_path, PYTHONPATH=str(archive)).stdout.splitlines()
    assert found == ["compiled kernel", "invconv_torch.primitives"]


@pytest.mark.parametrize("title", ["PyTorch", "JAX", "CuPy", "MLX"])
def test_without_a_library_its_adapter_says_what_to_install(title: str) -> None:
    library = title.lower().removeprefix("py")
    code = f"import sys; sys.modules[{library!r}] = None; import invconv_{library}"
    message = f"invconv_{library} needs {title}: pip install 'invconv[{library}]'"
    assert f"ImportError: {message}" in python("-c", code, status=1).stderr


TOY = """
from invconv.arrays.registry import PRIMITIVES

calls = []


def correlate(stencil, x, *, wrap=False):
    calls.append(wrap)
    return PRIMITIVES["correlate"].agnostic(stencil, x, wrap=wrap)
"""


def test_a_third_party_backend_replaces_a_primitive(monkeypatch: Any, tmp_path: Path) -> None:
    x = strict.ones((1, 2, 3, 3), dtype=strict.float64)
    assert namespaces.ops_of(x).primitives is None
    (tmp_path / "toy_backend.py").write_text(TOY)
    information = tmp_path / "toy_backend-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    entry = "[invconv.backends]\narray_api_strict = toy_backend\n"
    (information / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(namespaces, "_backends", {})  # as in a process that has not looked yet
    monkeypatch.delitem(namespaces.KNOWN, type(x))
    monkeypatch.delitem(namespaces._by_name, "array_api_strict")
    conv = ic.PeriodicConv.init(2, rng=RNG, like=x)
    conv.forward(x)
    toy = sys.modules["toy_backend"]
    assert toy.calls == [True]
    with agnostic(), ThreadPoolExecutor(1) as pool:  # of this thread alone
        conv.forward(x)
        assert toy.calls == [True]
        pool.submit(conv.forward, x).result()
    assert toy.calls == [True, True]
    assert not registry._forcing  # so that torch.compile traces a primitive again
    conv.inverse(x)  # primitives that the backend leaves out stay agnostic
