"""An operator of the core as a module of PyTorch, made of its current parameters and buffers.

The metadata of a layer's `state_dict` hold its class and settings, and the state of another kind of
layer is refused: tensors alone do not tell layers apart. A state without metadata, such as that of
an earlier version or from a safetensors file, is loaded without this check.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

import invconv as ic
from invconv.arrays.namespaces import cast, dtype_name, namespace, readable
from invconv.operators.base.calls import PreparedInverse, as_batch, fits, grid_of
from invconv.operators.base.factors import require_operator
from invconv_torch.exporting import constant
from invconv_torch.exporting.constant import values_of
from invconv_torch.native.host import (
    PLAIN,
    TRACERS,
    bare,
    device_kind,
    exporting_to_onnx,
    gathered,
    has_tangent,
    laid_out,
    require_whole,
    shared_out,
)
from invconv_torch.native.nodes import Pair, evaluate, invert
from invconv_torch.precision import AUTOCAST, autocasting, require_alike
from invconv_torch.private import edits_of, forward_level, is_tracing
from invconv_torch.remembered import RememberedInverses

Read: TypeAlias = Callable[[Tensor], Any]

# The buffers of integers, such as a permutation's, have this dtype: averages of buffers, as in
# `torch.optim.swa_utils.AveragedModel`, would truncate integers. States hold integers.
_ROUNDED = torch.float32


class Described(nn.Module):  # type: ignore[misc]
    """A layer whose `state_dict` holds its class and settings, which tensors alone do not tell."""

    _kind: dict[str, Any]  # "class" and settings, which with the tensors determine the map
    # dtypes, devices and shapes of the tensors validated last, and versions of integer tensors
    _kinds: list[Any] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(note_kind)
        self.register_load_state_dict_pre_hook(before_loading)

    def extra_repr(self) -> str:
        """Return the settings as text."""
        return _settings(self._kind)


class InvertibleModule(Described):
    """A module with the arrays of any operator of the core as parameters.

    Each direction returns its own log-determinants, one number per sample, float32 for half types.
    Under autocast the work is done in the parameters' dtype; nothing else is promoted.

    In eval mode an inverse is factored once for each of the last grids and reused until a parameter
    changes. On a CPU the parameters are compared by value, so the inverse is never out of date. On
    an accelerator they are compared by identity and version. All of PyTorch's own updates change
    the version; edits through ``.data``, replayed graphs and FSDP do not: call ``train()`` and
    ``eval()`` after them. Compiled code and `torch.func` always factor.

    Parameters
    ----------
    conv : invconv.InvertibleConv
        An operator of NumPy or PyTorch arrays; they are copied.
    max_gain : float, optional
        The largest gain of the inverse, by `invconv.bounded`. An operator with a bound, from
        `invconv.bounded` or `invconv.load`, keeps its own.
    device, dtype : optional
        The device and dtype of ``conv`` unless given; for NumPy arrays PyTorch's default device.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import Chain, PeriodicConv, QRConv1x1
    >>> from invconv_torch import InvertibleModule
    >>> rng = np.random.default_rng(0)
    >>> chain = Chain([QRConv1x1.init(3, rng=rng), PeriodicConv.init(3, rng=rng)])
    >>> layer = InvertibleModule(chain, dtype=torch.float32)
    >>> z, log_det = layer(torch.ones(5, 3, 8, 8))
    >>> x, inverse_log_det = layer.inverse(z)
    >>> [name for name, _ in layer.named_parameters()]
    ['0.reflectors', '0.upper', '0.scale', '1.kernel']
    """

    _static: Any = None  # the operator validated last, without tensors: they may hold a graph
    _inverses: RememberedInverses | None = None
    _integral: dict[str, torch.dtype]  # of the constants that are integers
    _watched = False  # by a guard, which reads:
    _ran_on: tuple[int, ...] | None = None  # the shape of the last call's argument

    def __init__(
        self,
        conv: ic.InvertibleConv,
        *,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        require_operator("conv", conv)
        if conv._bounded_from is not None:
            conv, own = conv._bounded_from
            if max_gain not in (None, own):
                raise ValueError(
                    f"max_gain: expected {own}, by which conv is bounded, got {max_gain!r}; "
                    "conv.replace() has its values and no bound"
                )
            max_gain = own
        if max_gain is not None:
            ic.bounded(conv, max_gain)  # raises if the class or the number allows no bound
            max_gain = float(max_gain)  # files of states hold no numbers of NumPy
        self._max_gain = max_gain
        self._class, self._channels = type(conv), conv.channels
        parts = conv._parts()
        self._part_names = tuple(parts)
        self._settings = {name: getattr(conv, name) for name in conv._setting_names}
        shown = {name: value for name, value in self._settings.items() if name != "ndim"}
        self._kind = {"class": self._class.__name__} | shown | {"max_gain": max_gain}
        for prefix, part in parts.items():
            assert isinstance(part, ic.InvertibleConv)
            # not by `add_module`, which refuses names of Module's own attributes, such as "half"
            self._modules[prefix] = InvertibleModule(part, device=device, dtype=dtype)
        for name in conv._array_names:
            array = getattr(conv, name)
            value = None if array is None else nn.Parameter(copied(array, device, dtype))
            self._parameters[name] = value
        for name in conv._constant_names:
            array = getattr(conv, name)
            self._buffers[name] = None if array is None else copied(array, device, dtype)
        self._array_names = (*conv._array_names, *conv._constant_names)
        self._integral = {}
        for name, integers in self._buffers.items():
            if integers is not None and not integers.is_floating_point():
                self._integral[name] = integers.dtype
                self._buffers[name] = real = integers.to(_ROUNDED)
                if readable(real) and not torch.equal(self._integers(name, real), integers):
                    raise ValueError(
                        f"conv: expected integers below 2**24 in {name}, which a layer keeps in "
                        "float32, so that averages of buffers do not truncate them"
                    )
        if "training" in (*self._array_names, *self._part_names):
            raise TypeError(
                "conv: expected no field of the name training, by which PyTorch knows a layer's "
                f"mode, got that of {self._class.__name__}; rename it"
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = K x + b and log|det K|.

        Parameters
        ----------
        x : tensor, shape (B, C, *spatial)

        Returns
        -------
        z : tensor, shape (B, C, *spatial)
        log_det : tensor, shape (B,)
        """
        return self._call(self._forward, "x", x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x = K^-1 (z - b) and log|det K^-1|.

        The inverse is not judged: ``layer.operator().prepare(shape)`` and `invconv.diagnose` do it.

        Parameters
        ----------
        z : tensor, shape (B, C, *spatial)

        Returns
        -------
        x : tensor, shape (B, C, *spatial)
        log_det : tensor, shape (B,)
        """
        return self._call(self._inverse, "z", z)

    def operator(self) -> ic.InvertibleConv:
        """Return the core's operator of the current parameters, differentiable in them.

        If the parameters are distributed over processes, all processes have to call it.

        Examples
        --------
        >>> from invconv_torch import EmergingConv2d
        >>> list(EmergingConv2d(2).operator().parameters())
        ['first.kernel', 'second.kernel', 'bias']
        """
        return self._current(torch.compiler.is_compiling() or is_tracing(), gathered)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def initialize(self, x: Tensor) -> None:
        """Initialize the actnorms of this operator in turn, each from the images that reach it.

        Their outputs for these images get mean 0 and variance 1 in every channel. Each call sets
        them anew; other parameters, and layers without an actnorm, are left as they are.

        Parameters
        ----------
        x : tensor, shape (B, C, *spatial)

        Raises
        ------
        ValueError
            If a channel is constant or not finite (on a CPU).
        RuntimeError
            If a parametrization has no ``right_inverse``.

        Examples
        --------
        >>> import torch
        >>> from invconv import ActNorm, Chain, PeriodicConv
        >>> from invconv_torch import InvertibleModule
        >>> layer = InvertibleModule(Chain([ActNorm.init(3), PeriodicConv.init(3)]))
        >>> layer.initialize(5 * torch.randn(8, 3, 6, 6, dtype=torch.float64))
        >>> layer.operator()[0].log_scale.max() < -1
        tensor(True)
        """
        require_whole("initialize", self.parameters(), "call it before")
        conv: Any = self._current(False, within=False)
        if not hasattr(conv, "initialize"):
            return
        if autocasting(kind := device_kind("x", x)):
            with torch.autocast(kind, enabled=False):
                self.initialize(self._autocast(x))
            return
        before, places = conv.parameters(), []
        for name, array in conv.initialize(x).parameters().items():
            if array is not before[name]:
                *parts, last = name.split(".")
                module = self
                for one in parts:
                    module = module._modules[one]
                steps = dict(getattr(module, "parametrizations", {}).items()).get(last, ())
                places.append((name, array, module, last, steps))
        fixed = [
            name
            for name, _, module, last, steps in places
            if module._hooks_of(last) or not all(hasattr(step, "right_inverse") for step in steps)
        ]
        if fixed:
            raise RuntimeError(
                f"initialize: expected parameters named {', '.join(fixed)}, which this layer "
                "computes from others, by a parametrization without right_inverse or by a hook"
            )
        for _, array, module, last, steps in places:
            if steps:
                setattr(module, last, array)
            else:
                getattr(module, last).copy_(array)

    def _current(
        self, traced: bool, read: Read | None = None, *, within: bool = True
    ) -> ic.InvertibleConv:
        """Return the operator of the current tensors, each passed through ``read`` if it is given.

        The tensors are put into the operator that was validated last (`Operator` has the protocol);
        code that torch.compile traces validates anew, once. The operator is bounded by ``max_gain``
        unless ``within`` is False.
        """
        own, modules, constants = self._parameters, self._modules, self._class._constant_names
        arrays: dict[str, Any] = {}
        parts, like = [], None
        kinds: list[Any] = []
        for name in self._array_names:
            tensor = own[name] if name in own else self._computed(name)
            integral = name in self._integral
            if name in constants and tensor is not None and not integral:
                # FSDP2's mixed precision casts parameters, not buffers such as the signs of PLU
                tensor = tensor.to((tensor if like is None else like).dtype)
            like = tensor if like is None else like
            value = tensor if read is None or tensor is None else read(tensor)
            arrays[name] = self._integers(name, value) if integral else value
            if tensor is not None:
                # integers: symbols of one trace must not appear in another
                shape = tensor.shape if traced else tuple(map(int, tensor.shape))
                kinds.append((tensor.dtype, tensor.device, shape))
                if integral and not traced:  # new values may be invalid
                    kinds[-1] += (edits_of(tensor),)
        for name in self._part_names:
            parts.append(modules[name]._current(traced, read))
            kinds.append(modules[name]._kinds)
        if traced or kinds != self._kinds:
            for name in () if traced else self._integral:
                self._integers(name, self._buffers[name], check=True)
            named = self._class._part_fields(dict(zip(self._part_names, parts, strict=True)))
            conv: ic.InvertibleConv = self._class._of(**arrays, **named, **self._settings)
            if not traced:
                self._static, self._kinds = conv._primed(), kinds
        if not traced:
            conv = self._static._with(arrays, parts)
        return conv if self._max_gain is None or not within else ic.bounded(conv, self._max_gain)

    def _integers(self, name: str, value: Any, *, check: bool = False) -> Any:
        """Return a constant's integers, from a tensor or from an array of NumPy."""
        xp = namespace(value)
        whole = xp.round(value)
        # an average of equal ones may be off by its rounding
        if check and readable(value) and bool(xp.any(xp.abs(value - whole) > 0.25)):
            raise ValueError(
                f"{name}: expected integers, got an average of different ones; average only "
                f"layers that have the same {name}, or begin the average anew"
            )
        return cast(whole, getattr(xp, dtype_name(self._integral[name])))

    def _save_to_state_dict(self, state: Any, prefix: str, keep_vars: bool) -> None:
        """Save integers as such, as version 1.0 did; ``keep_vars`` asks for the buffers."""
        super()._save_to_state_dict(state, prefix, keep_vars)
        for name in () if keep_vars else self._integral:
            state[prefix + name] = self._integers(name, state[prefix + name], check=True)

    def _load_from_state_dict(self, state: Any, prefix: str, *others: Any) -> None:
        """Load integers into real buffers, also where the state's tensors replace the layer's."""
        for name in self._integral:
            if isinstance(value := state.get(prefix + name), Tensor):
                state[prefix + name] = value.to(_ROUNDED)
        super()._load_from_state_dict(state, prefix, *others)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Convert all tensors, as ``to`` and ``half`` do, but keep the dtype of integers."""
        kept = {name: self._buffers[name] for name in self._integral}
        super()._apply(fn, recurse)
        for name, tensor in kept.items():
            if self._buffers[name].dtype != _ROUNDED:
                self._buffers[name] = tensor.to(self._buffers[name].device)
        return self

    def _computed(self, name: str) -> Any:
        """Return a buffer, or a tensor computed from parameters."""
        for hook in self._hooks_of(name):
            hook(self, ())
        return self._buffers[name] if name in self._buffers else getattr(self, name)

    def _hooks_of(self, name: str) -> list[Any]:
        """Return hooks such as `torch.nn.utils.prune`'s, which set an attribute before a call.

        PyTorch runs them before ``forward`` only, not before ``inverse``, nor for modules of parts.
        """
        hooks = self._forward_pre_hooks.values()
        named = ("name", "_tensor_name")  # weight_norm's and spectral_norm's; prune's
        return [hook for hook in hooks if name in [getattr(hook, n, None) for n in named]]

    def _tensors(self) -> list[Tensor]:
        """Return the current tensors, those of modules inside too."""
        found: list[Any] = []
        modules = [self]
        for module in modules:
            own = module._parameters
            for name in module._array_names:
                found.append(own[name] if name in own else module._computed(name))
            modules += [m for m in module._modules.values() if hasattr(m, "_array_names")]
        return [tensor for tensor in found if tensor is not None]

    def extra_repr(self) -> str:
        """Return channels, sizes and settings as text."""
        shown = [str(self._channels)]
        if hasattr(self, "kernel"):
            shown.append(f"kernel_size={tuple(self.kernel.shape[2:])}")
        settings = self._settings | {"max_gain": self._max_gain}
        shown += [f"{k}={v!r}" for k, v in settings.items() if v is not None]
        if "bias" in self._array_names:
            shown.append(f"bias={self.bias is not None}")
        named = type(self).__name__.startswith(self._class.__name__)
        return ", ".join(shown if named else [self._class.__name__, *shown])

    def _call(self, run: Callable[[Tensor, bool], Pair], name: str, x: Tensor) -> Pair:
        """Run a direction, in the parameters' dtype under autocast, else in the dtype of x."""
        kind = x.device.type if isinstance(x, torch.Tensor) else device_kind(name, x)
        if type(x) not in PLAIN and shared_out(x):
            return _on_shards(self, "inverse" if name == "z" else "forward", name, x)
        tracing = torch.compiler.is_compiling()
        if not tracing and is_tracing():  # a trace would keep numbers of one grid as constants
            raise NotImplementedError(
                "torch.jit.trace of a layer of invconv_torch, with which torch.onnx.export begins "
                "unless told: expected dynamo=True, or torch.export.export"
            )
        if tracing and exporting_to_onnx():
            call = as_batch(self._current(True, within=False), name, x)
            return constant.evaluate(call, self._current(True, values_of), inverse=name == "z")
        if autocasting(kind):
            with torch.autocast(kind, enabled=False):
                return self._call(run, name, self._autocast(x))
        if tracing:
            pair = run(x, True)
        else:
            try:
                pair = run(x, False)
            except (TypeError, ValueError):
                require_alike(name, x, self.operator()._reference()[1])
                raise
        if self._watched:
            self._ran_on = tuple(x.shape)
        return pair

    def _autocast(self, x: Tensor) -> Tensor:
        """Return x in the parameters' dtype, if it has a dtype that autocast may have given it."""
        return x.to(self.operator()._reference()[1].dtype) if x.dtype in AUTOCAST else x

    def _forward(self, x: Tensor, tracing: bool) -> Pair:
        conv = self._current(tracing)
        if conv._inverts_forward or not fits(conv, x):  # an inversion is judged
            return conv.forward_and_log_det(x)
        return evaluate(x, conv)

    def _inverse(self, z: Tensor, tracing: bool) -> Pair:
        kept = None if self.training else self._kept(z)
        if kept is not None and not torch.is_grad_enabled() and fits(kept._conv, z):
            x = kept._state.solve(z)
            log_det = (-kept._state.log_det).expand(z.shape[:1]).clone()
            return x if z.is_contiguous() else laid_out(x, z), log_det
        conv = self._current(tracing)
        call = as_batch(conv, "z", z)
        x, log_det = invert(call.x, call.conv, kept._state if kept else None)
        return call.restore_shape(x), call.restore_batch(log_det)

    def _kept(self, z: Tensor) -> PreparedInverse | None:
        """Return the remembered inverse for a grid, or None if it may not be remembered."""
        tensors = self._tensors()
        if not bare(z) or (forward_level() >= 0 and any(map(has_tangent, (z, *tensors)))):
            return None
        if self._inverses is None:
            self._inverses = RememberedInverses()
        shape = grid_of(self._static or self._current(False), z.shape)  # both know ndim

        def operator() -> ic.InvertibleConv:
            conv = self.operator()
            as_batch(conv, "z", z)  # raises if z does not fit
            return conv

        return self._inverses.find(operator, shape, tensors)

    def train(self, mode: bool = True) -> "InvertibleModule":
        """Set the mode, and forget remembered inverses."""
        if self._inverses is not None:
            self._inverses.forget()
        super().train(mode)
        return self

    def __prepare_scriptable__(self) -> Any:
        """Refuse torch.jit.script, which compiles only a part of Python, too little for us."""
        raise TypeError(f"torch.jit.script cannot compile {type(self).__name__}; {TRACERS}")

    def __getstate__(self) -> dict[str, Any]:
        """Leave remembered inverses out of pickles and copies."""
        return self.__dict__ | {"_inverses": None, "_static": None, "_kinds": None}


class Direction(nn.Module):  # type: ignore[misc]
    """A module whose forward is one direction of a layer, for `functional_call`."""

    def __init__(self, layer: nn.Module, direction: str) -> None:
        super().__init__()
        self.layer, self.direction = layer, direction

    def forward(self, x: Tensor) -> Pair:
        """Run the direction."""
        return getattr(self.layer, self.direction)(x)  # type: ignore[no-any-return]


def _on_shards(layer: nn.Module, direction: str, name: str, x: Any) -> Pair:
    """Run a direction on each process's images of a DTensor, with whole parameters."""
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
    from torch.distributed.tensor.experimental import local_map  # here: they take long to import

    module = Direction(layer, direction)
    state = module.state_dict(keep_vars=True)
    whole, parts = Replicate(), Shard(0)
    if not all(place in (whole, parts) for place in x.placements):
        raise NotImplementedError(
            f"{name}: expected a DTensor of whole images, {whole} or {parts}, got {x.placements}; "
            f"call {name}.redistribute(placements=[Shard(0)])"
        )
    if not all(isinstance(tensor, DTensor) for tensor in state.values()):
        raise TypeError(
            f"{name}: expected a tensor as the layer's parameters are, got a DTensor; call "
            "torch.distributed.tensor.distribute_module(layer, mesh)"
        )
    wholes = tuple(whole for _ in x.placements)
    sums = tuple(Partial() if place == parts else whole for place in x.placements)

    def run(x: Tensor, *tensors: Tensor) -> Pair:
        return functional_call(module, dict(zip(state, tensors, strict=True)), (x,))  # type: ignore[no-any-return]

    return local_map(  # type: ignore[no-any-return]
        run,
        out_placements=(x.placements, x.placements),
        in_placements=(x.placements, *(wholes for _ in state)),
        in_grad_placements=(x.placements, *(sums for _ in state)),
    )(x, *state.values())


def copied(array: Any, device: Any, dtype: Any) -> Tensor:
    """Copy an array; integers keep their dtype."""
    if isinstance(array, torch.Tensor):
        real = array.is_floating_point()
        return array.detach().to(device=device, dtype=dtype if real else None, copy=True)
    values = np.asarray(array, order="C")  # PyTorch takes no negative strides
    real = values.dtype.kind == "f"
    return torch.tensor(values, device=device, dtype=dtype if real else None)


def note_kind(module: Any, state: Any, prefix: str, metadata: dict[str, Any]) -> None:
    """Write a layer's kind into the metadata of its state; a hook of `torch.nn.Module`."""
    metadata["invconv"] = dict(module._kind)


def before_loading(module: Any, state: Any, prefix: str, metadata: Any, *others: Any) -> None:
    """Refuse the state of another kind of layer, and let the next call validate; also a hook."""
    module._kinds, (*_, errors) = None, others
    own, stored = module._kind, metadata.get("invconv", {})
    if any(own.get(name, value) != value for name, value in stored.items()):
        errors.append(
            f"{prefix.removesuffix('.') or 'state_dict'}: expected the state of {_shown(own)}, got "
            f"that of {_shown(stored)}, whose numbers mean another map here; dict(state_dict) says "
            "nothing of its kind and is loaded all the same"
        )


def _shown(kind: dict[str, Any]) -> str:
    return f"{kind['class']}({_settings(kind)})"


def _settings(kind: dict[str, Any]) -> str:
    return ", ".join(f"{n}={v!r}" for n, v in kind.items() if n != "class" and v is not None)
