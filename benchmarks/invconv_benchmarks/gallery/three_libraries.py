"""Train a flow in PyTorch, and sample it in JAX and NumPy: one file, the same pictures.

Four layers of a linear flow learn tiles of the Hubble deep field in float32; `save` writes their
operator, `load` reads it with each library's arrays, and the same noise gives the same tiles.
"""

import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.data import hubble_deep_field
from skimage.util import montage

from invconv import Chain, load, save, squeeze, unsqueeze
from invconv_benchmarks.density.data import planes
from invconv_benchmarks.report import figures
from invconv_torch import ActNorm, EmergingConv2d

_STEPS = 150


def trained(x: torch.Tensor) -> Chain:
    """Return the operator that maximises the likelihood of x, by Adam."""
    torch.manual_seed(0)
    pairs = [(ActNorm(12), EmergingConv2d(12, mixing="qr")) for _ in range(2)]
    flow = torch.nn.ModuleList([layer for pair in pairs for layer in pair])
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.003)
    for step in range(_STEPS):
        z, log_dets = x[torch.randperm(len(x))[:32]], torch.zeros(())
        for layer in flow:
            z, log_det = layer(z)
            log_dets = log_dets + log_det
        nats = (0.5 * z.square().sum((1, 2, 3)) - log_dets).mean() / z[0].numel()
        optimiser.zero_grad()
        nats.backward()
        optimiser.step()
        if step % 50 == 49:
            print(f"step {step + 1}: {nats.item():.3f} nats a number")
    return Chain([layer.operator() for pair in pairs for layer in pair])


def draw(out: Path) -> None:
    """Train, save, load with three libraries, and set their samples side by side."""
    rng = np.random.default_rng(0)
    levels = figures.tiles(planes(hubble_deep_field()), 32)[:512]
    pixels = (levels + rng.uniform(size=levels.shape)) / 256 - 0.5  # dequantised
    x = squeeze(torch.as_tensor(pixels, dtype=torch.float32))
    chain = trained(x)
    noise = 0.7 * rng.standard_normal((16, 12, 16, 16)).astype(np.float32)
    samples: dict[str, figures.Floats] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "flow.safetensors")
        save(chain, file)
        arrays = {"PyTorch": torch.as_tensor(noise), "JAX": jax.numpy.asarray(noise)}
        for name, z in (arrays | {"NumPy": noise}).items():
            samples[name] = np.asarray(unsqueeze(load(file, like=z).inverse(z)))
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.9), layout="constrained")
    panels = {"trained on": pixels[:16], **samples}
    for panel, (name, images) in zip(axes, panels.items(), strict=True):
        title = name if name == "trained on" else f"sampled in {name}"
        if name in ("JAX", "NumPy"):
            title += f": {np.abs(images - samples['PyTorch']).max():.0e} from PyTorch"
        print(title)
        figures.show(panel, figures.stretch(montage(images + 0.5, channel_axis=1)), title)
    figures.save(figure, out)
