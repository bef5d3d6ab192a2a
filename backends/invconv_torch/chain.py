"""Chains of layers: plain, or with inputs that are recomputed by inversion for the gradient.

A. N. Gomez, M. Ren, R. Urtasun, R. B. Grosse, The Reversible Residual Network: Backpropagation
Without Storing Activations, NeurIPS 2017.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from itertools import groupby
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.func import functional_call

import invconv as ic
from invconv.arrays.errors import of_one_list
from invconv.arrays.namespaces import Shape, readable
from invconv.operators.base.calls import grid_of
from invconv.operators.base.judgement import require_invertible
from invconv.trust.round_trip import noise_like, relative_error
from invconv_torch.module import Direction, InvertibleModule
from invconv_torch.native.host import bare, device_kind, owned, require_whole
from invconv_torch.precision import autocasting
from invconv_torch.private import get_interpreter_stack

Place: TypeAlias = tuple[int, tuple[str, ...]]  # number of a layer, and names of a weight in it
Gradients: TypeAlias = dict[Place, Tensor | None]


class Chain(nn.ModuleList):  # type: ignore[misc]
    """Layers one after the other, as `torch.nn.Sequential` for layers with log-determinants.

    `invconv.save` and `invconv.diagnose` take a chain as they take a layer, if each of its layers
    holds an operator: `Squeeze` and couplings do not. `invconv_torch.load` returns a saved chain as
    one `InvertibleModule`, with the same numbers.

    Parameters
    ----------
    layers : iterable of nn.Module
        At least one; each with ``forward(x) -> (z, log_det)`` and ``inverse(z) -> (x, log_det)``,
        one log-determinant a sample: layers of this package, couplings, ...

    Raises
    ------
    TypeError, ValueError
        If ``layers`` is empty, or has an object that is no such module.

    Examples
    --------
    >>> import torch
    >>> from invconv import diagnose
    >>> from invconv_torch import ActNorm, Chain, EmergingConv2d
    >>> chain = Chain([ActNorm(3), EmergingConv2d(3, mixing="qr")])
    >>> z, log_det = chain(torch.zeros(2, 3, 8, 8))
    >>> chain.inverse(z)[0].shape, log_det.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2]))
    >>> diagnose(chain, (8, 8)).judgements["float32"].error < 1e-4, len(chain.operator())
    (True, 2)
    """

    @partial(of_one_list, items="layers")
    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__(invertible(layers).values())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the sum of the log-determinants, one per sample."""
        return _one_after_another(self, x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and the sum of the log-determinants of the inverses."""
        return _one_after_another([layer.inverse for layer in reversed(self)], z)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def initialize(self, x: Tensor) -> None:
        """Call ``initialize`` of each layer that has one, with the images that reach the layer.

        Examples
        --------
        >>> import torch
        >>> from invconv_torch import ActNorm, Chain
        >>> chain = Chain([ActNorm(3)])
        >>> chain.initialize(5 * torch.randn(8, 3, 6, 6))
        >>> bool(chain[0].log_scale.max() < -1)
        True
        """
        for layer in self:
            if hasattr(layer, "initialize"):
                layer.initialize(x)
            x, _ = layer(x)

    def operator(self) -> ic.Chain:
        """Return the core's chain of the current parameters, differentiable in them.

        Raises
        ------
        TypeError
            If a layer holds no operator, as `Squeeze` and couplings.
        """
        for i, layer in enumerate(self):
            if not hasattr(layer, "operator"):
                raise TypeError(
                    "layers: expected layers that hold an operator, such as EmergingConv2d, got "
                    f"{type(layer).__name__} at {i}"
                )
        return ic.Chain([layer.operator() for layer in self])


def _one_after_another(
    maps: Iterable[Callable[[Tensor], tuple[Tensor, Tensor]]], x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the composition of maps at x, and the sum of their log-determinants."""
    log_dets = []
    for run in maps:
        x, log_det = run(x)
        log_dets.append(log_det)
    return x, sum(log_dets[1:], start=log_dets[0])


def invertible(layers: Any) -> dict[Any, nn.Module]:
    """Return a list or mapping of layers by number or name; raise unless each has an inverse."""
    modules = "modules with forward(x) -> (z, log_det) and inverse(z) -> (x, log_det)"
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers: expected {modules}, in a list, got one {type(layers).__name__}")
    named = dict(layers.items() if hasattr(layers, "items") else enumerate(layers))
    if not named:
        raise ValueError(f"layers: expected {modules}, at least one, got none")
    for name, layer in named.items():
        if not (isinstance(layer, nn.Module) and callable(getattr(layer, "inverse", None))):
            hint = "; InvertibleModule(conv) is one" if isinstance(layer, ic.InvertibleConv) else ""
            kind = type(layer).__name__
            raise TypeError(f"layers: expected {modules}, got {kind} at {name}{hint}")
    return named


class ReversibleChain(Chain):
    """A chain of layers that keeps only its input and output for the gradient.

    Memory does not grow with depth. The backward pass inverts each layer, runs it again and
    differentiates it: about twice the time. Gradients agree with the stored version up to rounding,
    which the condition of the layers amplifies. A layer whose inverse cannot be right is refused at
    the first call on a grid. Every backward pass checks that inversion gives back each image, and
    also noise that it sends through each row of adjacent layers of this package. If it does not,
    the pass raises; on an accelerator gradients by the weights and by the lost images become NaN.
    The check is to two digits, relative to an image's largest entry and to its norm: it misses an
    error in small entries, and one in layers of other packages if the layers before shrink it.
    torch.compile runs the chain with breaks in the graph, not with ``fullgraph=True``.

    Parameters
    ----------
    layers : iterable of nn.Module
        As for `Chain`; deterministic.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import ActNorm, EmergingConv2d, ReversibleChain
    >>> flow = ReversibleChain([ActNorm(3), EmergingConv2d(3), EmergingConv2d(3)])
    >>> z, log_det = flow(torch.zeros(2, 3, 8, 8))
    >>> log_det.mean().backward()
    >>> flow.inverse(z)[0].shape, len(flow.operator())
    (torch.Size([2, 3, 8, 8]), 3)
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the sum of the log-determinants, one per sample.

        Raises
        ------
        ValueError
            If a layer's inverse cannot be right on this grid, with the layer's name.
        """
        if torch.compiler.is_exporting():  # a program without gradients
            return super().forward(x)
        if not torch.compiler.is_compiling() and get_interpreter_stack() is not None:
            raise NotImplementedError(
                "torch.func transforms no ReversibleChain, nor a flow with reversible=True: "
                "expected a Chain of the same layers, or reversible=False"
            )
        named = [_names_of_weights(layer) for layer in self]
        places = [(i, tuple(names)) for i, each in enumerate(named) for names in each.values()]
        weights = [weight for each in named for weight in each]
        if torch.is_grad_enabled():
            advice = "fully_shard the chain as one, not its layers"
            require_whole("ReversibleChain", weights, advice)
        return _Reversible.apply(self, places, x, *weights)  # type: ignore[no-any-return]

    def _judge(self, i: int, x: Tensor) -> None:
        """Raise ValueError if layer i cannot invert on the grid of its input; judge once per grid.

        The last of several layers of this package in a row is also judged with those before it.
        """
        key = i, id(self[i]), tuple(x.shape[1:])
        seen: set[tuple[int, int, Shape]] = self.__dict__.setdefault("_seen", set())
        if key in seen or not bare():
            return
        for row in _rows(self):
            if i in row:
                with torch.no_grad():
                    operators = [self[k].operator() for k in row]
                    grid = grid_of(operators[0], x.shape)
                    require_invertible(f"layer {i}", operators[row.index(i)], grid)
                    if len(row) > 1 and i == row[-1]:
                        require_invertible(f"layers {row[0]} to {i}", ic.Chain(operators), grid)
        seen.add(key)


class _Reversible(Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, chain: ReversibleChain, places: list[Place], x: Tensor, *weights: Tensor
    ) -> Any:
        ctx.layers, ctx.places = list(chain), places
        ctx.buffers = [dict(layer.named_buffers()) for layer in chain]
        kind, ctx.autocast = device_kind("x", x), nullcontext()
        if torch.amp.is_autocast_available(kind):
            # before PyTorch 2.11 recorded code uses the cache's cast weights, without a gradient
            now = torch.get_autocast_dtype(kind), autocasting(kind)
            ctx.autocast = torch.autocast(kind, *now, cache_enabled=False)
        z, log_dets = x, []
        with ctx.autocast:
            for i, layer in enumerate(chain):
                chain._judge(i, z)
                z, log_det = layer(z)
                log_dets.append(log_det)
        z, total = owned(z), owned(sum(log_dets[1:], start=log_dets[0]))
        if not total.ndim:
            raise ValueError(
                "x: expected a batch, with a log-determinant a sample, got one log-determinant of "
                f"the shape {tuple(x.shape)}; one image is x[None]"
            )
        ctx.save_for_backward(x, z, *weights)
        return z, total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, z_bar: Tensor, log_det_bar: Tensor) -> tuple[Any, ...]:
        start, end, *weights = ctx.saved_tensors
        steps = _Steps(ctx, weights)
        gradients: Gradients = {}
        z, count = end, len(end)
        begins = {row[0]: row for row in _rows(ctx.layers)}
        ends = {row[-1]: row for row in begins.values()}
        right: Any = True
        for i in reversed(range(len(ctx.layers))):
            if i in ends:  # noise is inverted beside the images
                noise = sent = noise_like(z)
                for k in ends[i]:
                    sent = steps.run(k, sent)[0]
                z = torch.cat([z, sent])
            z = steps.run(i, z, back=True)[0]
            z_bar, more = steps.pull_back(i, z[:count], (z_bar, log_det_bar))
            gradients |= more
            if i in begins:
                input_name = f"noise that was recomputed by layers {i} to {begins[i][-1]}"
                right = right & _comes_back(input_name, noise, z[count:], sent)
                z = z[:count]
        right = right & _comes_back("input that was recomputed for the gradient", start, z, end)
        bars = [gradients.get(place) for place in ctx.places]
        if not readable(z):
            each, every = right.reshape(-1, *(1 for _ in z.shape[1:])), right.all()
            z_bar = torch.where(each, z_bar, torch.nan)
            bars = [g if g is None else torch.where(every, g, torch.nan) for g in bars]
        return None, None, z_bar, *bars


