"""The public names that have a page each: what ``__all__`` of a package lists."""

from __future__ import annotations

import importlib
import inspect
import re
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
        named = {name: None for c in ours for name in vars(c) if name[0] != "_"}
        named = {name: None for name in named if name not in _FOR_AUTHORS}
        return [name for name in named if _is_documented(getattr(self.value, name))]

    def has_example(self, member: str) -> bool:
        """Tell whether a method has an example, once for all classes that inherit it.

        Its own, or one of the class or a base class that calls it; or it refers to such a
        method, or fills in what a library's base class documents. Properties need none.
        """
        classes = [c for c in self.value.__mro__ if member in vars(c)]
        if isinstance(vars(classes[0])[member], property):
            return True
        texts = [getattr(vars(c)[member], "__doc__", None) or "" for c in classes]
        if any(">>> " in text or _REFERENCE.match(text) for text in texts):
            return True
        calls = re.compile(rf">>> .*\.{member}\(")
        if any(calls.search(c.__doc__ or "") for c in self.value.__mro__):
            return True
        return any(c.__module__.partition(".")[0] not in _OURS for c in classes)


# methods that authors of operators write, and nobody calls
_FOR_AUTHORS = {"drawn", "factors", "factors_vjp", "validate", "within"}
_REFERENCE = re.compile(r"See `InvertibleConv\.\w+`")
_OURS = {package.partition(".")[0] for package in PACKAGES}


def _is_documented(member: object) -> bool:
    return callable(member) or isinstance(member, property)


def public(package: str) -> list[Name]:
    """Return the classes and functions that a package offers, in alphabetical order."""
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in sorted(module.__all__, key=str.lower)}
    return [Name(package, n, v) for n, v in values.items() if not inspect.ismodule(v)]
