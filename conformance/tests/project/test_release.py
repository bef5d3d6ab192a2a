"""What 0.1.0 had still works, with a warning; a version's results stay where they were measured."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest

import invconv as ic
from invconv_benchmarks.results import committed

KERNEL = np.asarray([[[1.0, -3.0]]], dtype=np.float32)  # the inverse grows by 3 a pixel


def test_prepare_takes_the_arguments_of_0_1() -> None:
    conv, y = ic.AutoregressiveConv(KERNEL), np.ones((1, 30), np.float32)
    exact = conv.prepare((30,), check=False, precision="float64").inverse(y)
    plain = conv.prepare((30,), check=False).inverse(y)
    assert np.abs(exact - plain).max() > 1
    with pytest.warns(DeprecationWarning, match=r'refine=.*0\.3\.0: precision="float64"') as issued:
        refined = conv.prepare((30,), check=False, refine=2)  # type: ignore[call-arg]
    assert issued[0].filename == __file__
    assert np.array_equal(refined.inverse(y), exact)
    with pytest.warns(DeprecationWarning, match=r"tile=.*no grid is cut into tiles"):
        tiled = conv.prepare((30,), check=False, tile=8)  # type: ignore[call-arg]
    assert np.array_equal(tiled.inverse(y), plain)
    with pytest.warns(match="refine"), pytest.raises(ValueError, match="refine: expected 0 or"):
        conv.prepare((30,), refine=-1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'refined'"):
        conv.prepare((30,), refined=2)  # type: ignore[call-arg]
    assert list(inspect.signature(conv.prepare).parameters)[1:] == ["check", "precision"]


def test_a_diagnosis_has_the_numbers_of_0_1() -> None:
    found = ic.diagnose(ic.AutoregressiveConv(KERNEL), (8,), "float32")
    for old, new in (("typical_float32", "digits_float32"), ("typical_float64", "digits_float64")):
        with pytest.warns(DeprecationWarning, match=f"{old} .* see {new}") as issued:
            assert getattr(found, old) == getattr(found, new)
        assert issued[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="typical .* see error"):
        typical = found.typical
    assert -math.log10(typical * 2**-23) == pytest.approx(found.digits, abs=0.5)


def test_results_of_the_newest_version_that_has_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("0.9.0/a-1.json", "0.10.0/a-2.json", "0.10.0/a-3.json", "0.11.0/b.json"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.setattr(committed, "RESULTS", tmp_path)
    assert [path.name for path in committed.newest("a-*.json")] == ["a-2.json", "a-3.json"]
    assert committed.newest("c-*.json") == []
