"""Tools for authors of operators and of array libraries.

An operator is a list of factors. A class says its arrays by `array` and its parts by `part`, and
gives its factors: each is a `Family` of maps with weights. What else an operator has follows:
values, inverses, log-determinants, all derivatives, files, layers of PyTorch, pytrees of JAX.
`Pointwise` shows a whole class: ``factors`` returns the factors, that which runs first first, and
``factors_vjp`` the gradients by the arrays, from those by the weights of each factor. A factor is a
pair of a family and weights, or a `Factor`, which may run ``inverted``.

`Causal`, `Spectral` and `Exponential` are the families of convolutions. An operator of the library
has them with its settings: ``PeriodicConv(2 * self.kernel).factors()``, which leaves a bias out.

A `Family` of your own is a frozen dataclass of settings (words, numbers, tuples of them), and an
operator takes it by ``Own.of(*settings)``. Of maps that are linear in the weights it has the rules
``apply``, ``gram``, ``factor``, ``transpose``, ``adjoint``, ``shape_of``, and ``pivots`` or
``log_det`` with ``add_log_det_vjp``; all derivatives follow. ``factor`` returns a `Solver`: a map
with a `Plan`. `namespace` and `constant` serve where a library's tracers and devices do. A guide
has a whole one: a causal convolution along any order of the pixels
(benchmarks/guide/check-a-library.md).

A class keeps what it computes from its arrays in a `functools.cached_property`, if anywhere. A copy
with other arrays, as a layer makes for each call, computes it anew; after an edit of an array in
place the old one is still there.

A class may also have ``validate`` (raise unless settings fit), ``transpose``, ``within`` (a rule
for `invconv.bounded`) and ``advice`` (a sentence for `invconv.diagnose`). A part is a factor list
by itself, and needs neither method.

``class Own(InvertibleConv, mixing="own")`` gives the class a word, by which flows make layers of
it: ``invconv_torch.flows.Glow(shape, mixing="own")``.

For an array library, `register_backend` takes a module of native primitives, `ArrayOps` is what its
``ARRAY_OPS`` derives from, and inside `agnostic` every primitive runs as pure array API.
"""

from invconv.arrays.namespaces import ArrayOps, constant, namespace, register_backend
from invconv.arrays.registry import agnostic
from invconv.families.convolutions import Causal, Spectral
from invconv.families.exponential import Exponential
from invconv.families.family import Family
from invconv.families.path import Factor
from invconv.families.pointwise import Circulant, Householder, LogScale, Matrix, Scale, Triangular
from invconv.kernels.primitives import Plan, Solver
from invconv.operators.base.fields import array, part
from invconv.operators.inverse import Transposed
from invconv.operators.pointwise.conv1x1 import Pointwise

__all__ = [
    "ArrayOps",
    "Causal",
    "Circulant",
    "Exponential",
    "Factor",
    "Family",
    "Householder",
    "LogScale",
    "Matrix",
    "Plan",
    "Pointwise",
    "Scale",
    "Solver",
    "Spectral",
    "Transposed",
    "Triangular",
    "agnostic",
    "array",
    "constant",
    "namespace",
    "part",
    "register_backend",
]
