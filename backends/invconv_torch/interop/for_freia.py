"""A layer as a module of FrEIA (Visual Learning Lab Heidelberg)."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from FrEIA.modules import InvertibleModule as Base
from torch import Tensor

from invconv.operators.dropins import require_kept
from invconv_torch.interop.for_distributions import ConvOrModule, layer_of, ndim_of, viewable
from invconv_torch.module import InvertibleModule

Dims: TypeAlias = tuple[int, ...]


class FreiaModule(Base):  # type: ignore[misc]
    """A layer for ``FrEIA.framework.SequenceINN`` and ``GraphINN``.

    With ``rev=False`` it maps data to latents: the layer's own direction.

    Parameters
    ----------
    dims_in : sequence with one tuple (C, *spatial)
        The input's shape, which FrEIA passes.
    dims_c : sequence, optional
        Must be empty: the layer takes no conditions.
    conv : layer or InvertibleConv
        It must keep the shape of a sample.

    Examples
    --------
    >>> import torch
    >>> from FrEIA.framework import SequenceINN
    >>> from invconv_torch import EmergingConv2d
    >>> from invconv_torch.interop import FreiaModule
    >>> flow = SequenceINN(3, 8, 8)
    >>> flow.append(FreiaModule, conv=EmergingConv2d(3))
    >>> z, log_det = flow(torch.zeros(2, 3, 8, 8))
    """

    def __init__(
        self, dims_in: Iterable[Dims], dims_c: Iterable[Dims] | None = None, *, conv: ConvOrModule
    ) -> None:
        super().__init__(dims_in, dims_c)
        layer = layer_of(conv)
        ndim, shapes = ndim_of(layer), [tuple(dims) for dims in self.dims_in]
        if len(shapes) != 1 or (ndim is not None and len(shapes[0]) != ndim + 1):
            axes = "spatial axes" if ndim is None else f"{ndim} spatial axes"
            raise ValueError(f"dims_in: expected one input (C, *spatial) with {axes}, got {shapes}")
        channels = layer.operator().channels if isinstance(layer, InvertibleModule) else None
        if channels not in (None, shapes[0][0]):
            raise ValueError(f"dims_in: expected {channels} channels, got {shapes[0]}")
        if self.dims_c:
            raise ValueError(f"dims_c: expected no conditions, got {self.dims_c}")
        self.layer = layer

    def forward(
        self,
        x_or_z: Sequence[Tensor],
        c: Iterable[Tensor] | None = None,
        rev: bool = False,
        jac: bool = True,
    ) -> tuple[tuple[Tensor], Tensor]:
        """Return ((z,), log|det K|), or ((x,), log|det K^-1|) if ``rev``, one number per sample."""
        (x,) = x_or_z
        y, log_det = viewable(self.layer.inverse(x) if rev else self.layer(x))
        require_kept(tuple(x.shape[1:]), y)
        # a copy: FrEIA's HaarDownsampling edits its input, which an inverse's derivative needs
        return (y.clone() if rev and y.requires_grad else y,), log_det

    def output_dims(self, input_dims: list[Dims]) -> list[Dims]:
        """Return the shapes of the outputs, which are the inputs' shapes."""
        return input_dims
