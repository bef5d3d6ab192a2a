r"""Filters with the names, arguments and results of `torchaudio.functional`.

The sections are those of the cookbook (R. Bristow-Johnson, Audio EQ Cookbook, 2005), with

    w0 = 2 pi frequency / sample_rate,    alpha = sin(w0) / (2 Q),    A = 10^(gain / 40)

Numbers and tensors may stand for any of them; a tensor has gradients, and one of shape (n,) makes n
filters, for waveforms (..., n, time). All are computed in float64, since 1 - cos(w0) of a low
frequency has few digits in float32.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from invconv import lfilter as _filtered

__all__ = [
    "allpass_biquad",
    "bandpass_biquad",
    "bandreject_biquad",
    "bass_biquad",
    "biquad",
    "deemph_biquad",
    "equalizer_biquad",
    "filtfilt",
    "highpass_biquad",
    "lfilter",
    "lowpass_biquad",
    "riaa_biquad",
    "treble_biquad",
]

Number: TypeAlias = float | Tensor

# the shelf that undoes the emphasis of CD and DAT: frequency in Hz, slope, gain in dB (as SoX)
_EMPHASIS = {44100: (5283.0, 0.4845, -9.477), 48000: (5356.0, 0.479, -9.62)}
# zeros and poles of the RIAA curve of vinyl (as SoX)
_VINYL = {
    44100: ((-0.2014898, 0.9233820), (0.7083149, 0.9924091)),
    48000: ((-0.1766069, 0.9321590), (0.7396325, 0.9931330)),
    88200: ((-0.1168735, 0.9648312), (0.8590646, 0.9964002)),
    96000: ((-0.1141486, 0.9676817), (0.8699137, 0.9966946)),
}


def lfilter(
    waveform: Tensor,
    a_coeffs: Tensor,
    b_coeffs: Tensor,
    clamp: bool = True,
    batching: bool = True,
) -> Tensor:
    """Filter waveforms with a rational transfer function, as `torchaudio.functional.lfilter`.

    It is `invconv.lfilter` with the denominator first, and the result clamped to [-1, 1].

    Parameters
    ----------
    waveform : Tensor, shape (..., time)
    a_coeffs, b_coeffs : Tensor, shape (k,) or (n, k)
        Denominator and numerator, coefficients of the latest samples first; n filters if they have
        two axes. Their lengths may differ.
    clamp : bool
        Whether results beyond -1 and 1 become -1 and 1.
    batching : bool
        For n filters: whether waveforms are (..., n, time), one for each filter; if not, each
        filter runs on all waveforms.

    Returns
    -------
    Tensor, shape (..., time), or (..., n, time) for n filters

    Raises
    ------
    TypeError, ValueError
        As `invconv.lfilter`, or if the numbers of waveforms and filters differ.

    Examples
    --------
    >>> x = torch.tensor([1.0, 0.0, 0.0])
    >>> lfilter(x, torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.0]))
    tensor([1.0000, 0.5000, 0.2500])
    """
    several = max(a_coeffs.ndim, b_coeffs.ndim) > 1
    if several:
        count = max(v.shape[-2] if v.ndim > 1 else 1 for v in (a_coeffs, b_coeffs))
        if not batching:
            waveform = waveform[..., None, :].expand(*waveform.shape[:-1], count, -1)
        elif waveform.ndim < 2 or waveform.shape[-2] != count:
            raise ValueError(
                f"waveform: expected the shape (..., {count}, time), a signal for each filter, got "
                f"{tuple(waveform.shape)}; batching=False runs every filter on every signal"
            )
    y: Tensor = _filtered(b_coeffs, a_coeffs, waveform)
    return y.clamp(-1.0, 1.0) if clamp else y


def filtfilt(waveform: Tensor, a_coeffs: Tensor, b_coeffs: Tensor, clamp: bool = True) -> Tensor:
    """Filter forwards and backwards from silence, as `torchaudio.functional.filtfilt`.

    Nothing is padded. `invconv.filtfilt` is SciPy's: it pads, and begins in the steady state.

    Parameters
    ----------
    waveform, a_coeffs, b_coeffs, clamp
        As for `lfilter`; only the result is clamped.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> a, b = torch.tensor([1.0, -0.5]), torch.tensor([0.5, 0.0])
    >>> filtfilt(torch.tensor([0.0, 1.0, 0.0]), a, b)
    tensor([0.1562, 0.3125, 0.1250])
    """
    there = lfilter(waveform, a_coeffs, b_coeffs, clamp=False).flip(-1)
    return lfilter(there, a_coeffs, b_coeffs, clamp).flip(-1)


def biquad(
    waveform: Tensor, b0: Number, b1: Number, b2: Number, a0: Number, a1: Number, a2: Number
) -> Tensor:
    """Filter with a second-order section, and clamp, as `torchaudio.functional.biquad`.

    Examples
    --------
    >>> biquad(torch.tensor([1.0, 0.0, 0.0]), 1.0, 0.0, 0.0, 1.0, -0.5, 0.0)
    tensor([1.0000, 0.5000, 0.2500])
    """
    return _section(waveform, (b0, b1, b2), (a0, a1, a2))


def lowpass_biquad(
    waveform: Tensor, sample_rate: int, cutoff_freq: Number, Q: Number = 0.707
) -> Tensor:
    """Let frequencies below ``cutoff_freq`` pass.

    Examples
    --------
    >>> lowpass_biquad(torch.ones(2000), 8000, 1000.0)[-1]
    tensor(1.)
    """
    cos, alpha = _wave(waveform, sample_rate, cutoff_freq, Q)
    half = (1 - cos) / 2
    return _section(waveform, (half, 2 * half, half), (1 + alpha, -2 * cos, 1 - alpha))


def highpass_biquad(
    waveform: Tensor, sample_rate: int, cutoff_freq: Number, Q: Number = 0.707
) -> Tensor:
    """Let frequencies above ``cutoff_freq`` pass.

    Examples
    --------
    >>> highpass_biquad(torch.ones(2000), 8000, 1000.0)[-1].abs() < 1e-6
    tensor(True)
    """
    cos, alpha = _wave(waveform, sample_rate, cutoff_freq, Q)
    half = (1 + cos) / 2
    return _section(waveform, (half, -2 * half, half), (1 + alpha, -2 * cos, 1 - alpha))


def allpass_biquad(
    waveform: Tensor, sample_rate: int, central_freq: Number, Q: Number = 0.707
) -> Tensor:
    """Shift phases around ``central_freq``, and keep all gains.

    Examples
    --------
    >>> round(float(allpass_biquad(torch.ones(2000), 8000, 1000.0)[-1]), 4)
    1.0
    """
    cos, alpha = _wave(waveform, sample_rate, central_freq, Q)
    return _section(waveform, (1 - alpha, -2 * cos, 1 + alpha), (1 + alpha, -2 * cos, 1 - alpha))


def bandpass_biquad(
    waveform: Tensor,
    sample_rate: int,
    central_freq: Number,
    Q: Number = 0.707,
    const_skirt_gain: bool = False,
) -> Tensor:
    """Let frequencies around ``central_freq`` pass, with a gain there of 1, or of Q.

    Examples
    --------
    >>> bandpass_biquad(torch.ones(2000), 8000, 1000.0)[-1].abs() < 1e-6
    tensor(True)
    """
    cos, alpha = _wave(waveform, sample_rate, central_freq, Q)
    top = alpha * _number(waveform, Q) if const_skirt_gain else alpha
    return _section(waveform, (top, 0 * top, -top), (1 + alpha, -2 * cos, 1 - alpha))


def bandreject_biquad(
    waveform: Tensor, sample_rate: int, central_freq: Number, Q: Number = 0.707
) -> Tensor:
    """Remove frequencies around ``central_freq``.

    Examples
    --------
    >>> bandreject_biquad(torch.ones(2000), 8000, 1000.0)[-1]
    tensor(1.)
    """
    cos, alpha = _wave(waveform, sample_rate, central_freq, Q)
    return _section(waveform, (1.0, -2 * cos, 1.0), (1 + alpha, -2 * cos, 1 - alpha))


def equalizer_biquad(
    waveform: Tensor, sample_rate: int, center_freq: Number, gain: Number, Q: Number = 0.707
) -> Tensor:
    """Amplify frequencies around ``center_freq`` by ``gain`` in dB.

    Examples
    --------
    >>> round(float(equalizer_biquad(torch.ones(2000), 8000, 1000.0, -6.0)[-1]), 4)
    1.0
    """
    cos, alpha = _wave(waveform, sample_rate, center_freq, Q)
    up, down = alpha * (A := _amplitude(waveform, gain)), alpha / A
    return _section(waveform, (1 + up, -2 * cos, 1 - up), (1 + down, -2 * cos, 1 - down))


def bass_biquad(
    waveform: Tensor,
    sample_rate: int,
    gain: Number,
    central_freq: Number = 100,
    Q: Number = 0.707,
) -> Tensor:
    """Amplify frequencies below ``central_freq`` by ``gain`` in dB: a low shelf.

    Examples
    --------
    >>> bass_biquad(torch.ones(2000), 8000, -20.0, 1000.0)[-1]
    tensor(0.1000)
    """
    cos, alpha = _wave(waveform, sample_rate, central_freq, Q)
    return _shelf(waveform, _amplitude(waveform, gain), -cos, alpha, -1)


def treble_biquad(
    waveform: Tensor,
    sample_rate: int,
    gain: Number,
    central_freq: Number = 3000,
    Q: Number = 0.707,
) -> Tensor:
    """Amplify frequencies above ``central_freq`` by ``gain`` in dB: a high shelf.

    Examples
    --------
    >>> treble_biquad(torch.ones(2000), 8000, 20.0)[-1]
    tensor(1.)
    """
    cos, alpha = _wave(waveform, sample_rate, central_freq, Q)
    return _shelf(waveform, _amplitude(waveform, gain), cos, alpha)


def deemph_biquad(waveform: Tensor, sample_rate: int) -> Tensor:
    """Undo the emphasis of treble on a CD (44100 Hz) or DAT (48000 Hz).

    Raises
    ------
    ValueError
        For another ``sample_rate``.

    Examples
    --------
    >>> deemph_biquad(torch.ones(2000), 44100)[-1]
    tensor(1.)
    """
    frequency, slope, gain = _at_rate(sample_rate, _EMPHASIS)
    A = _amplitude(waveform, gain)
    steepness = 1 / ((A + 1 / A) * (1 / slope - 1) + 2) ** 0.5
    return _shelf(waveform, A, *_wave(waveform, sample_rate, frequency, steepness))


def riaa_biquad(waveform: Tensor, sample_rate: int) -> Tensor:
    """Apply the RIAA curve, for playing vinyl, with a gain of 1 at 1 kHz.

    Raises
    ------
    ValueError
        Unless ``sample_rate`` is 44100, 48000, 88200 or 96000.

    Examples
    --------
    >>> riaa_biquad(torch.zeros(4), 44100)
    tensor([0., 0., 0., 0.])
    """
    zeros, poles = _at_rate(sample_rate, _VINYL)
    turn = _number(waveform, 2 * torch.pi * 1000 / sample_rate)
    b, a = ([1.0, -(p + q), p * q] for p, q in (zeros, poles))
    gains = []
    for taps in (b, a):
        real, imag = (sum(v * f(n * turn) for n, v in enumerate(taps)) for f in _PARTS)
        gains.append(real**2 + imag**2)
    scale = (gains[1] / gains[0]) ** 0.5
    return _section(waveform, [scale * v for v in b], a)


_PARTS = torch.cos, torch.sin


def _number(waveform: Tensor, value: Any) -> Tensor:
    """Return a number on the waveform's device, in float64 unless the device lacks it."""
    wide = torch.float32 if waveform.device.type == "mps" else torch.float64
    return torch.as_tensor(value, dtype=wide, device=waveform.device)


