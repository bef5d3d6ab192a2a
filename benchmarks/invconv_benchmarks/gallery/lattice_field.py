"""Sample lattice phi^4 theory with an invertible flow, and print its effective sample size.

The flow turns white noise into fields of density q; it is trained on its own samples to lower
E_q[log q + S], S the action. Periodic convolutions carry each layer to all its neighbours with an
exact log-determinant; couplings between the colours of a checkerboard, and one bend
a x + b tanh(c x) for all points, do the rest. Reweighted by e^-S / q, averages over the samples are
those of the theory: a Markov chain checks that.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from array_api_compat import array_namespace
from jax import numpy as jnp
from skimage.util import montage

import invconv_jax
from invconv import PeriodicConv
from invconv_benchmarks.report import figures

SIDE, MASS, COUPLING = 8, -4.0, 8.0
_DEPTH, _WIDTH, _BATCH, _STEPS = 8, 16, 128, 1000
_BLACK = np.indices((SIDE, SIDE)).sum(0) % 2 == 0
_NEAR = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if (i + j) % 2]  # the other colour

Flow = list[dict[str, Any]]


def action(field: Any) -> Any:
    """Return S = sum of (phi(p + e) - phi(p))^2 + MASS phi^2 + COUPLING phi^4, shape (batch,)."""
    xp = array_namespace(field)
    steps = sum((field - xp.roll(field, 1, axis=axis)) ** 2 for axis in (-2, -1))
    return (steps + MASS * field**2 + COUPLING * field**4).sum((-2, -1))


def init(key: Any) -> Flow:
    """Return _DEPTH steps: a periodic convolution, the weights of a coupling, and a bend."""
    flow = []
    for key_of_step in jax.random.split(key, _DEPTH):
        conv, inner = jax.random.split(key_of_step)
        hidden = jax.random.normal(inner, (len(_NEAR), _WIDTH)) / len(_NEAR) ** 0.5
        step = {"conv": invconv_jax.init(conv, PeriodicConv, 1), "hidden": hidden}
        step |= {"out": jnp.zeros((2, _WIDTH)), "bend": jnp.asarray([-0.7, -0.7, 0.0])}
        flow.append(step)
    return flow


def sample(flow: Flow, z: Any) -> tuple[Any, Any]:
    """Return fields (batch, SIDE, SIDE) and log q of them, from white noise."""
    x, log_q = z[:, None], -0.5 * (z**2 + jnp.log(2 * jnp.pi)).sum((1, 2))
    for i, step in enumerate(flow):
        x, log_det = step["conv"].forward_and_log_det(x)
        moved = _BLACK if i % 2 else ~_BLACK
        near = jnp.stack([jnp.roll(x, offset, (2, 3)) for offset in _NEAR])
        inside = jnp.tanh(jnp.einsum("nbcij,nw->wbcij", near, step["hidden"]))
        log_scale, shift = jnp.einsum("wbcij,sw->sbcij", inside, step["out"]) * moved
        x = x * jnp.exp(log_scale) + shift
        a, b, c = jnp.exp(step["bend"])
        slope = a + b * c / jnp.cosh(c * x) ** 2
        x = a * x + b * jnp.tanh(c * x)
        log_q = log_q - log_det - (log_scale + jnp.log(slope)).sum((1, 2, 3))
    return x[:, 0], log_q


def effective(log_weights: Any) -> Any:
    """Return the effective share of samples, (sum w)^2 / (n sum w^2)."""
    weights = jnp.exp(log_weights - log_weights.max())
    return weights.sum() ** 2 / (weights**2).sum() / weights.size


def trained(key: Any) -> tuple[Flow, list[float]]:
    """Train on samples of the flow; return it and its effective sample size on the way."""
    optimiser = optax.adam(optax.cosine_decay_schedule(5e-3, _STEPS))

    def loss(flow: Flow, z: Any) -> tuple[Any, Any]:
        x, log_q = sample(flow, z)
        return (log_q + action(x)).mean(), effective(-action(x) - log_q)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(flow: Flow, state: Any, key: Any) -> tuple[Flow, Any, Any]:
        z = jax.random.normal(key, (_BATCH, SIDE, SIDE))
        gradient, share = jax.grad(loss, has_aux=True)(flow, z)
        change, state = optimiser.update(gradient, state)
        return optax.apply_updates(flow, change), state, share

    flow = init(key)
    state, shares = optimiser.init(flow), []
    for step, key_of_step in enumerate(jax.random.split(key, _STEPS)):
        flow, state, share = update(flow, state, key_of_step)
        shares.append(float(share))
        if step % 200 == 199:
            print(f"step {step + 1}: effective sample size {np.mean(shares[-50:]):.1%}")
    return flow, shares


def chain(observe: Callable[[figures.Floats], figures.Floats]) -> list[figures.Floats]:
    """Return what Metropolis's algorithm (1953) observes: 400 chains of 600 sweeps."""
    rng, seen = np.random.default_rng(0), []
    field = 0.5 * rng.standard_normal((400, SIDE, SIDE))
    for sweep in range(600):
        for colour in (_BLACK, ~_BLACK):
            new = np.where(colour, field + rng.uniform(-0.6, 0.6, field.shape), field)
            around = sum(np.roll(field, s, a) for s in (1, -1) for a in (1, 2))
            cost = [(4 + MASS) * f**2 + COUPLING * f**4 - 2 * f * around for f in (new, field)]
            taken = rng.uniform(size=field.shape) < np.exp(np.minimum(cost[1] - cost[0], 0))
            field = np.where(colour & taken, new, field)
        if sweep >= 100 and sweep % 5 == 0:
            seen.append(observe(field))
    return seen


def draw(out: Path) -> None:
    """Train, compare the action and the magnetisation with a Markov chain's, and show fields."""
    flow, shares = trained(jax.random.key(0))
    x, log_q = jax.jit(sample)(flow, jax.random.normal(jax.random.key(1), (20000, SIDE, SIDE)))
    weights = np.asarray(jax.nn.softmax(-action(x) - log_q))
    s, m = np.asarray(action(x)), np.asarray(x.mean((1, 2)))
    mean = float(weights @ s)
    error = float(np.sqrt(weights**2 @ (s - mean) ** 2))
    seen = np.stack(chain(lambda f: np.stack([action(f), f.mean((1, 2))])))
    by_chain = seen[:, 0].mean(0)
    print(f"effective sample size: {float(effective(-action(x) - log_q)):.1%} of 20,000")
    of_chain = f"{by_chain.mean():.3f} ± {by_chain.std() / np.sqrt(by_chain.size):.3f}"
    print(f"action: {mean:.3f} ± {error:.3f}, of the Markov chain {of_chain}")
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    axes[0].imshow(montage(x[:16]), cmap="RdBu")
    axes[0].set(title="sixteen fields of the flow", xticks=[], yticks=[])
    axes[1].plot(np.convolve(shares, np.ones(20) / 20, "valid"))
    axes[1].set(xlabel="step", title="effective sample size", ylim=(0, 1))
    bins = np.linspace(-0.5, 0.5, 51)
    axes[2].hist(seen[:, 1].ravel(), bins, density=True, alpha=0.4, label="Markov chain")
    for name, w in ("flow, reweighted", weights), ("flow", None):
        axes[2].hist(m, bins, density=True, weights=w, histtype="step", label=name)
    axes[2].set(title="magnetisation")
    axes[2].legend()
    figures.save(figure, out)
