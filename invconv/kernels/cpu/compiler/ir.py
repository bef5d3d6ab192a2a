"""A writer of functions in LLVM's intermediate representation: loops, numbers, vectors.

Pointers have no type of their own, but those of local variables: every other load states it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Self, TypeAlias

from llvmlite import ir

from invconv.kernels.cpu.compiler.target import Target

Value: TypeAlias = Any
Number: TypeAlias = "Int | int"

I1, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
POINTER, VOID = ir.PointerType(), ir.VoidType()
Arguments = dict[str, Any]  # addresses and integers, by name
Numbers = dict[str, "Int"]
# names of a function's pointers, of its integers, and of those that a call may leave out
Signature = tuple[str, str] | tuple[str, str, str]


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

    w: Writer
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


def _type_of(signature: Signature, result: Any = VOID) -> Any:
    pointers, integers = (len(names.split()) for names in signature[:2])
    return ir.FunctionType(result, [POINTER] * pointers + [I64] * integers)


class Writer:
    """Writes a module of functions on float32 or float64 numbers, for one processor."""

    def __init__(self, target: Target, itemsize: int) -> None:
        self.module = ir.Module()
        self.module.triple = target.triple
        self.b: Any = None  # the builder of the function that is being written
        self.signatures: dict[str, Signature] = {}  # of the functions that were written
        self.target, self.itemsize, self.suffix = target, itemsize, f"f{8 * itemsize}"
        self.lanes = target.lanes(itemsize)  # how many numbers a vector has
        # types of a number, and of a vector of them
        self.number: Any = ir.FloatType() if itemsize == 4 else ir.DoubleType()
        self.vector: Any = ir.VectorType(self.number, self.lanes)

    def integer(self, value: Any) -> Int:
        """Return an integer, a constant or a value, as `Int`."""
        if isinstance(value, Int):
            return value
        return Int(self.b, value if isinstance(value, ir.Value) else I64(value))

    @contextmanager
    def function(
        self,
        name: str,
        pointers: str,
        integers: str = "",
        optional: str = "",
        *,
        inside: bool,
        result: Any = VOID,
    ) -> Iterator[Arguments]:
        """Write a function, of pointers and then integers, inside this context.

        Yields the arguments by name. A function that is only called ``inside`` the module may be
        inlined. A result, if the function has one, is zero.
        """
        function = ir.Function(self.module, _type_of((pointers, integers), result), name)
        if inside:
            function.linkage = "internal"
        self.b = ir.IRBuilder(function.append_basic_block())
        self.signatures[name] = pointers, integers, optional
        given = dict(zip(f"{pointers} {integers}".split(), function.args, strict=True))
        yield given | {n: self.integer(given[n]) for n in integers.split()}
        self.b.ret_void() if result == VOID else self.b.ret(ir.Constant(result, None))

    @contextmanager
    def loop(self, start: Number, stop: Number, step: Number = 1) -> Iterator[Int]:
        """Write the body of ``for i in range(start, stop, step)``, for a step > 0."""
        i = self.new(start)
        test, body, after = (self.b.function.append_basic_block() for _ in range(3))
        self.b.branch(test)
        self.b.position_at_end(test)
        self.b.cbranch(i.number.is_("<", stop), body, after)
        self.b.position_at_end(body)
        now = i.number
        yield now
        i.set(now + step)
        self.b.branch(test)
        self.b.position_at_end(after)

    def variable(self, kind: Any) -> Value:
        """Return the address of new local memory."""
        with self.b.goto_entry_block():
            return self.b.alloca(kind)

    def new(self, value: Value | Number) -> Variable:
        value = value if isinstance(value, ir.Value) else self.integer(value).value
        variable = Variable(self, self.variable(value.type))
        variable.set(value)
        return variable

    def call(self, name: str, result: Any, *arguments: Value) -> Value:
        """Call a function of the module, or an intrinsic, by its name."""
        function = self.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(result, [a.type for a in arguments])
            function = ir.Function(self.module, kind, name)
        return self.b.call(function, arguments)

    def call_inside(
        self, name: str, record: Numbers | None = None, /, **given: Value | Number
    ) -> None:
        """Call a function that `function` wrote, with arguments as in `ordered`."""
        arguments = self.ordered(self.signatures[name], record or {}, given)
        self.b.call(self.module.globals[name], arguments)

    def call_outside(
        self,
        address: Value,
        signature: Signature,
        record: Numbers | None = None,
        /,
        **given: Value | Number,
    ) -> None:
        """Call a function of another module, with arguments as in `ordered`."""
        arguments = self.ordered(signature, record or {}, given)
        self.b.call(self.typed(address, _type_of(signature)), arguments)

    def ordered(
        self, signature: Signature, record: Numbers, given: dict[str, Value | Number]
    ) -> list[Value]:
        """Return the arguments of a call: those given, then those of a record, by name.

        Optional ones are zero where neither has them. A given name that the function does not have,
        and a missing one, raise TypeError.
        """
        pointers, integers, *optional = (names.split() for names in signature)
        zeros = dict.fromkeys(pointers, ir.Constant(POINTER, None)) | dict.fromkeys(integers, 0)
        if unknown := given.keys() - zeros.keys():
            raise TypeError(f"expected arguments named {', '.join(zeros)}, got {sorted(unknown)}")
        known = {name: zeros[name] for names in optional for name in names} | record | given
        if missing := zeros.keys() - known.keys():
            raise TypeError(f"expected arguments {sorted(missing)} too, got {', '.join(known)}")
        return [known[name] for name in pointers] + [self.integer(known[n]).value for n in integers]

    def address(self, number: Number) -> Value:
        return self.b.inttoptr(self.integer(number).value, POINTER)

    def typed(self, address: Value, kind: Any) -> Value:
        """Return a typed address, which indirect calls and atomic stores need."""
        return self.b.inttoptr(self.b.ptrtoint(address, I64), kind.as_pointer())

    def at(self, pointer: Value, place: Number) -> Value:
        """Return the address of a number of an array."""
        return self.b.gep(pointer, [self.integer(place).value], source_etype=self.number)

    def entries(self, pointer: Value, place: Number) -> Value:
        """Return the address of an entry of an array of integers."""
        return self.b.gep(pointer, [self.integer(place).value], source_etype=I64)

    def entry(self, pointer: Value, place: Number) -> Int:
        """Return an entry of an array of integers."""
        return self.integer(self.b.load(self.entries(pointer, place), typ=I64))

    def record(self, kind: type, pointer: Value, start: Number = 0) -> Numbers:
        """Return the numbers of a record, a dataclass, in an array of integers."""
        first = self.integer(start)
        return {f.name: self.entry(pointer, first + i) for i, f in enumerate(fields(kind))}

    def link(self, pointer: Value, place: int) -> Value:
        """Return an entry of an array of addresses."""
        return self.b.load(self.b.gep(pointer, [I64(place)], source_etype=POINTER), typ=POINTER)

    def load(self, pointer: Value, place: Number, kind: Any = None) -> Value:
        """Return the vector, or something of another kind, that starts at a place."""
        loaded = self.b.load(self.at(pointer, place), typ=kind or self.vector)
        loaded.align = self.itemsize
        return loaded

    def store(self, value: Value, pointer: Value, place: Number) -> None:
        self.b.store(value, self.at(pointer, place), align=self.itemsize)

    def move(self, target: Value, source: Value, count: Int) -> None:
        """Copy numbers between arrays that may overlap."""
        size = (count * self.itemsize).value
        self.call("llvm.memmove.p0.p0.i64", VOID, target, source, size, I1(0))

    def clear(self, target: Value, count: Int) -> None:
        self.call("llvm.memset.p0.i64", VOID, target, I8(0), (count * self.itemsize).value, I1(0))

    def narrowed(self, lanes: int) -> Self:
        """Return a writer of the function that is being written, with shorter vectors."""
        other = copy.copy(self)
        other.lanes, other.vector = lanes, ir.VectorType(self.number, lanes)
        return other

    @property
    def zero(self) -> Value:
        return ir.Constant(self.vector, None)

    def indices(self, values: Sequence[int]) -> Value:
        """Return a constant vector of 32-bit integers."""
        return ir.Constant(ir.VectorType(I32, len(values)), list(values))

    def lanes_are(self, relation: str, number: Int) -> Value:
        """Return the mask of lanes l with ``l relation number``, such as "<"."""
        lanes = self.indices(range(self.lanes))
        other = self.splat(self.b.trunc(number.value, I32), lanes.type)
        return self.b.icmp_signed(relation, lanes, other)

    def splat(self, value: Value, kind: Any = None) -> Value:
        """Return a vector with a number in every lane."""
        blank = ir.Constant(kind or self.vector, ir.Undefined)
        one = self.b.insert_element(blank, value, I32(0))
        return self.b.shuffle_vector(one, blank, self.indices([0] * self.lanes))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """Return a b + c of vectors, rounded once if the processor can."""
        if not self.target.fma:
            return self.b.fadd(self.b.fmul(a, b), c)
        return self.call(f"llvm.fma.v{self.lanes}{self.suffix}", self.vector, a, b, c)

    def absolute(self, vector: Value) -> Value:
        return self.call(f"llvm.fabs.v{self.lanes}{self.suffix}", self.vector, vector)

    def sum(self, vector: Value) -> Value:
        """Return the sum of a vector's numbers, by adding halves repeatedly."""
        width = self.lanes
        while width > 1:
            width //= 2
            halves = (
                self.b.shuffle_vector(vector, vector, self.indices(range(start, start + width)))
                for start in (0, width)
            )
            vector = self.b.fadd(*halves)
        return self.b.extract_element(vector, I32(0))

    def masked_load(self, address: Value, mask: Value) -> Value:
        """Return a vector, zero in lanes where the mask is not set; memory there is not read."""
        name = f"llvm.masked.load.v{self.lanes}{self.suffix}.p0"
        return self.call(name, self.vector, address, I32(self.itemsize), mask, self.zero)

    def masked_store(self, value: Value, address: Value, mask: Value) -> None:
        name = f"llvm.masked.store.v{self.lanes}{self.suffix}.p0"
        self.call(name, VOID, value, address, I32(self.itemsize), mask)

    def transposed(self, rows: Sequence[Value]) -> list[Value]:
        """Return the columns of a square, given as rows: swap off-diagonal quarters, repeatedly."""
        v, n, half = list(rows), self.lanes, self.lanes // 2
        while half:
            low = self.indices([i + n - half if i & half else i for i in range(n)])
            high = self.indices([i + n if i & half else i + half for i in range(n)])
            for i in range(n):
                if not i & half:
                    pair = v[i], v[i + half]
                    v[i], v[i + half] = (self.b.shuffle_vector(*pair, m) for m in (low, high))
            half //= 2
        return v
