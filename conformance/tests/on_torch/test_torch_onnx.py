"""Layers in ONNX files: onnxruntime's numbers against the core's in float64."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
import invconv_torch as it
from invconv.operators.base.calls import as_batch
from invconv_conformance.cases.table import Case
from invconv_torch.exporting import constant
from invconv_torch.exporting.constant import values_of
from tests.conftest import TORCH_LAYERS, Both, Method
from tests.libraries.onnx_programs import BATCH, exported, run
from tests.selected import cases_named, slow

FEW = ("raster-2d", "qr", "actnorm")  # the slow run has all
pytestmark = [
    # PyTorch's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:# 'dynamic_axes' is not recommended"),
]


def check(layer: Any, x: Any, results: Sequence[Any]) -> None:
    """Compare (z, log_det, x, log_det) of a layer with the core's on NumPy, in float64."""
    conv, rows = layer.operator().asarrays(np.empty(0)), x.detach().double().numpy()
    wanted = (*conv.forward_and_log_det(rows), *conv.inverse_and_log_det(rows))
    rtol, atol = (2e-5, 1e-5) if x.dtype == torch.float32 else (1e-11, 1e-12)
    for got, want in zip(results, wanted, strict=True):
        assert str(got.dtype) in str(x.dtype)
        np.testing.assert_allclose(np.asarray(got), want, rtol=rtol, atol=atol)


def eagerly(layer: Any, x: Any, ways: Sequence[bool] = (False, True)) -> list[Any]:
    """Run what an export traces."""
    conv = layer._current(True, values_of)
    with torch.no_grad():
        call = as_batch(layer._current(True, within=False), "x", x)
        pairs = [constant.evaluate(call, conv, inverse=inverse) for inverse in ways]
    return [result for pair in pairs for result in pair]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_traced(layer_name: str, dtype: Any, torch_layer: Any) -> None:
    layer, x = torch_layer(layer_name, dtype=dtype)
    check(layer, x, eagerly(layer, x))


OTHERS = "corner-4d-++-", "corner-3d-dilated", "corner-k1", "raster-k2x3-dilated", "chain-merged"
CASES = cases_named(*OTHERS, "inverse-emerging-biases", "periodic-k7")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operators(case: Case) -> None:
    convs = [case.conv()]
    if case.name == "periodic-k7":
        convs.append(ic.bounded(convs[0], 3.0))
    for conv in convs:
        layer = it.InvertibleModule(conv)
        x = torch.randn(3, 1, conv.channels, *case.spatial_shape, dtype=torch.float64)
        check(layer, x, eagerly(layer, x))


@pytest.mark.parametrize("name", ["plain", "qr", "householder"])
def test_one_image_and_vectors(name: str) -> None:
    for ndim, shape in ((None, (5, 3)), (0, (3,)), (2, (3, 4, 5)), (1, (2, 2, 3, 4))):
        layer, x = it.Conv1x1(3, name, ndim=ndim), torch.randn(shape)
        results = eagerly(layer, x)
        check(layer, x, results)
        assert [r.shape for r in results] == [x.shape, shape[: -1 - (ndim or 0)]] * 2


def test_half_types_are_computed_in_float32() -> None:
    layer, x = it.AutoregressiveConv1d(2, dtype=torch.bfloat16), torch.randn(3, 2, 6).bfloat16()
    torch.testing.assert_close(eagerly(layer, x), [*layer(x), *layer.inverse(x)])


def test_a_singular_layer_has_a_forward_map() -> None:
    layer, x = it.InvertibleModule(ic.Conv1x1(np.diag([2.0, 0.0]))), torch.ones(1, 2, 1).double()
    z, log_det = eagerly(layer, x, ways=[False])
    assert (z.flatten().tolist(), log_det.tolist()) == ([2.0, 0.0], [-np.inf])
    with pytest.raises(ic.SingularConvError):
        eagerly(layer, x, ways=[True])


SLOWLY = [slow(TORCH_LAYERS, dtype) for dtype in (torch.float32, torch.float64)]


@pytest.mark.parametrize(("names", "dtype"), [(FEW, torch.float32), *SLOWLY])
def test_layers_in_onnxruntime(names: Sequence[str], dtype: Any, torch_layer: Any) -> None:
    """Exported as one model, on another number of samples than exported with."""
    layers, images = zip(*(torch_layer(name, dtype=dtype) for name in names), strict=True)
    program = exported(Both(layers), images)
    others = [torch.randn(3, *x.shape[1:], dtype=dtype) for x in images]
    results = run(program, others)
    for i, (layer, x) in enumerate(zip(layers, others, strict=True)):
        check(layer, x, results[4 * i : 4 * i + 4])


