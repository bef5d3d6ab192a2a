"""Heat in a plate: steps of any length, each of them exact between its walls, and undone.

An implicit step of the heat equation solves (1 - k Laplace) T' = T. With walls at zero degrees
above and below (Dirichlet) and insulated sides (Neumann) that is the inverse of a `SymmetricConv`
of three taps per axis: one product per frequency. Its forward map is the way back in time.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from invconv import SymmetricConv
from invconv_benchmarks.report import figures

_SHAPE = (96, 144)


def implicit_step(k: float) -> SymmetricConv:
    """Return 1 - k Laplace: the part of its kernel from the centre on, tap t at +-t."""
    kernel = np.asarray([[1 + 4 * k, -k], [-k, 0.0]])
    return SymmetricConv(kernel[None, None], boundary=("zero", "symmetric"))


def draw(out: Path) -> None:
    """Let a hot word cool down, compare a wave with the formula, and go back in time."""
    plate, axes = plt.subplots(figsize=(_SHAPE[1] / 96, _SHAPE[0] / 96), dpi=96)
    axes.text(0.5, 0.5, "hot", fontsize=44, ha="center", va="center", weight="bold")
    axes.axis("off")
    plate.canvas.draw()
    start = 1 - np.asarray(plate.canvas.buffer_rgba())[..., 0] / 255.0
    plt.close(plate)
    times, undone, k = (0, 10, 200), 10, 1.0
    step = implicit_step(k).prepare(start.shape)
    states = [start[None]]
    for _ in range(times[-1]):
        states.append(step.inverse(states[-1]))
    rows = np.arange(1, start.shape[0] + 1) * np.pi / (start.shape[0] + 1)
    wave = np.sin(rows)[:, None] * np.ones(start.shape)
    decay = 1 / (1 + 4 * k * np.sin(rows[0] / 2) ** 2)  # of the slowest wave in a step
    error = np.abs(step.inverse(wave[None])[0] - decay * wave).max()
    print(f"a wave decays by {decay:.6f} a step: off by {error:.0e} from the formula")
    back, condition = states[undone], implicit_step(k).condition(start.shape)
    for _ in range(undone):
        back = implicit_step(k).forward(back)
    lost = f"off by {np.abs(back - start).max():.0e}, of a condition of {condition**undone:.0e}"
    print(f"{undone} steps undone: {lost}")
    figure, panels = plt.subplots(1, 4, figsize=(15, 3.1), layout="constrained")
    shown = {f"after {t} steps": states[t] for t in times}
    shown[f"{undone} steps undone"] = back
    for panel, (title, image) in zip(panels, shown.items(), strict=True):
        figures.show(panel, image[0], title, cmap="inferno", vmin=0, vmax=float(image.max()))
    figures.save(figure, out)
