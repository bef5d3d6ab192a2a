"""The library's own errors and its warning, and the refusal of unsupported versions."""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class CommandError(ValueError):
    """A command cannot do its work with the options or files it was given; the message says why.

    The command line prints the message alone; any other ValueError keeps its traceback.
    """


@contextmanager
def as_command_errors() -> Iterator[None]:
    """Raise CommandError in place of a ValueError or TypeError about the user's settings."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from None


class SingularConvError(ValueError):
    """The operator is exactly singular, so it has no inverse; its log-determinant is -inf.

    Examples
    --------
    >>> import numpy as np
    >>> import invconv
    >>> conv = invconv.Conv1x1(np.ones((2, 2)))
    >>> float(conv.log_det((4, 4)))
    -inf
    >>> try:
    ...     conv.inverse(np.zeros((1, 2, 4, 4)))
    ... except invconv.SingularConvError as error:
    ...     print(str(error).partition(" (")[0])
    Conv1x1 is exactly singular on a grid of 4 x 4
    """


class InvalidFileError(ValueError):
    """A file is damaged, or was not written by `invconv.save`; the message says which and why.

    Examples
    --------
    >>> import invconv
    >>> try:
    ...     invconv.load("/dev/null")
    ... except invconv.InvalidFileError as error:
    ...     print(error)
    /dev/null: not an ordinary file
    """


class IllConditionedWarning(UserWarning):
    """The inverse cannot be right in this precision, though the log-determinant may look fine.

    Issued where an entry of x = K^-1 y is off by more than 1e-2 of the largest entry. The residual
    K x - y stays tiny even then, so the error itself is measured, by round trips of random images.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> import invconv
    >>> kernel = np.asarray([[[1.0, -3.0]]], dtype=np.float32)  # the inverse grows 3-fold per pixel
    >>> with warnings.catch_warnings(record=True) as issued:
    ...     warnings.simplefilter("always")
    ...     x = invconv.AutoregressiveConv(kernel).inverse(np.ones((1, 30), np.float32))
    >>> issued[0].category.__name__
    'IllConditionedWarning'
    """


def of_one_list(init: Callable[..., None], items: str) -> Any:
    """Return an ``__init__`` that takes one list, and says so if items are passed one by one."""

    @functools.wraps(init)
    def __init__(self: Any, *given: Any, **named: Any) -> None:
        if len(given) > 1:
            name = type(self).__name__
            raise TypeError(f"{name} takes one list of {items}: {name}([a, b])")
        init(self, *given, **named)

    return __init__


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, (2, 13, 0) for "2.13.0+cpu"."""
    return tuple(int(number) for number in re.findall(r"(?:^|\.)(\d+)", version.partition("+")[0]))


class Versions(NamedTuple):
    """The versions of a library that an adapter supports."""

    title: str
    package: str
    oldest: str
    newest: str

    def require(self, found: str) -> None:
        if release(found) < release(self.oldest):
            raise self.refusal(found)

    def refusal(self, found: str, lack: object = None) -> ImportError:
        """Return the error for a version that is too old, or lacks a private part."""
        why = "" if lack is None else f", which lacks a private part ({lack})"
        return ImportError(
            f"invconv needs {self.title} {self.oldest} or later, of which {self.newest} is the "
            f"newest that was tested, and got {found}{why}: "
            f"pip install '{self.package}>={self.oldest},<={self.newest}'"
        )
