"""The adapters import no flow library or compiler unasked, and say what is missing."""

from __future__ import annotations

from tests.interop.peers.jax_flows import JAX
from tests.interop.peers.torch_flows import TORCH
from tests.programs import python

FLOW_LIBRARIES = {*TORCH, *JAX} - {"torch"}


def test_adapters_import_no_flow_library_and_no_compiler() -> None:
    code = (
        "import sys, invconv_torch, invconv_jax;"
        "invconv_torch.interop, invconv_jax.interop;"
        "print(*sys.modules)"
    )
    loaded = set(python("-c", code).stdout.split())
    assert {"torch", "jax"} <= loaded
    late = {"equinox", "sympy", "tensorflow_probability", "torch._dynamo", "torch._inductor"}
    assert loaded & (FLOW_LIBRARIES | late) == set()


def test_a_missing_library_is_named() -> None:
    code = """
import sys
sys.modules |= dict.fromkeys(("nflows", "pyro", "distrax"))  # None: not to be imported
import invconv_torch.interop as of_torch
import invconv_jax.interop as of_jax
for package, name in (
    (of_torch, "NflowsTransform"), (of_torch, "PyroTransform"), (of_jax, "DistraxBijector")
):
    try: getattr(package, name)
    except ImportError as error: print(error)
"""
    messages = python("-c", code).stdout.splitlines()
    pips = {"NflowsTransform": "nflows", "PyroTransform": "pyro-ppl", "DistraxBijector": "distrax"}
    for message, (name, pip) in zip(messages, pips.items(), strict=True):
        assert message.startswith(f"{name} needs {pip}, which cannot be imported (")
        assert f"pip install {pip}, or 'invconv[interop]'" in message
