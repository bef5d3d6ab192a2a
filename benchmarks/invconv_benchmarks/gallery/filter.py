"""A recursive filter (IIR) that learns by gradient, in PyTorch and in JAX, beside SciPy's design.

Both hear white noise and what `scipy.signal.butter` makes of it, and change the coefficients of two
second-order sections until `invconv.sosfilt` says the same. The gradient goes through the recursion
itself, with `torch.autograd` and under `jax.jit`.
"""

from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import torch
from scipy import signal

import invconv as ic
from invconv_benchmarks.report import figures

_SAMPLES, _STEPS, _RATE = 2048, 600, 0.02


def sections(free: Any, xp: Any) -> Any:
    """Return stable sections (2, 6) of free numbers (2, 5): poles within the unit circle."""
    a2 = xp.tanh(free[:, 4])
    a1 = xp.tanh(free[:, 3]) * (1 + a2)
    one = xp.ones_like(a1)
    return xp.stack([free[:, 0], free[:, 1], free[:, 2], one, a1, a2], axis=1)


def in_torch(start: Any, noise: Any, wanted: Any) -> Any:
    """Return the sections that PyTorch learns."""
    free = torch.tensor(start, requires_grad=True)
    noise, wanted = torch.tensor(noise), torch.tensor(wanted)
    optimiser = torch.optim.Adam([free], _RATE)
    for _ in range(_STEPS):
        optimiser.zero_grad()
        ((ic.sosfilt(sections(free, torch), noise) - wanted) ** 2).mean().backward()
        optimiser.step()
    return sections(free, torch).detach().numpy()


def in_jax(start: Any, noise: Any, wanted: Any) -> Any:
    """Return the sections that JAX learns."""
    optimiser = optax.adam(_RATE)

    def loss(free: Any) -> Any:
        return ((ic.sosfilt(sections(free, jax.numpy), noise) - wanted) ** 2).mean()

    @jax.jit  # type: ignore[untyped-decorator]
    def step(free: Any, state: Any) -> Any:
        change, state = optimiser.update(jax.grad(loss)(free), state)
        return optax.apply_updates(free, change), state

    noise, wanted, free = (jax.numpy.asarray(a) for a in (noise, wanted, start))
    state = optimiser.init(free)
    for _ in range(_STEPS):
        free, state = step(free, state)
    return np.asarray(sections(free, jax.numpy))


def draw(out: Path) -> None:
    """Let both learn, and draw the gain of each filter beside that of the design."""
    rng, design = np.random.default_rng(0), signal.butter(4, 0.25, output="sos")
    noise = rng.standard_normal(_SAMPLES).astype(np.float32)
    wanted = signal.sosfilt(design, noise).astype(np.float32)
    start = np.asarray([[0.3, 0.3, 0.1, 0, 0.2], [0.3, 0.2, 0.2, -0.2, 0.1]], np.float32)
    found = {"PyTorch": in_torch(start, noise, wanted), "JAX": in_jax(start, noise, wanted)}
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, sos, style in (
        ("scipy.signal.butter", design, "k-"),
        ("at the start", sections(start, np), "k:"),
        *((name, sos, s) for (name, sos), s in zip(found.items(), ("C0--", "C1-."), strict=True)),
    ):
        frequency, gain = signal.freqz_sos(sos.astype(float), 512, fs=1.0)
        error = np.abs(np.abs(gain) - np.abs(signal.freqz_sos(design, 512, fs=1.0)[1])).max()
        print(f"{name}: gain off by {error:.1e} at most")
        axes.plot(frequency, np.abs(gain), style, label=name)
    axes.set(xlabel="periods a sample", ylabel="gain", title=f"after {_STEPS} steps of Adam")
    axes.legend()
    figures.save(figure, out)
