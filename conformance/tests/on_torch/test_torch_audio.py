"""torchaudio's filters: the cookbook's formulas in NumPy, run by SciPy; compiled and exported."""

from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

import invconv as ic
from invconv_torch import audio

RATE, X = 48000, np.random.default_rng(0).standard_normal((2, 300)) / 9
COS, SIN = (f(2 * np.pi * 3000 / RATE) for f in (np.cos, np.sin))
ALPHA, A = SIN / 1.6, 10 ** (-9 / 40)  # Q = .8, -9 dB
PLAIN = 1 + ALPHA, -2 * COS, 1 - ALPHA
S = 2 * A**0.5 * ALPHA
# numerator and denominator, as R. Bristow-Johnson has them
COOKBOOK: dict[str, Any] = {
    "lowpass": ((), [(1 - COS) / 2, 1 - COS, (1 - COS) / 2], PLAIN),
    "highpass": ((), [(1 + COS) / 2, -1 - COS, (1 + COS) / 2], PLAIN),
    "allpass": ((), PLAIN[::-1], PLAIN),
    "bandpass": ((), [ALPHA, 0, -ALPHA], PLAIN),
    "bandreject": ((), [1, -2 * COS, 1], PLAIN),
    "equalizer": (
        (-9.0,),
        [1 + ALPHA * A, -2 * COS, 1 - ALPHA * A],
        [1 + ALPHA / A, -2 * COS, 1 - ALPHA / A],
    ),
    "bass": (
        (-9.0,),
        [
            A * ((A + 1) - (A - 1) * COS + S),
            2 * A * ((A - 1) - (A + 1) * COS),
            A * ((A + 1) - (A - 1) * COS - S),
        ],
        [(A + 1) + (A - 1) * COS + S, -2 * ((A - 1) + (A + 1) * COS), (A + 1) + (A - 1) * COS - S],
    ),
    "treble": (
        (-9.0,),
        [
            A * ((A + 1) + (A - 1) * COS + S),
            -2 * A * ((A - 1) + (A + 1) * COS),
            A * ((A + 1) + (A - 1) * COS - S),
        ],
        [(A + 1) - (A - 1) * COS + S, 2 * ((A - 1) - (A + 1) * COS), (A + 1) - (A - 1) * COS - S],
    ),
}


@pytest.mark.parametrize("name", COOKBOOK)
def test_a_section_is_the_cookbooks(name: str) -> None:
    more, b, a = COOKBOOK[name]
    run: Any = getattr(audio, f"{name}_biquad")
    wanted, x = scipy.signal.lfilter(b, a, X).clip(-1, 1), torch.tensor(X)
    order = (*more, 3000.0) if name in ("bass", "treble") else (3000.0, *more)
    torch.testing.assert_close(run(x, RATE, *order, 0.8), torch.tensor(wanted))
    narrow = run(x.float(), RATE, *order, 0.8)
    torch.testing.assert_close(narrow, torch.tensor(wanted).float(), rtol=1e-5, atol=1e-5)
    tensors = [torch.tensor([v, v], dtype=x.dtype, requires_grad=True) for v in (*order, 0.8)]
    assert torch.autograd.gradcheck(lambda *numbers: run(x[:, :9], RATE, *numbers), tensors)


def test_filters_of_channels_clamp_and_run_back() -> None:
    b, a, x = torch.rand(2, 3), torch.tensor([[1.0, -0.9, 0.2], [1, 0.5, 0]]), torch.rand(4, 2, 50)
    wanted = torch.as_tensor(ic.lfilter(b, a, x))
    torch.testing.assert_close(audio.lfilter(x, a, b), wanted.clamp(-1, 1))
    torch.testing.assert_close(audio.lfilter(x, a, b, clamp=False), wanted)
    each = audio.lfilter(x, a, b, clamp=False, batching=False)
    for n in range(2):
        torch.testing.assert_close(each[:, :, n], audio.lfilter(x, a[n], b[n], clamp=False))
    back = scipy.signal.lfilter(b[0], a[0], scipy.signal.lfilter(b[0], a[0], x)[..., ::-1])
    found = audio.filtfilt(x, a[0], b[0], clamp=False)
    torch.testing.assert_close(found, torch.tensor(back[..., ::-1].copy()).float())
    with pytest.raises(ValueError, match=r"waveform: expected the shape \(..., 2, time\)"):
        audio.lfilter(x[:, :1], a, b)


@pytest.mark.parametrize("rate", [44100, 48000, 88200, 96000])
def test_vinyl_and_emphasis_have_their_gains(rate: int) -> None:
    """RIAA: +19.27 dB at 20 Hz, 0 at 1 kHz, -13.73 at 10 kHz; -9.5 dB of a CD's treble."""
    point = torch.zeros(2**16, dtype=torch.float64)
    point[0] = 1e-3
    gains = 20 * (1e3 * torch.fft.rfft(audio.riaa_biquad(point, rate)).abs()).log10()
    for hertz, wanted in ((20, 19.27), (1000, 0.0), (10000, -13.73)):
        assert abs(gains[round(hertz * len(point) / rate)] - wanted) < 0.5
    if rate < 50000:
        top = audio.deemph_biquad(point, rate) * 1e3 * (-1) ** torch.arange(len(point))
        assert abs(20 * top.sum().abs().log10() - (-9.5)) < 0.2
    else:
        with pytest.raises(ValueError, match="sample_rate: expected one of 44100, 48000, got"):
            audio.deemph_biquad(point, rate)


@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
def test_sections_compile_and_export() -> None:
    class Filters(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: torch.Tensor, frequency: torch.Tensor) -> torch.Tensor:
            low = audio.lowpass_biquad(x, RATE, frequency)
            return audio.riaa_biquad(audio.bass_biquad(low, RATE, -3.0), RATE)

    given, run = (torch.tensor(X), torch.tensor([900.0, 2000.0])), Filters()
    whole = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(*given), run(*given))
    torch.testing.assert_close(torch.export.export(run, given).module()(*given), run(*given))
