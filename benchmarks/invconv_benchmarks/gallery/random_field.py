"""Sample two coupled Gaussian random fields on a periodic box, with their exact density.

The fields solve (m^2 - Laplacian) x = z with white noise z, as Matern fields (SPDE), free lattice
fields and other Gaussian Markov random fields do; the first drives the second. That is K x = z
with a 3 x 3 kernel of 2 x 2 matrices: sampling is an inverse of a `PeriodicConv`, and log p(x) =
log N(K x) + log|det K| is exact on a box whose covariance matrix no computer could hold.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import Covariance, multivariate_normal

from invconv import Inverse, PeriodicConv
from invconv_benchmarks.report import figures

_MASSES = (0.03, 0.3)  # of the first and of the second field, in units of 1 / pixel
_DRIVEN = 0.05  # how much of the first field drives the second


def field() -> Inverse:
    """Return the map from white noise z (2, n, n) to the fields x."""
    laplacian = np.asarray([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    kernel = np.zeros((2, 2, 3, 3))
    for i, mass in enumerate(_MASSES):
        kernel[i, i] = -laplacian
        kernel[i, i, 1, 1] += mass**2
    kernel[1, 0, 1, 1] = -_DRIVEN
    return Inverse(PeriodicConv(kernel))


def power(n: int) -> figures.Floats:
    """Return E x_hat x_hat^H in theory, at 1 ... n/2 - 1 periods along an axis."""
    k = 2 - 2 * np.cos(2 * np.pi * np.arange(1, n // 2) / n)
    k_hat = np.zeros((k.size, 2, 2))
    for i, mass in enumerate(_MASSES):
        k_hat[:, i, i] = mass**2 + k
    k_hat[:, 1, 0] = -_DRIVEN
    inverse = np.linalg.inv(k_hat)
    return inverse @ np.moveaxis(inverse, 1, 2)


def log_density(conv: Inverse, x: figures.Floats) -> figures.Floats:
    """Return log p(x) of fields (*batch, 2, n, n)."""
    z, log_det = conv.inverse_and_log_det(x)
    normal = -0.5 * (z**2).sum((-3, -2, -1)) - 0.5 * z[0].size * np.log(2 * np.pi)
    return np.asarray(normal + log_det)


def draw(out: Path) -> None:
    """Sample, compare the density with that of the dense covariance, and the power with theory."""
    rng = np.random.default_rng(0)
    conv = field()
    x = conv.forward(rng.standard_normal((3, 2, 6, 6)))
    dense = conv.forward(np.eye(72).reshape(72, 2, 6, 6)).reshape(72, 72)
    _, r = np.linalg.qr(dense)  # a root of the covariance: its condition is not squared
    covariance = Covariance.from_cholesky(r.T * np.sign(np.diag(r)))
    exact = multivariate_normal(cov=covariance).logpdf(x.reshape(3, 72))
    print(f"6 x 6 box: log p off by {np.abs(log_density(conv, x) - exact).max():.0e} of the dense")
    n = 256
    x = conv.forward(rng.standard_normal((32, 2, n, n)))
    print(f"{n} x {n} box, {2 * n * n} unknowns: log p = {log_density(conv, x)[0]:.2f}")
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    titles = ("the first field", "the second, which it drives")
    for panel, image, title in zip(axes, x[0], titles, strict=False):
        figures.show(panel, image, title, cmap="magma")
    k, theory = np.arange(1, n // 2), power(n)
    at = np.fft.fft2(x)[:, :, 0, 1 : n // 2] / n  # along one axis of the box
    for name, i, j in ("first", 0, 0), ("second", 1, 1), ("of both", 0, 1):
        measured = (at[:, i] * at[:, j].conj()).real.mean(0)
        (line,) = axes[2].loglog(k, measured, ".", ms=3)
        axes[2].loglog(k, theory[:, i, j], color=line.get_color(), label=name)
    axes[2].set(xlabel="periods in the box", title=f"power of {len(x)} samples, and in theory")
    axes[2].legend()
    figures.save(figure, out)
