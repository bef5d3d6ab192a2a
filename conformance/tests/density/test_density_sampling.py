"""Ways to sample that are timed side by side: they give the same samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import invconv as ic  # noqa: E402
from invconv_benchmarks.density.evaluation import beside_finc, sampling  # noqa: E402
from invconv_benchmarks.density.models.architecture import (  # noqa: E402
    EMERGING,
    MIXINGS,
    Architecture,
)
from invconv_benchmarks.density.models.build import build  # noqa: E402
from invconv_conformance.cases.case import perturbed  # noqa: E402
from invconv_conformance.libraries.table import LIBRARIES, Target  # noqa: E402
from invconv_conformance.truth import oracle  # noqa: E402


def model_of(mixing: str) -> Any:
    return build(Architecture(mixing, 2, 1, 4), (3, 8, 8), seed=0).eval()


def test_pixel_by_pixel_is_the_inverse_of_the_dense_matrix() -> None:
    rng = np.random.default_rng(0)
    pair = perturbed(ic.EmergingConv.init(3, kernel_size=5, rng=rng), rng, 0.05)
    conv = ic.Chain([ic.Conv1x1.init(3, rng=rng), pair.replace(bias=rng.standard_normal(3))])
    matrix, shift = oracle.affine(conv, (4, 5))
    y = rng.standard_normal((2, 3, 4, 5))
    expected = np.linalg.solve(matrix, (y.reshape(2, -1) - shift).T).T.reshape(y.shape)
    x = torch.from_numpy(y)
    found = sampling.invert_pixel_by_pixel(conv.asarrays(x), x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    raster = ic.EmergingConv.init(3, mask="raster", rng=rng, like=x)
    with pytest.raises(ValueError, match="mask: expected 'corner'"):
        sampling.invert_pixel_by_pixel(raster, x)


def test_a_model_that_inverts_pixel_by_pixel_draws_the_same_samples() -> None:
    model = model_of("emerging").double()
    slow = sampling.pixel_by_pixel(model)
    samples = [m.sample(2, generator=torch.Generator().manual_seed(0)) for m in (model, slow)]
    torch.testing.assert_close(*samples, rtol=0, atol=1e-9)


def test_every_row_is_timed_and_both_ways_where_there_are_two() -> None:
    models = {f"the {mixing}": model_of(mixing) for mixing in MIXINGS}
    told: list[str] = []
    rows = sampling.time_sampling(models, count=2, repeats=2, progress=told.append)
    methods = {(row.model, row.method) for row in rows}
    assert methods == {
        *((f"the {mixing}", sampling.EXACT) for mixing in MIXINGS if mixing != "maf"),
        *((f"the {mixing}", sampling.PIXEL_BY_PIXEL) for mixing in EMERGING),
        ("the maf", sampling.NUMBER_BY_NUMBER),
        ("the maf", sampling.WHOLE_IMAGES),
    }
    for row in rows:
        assert row.count == row.repeats == 2
        assert row.seconds > 0
        assert (row.share < 1) == (row.method == sampling.WHOLE_IMAGES)
    assert len(told) == 3 * len(rows)
    assert all(model.layers for model in models.values())


def test_the_time_of_a_share_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes over whole images are all alike, so that a few of them tell the time of all."""
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    rows = sampling.time_sampling({"maf": model_of("maf")}, count=1, repeats=1)
    assert [row.seconds for row in rows] == [1.0, 192 / 5]
    clock = iter(range(0, 1000, 10))  # ten seconds a call: once is enough
    rows = sampling.time_sampling({"qr": model_of("qr")}, count=1, repeats=3)
    assert [(row.seconds, row.repeats) for row in rows] == [(10.0, 1)]


def test_a_glow_is_timed_beside_published_numbers() -> None:
    tiny = Architecture("emerging", levels=1, depth=1, width=4)
    (torch_library,) = (library for library in LIBRARIES if library.name == "torch")
    found = [
        row
        for size in (8, 16)
        for row in beside_finc.measure(Target(torch_library, "cpu"), size, tiny, 2)
    ]
    assert [(f.way, f.size) for f in found] == [
        (way, size) for size in (8, 16) for way in ("emerging", "plain")
    ]
    assert all(f.seconds > 0 for f in found)
    assert found[0].parameters > found[1].parameters
    shown = beside_finc.table(found, "this processor")
    cells = list(zip(*(column.cells for column in shown.columns), strict=True))
    assert cells[0][3:] == ("-", "-")
    assert cells[2] == ("FInC (published, other hardware)", "0.175", "0.253", "0.528", "1.77")


def test_a_glow_on_cuda_needs_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as left:
        beside_finc.main([])
    assert left.value.code == 2
    assert "needs an NVIDIA GPU and a build of PyTorch for CUDA" in capsys.readouterr().err
