"""Time and size of the selection of rows under encryption, beside the same arithmetic in the open, and how it grows.

    python benchmarks/slots.py [rows] [columns of P] [columns of Q]

In the open: products of int64 columns row by row, and a product of matrices, by numpy. Results are compared. Seconds
are those of one processor, best of three rounds where a step is short: the library holds the interpreter's lock.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from fedcredit.crypto import slots
from fedcredit.crypto.masks import MaskKey, MaskRoster
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.slots_parameters import MODULUS, statistical_leak_log2
from fedcredit.crypto.slots_products import Vectors, joined, masked_column, shade, share_sums

R = TypeVar("R")
ROUNDS = 3


class Table:
    """Seconds and sizes of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes: dict[str, float] = {}

    def best(self, name: str, function: Callable[[], R], rounds: int = ROUNDS) -> R:
        for _ in range(rounds):
            start = time.process_time()
            result = function()
            self.seconds[name] = min(self.seconds.get(name, np.inf), time.process_time() - start)
        return result

    def size(self, name: str, *messages: bytes) -> None:
        self.megabytes[name] = sum(map(len, messages)) / 1e6


def totals(table: Table, rows: int) -> None:
    """Two holders' totals of the chosen rows."""
    generator = np.random.default_rng(1)
    chosen, values = generator.integers(0, 2, rows), generator.integers(-(1 << 29), 1 << 29, (2, rows))
    held = {name: MaskKey(SystemEntropy()) for name in ("a", "b")}
    roster = MaskRoster("run", "1", {name: key.public_bytes() for name, key in held.items()})
    masks = [key.mask_below(roster, name, rows, MODULUS) for name, key in held.items()]
    label = table.best("key", slots.SlotsSecret)
    public = label.public_bytes()
    request = table.best("encrypt the choice", lambda: label.encrypt(chosen))
    selection = table.best("read the choice", lambda: slots.Selection(public, request))
    part = table.best("select a column", lambda: selection.select(values[0], masks[0]))
    total = table.best("add two answers", lambda: slots.add([part, selection.select(values[1], masks[1])], public), 1)
    table.seconds["add two answers"] -= table.seconds["select a column"]
    opened = table.best("open the total", lambda: label.open_total(request, total, 1 << 30))
    plain = table.best("in the open: a column", lambda: chosen * values[0], 20)
    if not np.array_equal(opened, plain + chosen * values[1]):
        raise SystemExit("the totals are wrong")
    for name, message in (("encrypt the choice", request), ("select a column", part), ("add two answers", total)):
        table.size(name, message)


def products(table: Table, rows: int, left_count: int, right_count: int) -> None:
    """Sums over the chosen rows of products of two holders' columns."""
    generator, entropy = np.random.default_rng(2), SystemEntropy()
    chosen = generator.integers(0, 2, rows)
    left, right = (generator.integers(-100, 101, (rows, count)) for count in (left_count, right_count))
    label, holder = slots.SlotsSecret(), slots.SlotsSecret()
    request = label.encrypt(chosen)
    selection = slots.Selection(label.public_bytes(), request)
    shades = [shade(selection, entropy) for _ in left.T]
    pairs = list(zip(left.T, shades, strict=True))
    answers = table.best("P: masked columns", lambda: [masked_column(selection, x, r) for x, r in pairs], 1)
    opened = table.best("L: open them", lambda: [label.open_masked(request, answer) for answer in answers], 1)
    ours = table.best("L: encrypt vectors", lambda: [label.encrypt_vector(one) for one in opened], 1)
    theirs = [holder.encrypt_vector(r) for r in shades]
    of_label, of_holder = Vectors(label.public_bytes(), ours), Vectors(holder.public_bytes(), theirs)
    to_label, to_holder = table.best("Q: sums for L and P", lambda: share_sums(of_label, of_holder, right, entropy), 1)
    own = table.best("L: open sums", lambda: label.open_sums(ours, to_label, right_count), 1)
    found = joined(own, holder.open_sums(theirs, to_holder, right_count), rows * 10_000)
    plain = table.best("in the open: all sums", lambda: (left * chosen[:, None]).T @ right, 2)
    if not np.array_equal(found, plain):
        raise SystemExit("the sums are wrong")
    table.size("P: masked columns", *answers)
    table.size("L: encrypt vectors", *ours)
    table.size("Q: sums for L and P", to_label, to_holder)


def measure(rows: int, left_count: int, right_count: int) -> Table:
    table = Table()
    totals(table, rows)
    products(table, rows, left_count, right_count)
    return table


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:]]
    rows, left_count, right_count = [*given, *(210_000, 10, 10)[len(given) :]]
    measure(8192, 1, 1)  # compiled kernels are loaded
    small, large = (measure(n, left_count, right_count) for n in (rows // 10, rows))
    leak = statistical_leak_log2(rows, selected=left_count, sums=2 * left_count * right_count, column_bound=100)
    print(f"n = {rows}, {left_count} columns of P, {right_count} of Q; seconds; distance of all answers 2^{leak:.1f}")
    print(f"{'':26s}{rows // 10:>12,}{rows:>12,}{'growth':>9s}{'MB':>9s}{'x open':>12s}")
    for name, seconds in large.seconds.items():
        of = {"select a column": "in the open: a column", "Q: sums for L and P": "in the open: all sums"}.get(name)
        ratio = f"{seconds / large.seconds[of]:12,.0f}" if of else ""
        size = f"{large.megabytes[name]:9.2f}" if name in large.megabytes else " " * 9
        growth = seconds / small.seconds[name]
        print(f"{name:26s}{small.seconds[name]:12.4f}{seconds:12.4f}{growth:9.1f}{size}{ratio}")


if __name__ == "__main__":
    main()