class _Steps:
    """Layers that run, forward or backward, with the weights and buffers of the forward pass."""

    def __init__(self, ctx: Any, weights: Iterable[Tensor]) -> None:
        self.layers, self.autocast = ctx.layers, ctx.autocast
        # the modules may hold other tensors by now, and the saved weights may be copies
        self.buffers = ctx.buffers
        self.weights: list[dict[tuple[str, ...], Tensor]] = [{} for _ in ctx.layers]
        wanted = ctx.needs_input_grad[3:]
        for (i, names), weight, trained in zip(ctx.places, weights, wanted, strict=True):
            self.weights[i][names] = weight.detach().requires_grad_(trained)

    def run(self, i: int, x: Tensor, *, back: bool = False) -> tuple[Tensor, Tensor]:
        run = Direction(self.layers[i], "inverse" if back else "__call__")
        weights = {name: weight for names, weight in self.weights[i].items() for name in names}
        tensors = {f"layer.{name}": t for name, t in (self.buffers[i] | weights).items()}
        with self.autocast:
            return functional_call(run, tensors, (x,), tie_weights=False)  # type: ignore[no-any-return]

    def pull_back(self, i: int, x: Tensor, bars: Iterable[Tensor]) -> tuple[Tensor, Gradients]:
        """Return the gradients by the input x of layer i, and by its weights."""
        trained = {names: w for names, w in self.weights[i].items() if w.requires_grad}
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            outputs = zip(self.run(i, x), bars, strict=True)
        outs, bars = zip(*((o, b) for o, b in outputs if o.requires_grad), strict=True)
        x_bar, *more = torch.autograd.grad(outs, (x, *trained.values()), bars, allow_unused=True)
        return x_bar, {(i, names): g for names, g in zip(trained, more, strict=True)}


