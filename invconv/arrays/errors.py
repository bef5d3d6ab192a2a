"""The library's own errors and its warning.

`SingularConvError` is raised by `operators.base.linear`, `IllConditionedWarning` issued by
`operators.base.checks`, `InvalidFileError` raised by `files`.
"""


class SingularConvError(ValueError):
    """The operator is exactly singular, so it has no inverse; its log-determinant is -inf."""


class InvalidFileError(ValueError):
    """A file is damaged, or is none that `invconv.save` wrote; the message says which and why."""


class IllConditionedWarning(UserWarning):
    """The inverse cannot be right in this precision, though the log-determinant may look fine.

    Issued where an entry of x = K^-1 y is off by more than 1e-2 of the largest entry. The residual
    K x - y stays tiny even then, so that is measured: samples are solved in two precisions.
    """
