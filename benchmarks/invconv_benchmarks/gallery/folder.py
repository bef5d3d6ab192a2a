"""A Glow on your own folder of images: trained for a minute, then it dreams up tiles.

`python -m invconv example folder --path DIR` cuts your pictures into tiles of 32 x 32; without a
folder it takes the Hubble deep field. `python -m invconv density train --preset folder --path DIR`
trains such a normalizing flow at full size, with checkpoints and a test of what it learnt.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from skimage.util import montage

from invconv_benchmarks.density import evaluation
from invconv_benchmarks.density.data import load
from invconv_benchmarks.density.recipe import load_preset
from invconv_benchmarks.density.training import train
from invconv_benchmarks.report import figures

_SMALL = {"levels": 2, "depth": 2, "width": 32, "steps": 120, "batch": 32, "learning_rate": 1e-2}


def draw(out: Path, path: Path | None = None) -> None:
    """Train a small flow and set its samples beside tiles that it has not seen."""
    recipe = load_preset("folder" if path else "hubble").recipe("emerging", 0, **_SMALL)
    data = load(recipe.data, path)
    with tempfile.TemporaryDirectory() as folder:
        run = train(recipe, data, Path(folder), say=print)
        bits = run.history[-1]["held_out"]
        _, model = evaluation.restore(Path(folder), "cpu")
        samples = model.sample(32, 0.8, generator=torch.Generator().manual_seed(0)).numpy()
    print(f"{bits:.2f} bits/dim of tiles that it has not seen, 8 without a model")
    figure, axes = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
    panels = {
        "tiles that it has not seen": data.held_out(data.watched)[:32] / 255.0,
        f"dreamt up after {_SMALL['steps']} steps: {bits:.2f} bits/dim": samples,
    }
    for panel, (title, images) in zip(axes, panels.items(), strict=True):
        tiles = montage(images, grid_shape=(4, 8), channel_axis=1).clip(0, 1)
        figures.show(panel, tiles if path else figures.stretch(tiles), title)
    figures.save(figure, out)
