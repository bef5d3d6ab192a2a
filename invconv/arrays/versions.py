"""Which versions of a library serve: others are refused by a sentence, not by a wrong number."""

import re
from typing import NamedTuple


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, (2, 13, 0) of "2.13.0+cpu"."""
    return tuple(int(number) for number in re.findall(r"(?:^|\.)(\d+)", version.partition("+")[0]))


class Versions(NamedTuple):
    """The versions of a library that serve an adapter."""

    title: str
    package: str
    oldest: str
    newest: str

    def require(self, found: str) -> None:
        if release(found) < release(self.oldest):
            raise self.refusal(found)

    def refusal(self, found: str, lack: object = None) -> ImportError:
        """Return the error for a version that is too old, or lacks something private to it."""
        why = "" if lack is None else f", which lacks a private part ({lack})"
        return ImportError(
            f"invconv needs {self.title} {self.oldest} or later, of which {self.newest} is the "
            f"newest that was tested, and got {found}{why}: "
            f"pip install '{self.package}>={self.oldest},<={self.newest}'"
        )
