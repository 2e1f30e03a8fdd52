"""Sums over selected rows of products of one holder's columns with another's: exact, and nothing but the sums.

L has the choice w of rows (0 and 1, or weights) and wants, for each column x of holder P and each column y of holder Q,
``sum_i w_i x_i y_i``. All arithmetic is modulo t.

1. L sends ``E_L(w)`` to P: `SlotsSecret.encrypt`.
2. P draws one uniform r a column (`shade`) and answers ``w*x - r`` (`masked_column`); L opens u, which is uniform
   (`open_masked`).
3. L sends ``E_L(u)``, P sends ``E_P(r)`` under a key pair of its own, both to Q: `SlotsSecret.encrypt_vector`.
4. Q draws one uniform s a pair (`share_sums`) and answers L with ``sum u*y + s`` and P with ``sum r*y - s``.
5. Both open (`open_sums`). P hands its share to L, which adds the two: ``sum (u + r)*y = sum w*x*y`` (`joined`).

Who learns what, beyond the numbers of rows and columns, if all follow the protocol:

* L: the sums. u is uniform because r is used once; its share of a pair is uniform because of s, and the sum of both
  shares is the result. What answers say beyond their results: `slots_parameters.statistical_leak_log2`.
* P: nothing. It sees ``E_L(w)`` and, of each pair, a share that is uniform because of s.
* Q: nothing. It sees vectors under the keys of others.
* C, which carries sealed bytes: nothing, and adds nothing to what any other knows, for it has no key and no share.
* L and Q together: the sums, of columns that Q may choose: ``E_P(r)`` stays closed, and from what P hands over follows
  ``sum w*x*y`` for each y and no more. One y with a single 1 is one value of P: what a pair costs is one equation of P,
  and P's ledger counts it.
* L and P together: ``sum (u + r)*y`` for vectors u + r that they may choose, and no more, because s hides how it splits
  in two. It is one equation of Q a pair, and Q's ledger counts it.
* P and Q together: nothing of w: all that depends on it is under L's key.
* L, P and Q together have all data already.

An answer that is wrong makes a wrong sum: shares are uniform, so that P can check nothing, and L the range only.

Source: docs/adr/0011-slots.md; Du and Atallah, ACSAC 2001 (scalar products of two parties, from shares).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.prg import Entropy
from fedcredit.crypto.slots import Selection, weighted_sums
from fedcredit.crypto.slots_arithmetic import uniform_residues
from fedcredit.crypto.slots_messages import within
from fedcredit.crypto.slots_parameters import MODULUS
from fedcredit.errors import PeerError

__all__ = ["Vectors", "joined", "masked_column", "negated", "shade", "share_sums"]

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Vectors:
    """Vectors of one owner, as the holder that answers them has them.

    Args:
        public: The owner's public key.
        encrypted: From `SlotsSecret.encrypt_vector`, one for each column of P in the same order.
    """

    public: bytes
    encrypted: Sequence[bytes]


def negated(residues: U64) -> U64:
    """Minus the residues, modulo t."""
    return (np.uint64(MODULUS) - residues) % np.uint64(MODULUS)


def shade(selection: Selection, entropy: Entropy) -> U64:
    """Step 2, for one column of P: r, uint64 (rows,), for `masked_column` and `SlotsSecret.encrypt_vector`.

    Args:
        selection: What L sent.
        entropy: Source of r; never the same stream for two columns or two requests (`Selection.digest` tells them
            apart): with one r under two choices of rows L would read the column where they differ.
    """
    return uniform_residues(entropy, selection.rows)


def masked_column(selection: Selection, column: I64, r: U64) -> bytes:
    """Step 2, for one column of P: the answer to L; a second one is a second release.

    Args:
        selection: What L sent.
        column: int64 (rows,).
        r: From `shade`, for this column alone.

    Raises:
        BoundError: a column of another shape or range.
    """
    return selection.select(column, negated(r))


def share_sums(of_label: Vectors, of_holder: Vectors, columns: I64, entropy: Entropy) -> tuple[bytes, bytes]:
    """Step 4, for all pairs of P's columns with Q's: the answers to L and to P.

    Args:
        of_label: E_L(u).
        of_holder: E_P(r).
        columns: int64 (rows, columns), absolute values up to `slots_parameters.COLUMN_BOUND`.
        entropy: Source of s; never the same stream twice.

    Raises:
        PeerError: malformed, or vectors of L and P that do not match.
        BoundError: columns of another shape or range.
    """
    if len(of_label.encrypted) != len(of_holder.encrypted):
        raise PeerError(
            "slots.vectors", f"{len(of_label.encrypted)} vectors of one and {len(of_holder.encrypted)} of the other"
        )
    shape = (len(of_label.encrypted), columns.shape[-1])
    offsets = uniform_residues(entropy, shape[0] * shape[1]).reshape(shape)
    to_label = weighted_sums(of_label.public, of_label.encrypted, columns, offsets)
    return to_label, weighted_sums(of_holder.public, of_holder.encrypted, columns, negated(offsets))


def joined(own: U64, other: U64, bound: int) -> I64:
    """Step 5: the sums, int64 (columns of P, columns of Q).

    Args:
        own: uint64 (columns of P, columns of Q), what L opened.
        other: Of the same shape, what P opened.
        bound: Largest absolute sum there can be, at most `slots_parameters.VALUE_BOUND`.

    Raises:
        PeerError: shares of another shape, not below t, or a sum outside the bound.
        BoundError: a bound that is not proven.
    """
    if own.shape != other.shape or other.dtype != np.uint64 or int(other.max(initial=0)) >= MODULUS:
        raise PeerError("slots.shares", f"shares of shape {other.shape}; {own.shape} residues were expected")
    return within((own + other) % np.uint64(MODULUS), bound)