def _wave(waveform: Tensor, sample_rate: Any, frequency: Any, Q: Any) -> tuple[Tensor, Tensor]:
    """Return cos(w0) and alpha."""
    if not isinstance(Q, Tensor) and not Q > 0:
        raise ValueError(f"Q: expected a number above 0, got {Q!r:.80}")
    w0 = 2 * torch.pi * _number(waveform, frequency) / sample_rate
    return w0.cos(), w0.sin() / (2 * _number(waveform, Q))


def _amplitude(waveform: Tensor, gain: Any) -> Tensor:
    return 10 ** (_number(waveform, gain) / 40)


def _shelf(waveform: Tensor, A: Tensor, cos: Tensor, alpha: Tensor, sign: int = 1) -> Tensor:
    """Run a high shelf; a low one is the high one of pi - w0 if odd samples are negated.

    That turns cos into -cos, and changes the ``sign`` of the middle coefficients.
    """
    more, less, width = A + 1, A - 1, 2 * A**0.5 * alpha
    high, low, turn = more + less * cos, more - less * cos, 2 * sign * A
    b = A * (high + width), -turn * (less + more * cos), A * (high - width)
    return _section(waveform, b, (low + width, 2 * sign * (less - more * cos), low - width))


def _at_rate(sample_rate: Any, table: Any) -> Any:
    """Return the entry of a sample rate, or raise."""
    if sample_rate not in table:
        expected = ", ".join(map(str, table))
        raise ValueError(f"sample_rate: expected one of {expected}, got {sample_rate!r:.80}")
    return table[sample_rate]


def _section(waveform: Tensor, b: Sequence[Number], a: Sequence[Number]) -> Tensor:
    """Run a second-order section, whose coefficients broadcast, and clamp."""
    numbers = torch.broadcast_tensors(*(_number(waveform, v) for v in (*b, *a)))
    numbers = [v / numbers[3] for v in numbers]
    b_coeffs, a_coeffs = (torch.stack(numbers[n : n + 3], -1).to(waveform.dtype) for n in (0, 3))
    return lfilter(waveform, a_coeffs, b_coeffs)