def _names_of_weights(layer: nn.Module) -> dict[Tensor, list[str]]:
    """Return each weight with its names: one in each module that has it."""
    named: dict[Tensor, list[str]] = {}
    for prefix, module in layer.named_modules():
        # a replica of DataParallel has its weights elsewhere
        own = module._parameters | getattr(module, "_former_parameters", {})
        for name, weight in own.items():
            if weight is not None:
                named.setdefault(weight, []).append(f"{prefix}.{name}" if prefix else name)
    return named


def _rows(layers: Iterable[nn.Module]) -> list[list[int]]:
    """Return the numbers of each row of adjacent layers of this package."""
    ours = [i for i, layer in enumerate(layers) if isinstance(layer, InvertibleModule)]
    return [[i for _, i in run] for _, run in groupby(enumerate(ours), lambda p: p[1] - p[0])]


def _comes_back(name: str, x: Tensor, again: Tensor, z: Tensor) -> Tensor:
    """Return the mask of images that came back; raise RuntimeError if a readable one did not."""
    error, right = relative_error(x, again, z)
    if readable(x) and not bool(right.all()):
        raise RuntimeError(
            f"ReversibleChain: the {name} differs from the {name.partition(' ')[0]} by "
            f"{float(error[~right].max()):.1e} of its size, so the gradient would be wrong: a "
            "layer's inverse is lost. Use the layers without ReversibleChain, or with max_gain"
        )
    return right
