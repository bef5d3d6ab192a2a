"""The arrays of an operator by name, as they follow from the fields of its class."""

from __future__ import annotations

from typing import Any

import array_api_compat as compat

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, describe
from invconv.operators.base.fields import Fields
from invconv.trust.condition import ConditionCache


class Parametrised(Fields, abstract=True):
    """The arrays of an operator by name."""

    @derived
    def _conditions(self) -> ConditionCache:
        return ConditionCache()

    def __getstate__(self) -> dict[str, Any]:
        """Return a snapshot of the fields without conditions; other threads may add fields."""
        fields = dict(vars(self))
        return {n: v for n, v in fields.items() if n not in ("_conditions", "_turned")}

    def _own(self) -> dict[str, Array]:
        """Return the operator's own arrays, constants included, but no absent ones."""
        own = ((name, getattr(self, name)) for name in self._specs)
        return {name: value for name, value in own if value is not None}

    def parameters(self) -> dict[str, Array]:
        """Return the trained arrays by name: "kernel", "first.kernel", "0.weight".

        A bias that is absent is left out.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import Chain, Conv1x1, EmergingConv
        >>> mix = EmergingConv.init(2, rng=np.random.default_rng(0))
        >>> list(Chain([Conv1x1(np.eye(2)), mix]).parameters())
        ['0.weight', '1.first.kernel', '1.second.kernel']
        """
        inner = {
            f"{prefix}.{name}": array
            for prefix, part in self._parts().items()
            for name, array in part.parameters().items()
        }
        own = {name: getattr(self, name) for name in self._array_names}
        return inner | {name: array for name, array in own.items() if array is not None}

    def _names(self) -> list[str]:
        """Return all names that `replace` accepts."""
        inner = [f"{p}.{name}" for p, part in self._parts().items() for name in part._names()]
        return [*inner, *self._specs]

    def _arrays(self) -> dict[str, Array]:
        """Return all arrays by name, constants included."""
        inner = {
            f"{p}.{n}": a for p, part in self._parts().items() for n, a in part._arrays().items()
        }
        return inner | self._own()

    @derived
    def _parameter_names(self) -> tuple[str, ...]:
        return tuple(self.parameters())

    def _trained(self, arrays: list[Array]) -> None:
        """Append the trained arrays to a list, in the order of `parameters`."""
        if self._part_names:
            for part in self._parts().values():
                part._trained(arrays)
        for name in self._array_names:
            if (array := getattr(self, name)) is not None:
                arrays.append(array)

    def _reference(self) -> tuple[str, Array]:
        """Return the name and value of one array; all have its library, dtype and device."""
        if self._part_names:
            prefix = self._part_names[0]
            part = getattr(self, prefix)
            if isinstance(part, tuple):
                prefix, part = "0", part[0]
            name, array = part._reference()
            return f"{prefix}.{name}", array
        for name in self._array_names:  # a generator would take twice as long
            if (array := getattr(self, name)) is not None:
                return name, array
        raise AssertionError("an operator has an array of its own, or a part")

    def __repr__(self) -> str:
        """Show the shapes of the arrays instead of their values."""
        shown = []
        for name in (*self._part_names, *self._specs, *self._setting_names):
            value = getattr(self, name)
            # under JAX a tree of this structure may hold any object in the place of an array
            is_array = compat.is_array_api_obj(value)
            text = f"<{describe(value)}>" if is_array else repr(value)
            shown.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"
