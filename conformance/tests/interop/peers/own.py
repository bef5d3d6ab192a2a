"""The libraries' own classes and test helpers, from the installed packages.

A drop-in and its inverse in the library's own composition are the identity, with log-determinant 0.
Pyro's and NumPyro's tests of the goodness of fit are not among them: of two numbers a sample and
5000 samples they let a density pass that is off by a fifth.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.interop.peers.checks import COMMON, Check, Subject, close


def _identity(s: Subject, found: tuple[Any, Any], z: Any) -> None:
    close(found[0], z)
    close(found[1], np.zeros(s.batch))


def _composed_by_torch(s: Subject) -> None:
    from torch.distributions import ComposeTransform

    z = s.normal(s.batch)
    both = ComposeTransform([s.flow.part, s.flow.part.inv])
    _identity(s, (both(z), both.log_abs_det_jacobian(z, both(z))), z)


def _composed_by_zuko(s: Subject) -> None:
    from zuko.transforms import ComposedTransform

    z, transform = s.normal(s.batch), s.flow.part()
    _identity(s, ComposedTransform(transform, transform.inv).call_and_ladj(z), z)


def _composed_by_nflows(s: Subject) -> None:
    from nflows.transforms import CompositeTransform, InverseTransform

    z = s.normal(s.batch)
    _identity(s, CompositeTransform([s.flow.part, InverseTransform(s.flow.part)])(z), z)


def _composed_by_distrax(s: Subject) -> None:
    import distrax

    z = s.normal(s.batch)
    both = distrax.Chain([s.flow.part, distrax.Inverse(s.flow.part)])
    _identity(s, both.forward_and_log_det(z), z)


def _composed_by_flowjax(s: Subject) -> None:
    from flowjax.bijections import Chain, Invert

    z = s.normal(())
    found = Chain([s.flow.part, Invert(s.flow.part)]).transform_and_log_det(z)
    close(found[0], z)
    close(found[1], np.zeros(()))


def _composed_by_numpyro(s: Subject) -> None:
    from numpyro.distributions.transforms import ComposeTransform

    z = s.normal(s.batch)
    both = ComposeTransform([s.flow.part, s.flow.part.inv])
    _identity(s, (both(z), both.log_abs_det_jacobian(z, both(z))), z)


def _composed_by_bijx(s: Subject) -> None:
    import bijx

    z = s.normal(s.batch)
    both = bijx.Chain(s.flow.part, s.flow.part.invert())
    _identity(s, both.forward(z, np.zeros(s.batch)), z)


def _normflows_flow_test(s: Subject) -> None:
    """Call the test that normflows has for its own flows."""
    from normflows.flows.flow_test import FlowTest

    FlowTest().checkForwardInverse(s.flow.part, s.normal(s.batch), atol=1e-8, rtol=1e-8)


def _freia_numerical_jacobian(s: Subject) -> None:
    """Compare with FrEIA's log-determinant by differences, both ways."""
    from FrEIA import framework

    from invconv_torch.interop import FreiaModule

    x = s.normal(s.batch)
    start = framework.InputNode(*x.shape[1:])
    node = framework.Node(start, FreiaModule, {"conv": s.flow.part[0].layer})
    flow = framework.GraphINN([start, node, framework.OutputNode(node)])
    for way in (False, True):
        numerical = flow.log_jacobian_numerical(x, rev=way, h=1e-5)
        close(flow(x, rev=way)[1], numerical, atol=1e-6)


OWN: dict[str, Check] = {
    "torch": _composed_by_torch,
    "pyro": _composed_by_torch,
    "zuko": _composed_by_zuko,
    "nflows": _composed_by_nflows,
    "normflows": _normflows_flow_test,
    "FrEIA": _freia_numerical_jacobian,
    "bijx": _composed_by_bijx,
    "distrax": _composed_by_distrax,
    "flowjax": _composed_by_flowjax,
    "numpyro": _composed_by_numpyro,
}


def checks(library: str) -> tuple[Check, ...]:
    """Return what is asked of a library's drop-in."""
    return *COMMON, OWN[library]
