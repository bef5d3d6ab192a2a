"""A resonance that moves: a time-varying filter learns a gliding vowel by gradient, in PyTorch.

Pulses, as the vocal cords make them, go through two resonances that glide as from "ah" to "ee".
`invconv.varying_lfilter` gets the same pulses, and changes its frequencies at thirteen moments,
between which they are interpolated, until its sound is the same.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from scipy import signal

import invconv as ic
from invconv_benchmarks.report import figures

_RATE, _SECONDS, _PITCH = 8000, 0.6, 110.0  # samples a second; pulses a second
_KNOTS, _STEPS, _WIDTH = 13, 400, 120.0  # moments that are learnt; of Adam; of a resonance, in Hz


def resonances(frequencies: Any) -> Any:
    """Return a (time, 5) of resonances (2, knots) in Hz, linear between the knots."""
    count = int(_RATE * _SECONDS)
    paths = F.interpolate(frequencies[None], count, mode="linear", align_corners=True)[0]
    radius = np.exp(-np.pi * _WIDTH / _RATE)
    a = torch.ones(count, 1, dtype=paths.dtype)
    for path in paths:
        first = -2 * radius * torch.cos(2 * np.pi * path / _RATE)
        a = F.pad(a, (0, 2)) + first[:, None] * F.pad(a, (1, 1)) + radius**2 * F.pad(a, (2, 0))
    return a


def sound(frequencies: Any, pulses: Any) -> Any:
    """Return the pulses after the resonances."""
    return ic.varying_lfilter([[1.0]], resonances(frequencies), pulses)


def learn(start: Any, pulses: Any, wanted: Any) -> Any:
    """Return the frequencies that make the wanted sound of the pulses."""
    free = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.Adam([free], 6.0)
    for step in range(_STEPS):
        optimiser.zero_grad()
        loss = ((sound(free, pulses) - wanted) ** 2).mean() / (wanted**2).mean()
        loss.backward()
        optimiser.step()
        if step % 100 == 0 or step == _STEPS - 1:
            print(f"step {step}: {loss.item():.2g} of the sound is missing")
    return free.detach().numpy()


def draw(out: Path) -> None:
    """Let the filter learn, and draw its frequencies on the spectrogram of the sound."""
    count, knots = int(_RATE * _SECONDS), np.linspace(0, 1, _KNOTS)
    glide = 1 / (1 + np.exp(-8 * (knots - 0.5)))
    true = np.stack([700 - 400 * glide, 1200 + 1000 * glide])
    pulses = torch.zeros(count, dtype=torch.float64)
    pulses[:: int(_RATE / _PITCH)] = 1
    pulses += 0.03 * torch.as_tensor(np.random.default_rng(0).standard_normal(count))
    wanted = sound(torch.as_tensor(true), pulses)
    start = np.repeat([[550.0], [1650.0]], _KNOTS, axis=1)
    found = learn(start, pulses, wanted)
    off, before = (np.abs(paths - true).max() for paths in (found, start))
    print(f"frequencies off by {off:.2g} Hz at most, by {before:.0f} at the start")
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    f, t, power = signal.spectrogram(wanted.numpy(), _RATE, nperseg=256, noverlap=224)
    axis.pcolormesh(t, f, 10 * np.log10(power + 1e-9), cmap="Greys", shading="gouraud", vmin=-90)
    moments = knots * _SECONDS
    curves = ("true", "k-", true), ("at the start", "C0:", start), ("learnt", "C1o--", found)
    for n, (name, style, paths) in enumerate(curves):
        axis.plot(moments, paths.T, style, label=[name, None], markersize=4, linewidth=3 - n)
    axis.set(xlabel="seconds", ylabel="Hz", ylim=(0, 3000), title=f"after {_STEPS} steps of Adam")
    axis.legend(loc="upper left")
    figures.save(figure, out)
