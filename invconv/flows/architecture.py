"""The architecture of a Glow, independent of libraries: its layers, and the names of its arrays.

    [squeeze, [actnorm, mixing, affine coupling] x depth, split] x levels, the last without split

D. P. Kingma, P. Dhariwal, Glow, NeurIPS 2018; E. Hoogeboom, R. van den Berg, M. Welling, Emerging
Convolutions for Generative Normalizing Flows, ICML 2019.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array
from invconv.arrays.validation import choice, generator, positive_int, sizes
from invconv.flows.density import optional_context, scale_floor
from invconv.operators.base.fields import is_own, mixings, require_mixing
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.chain import Chain
from invconv.operators.emerging import EmergingConv
from invconv.operators.pointwise.conv1x1 import Pointwise


@dataclass(frozen=True)
class GlowArchitecture:
    """All settings of a Glow for images of one shape."""

    shape: tuple[int, ...]  # (C, H, W) of an image; H and W are multiples of 2^levels
    levels: int = 3  # times that the image is halved
    depth: int = 32  # steps a level
    width: int = 512  # channels inside the couplings' networks
    mixing: str | None = "emerging"  # one of `mixing_words`; None for a function, not in files
    squeeze: str = "pixels"  # the basis in which blocks of pixels become channels
    scale_floor: float = 0.5  # the least scale of a coupling or split; 0 in the paper
    kernel_size: int = 3  # taps per axis of a mixing convolution; odd
    context: int | None = None  # channels of the context of the couplings

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple | list) or len(self.shape) != 3:
            raise ValueError(f"shape: expected (C, H, W) of an image, got {self.shape!r}")
        object.__setattr__(self, "shape", sizes("shape", self.shape, 3))
        for name in ("levels", "depth", "width", "kernel_size"):
            object.__setattr__(self, name, positive_int(name, getattr(self, name)))
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {self.kernel_size}")
        if self.mixing is not None:
            require_mixing("mixing", self.mixing, mixing_words())
        choice("squeeze", self.squeeze, ("pixels", "haar", "dct"))
        object.__setattr__(self, "scale_floor", scale_floor(self.scale_floor))
        object.__setattr__(self, "context", optional_context(self.context))
        _, height, width = self.shape
        if self.levels > 31 or height % 2**self.levels or width % 2**self.levels:
            unit = f"2^levels = {2**self.levels}" if self.levels < 32 else f"2^{self.levels}"
            raise ValueError(
                f"shape: expected a height and a width that are multiples of {unit}, got "
                f"{height} x {width}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name, ready for JSON."""
        return dataclasses.asdict(self) | {"shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GlowArchitecture":
        """Undo `to_dict`, or raise ValueError or TypeError."""
        known = [field.name for field in dataclasses.fields(cls)]
        if set(values) != set(known):
            raise ValueError(f"expected {', '.join(known)}, got {', '.join(map(str, values))}")
        require_mixing("mixing", values["mixing"], mixing_words())
        return cls(**values)

    def channels(self, level: int) -> int:
        """Return the number of channels of a level's steps; levels count from 0."""
        return self.shape[0] << (level + 2)

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """The shape (C, H, W) of each level's noise, the coarsest last."""
        channels = [self.channels(i) // 2 for i in range(self.levels)]
        channels[-1] *= 2
        _, height, width = self.shape
        return [(c, height >> i, width >> i) for i, c in enumerate(channels, 1)]

    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all arrays by their names in a file, and in PyTorch."""
        shapes: dict[str, tuple[int, ...]] = {}
        for level in range(self.levels):
            channels = self.channels(level)
            half, inputs = channels // 2, channels // 2 + (self.context or 0)
            mixing = mixing_arrays(self, channels)
            for step in range(self.depth):
                at = f"level{level}_step{step}"
                shapes[f"{at}_actnorm.log_scale"] = shapes[f"{at}_actnorm.bias"] = (channels,)
                shapes |= {f"{at}_{name}": shape for name, shape in mixing.items()}
                shapes |= _conv(f"{at}_coupling.net.0", self.width, inputs, 3)
                shapes |= _conv(f"{at}_coupling.net.2", self.width, self.width, 1)
                shapes |= _conv(f"{at}_coupling.net.4", channels, self.width, 3)
            if level < self.levels - 1:
                shapes |= _conv(f"level{level}_split.prior", channels, half, 3)
        return shapes


def require_arrays(a: GlowArchitecture, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless arrays have the names and shapes of ``a.arrays()``, as in a file."""
    expected = a.arrays()
    for name in {**expected, **shapes}:
        if shapes.get(name) != expected.get(name):
            raise ValueError(
                f"mixing: expected axes of a + b channels + c taps, {name} of the shape "
                f"{expected.get(name)}, got {shapes.get(name)}"
            )


def _conv(name: str, outputs: int, inputs: int, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, size, size), f"{name}.bias": (outputs,)}


def mixing_words() -> dict[str, str | None]:
    """Return the words for a mixing layer, also those of users' classes.

    The word for an emerging convolution comes with the word for the 1x1 convolution before it.
    """
    own: dict[str, str | None] = dict.fromkeys(mixings()) | {"emerging": "plain"}
    after = {f"emerging_{word}": word for word in mixings(Pointwise) if word != "plain"}
    return own | after | own


def mixing_steps(
    mixing: str, channels: int = 4, taps: int = 3, rng: np.random.Generator | None = None
) -> dict[str, InvertibleConv]:
    """Return the initial operators of a mixing layer, by the prefix of their arrays' names."""
    rng = generator(rng)
    if before := mixing_words()[mixing]:
        first = mixings(Pointwise)[before].init(channels, rng=rng)
        return {"mixing.mixing.": first, "mixing.": EmergingConv.init(channels, taps, rng=rng)}
    cls = mixings()[mixing]
    if not hasattr(cls, "init"):
        raise TypeError(
            f"mixing: expected a class with init(channels, kernel_size, *, rng), which "
            f"{cls.__name__} has not"
        )
    size = () if issubclass(cls, Pointwise) else (taps,)
    last = {"mixing.": without_bias(cls.init(channels, *size, rng=rng))}
    if mixing == "exponential":  # which is nearly the identity at the start
        return {"conv1x1.": mixings()["plain"].init(channels, rng=rng)} | last
    return last


def without_bias(conv: InvertibleConv) -> InvertibleConv:
    """Return an operator without its bias, unless its class requires one."""
    spec = conv._specs.get("bias")
    return conv.replace(bias=None) if spec is not None and spec.optional else conv


def initial_arrays(architecture: GlowArchitecture, rng: np.random.Generator) -> dict[str, Any]:
    """Return the NumPy arrays from which training starts, by the names of `arrays`.

    Mixing layers are drawn by their classes, the hidden convolutions of couplings as PyTorch's; all
    else is zero.
    """
    shapes, a = architecture.arrays(), architecture
    arrays: dict[str, Any] = {name: np.zeros(shape) for name, shape in shapes.items()}
    for name in arrays:
        if ".net.0." in name or ".net.2." in name:
            inputs = math.prod(shapes[f"{name.rpartition('.')[0]}.weight"][1:])
            arrays[name] = rng.uniform(-(inputs**-0.5), inputs**-0.5, shapes[name])
    for level, step in itertools.product(range(a.levels), range(a.depth)):
        steps = mixing_steps(str(a.mixing), a.channels(level), a.kernel_size, rng)
        for prefix, conv in steps.items():
            at = f"level{level}_step{step}_{prefix}"
            arrays |= {at + name: array for name, array in conv._arrays().items()}
    require_arrays(a, {name: array.shape for name, array in arrays.items()})
    return arrays


def mixing_arrays(architecture: GlowArchitecture, channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a mixing layer's arrays by name, from those of three small layers.

    The length of an axis is a + b channels + c taps; no array of the layer's own size is made.
    """
    mixing, wider = architecture.mixing, channels / 4 - 1
    longer = architecture.kernel_size / 2 - 1.5
    if mixing is None:
        raise ValueError(f"mixing: expected one of {', '.join(mixing_words())}, got None")
    drawn = (mixing_steps(mixing, *sizes).items() for sizes in ((4, 3), (8, 3), (4, 5)))
    small, wide, long = (
        {at + n: np.array(a.shape) for at, conv in convs for n, a in conv._arrays().items()}
        for convs in drawn
    )
    axes = {n: wider * (wide[n] - s) + longer * (long[n] - s) + s for n, s in small.items()}
    return {name: tuple(map(round, shape.tolist())) for name, shape in axes.items()}


def mixing_operator(architecture: GlowArchitecture, arrays: Mapping[str, Array]) -> Chain:
    """Return the operators of a mixing layer with these arrays, named as in `mixing_arrays`."""
    assert architecture.mixing is not None
    steps = mixing_steps(architecture.mixing)
    if not all(is_own(type(conv)) for conv in steps.values()):  # settings may depend on sizes
        channels = int(arrays["actnorm.log_scale"].shape[0])
        steps = mixing_steps(architecture.mixing, channels, architecture.kernel_size)
    own = ({n: arrays[at + n] for n in conv._arrays()} for at, conv in steps.items())
    return Chain([conv.replace(**named) for conv, named in zip(steps.values(), own, strict=True)])
