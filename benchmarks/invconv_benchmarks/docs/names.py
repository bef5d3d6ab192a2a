"""The public names that have a page each: what ``__all__`` of a package lists."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import Any

PACKAGES = {
    "invconv": "any array library",
    "invconv_torch": "PyTorch",
    "invconv_torch.flows": "PyTorch, densities of images",
    "invconv_torch.interop": "PyTorch's flow libraries",
    "invconv_jax": "JAX",
    "invconv_jax.flows": "JAX, densities of images",
    "invconv_jax.interop": "JAX's flow libraries",
}


@dataclass(frozen=True)
class Name:
    """A public class or function, ``package.name``."""

    package: str
    name: str
    value: Any

    @property
    def page(self) -> str:
        """The page's path in the site's sources."""
        return f"api/{self.package}/{self.name}.md"

    @property
    def where(self) -> str:
        """The object's path where it is defined, which is how the generator knows it."""
        return f"{self.value.__module__}.{self.value.__qualname__}"

    @property
    def summary(self) -> str:
        """The docstring's first sentence, as a cell of a table."""
        first = (inspect.getdoc(self.value) or "").partition("\n\n")[0]
        return first.replace("\n", " ").replace("|", r"\|")

    @property
    def members(self) -> list[str]:
        """The public methods and properties that are ours, not those of a library's base class."""
        if not inspect.isclass(self.value):
            return []
        ours = [c for c in self.value.__mro__ if c.__module__.partition(".")[0] in _OURS]
        named = dict.fromkeys(n for c in ours for n in vars(c) if n[0] != "_")
        values = {n: getattr(self.value, n) for n in named if n not in _FOR_AUTHORS}
        return [n for n, v in values.items() if callable(v) or isinstance(v, property)]


# methods that authors of operators write, and nobody calls
_FOR_AUTHORS = {"drawn", "factors", "factors_vjp", "validate", "within"}
_OURS = {package.partition(".")[0] for package in PACKAGES}


def public(package: str) -> list[Name]:
    """Return the classes and functions that a package offers, in alphabetical order."""
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in sorted(module.__all__, key=str.lower)}
    return [Name(package, n, v) for n, v in values.items() if not inspect.ismodule(v)]
