"""Layers in what surrounds them: pickles, data loaders of several processes, Lightning."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
import invconv_torch as it
from invconv.flows.architecture import POINTWISE


def duplicates(thing: Any) -> list[Any]:
    stream = io.BytesIO()
    torch.save(thing, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    return [copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing)), loaded]


def test_pickles_and_copies_of_what_is_public() -> None:
    x = torch.randn(2, 4, 5, 6)
    classes = [getattr(it, name) for name in it.__all__ if name.endswith("2d")]
    bounded = it.ActNorm(4, max_gain=3.0)
    torch.nn.init.constant_(bounded.log_scale, -2.0)  # which the bound changes
    layers = [cls(4) for cls in classes] + [bounded]
    layers += [it.Conv1x1(4, name) for name in POINTWISE]
    layers += [
        it.InvertibleModule(ic.QRConv1x1.init(4, rng=np.random.default_rng(0)), dtype=x.dtype)
    ]
    layers += [it.ReversibleChain([it.ActNorm(4), it.EmergingConv2d(4, mixing="qr")])]
    assert len(layers) >= 6
    for layer in layers:
        layer.eval()
        layer.inverse(x)  # what is remembered stays behind
        for other in duplicates(layer):
            assert type(other) is type(layer)
            assert torch.equal(other(x)[0], layer(x)[0])
            torch.testing.assert_close(other.inverse(layer(x)[0])[0], x, rtol=1e-4, atol=1e-4)


class Blurred(torch.utils.data.Dataset):  # type: ignore[misc]
    """Images that a prepared inverse sharpens, in the process that loads them."""

    def __init__(self) -> None:
        kernel = torch.tensor([[[[0.0, 0.2, 0.0], [0.1, 1.0, 0.1], [0.0, 0.2, 0.0]]]])
        self.conv = ic.PeriodicConv(kernel)
        self.prepared = self.conv.prepare((8, 8))

    def __len__(self) -> int:
        return 6

    def sharp(self, index: int) -> Any:
        """Return an image before it is blurred."""
        return torch.arange(64.0).reshape(1, 8, 8) % (index + 2)

    def __getitem__(self, index: int) -> Any:
        return self.prepared.inverse(self.conv.forward(self.sharp(index)))


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork.*:RuntimeWarning")  # JAX's, where it is loaded
def test_data_is_loaded_by_other_processes(start: str) -> None:
    data = Blurred()
    loader = torch.utils.data.DataLoader(
        data, batch_size=2, num_workers=1, multiprocessing_context=start
    )
    found = torch.cat(list(loader))
    torch.testing.assert_close(
        found, torch.stack([data.sharp(i) for i in range(6)]), rtol=0, atol=1e-4
    )


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
def test_a_lightning_module_trains(tmp_path: Any) -> None:
    lightning = pytest.importorskip("lightning")

    class Flow(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = it.ReversibleChain([it.ActNorm(4), it.EmergingConv2d(4, mixing="qr")])

        def training_step(self, x: Any, index: int) -> Any:
            z, log_det = self.layers(x)
            return (z.square().sum((1, 2, 3)) / 2 - log_det).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    flow, x = Flow(), 2 * torch.randn(32, 4, 6, 6) + 1
    before = float(flow.training_step(x, 0))
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(flow, torch.utils.data.DataLoader(x, batch_size=8))
    assert float(flow.training_step(x, 0)) < before - 10
    (path,) = tmp_path.rglob("*.ckpt")
    again = Flow.load_from_checkpoint(path)
    assert torch.equal(again.layers.inverse(x)[0], flow.layers.inverse(x)[0])