@pytest.mark.slow
def test_a_graph_does_not_grow_with_the_grid() -> None:
    inverse = Method(it.EmergingConv2d(2), "inverse")
    programs = [exported(inverse, (torch.randn(2, 2, n, n),)) for n in (4, 12)]
    assert len({len(program.model.graph) for program in programs}) == 1
    # what depends on parameters only was computed when it was exported
    inputs = {name for node in programs[0].model_proto.graph.node for name in node.input}
    assert not inputs & {"layer.first.kernel", "layer.second.kernel"}


TRIANGLES = it.AutoregressiveConv1d(8), it.Conv1x1(8, "qr"), it.PeriodicConv1d(8, 1)


@pytest.mark.parametrize("layer", TRIANGLES, ids=lambda layer: type(layer).__name__)
def test_an_ill_conditioned_triangle_is_refined(layer: Any) -> None:
    with torch.no_grad():
        if isinstance(layer, it.Conv1x1):
            layer.upper += 4 * torch.randn(8, 8)
        else:
            layer.kernel[:, :, 0] += 2 * torch.randn(8, 8).tril(-1)
        y = layer(torch.randn(4, 8, 12))[0]
    x = eagerly(layer, y)[2].double().numpy()
    residual = abs(layer.operator().asarrays(np.zeros(1)).forward(x) - y.numpy()).max()
    assert residual / abs(y.numpy()).max() < 4e-7  # 8e-7 where it is not refined


def test_the_older_exporter_is_refused(tmp_path: Path) -> None:
    arguments = it.ActNorm(2), (torch.randn(1, 2, 4),), str(tmp_path / "layer.onnx")
    with pytest.raises(NotImplementedError, match="expected dynamo=True"):
        torch.onnx.export(*arguments, dynamo=False, verbose=False)


@pytest.mark.slow
def test_refusals() -> None:
    """Say why, in the error that PyTorch's exporter ends with."""

    def message(layer: Any, **options: Any) -> str:
        with pytest.raises(torch.onnx.errors.OnnxExporterError) as caught:
            exported(layer, (torch.randn(2, 3, 6, 6),), **options)
        return str(caught.value)

    dynamic = {"dynamic_shapes": ({0: BATCH, 2: BATCH},)}
    assert "expected a fixed grid" in message(it.PeriodicConv2d(3), **dynamic)
    layer = it.PeriodicConv2d(3)
    torch.nn.utils.parametrizations.weight_norm(layer, "kernel")
    assert "that is computed from others" in message(layer)


def test_a_density_by_a_transform() -> None:
    class Density(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.transform = it.interop.TorchTransform(it.Conv1x1(3), ndim=0)

        def forward(self, x: Any) -> Any:
            return self.transform.log_abs_det_jacobian(x, x)

    module, x = Density(), torch.randn(2, 3)
    (got,) = run(exported(module, (x,)), (x,))
    torch.testing.assert_close(torch.tensor(got), module(x).detach())


def test_an_inverse_behind_a_network() -> None:
    layer = Method(it.AutoregressiveConv1d(2), "inverse")
    module, x = torch.nn.Sequential(torch.nn.Linear(4, 4), layer), torch.randn(3, 2, 4)
    got = run(exported(module, (x[:2],)), (x,))[0]
    torch.testing.assert_close(torch.tensor(got), module(x)[0].detach())


@pytest.mark.slow
def test_an_operator_of_the_core() -> None:
    """Its forward has a form in ONNX; what would need a factorisation says what to do."""

    class Run(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, method: str) -> None:
            super().__init__()
            self.kernel = torch.nn.Parameter(torch.randn(2, 2, 3) + torch.eye(2)[..., None])
            self.method = method

        def forward(self, x: Any) -> Any:
            return getattr(ic.PeriodicConv(self.kernel), self.method)(x)

    module, x = Run("forward"), torch.randn(2, 2, 6)
    (got,) = run(exported(module, (x,)), (x,))
    torch.testing.assert_close(torch.tensor(got), module(x).detach())
    for method in ("inverse", "forward_and_log_det"):
        with pytest.raises(torch.onnx.errors.OnnxExporterError, match="InvertibleModule"):
            exported(Run(method), (x,))
