"""Undo an echo exactly: a melody in a room with two walls, in stereo.

y[t] = x[t] + A x[t - d] + B x[t - 2d], with 2 x 2 matrices that mix left and right, is an
autoregressive convolution in one dimension whose dilation is the delay d, an FIR filter. Its
inverse, the dereverberation, is the recursive filter (IIR) that every synthesiser has, here exact.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.io import wavfile
from scipy.signal import lfilter

from invconv import AutoregressiveConv
from invconv_benchmarks.report import figures

RATE = 22050  # samples per second
_NOTES = (262, 330, 392, 523, 392, 330, 262, 196)  # Hz


def plucked(frequency: float, rng: np.random.Generator) -> figures.Floats:
    """Return half a second of a string (Karplus & Strong 1983): noise that goes round a loop."""
    period = round(RATE / frequency)
    burst = np.zeros(RATE // 2)
    burst[:period] = rng.uniform(-1, 1, period)
    loop = np.zeros(period + 2)
    loop[0], loop[period:] = 1, -0.497
    return np.asarray(lfilter([1.0], loop, burst))


def room(delay: float) -> AutoregressiveConv:
    """Return the room's map on (2, samples): the sound and two echoes that swap sides."""
    first, second = np.asarray([[0.3, 0.5], [0.5, 0.3]]), np.asarray([[0.3, 0.1], [0.1, 0.3]])
    kernel = np.stack([np.eye(2), first, second], axis=2)
    return AutoregressiveConv(kernel, dilation=round(delay * RATE))


def draw(out: Path) -> None:
    """Record a melody in a room, take the room away, and write all three as .wav beside ``out``."""
    rng = np.random.default_rng(0)
    melody = np.concatenate([plucked(f, rng) for f in _NOTES])
    pan = np.linspace(0.1, 0.9, melody.size)  # from left to right
    dry = np.stack([(1 - pan) * melody, pan * melody])
    conv = room(0.17)
    wet = conv.forward(dry)
    undone = conv.inverse(wet)
    print(f"{dry.shape[1]} samples: off by {np.abs(undone - dry).max():.0e} at most")
    in_16_bits = np.round(wet / np.abs(wet).max() * 32767)
    error = np.abs(conv.inverse(in_16_bits / 32767 * np.abs(wet).max()) - dry).max()
    print(f"recorded in 16 bits: off by {error:.0e}, 16 bits themselves by {2.0**-16:.0e}")
    sounds = {"the melody": dry, "in a room with echoes": wet, "the echoes undone": undone}
    figure, axes = plt.subplots(3, 1, figsize=(11, 7), sharex=True, layout="constrained")
    for panel, (title, sound) in zip(axes, sounds.items(), strict=True):
        panel.specgram(sound[0] + 1e-9, NFFT=1024, Fs=RATE, noverlap=768, cmap="magma", vmin=-140)
        panel.set(title=f"{title} (left)", ylabel="Hz", ylim=(0, 5000))
        wav = out.with_name(f"{out.stem}-{title.replace(' ', '-')}.wav")
        wavfile.write(wav, RATE, (sound.T / np.abs(sound).max() * 32767).astype(np.int16))
        print(f"wrote {wav}")
    axes[2].set_xlabel("seconds")
    figures.save(figure, out)
