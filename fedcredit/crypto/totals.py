"""Sum of per-row integer totals: several holders, one reader, and an adder that reads nothing.

The label holder has the key. Each holder encrypts its integer partial points, one coefficient a row, under a mask that
cancels over the roster of holders; the coordinator adds the ciphertexts; the label holder opens the total.

Guarantees: the coordinator sees ciphertexts only and has no key; a coalition of coordinator and label holder opens
masked partials, which are uniform modulo t (with two holders or more); totals are exact inside the proven bound.

Parameters: t = 2^k with ``bound <= 2^(k-1) - 1``, k <= 46. Partial bounds of all holders add up to at most ``bound``,
so a total never wraps. The sum of m fresh encryptions has noise below ``m * 2^19``; the switch divides it by 2^60 and
rounds by at most (N + 1)/2 < q_0 / 2t.

Not covered: with a single holder its partial is the total; a holder that lies about its values.

Leakage: the total of each row to the label holder; the number of rows to the coordinator.

Source: docs/adr/0003-library-ciphers.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.bfv import MAX_PLAIN_BITS, KeylessContext, PublicContext, SecretContext
from fedcredit.crypto.seal_format import DEGREE
from fedcredit.errors import BoundError, IntegrityError, PeerError

__all__ = ["TotalsSecret", "add", "encrypt_partial", "modulus_bits"]

_PART = b"part"
_TOTAL = b"sum"
_KEPT = b"kept"
_KEPT_LABEL = b"fedcredit/totals-key/v1"
_MIN_BITS = 16
_MAX_PARTS = 1 << 16  # keeps the summed noise 25 bits below the divisor of the switch


def modulus_bits(bound: int) -> int:
    """Bits k of the modulus 2^k under which totals up to ``bound`` are summed; masks are uniform modulo it.

    Raises:
        BoundError: the bound is no bound, or totals that large are not proven to decrypt.
    """
    bits = max(_MIN_BITS, bound.bit_length() + 1)
    if bound < 1 or bits > MAX_PLAIN_BITS:
        raise BoundError(
            "totals.bound", f"totals up to {bound} were asked for; 1..{(1 << (MAX_PLAIN_BITS - 1)) - 1} are proven"
        )
    return bits


class TotalsSecret:
    """The label holder's side: a key pair for the totals of one run.

    SEAL draws its own randomness, so that no restart could make the same pair again: its owner keeps it (`kept`)
    before the public key leaves, and goes on with it (`restore`).

    Args:
        bound: Largest absolute total of a row; the sum of all holders' partial bounds.
        pair: A key pair from `restore`; None makes a fresh one.

    Raises:
        BoundError: the bound is not proven; before any key exists.
    """

    def __init__(self, bound: int, pair: SecretContext | None = None) -> None:
        self._bound = bound
        bits = modulus_bits(bound)
        self._context = SecretContext(bits) if pair is None else pair

    def __repr__(self) -> str:
        return f"TotalsSecret(bound={self._bound})"

    def public_bytes(self) -> bytes:
        """The public key, 184 kB, for every holder."""
        return self._context.public_bytes()

    def kept(self, run: str) -> bytes:
        """The key pair for its owner's own disk, in the clear: mode 0600, removed when the run has ended; 187 kB.

        Args:
            run: Name of the run it belongs to; no other run can use it.
        """
        return self._context.seal(_KEPT, _owner(run, self._bound) + self._context.kept())

    @classmethod
    def restore(cls, kept: bytes, bound: int, run: str) -> Self:
        """The key pair that a process before this one has kept; the public key has the same bytes.

        Args:
            kept: As `kept` gave it.
            bound: As the run's.
            run: Name of the run.

        Raises:
            IntegrityError: damaged, of other parameters, of another run or bound, or a public key that is not that of
                the secret key.
            BoundError: the bound is not proven.
        """
        bits, owner = modulus_bits(bound), _owner(run, bound)
        try:
            body = KeylessContext(bits).open(_KEPT, kept, len(owner) + SecretContext.KEPT_BYTES)
        except PeerError as error:
            raise IntegrityError("totals.kept", "the kept key of the totals is damaged", error.public) from None
        if body[: len(owner)] != owner:
            raise IntegrityError("totals.kept-run", "the kept key of the totals is that of another run or bound")
        return cls(bound, SecretContext(bits, body[len(owner) :]))

    def decrypt(self, total: bytes, rows: int) -> NDArray[np.int64]:
        """Opens the sum of all partials.

        Args:
            total: As `add` gives it.
            rows: Number of rows.

        Returns:
            int64 (rows,), each at most ``bound`` in absolute value.

        Raises:
            PeerError: malformed, of another length, or a total outside the bound: a mask did not cancel, a partial is
                missing, or a holder passed its bound.
        """
        context = self._context
        size = context.full_size(switched=True)
        body = context.open(_TOTAL, total, _blocks(rows) * size)
        parts = [context.decrypt(context.read_full(part, switched=True)) for part in _split(body, size)]
        values = np.concatenate(parts)
        centred = values.astype(np.int64)
        centred[values >= np.uint64(context.plain_modulus // 2)] -= context.plain_modulus
        if bool(centred[rows:].any()) or int(np.abs(centred).max()) > self._bound:
            raise PeerError("totals.range", "totals: a value lies outside the bound; a mask does not cancel")
        return centred[:rows]


def encrypt_partial(
    public: bytes,
    values: NDArray[np.int64],
    masks: NDArray[np.uint64] | None,
    *,
    bound: int,
    partial_bound: int | None = None,
) -> bytes:
    """A holder's masked, encrypted partial.

    Args:
        public: The label holder's public key.
        values: int64 (rows,).
        masks: uint64 (rows,), this holder's mask modulo ``2^modulus_bits(bound)``; None for a single holder.
        bound: Largest absolute total of a row, as agreed by all.
        partial_bound: Largest absolute value of this holder; those of all holders add up to at most ``bound``.

    Raises:
        BoundError: a value beyond the bound, no rows, or masks of another shape or range.
        PeerError: malformed key.
    """
    bits = modulus_bits(bound)
    largest = bound if partial_bound is None else partial_bound
    if not 1 <= largest <= bound:
        raise BoundError("totals.partial-bound", f"partials up to {largest} were declared, totals up to {bound}")
    if values.ndim != 1 or not len(values):
        raise BoundError("totals.shape", f"partials of shape {values.shape}; one value for each row was expected")
    if int(values.max()) > largest or int(values.min()) < -largest:
        raise BoundError("totals.partial", f"a partial exceeds this holder's bound of {largest}")
    masked = values.astype(np.int64).astype(np.uint64)
    if masks is not None:
        if masks.shape != values.shape or masks.dtype != np.uint64 or bool((masks >> np.uint64(bits)).any()):
            raise BoundError("totals.masks", f"masks must be one uint64 below 2^{bits} for each of {len(values)} rows")
        masked += masks
    masked &= np.uint64((1 << bits) - 1)
    context = PublicContext(bits, public)
    starts = range(0, len(masked), DEGREE)
    return context.seal(_PART, b"".join(context.write_full(context.encrypt(masked[at : at + DEGREE])) for at in starts))


def add(parts: Sequence[bytes], public: bytes, *, bound: int) -> bytes:
    """Adds the partials of all holders; what the coordinator does, without any key.

    Args:
        parts: As `encrypt_partial` gives them, all for the same rows.
        public: The label holder's public key, to see that the partials were made for its parameters.
        bound: Largest absolute total of a row, as agreed by all.

    Raises:
        BoundError: no partials, or too many.
        PeerError: malformed partials or key, or partials of different lengths.
    """
    if not 1 <= len(parts) <= _MAX_PARTS:
        raise BoundError("totals.parts", f"{len(parts)} partials were given, 1..{_MAX_PARTS} can be added")
    context = KeylessContext(modulus_bits(bound))
    context.open(PublicContext.KIND, public)
    size = context.full_size()
    bodies = [context.open(_PART, part) for part in parts]
    if len({len(body) for body in bodies}) != 1 or len(bodies[0]) % size:
        raise PeerError(
            "totals.length", f"partials of {sorted({len(b) for b in bodies})} bytes; equal lengths expected"
        )
    sums: list[bytes] = []
    for at in range(0, len(bodies[0]), size):
        total = context.read_full(bodies[0][at : at + size])
        for body in bodies[1:]:
            context.add(total, context.read_full(body[at : at + size]))
        context.switch_down(total)  # halves the download; nothing depends on a holder's data but the sum
        sums.append(context.write_full(total))
    return context.seal(_TOTAL, b"".join(sums))


def _owner(run: str, bound: int) -> bytes:
    return hashlib.sha256(_KEPT_LABEL + bound.to_bytes(8, "little") + run.encode()).digest()


def _blocks(rows: int) -> int:
    if rows < 1:
        raise BoundError("totals.rows", f"{rows} rows; at least 1 expected")
    return -(-rows // DEGREE)


def _split(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]
