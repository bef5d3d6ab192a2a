"""Layers in what surrounds them: pickles, data loaders of several processes, Lightning."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import invconv as ic


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
