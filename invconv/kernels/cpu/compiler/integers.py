"""Integers and variables of a function in LLVM's representation.

With Python's operators a kernel is written as `here = at + r * rs` instead of calls of an IR
builder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir

Value: TypeAlias = Any
Number: TypeAlias = "Int | int"

I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
POINTER, VOID = ir.PointerType(), ir.VoidType()


class Int:
    """A 64-bit integer of the function that is being written, with Python's operators."""

    def __init__(self, builder: ir.IRBuilder, value: Value) -> None:
        self.builder, self.value = builder, value

    def _other(self, other: Number) -> Value:
        return other.value if isinstance(other, Int) else I64(other)

    def _do(self, operation: str, other: Number) -> Int:
        return Int(self.builder, getattr(self.builder, operation)(self.value, self._other(other)))

    def __add__(self, other: Number) -> Int:
        return self._do("add", other)

    def __sub__(self, other: Number) -> Int:
        return self._do("sub", other)

    def __mul__(self, other: Number) -> Int:
        return self._do("mul", other)

    def __floordiv__(self, other: Number) -> Int:
        """Return self // other of numbers that are not negative."""
        return self._do("udiv", other)

    def __mod__(self, other: Number) -> Int:
        """Return self % other of numbers that are not negative."""
        return self._do("urem", other)

    def over(self, other: Number) -> Int:
        """Return self / other rounded up, of numbers that are not negative."""
        return (self + (other - 1)) // other

    def __neg__(self) -> Int:
        return Int(self.builder, self.builder.neg(self.value))

    def is_(self, relation: str, other: Number) -> Value:
        """Return the truth of ``self relation other``, such as "<"."""
        return self.builder.icmp_signed(relation, self.value, self._other(other))

    def least(self, other: Number) -> Int:
        return self.if_(self.is_("<", other), other)

    def most(self, other: Number) -> Int:
        return self.if_(self.is_(">", other), other)

    def if_(self, condition: Value, otherwise: Number) -> Int:
        """Return self if a condition holds, else another number."""
        chosen = self.builder.select(condition, self.value, self._other(otherwise))
        return Int(self.builder, chosen)


@dataclass(frozen=True)
class Variable:
    """A local variable; LLVM puts it into a register."""

    w: Any  # the writer
    place: Value

    @property
    def value(self) -> Value:
        return self.w.b.load(self.place)

    @property
    def number(self) -> Int:
        """The value now, of an integer."""
        return Int(self.w.b, self.value)

    def set(self, value: Value | Int) -> None:
        self.w.b.store(value.value if isinstance(value, Int) else value, self.place)

    def add_product(self, a: Value, b: Value) -> None:
        self.set(self.w.fma(a, b, self.value))


Arguments = dict[str, Any]  # addresses and integers, by name
Numbers = dict[str, Int]
