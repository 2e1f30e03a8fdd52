"""Several small integers a row in one vector, so that one encrypted pass answers them all.

Field i sits at ``2**shift_i``. A sum of field i over any rows, bins of any skew, is at most
``S_i = rows * bound_i * weight_bound + slack_i`` in absolute value, and gets ``b_i`` bits, ``2 * S_i + 1 <= 2**b_i``,
so that its sum is the centred digit of the packed sum at that place:

* no carry: ``|S_i| <= 2**(b_i - 1) - 1``, hence the digit lies strictly inside its place whatever the other fields are;
* the packed sum is at most ``sum_i S_i * 2**shift_i <= (2**(b_1 + ... + b_m) - 1) / 2``, hence below
  ``2**(capacity_bits - 1)`` as soon as the places fit into ``capacity_bits``.

Nothing rests on averages: a bin that holds every row is inside the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import BoundError, PeerError

__all__ = ["Field", "PackPlan", "PackedField", "pack", "pack_offsets", "plan", "unpack"]


@dataclass(frozen=True)
class Field:
    """One integer a row.

    Args:
        bound: Largest absolute value of a row, at least 1.
        slack: Largest absolute value an answerer may add to a sum (its noise); 0 where none does.
        deviation: Standard deviation of what it adds, where that is agreed; 0 where only the slack is known.
    """

    bound: int
    slack: int = 0
    deviation: float = 0.0


@dataclass(frozen=True)
class PackedField:
    """Place of one field: its number in the caller's order, its shift and width in bits, the bound of its sums."""

    index: int
    shift: int
    bits: int
    field: Field
    sum_bound: int


@dataclass(frozen=True)
class PackPlan:
    """How fields are spread over vectors.

    Args:
        rows: Number of rows the proof holds for.
        weight_bound: Largest absolute weight of an output column the proof holds for.
        vectors: For every vector its fields, lowest place first.
    """

    rows: int
    weight_bound: int
    vectors: tuple[tuple[PackedField, ...], ...]

    @property
    def value_bound(self) -> int:
        """Largest absolute packed value of a row, over all vectors."""
        return max(sum(place.field.bound << place.shift for place in vector) for vector in self.vectors)

    @property
    def sum_slack(self) -> int:
        """Largest absolute packed offset an answerer may add to a sum, over all vectors."""
        return max(sum(place.field.slack << place.shift for place in vector) for vector in self.vectors)

    @property
    def fields(self) -> int:
        """Number of fields."""
        return sum(len(vector) for vector in self.vectors)


def plan(fields: Sequence[Field], rows: int, weight_bound: int, capacity_bits: int) -> PackPlan:
    """Places the fields, in their order, each into the first vector where it provably fits.

    Args:
        fields: At least one.
        rows: Number of rows, at least 1.
        weight_bound: Largest absolute weight of an output column; 1 for plain groupings.
        capacity_bits: Sums lie in +-(2^(capacity_bits - 1) - 1); at most 63.

    Raises:
        BoundError: a field fits into no vector; names the field and the bits it needs.
    """
    if not fields or rows < 1 or weight_bound < 1 or not 1 <= capacity_bits <= 63:
        raise BoundError(
            "packing.plan",
            f"cannot pack {len(fields)} fields of {rows} rows, weight {weight_bound}, {capacity_bits} bits",
        )
    vectors: list[list[PackedField]] = []
    used: list[int] = []
    for index, field in enumerate(fields):
        if field.bound < 1 or field.slack < 0:
            raise BoundError(
                "packing.bound", f"field {index}: bound {field.bound} and slack {field.slack} are no bounds"
            )
        sum_bound = rows * field.bound * weight_bound + field.slack
        bits = (2 * sum_bound).bit_length()
        if bits > capacity_bits:
            raise BoundError(
                "packing.field", f"field {index}: its sums over {rows} rows need {bits} bits, {capacity_bits} are there"
            )
        at = next((i for i, filled in enumerate(used) if filled + bits <= capacity_bits), len(used))
        if at == len(used):
            vectors.append([])
            used.append(0)
        vectors[at].append(PackedField(index, used[at], bits, field, sum_bound))
        used[at] += bits
    return PackPlan(rows, weight_bound, tuple(tuple(vector) for vector in vectors))


def pack(plan: PackPlan, columns: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Packs one column a field into the vectors of the plan.

    Args:
        plan: From `plan`.
        columns: For every field, in the caller's order, int64 (rows,).

    Returns:
        For every vector int64 (rows,).

    Raises:
        BoundError: a column has another length, or a value beyond its bound.
    """
    return _combine(plan, columns, plan.rows, [place.field.bound for place in _in_order(plan)])


def pack_offsets(plan: PackPlan, columns: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Packs what an answerer adds to its sums: for every field int64 (outputs,) within the field's slack."""
    outputs = len(columns[0]) if columns else 0
    return _combine(plan, columns, outputs, [place.field.slack for place in _in_order(plan)])


def unpack(plan: PackPlan, sums: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Takes packed sums apart, exactly.

    Args:
        plan: From `plan`.
        sums: For every vector int64 (outputs,).

    Returns:
        For every field, in the caller's order, int64 (outputs,).

    Raises:
        PeerError: a sum cannot be one of in-bound values: the answerer did not add what was sent.
    """
    if len(sums) != len(plan.vectors):
        raise BoundError("packing.vectors", f"{len(sums)} vectors of sums were given for {len(plan.vectors)}")
    found: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * plan.fields
    for vector, packed in zip(plan.vectors, sums, strict=True):
        rest = np.asarray(packed, dtype=np.int64)
        for place in vector:
            half = np.int64(1 << (place.bits - 1))
            # Masking and shifting, not % and //: both are exact on negative two's complement values.
            digit = ((rest + half) & np.int64((1 << place.bits) - 1)) - half
            if len(digit) and int(np.abs(digit).max()) > place.sum_bound:
                raise PeerError("packing.range", f"a sum of field {place.index} exceeds its proven bound")
            found[place.index] = digit
            rest = (rest - digit) >> np.int64(place.bits)
        if np.any(rest):
            raise PeerError("packing.range", f"a packed sum exceeds the bound proven for {plan.rows} rows")
    return found


def _in_order(plan: PackPlan) -> list[PackedField]:
    return sorted((place for vector in plan.vectors for place in vector), key=lambda place: place.index)


def _combine(
    plan: PackPlan, columns: Sequence[NDArray[np.int64]], length: int, bounds: Sequence[int]
) -> list[NDArray[np.int64]]:
    if len(columns) != plan.fields:
        raise BoundError("packing.columns", f"{len(columns)} columns were given for {plan.fields} fields")
    for index, (column, bound) in enumerate(zip(columns, bounds, strict=True)):
        if column.dtype != np.int64 or column.shape != (length,):
            raise BoundError(
                "packing.column", f"field {index}: int64 ({length},) needed, {column.dtype} {column.shape} found"
            )
        # The two-sided check: the absolute value of the smallest int64 is negative.
        if length and (int(column.max()) > bound or int(column.min()) < -bound):
            raise BoundError("packing.value", f"field {index}: a value exceeds its bound {bound}")
    packed = []
    for vector in plan.vectors:
        total = np.zeros(length, dtype=np.int64)
        for place in vector:
            total += columns[place.index] << np.int64(place.shift)
        packed.append(total)
    return packed
