# ruff: noqa: ARG001, PLR0913, PLR0917
# Each step declares the arguments that its compiled form takes; the compiler, not the body, reads them.
"""Eight 32-bit lanes at once, for the compiled kernels of `fedcredit.crypto.ring`.

The compiler does not vectorise loops that read and write one array at two places, and that is what every transform
stage does. So the few vector steps are written out here in the compiler's intermediate language, for any processor; it
becomes AVX2 where there is AVX2. Each is one name that a compiled loop calls with arrays, offsets and a prime p < 2^28.

Source: V. Shoup's NTL (products with a fixed factor); Harvey, J. Symb. Comput. 60 (2014) (lazy ranges).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

from fedcredit.kernels.compiled import compiled

__all__ = ["LANES", "accumulate", "add", "butterfly", "compiled", "copy", "fold", "inverse_butterfly", "scale"]

LANES = 8

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_V32, _V64 = ir.VectorType(_I32, LANES), ir.VectorType(_I64, LANES)
_SHIFT32 = ir.Constant(_V64, [32] * LANES)
_ONE = ir.Constant(_V32, [1] * LANES)


def _step(function: Callable[..., Any]) -> Callable[..., Any]:
    """`numba.extending.intrinsic`; a compiled loop calls the result without the first argument."""
    return cast("Callable[..., Any]", intrinsic(function))


class _Site:
    """The place in a compiled loop where a step is written: builder, argument kinds and argument values."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder, self.kinds, self.arguments = context, builder, signature.args, arguments

    def data(self, array: int) -> Any:
        proxy = cgutils.create_struct_proxy(self.kinds[array])  # type: ignore[no-untyped-call]
        return proxy(self.context, self.builder, value=self.arguments[array]).data

    def at(self, array: int, offset: int, vector: Any = _V32) -> Any:
        """Pointer to the lanes of argument ``array`` that start at argument ``offset``."""
        return self.builder.bitcast(self.builder.gep(self.data(array), [self.arguments[offset]]), vector.as_pointer())

    def load(self, pointer: Any) -> Any:
        value = self.builder.load(pointer)
        value.align = 4  # of one lane: arrays start anywhere
        return value

    def wide(self, array: int, offset: int) -> Any:
        return self.builder.zext(self.load(self.at(array, offset)), _V64)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer).align = 4

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(_V32, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(_V32, [0] * LANES))

    def reduced(self, value: Any, modulus: Any) -> Any:
        """Value minus modulus where that is not negative: else it wraps and is not the smaller."""
        other = self.builder.sub(value, modulus)
        return self.builder.select(self.builder.icmp_unsigned("<", value, other), value, other)

    def times(self, value: Any, factor: Any, quotient: Any, prime: Any) -> Any:
        """Value times factor mod p, in [0, 2p) for any 32-bit value; quotient = floor(factor * 2^32 / p)."""
        product = self.builder.mul(self.builder.zext(value, _V64), self.builder.zext(quotient, _V64))
        estimate = self.builder.trunc(self.builder.lshr(product, _SHIFT32), _V32)
        return self.builder.sub(self.builder.mul(value, factor), self.builder.mul(estimate, prime))

    def prime(self, argument: int) -> tuple[Any, Any]:
        modulus = self.splat(self.arguments[argument])
        return modulus, self.builder.add(modulus, modulus)


@_step
def butterfly(_typing: Any, x: Any, at: Any, other: Any, w: Any, wq: Any, row: Any, p: Any) -> Any:
    """x[at], x[other] become x[at] + w x[other], x[at] - w x[other]; from and to [0, 4p)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        site = _Site(context, builder, signature, arguments)
        left, right = site.at(0, 1), site.at(0, 2)
        prime, double = site.prime(6)
        u = site.reduced(site.load(left), double)
        v = site.times(site.load(right), site.load(site.at(3, 5)), site.load(site.at(4, 5)), prime)
        site.store(builder.add(u, v), left)
        site.store(builder.add(builder.sub(u, v), double), right)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, w, wq, types.intp, types.uint32), build


@_step
def inverse_butterfly(_typing: Any, x: Any, at: Any, other: Any, w: Any, wq: Any, row: Any, p: Any) -> Any:
    """x[at], x[other] become x[at] + x[other], w (x[at] - x[other]); from and to [0, 2p)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        site = _Site(context, builder, signature, arguments)
        left, right = site.at(0, 1), site.at(0, 2)
        prime, double = site.prime(6)
        u, v = site.load(left), site.load(right)
        difference = builder.add(builder.sub(u, v), double)
        site.store(site.reduced(builder.add(u, v), double), left)
        site.store(site.times(difference, site.load(site.at(3, 5)), site.load(site.at(4, 5)), prime), right)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, w, wq, types.intp, types.uint32), build


@_step
def scale(_typing: Any, x: Any, at: Any, w: Any, wq: Any, row: Any, p: Any) -> Any:
    """x[at] becomes w x[at], from any 32-bit value to [0, p)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        site = _Site(context, builder, signature, arguments)
        place = site.at(0, 1)
        prime, _ = site.prime(5)
        value = site.times(site.load(place), site.load(site.at(2, 4)), site.load(site.at(3, 4)), prime)
        site.store(site.reduced(value, prime), place)
        return context.get_dummy_value()

    return types.void(x, types.intp, w, wq, types.intp, types.uint32), build


@_step
def accumulate(_typing: Any, total: Any, at: Any, x: Any, i: Any, y: Any, k: Any) -> Any:
    """total[at] += x[i] y[k], unreduced, total in 64-bit lanes."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        site = _Site(context, builder, signature, arguments)
        target = site.at(0, 1, _V64)
        product = builder.mul(site.wide(2, 3), site.wide(4, 5))
        site.store(builder.add(site.load(target), product), target)
        return context.get_dummy_value()

    return types.void(total, types.intp, x, types.intp, y, types.intp), build


@_step
def add(_typing: Any, total: Any, at: Any, x: Any, i: Any) -> Any:
    """total[at] += x[i], total in 64-bit lanes."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        site = _Site(context, builder, signature, arguments)
        target = site.at(0, 1, _V64)
        site.store(builder.add(site.load(target), site.wide(2, 3)), target)
        return context.get_dummy_value()

    return types.void(total, types.intp, x, types.intp), build


@_step
def copy(_typing: Any, x: Any, at: Any, y: Any, i: Any) -> Any:
    """x[at] becomes y[i]."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        site = _Site(context, builder, signature, arguments)
        site.store(site.load(site.at(2, 3)), site.at(0, 1))
        return context.get_dummy_value()

    return types.void(x, types.intp, y, types.intp), build


@_step
def fold(_typing: Any, total: Any, x: Any, at: Any, constants: Any, p: Any) -> Any:
    """x[at] becomes total[at] mod p in [0, 2p); constants = (2^32 mod p, its quotient, the quotient of 1)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        site = _Site(context, builder, signature, arguments)
        data = site.data(3)
        power, power_quotient, quotient = (
            site.splat(builder.load(builder.gep(data, [ir.Constant(_I64, n)]))) for n in range(3)
        )
        prime, double = site.prime(4)
        value = site.load(site.at(0, 2, _V64))
        top = site.times(builder.trunc(builder.lshr(value, _SHIFT32), _V32), power, power_quotient, prime)
        bottom = site.times(builder.trunc(value, _V32), _ONE, quotient, prime)
        site.store(site.reduced(builder.add(top, bottom), double), site.at(1, 2))
        return context.get_dummy_value()

    return types.void(total, x, types.intp, constants, types.uint32), build
