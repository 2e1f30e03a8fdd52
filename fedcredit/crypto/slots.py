"""Selection of rows under encryption: an owner's vector picks rows of others' values, and nobody else sees which.

The owner of a key (a label holder L) encrypts one value a row, one a slot. A holder answers with the slotwise product
with its own values under masks that are uniform modulo t: rows of weight 0 give their mask alone. A coordinator adds
the answers of several holders without a key; L opens the total, in which the masks cancel. For sums over rows, vectors
are encrypted one coefficient a row and an answer is one residue a sum.

Guarantees: whoever holds no key learns nothing of a vector (ring-LWE). An owner that follows the protocol learns from
an answer the results named here: a fresh encryption of zero makes the second polynomial pseudo-random even to it, a
flood hides the noise, which depends on the answerer's values, up to `statistical_leak_log2`, and all but one prime is
rounded away. Of the answer to a weighted sum only one coefficient leaves, and all others are masked too.

Not covered: an owner that crafts its vector (any slot weights are answered: ledgers count answers) or its errors (a
coefficient that leaves holds 60 bits at most); an answerer that lies; timing. SEAL draws its randomness from the
operating system, so a second answer to one request is a second release under a second flood: bodies are kept, and a
retry resends them.

Leakage: number of rows, and of vectors and columns.

Parameters: `fedcredit.crypto.slots_parameters` (proof of exactness and hiding); sums over selected rows of products of
two holders' columns are put together in `fedcredit.crypto.slots_products`.

Source: docs/adr/0011-slots.md; Smart and Vercauteren, DCC 71 (2014); Huang et al. (Cheetah), USENIX Security 2022.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.bfv import Ciphertext, KeylessContext, PublicContext, SecretContext
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.seal_format import DEGREE, pack_rows, rows_size, unpack_rows
from fedcredit.crypto.slots_arithmetic import (
    from_slots,
    residues_of,
    to_slots,
    uniform_flood,
    uniform_residues,
)
from fedcredit.crypto.slots_messages import (
    HEAD,
    REQUEST,
    VECTOR,
    answered_blocks,
    checked_residues,
    checked_values,
    in_blocks,
    read_request,
    split_blocks,
    tag_of,
    within,
)
from fedcredit.crypto.slots_parameters import COLUMN_BOUND, MAX_PARTS, PARAMETERS, VALUE_BOUND, blocks_of
from fedcredit.errors import BoundError, IntegrityError, PeerError

__all__ = ["Selection", "SlotsSecret", "add", "conceal", "select", "weighted_sums"]

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

_KEPT, _KEPT_LABEL = b"skpt", b"fedcredit/slots-key/v1"
_SELECTION_LABEL = b"fedcredit/slots-selection/v1"
_ANSWER, _TOTAL, _SUMS = b"sans", b"stot", b"ssum"
_LAST = PARAMETERS.data[:1]
_FULL = 2 * rows_size(_LAST)
_SUM_BYTES = rows_size(_LAST) + 8
_AT_ONCE = 512  # sums under way at a time, 393 kB each
_OUTPUT = DEGREE - 1  # coefficient of the sum: column i of a block stands at 8191 - i


class SlotsSecret:
    """The owner's side: a key pair of one run, with which vectors are encrypted and results opened.

    SEAL draws its own randomness, so that no restart could make the same pair again: its owner keeps it (`kept`)
    before the public key leaves, and goes on with it (`restore`).

    Args:
        pair: A key pair from `restore`; None makes a fresh one.
    """

    def __init__(self, pair: SecretContext | None = None) -> None:
        self._context = SecretContext(PARAMETERS) if pair is None else pair
        self._name = tag_of(self._context.public_bytes())

    def __repr__(self) -> str:
        return "SlotsSecret()"

    def public_bytes(self) -> bytes:
        """The public key, 189 kB, for everyone who answers or adds."""
        return self._context.public_bytes()

    def kept(self, run: str) -> bytes:
        """The key pair for its owner's own disk, in the clear: mode 0600, removed when the run has ended; 191 kB.

        Args:
            run: Name of the run it belongs to; no other run can use it.
        """
        return self._context.seal(_KEPT, _owner(run) + self._context.kept())

    @classmethod
    def restore(cls, kept: bytes, run: str) -> Self:
        """The key pair that a process before this one has kept; the public key has the same bytes.

        Raises:
            IntegrityError: damaged, of another run, or a public key that is not that of the secret key.
        """
        owner = _owner(run)
        try:
            body = KeylessContext(PARAMETERS).open(_KEPT, kept)
        except PeerError as error:
            raise IntegrityError("slots.kept", "the kept key of the slots is damaged", error.public) from None
        if body[: len(owner)] != owner:
            raise IntegrityError("slots.kept-run", "the kept key of the slots is that of another run")
        return cls(SecretContext(PARAMETERS, body[len(owner) :]))

    def encrypt(self, values: I64) -> bytes:
        """Encrypts one value a row, one a slot, to be answered by `select`; 164 kB for 8192 rows.

        Args:
            values: int64 (rows,), absolute values up to `VALUE_BOUND`; 0 and 1 for a choice of rows.

        Raises:
            BoundError: a value beyond the bound, or no rows or too many.
        """
        return self._encrypt(
            REQUEST, from_slots(in_blocks(residues_of(checked_values(values, VALUE_BOUND)))), len(values)
        )

    def encrypt_vector(self, values: U64) -> bytes:
        """Encrypts one residue a row, one a coefficient, to be answered by `weighted_sums`; 164 kB for 8192 rows.

        Args:
            values: uint64 (rows,), below `MODULUS`; `residues_of` makes them of integers.

        Raises:
            BoundError: a value that is no residue, or no rows or too many.
        """
        return self._encrypt(VECTOR, in_blocks(checked_residues(values)), len(values))

    def open(self, request: bytes, answer: bytes, bound: int) -> I64:
        """Opens one holder's answer; int64 (rows,): value of the vector times value of the holder, plus its mask.

        Args:
            request: What was answered, from `encrypt`.
            answer: From `select`.
            bound: Largest absolute value there can be, at most `VALUE_BOUND`.

        Raises:
            PeerError: malformed, an answer to another request, or a value outside the bound.
        """
        return within(self._slots(_ANSWER, request, answer), bound)

    def open_masked(self, request: bytes, answer: bytes) -> U64:
        """Opens one holder's answer, of which the holder keeps the mask; uint64 (rows,), uniform modulo t.

        Raises:
            PeerError: malformed, or an answer to another request.
        """
        return self._slots(_ANSWER, request, answer)

    def open_total(self, request: bytes, total: bytes, bound: int) -> I64:
        """Opens what `add` made of all holders' answers; int64 (rows,).

        Args:
            request: What was answered, from `encrypt`.
            total: From `add`.
            bound: Largest absolute total, at most `VALUE_BOUND`; the sum of all holders' bounds.

        Raises:
            PeerError: malformed, of another request, or a total outside the bound: a mask did not cancel, an answer is
                missing, or a holder passed its bound.
        """
        return within(self._slots(_TOTAL, request, total), bound)

    def open_sums(self, vectors: Sequence[bytes], answer: bytes, columns: int) -> U64:
        """Opens weighted sums and their offsets modulo t; uint64 (vectors, columns).

        Args:
            vectors: What was answered, from `encrypt_vector`, in the same order.
            answer: From `weighted_sums`.
            columns: Number of the answerer's columns.

        Raises:
            PeerError: malformed, or an answer to other vectors.
        """
        count = len(vectors) * columns
        body = self._body(_SUMS, tag_of(*vectors), columns, answer, count * _SUM_BYTES)
        places = np.array([_OUTPUT])
        out = np.empty(count, dtype=np.uint64)
        for number in range(count):
            part = body[number * _SUM_BYTES : (number + 1) * _SUM_BYTES]
            second = unpack_rows(part[:-8], _LAST, "answer")[0, 0]
            value = np.frombuffer(part[-8:], dtype="<u8").astype(np.uint64)
            if int(value[0]) >= _LAST[0] or not bool(second.any()):
                raise PeerError("slots.residue", "sums: a residue is not below its prime, or nothing is encrypted")
            out[number] = self._context.decrypt_at(self._context.read_extracted(second, places, value), places)[0]
        return out.reshape(len(vectors), columns)

    def _encrypt(self, kind: bytes, polynomials: U64, rows: int) -> bytes:
        body = b"".join(self._context.encrypt_seeded(polynomial) for polynomial in polynomials)
        return self._context.seal(kind, HEAD.pack(self._name, rows) + body)

    def _slots(self, kind: bytes, request: bytes, answer: bytes) -> U64:
        rows, _ = read_request(self._context, REQUEST, request, self._name)
        body = self._body(kind, tag_of(request), rows, answer, blocks_of(rows) * _FULL)
        parts = (body[at : at + _FULL] for at in range(0, len(body), _FULL))
        opened = [self._context.decrypt(self._context.read_full(part, switched=True)) for part in parts]
        values = to_slots(np.stack(opened)).reshape(-1)
        if bool(values[rows:].any()):
            raise PeerError("slots.padding", "answer: slots after the last row are not empty")
        return values[:rows]

    def _body(self, kind: bytes, tag: bytes, number: int, answer: bytes, size: int) -> bytes:
        body = self._context.open(kind, answer, HEAD.size + size)
        if HEAD.unpack(body[: HEAD.size]) != (tag, number):
            raise PeerError("slots.tag", "answer: to another request, or of other sizes")
        return body[HEAD.size :]


class Selection:
    """A holder's side of one request: its blocks are read and transformed once for any number of columns.

    A mask belongs to one request: the same mask under another choice of rows would give their difference. Whoever draws
    masks again after a restart, from a secret of the run, therefore puts `digest` into what they are drawn for: the
    label of an entropy, the round of a roster.

    Args:
        public: The owner's public key.
        encrypted: The owner's vector, from `SlotsSecret.encrypt`.

    Attributes:
        rows: Number of rows.
        digest: 32 bytes that name the request; the same for every holder that was sent the same bytes.

    Raises:
        PeerError: malformed, or a vector under another key.
    """

    def __init__(self, public: bytes, encrypted: bytes) -> None:
        self._context = PublicContext(PARAMETERS, public)
        rows, body = read_request(self._context, REQUEST, encrypted, tag_of(public))
        self.digest = hashlib.sha256(_SELECTION_LABEL + public + encrypted).digest()
        self._head = HEAD.pack(tag_of(encrypted), rows)
        self._blocks = [self._context.read_seeded(part) for part in split_blocks(body)]
        self.rows = rows

    def select(self, values: I64, masks: U64 | None) -> bytes:
        """Answers with vector times values, row by row, plus masks; a second answer is a second release.

        Args:
            values: int64 (rows,), absolute values up to `VALUE_BOUND`.
            masks: uint64 (rows,), uniform below `MODULUS` and used once: `MaskKey.mask_below` where the answers of a
                roster are added, `uniform_residues` where this holder keeps its own; None where the product itself is
                what the owner is to know.

        Raises:
            BoundError: values or masks of another shape or range.
        """
        plain = in_blocks(residues_of(checked_values(values, VALUE_BOUND, self.rows)))
        added = None if masks is None else from_slots(in_blocks(checked_residues(masks, self.rows)))
        parts: list[bytes] = []
        for number, (block, polynomial) in enumerate(zip(self._blocks, from_slots(plain), strict=True)):
            product = _product(self._context, block, polynomial)
            answer = conceal(self._context, product, None if added is None else added[number])
            parts.append(self._context.write_full(answer))
        return self._context.seal(_ANSWER, self._head + b"".join(parts))


def select(public: bytes, encrypted: bytes, values: I64, masks: U64 | None) -> bytes:
    """One answer to one request; see `Selection`, which is quicker for more than one."""
    return Selection(public, encrypted).select(values, masks)


def conceal(context: PublicContext, product: Ciphertext | None, masks: U64 | None) -> Ciphertext:
    """Hides all but the result; each step has a test that fails without it.

    Args:
        context: With the owner's public key.
        product: In NTT form; None where it is zero, which nothing that leaves shows.
        masks: uint64 (8192,), a polynomial added modulo t; None for none.
    """
    if product is None:
        product = context.zero()
    else:
        context.leave_ntt(product)
        context.add_fresh_zero(product)
    if masks is not None:
        context.add_values(product, masks)
    context.add_noise(product, uniform_flood(SystemEntropy()))
    context.switch_down(product)
    return product


def add(parts: Sequence[bytes], public: bytes) -> bytes:
    """Adds the answers of all holders to one request; what the coordinator does, without any key.

    Args:
        parts: From `select`, all to the same request; at most `MAX_PARTS`.
        public: The owner's public key, to see that its parameters are these.

    Raises:
        BoundError: no answers, or too many.
        PeerError: malformed, or answers to different requests.
    """
    if not 1 <= len(parts) <= MAX_PARTS:
        raise BoundError("slots.parts", f"{len(parts)} answers were given, 1..{MAX_PARTS} can be added")
    context = KeylessContext(PARAMETERS)
    context.open(PublicContext.KIND, public, PARAMETERS.key_size)
    bodies = [context.open(_ANSWER, part) for part in parts]
    size = answered_blocks(bodies[0]) * _FULL
    if any(len(body) != HEAD.size + size or body[: HEAD.size] != bodies[0][: HEAD.size] for body in bodies):
        raise PeerError("slots.parts", "answers: to different requests, or of other sizes")
    sums: list[bytes] = []
    for at in range(HEAD.size, len(bodies[0]), _FULL):
        total = context.read_full(bodies[0][at : at + _FULL], switched=True)
        for body in bodies[1:]:
            context.add(total, context.read_full(body[at : at + _FULL], switched=True))
        sums.append(context.write_full(total))
    return context.seal(_TOTAL, bodies[0][: HEAD.size] + b"".join(sums))


def weighted_sums(public: bytes, vectors: Sequence[bytes], columns: I64, offsets: U64) -> bytes:
    """For each vector and each column, the sum over all rows of vector times column, plus an offset, modulo t.

    Args:
        public: The owner's public key.
        vectors: From `SlotsSecret.encrypt_vector`, all of the same rows.
        columns: int64 (rows, columns), absolute values up to `COLUMN_BOUND`.
        offsets: uint64 (vectors, columns) below `MODULUS`; uniform where the owner is to learn a share only.

    Raises:
        BoundError: columns or offsets of another shape or range.
        PeerError: malformed vectors or key, or vectors under another key or of other rows.
    """
    if columns.ndim != 2 or not columns.size or not vectors or offsets.shape != (len(vectors), columns.shape[1]):
        raise BoundError("slots.columns", f"columns {columns.shape} and offsets {offsets.shape}: shapes do not fit")
    for column in columns.T:
        checked_values(column, COLUMN_BOUND)
    checked_residues(offsets.reshape(-1))
    context, rows = PublicContext(PARAMETERS, public), len(columns)
    read = [read_request(context, VECTOR, vector, tag_of(public)) for vector in vectors]
    if {found for found, _ in read} != {rows}:
        raise PeerError("slots.rows", f"vectors of other lengths than the {rows} rows here")
    bodies = [split_blocks(body) for _, body in read]
    sums: list[list[bytes]] = [[] for _ in vectors]
    step = max(1, _AT_ONCE // len(vectors))
    for at in range(0, columns.shape[1], step):
        totals = _totals(context, bodies, columns[:, at : at + step])
        for found, row, wanted in zip(sums, totals, offsets[:, at : at + step], strict=True):
            found += [_sum(context, total, offset) for total, offset in zip(row, wanted, strict=True)]
    body = b"".join(part for found in sums for part in found)
    return context.seal(_SUMS, HEAD.pack(tag_of(*vectors), columns.shape[1]) + body)


def _totals(context: PublicContext, bodies: Sequence[Sequence[bytes]], columns: I64) -> list[list[Ciphertext | None]]:
    """Products of each vector with each column summed over all blocks, in NTT form; these must not leave."""
    totals: list[list[Ciphertext | None]] = [[None] * columns.shape[1] for _ in bodies]
    for number in range(blocks_of(len(columns))):
        part = columns[number * DEGREE : (number + 1) * DEGREE]
        turned = np.zeros((columns.shape[1], DEGREE), dtype=np.int64)
        turned[:, DEGREE - len(part) :] = part[::-1].T
        weights = [context.weights(column) if column.any() else None for column in turned]
        for body, row in zip(bodies, totals, strict=True):
            block = context.read_seeded(body[number])
            for place, weight in enumerate(weights):
                if weight is not None:
                    row[place] = context.multiply_add(row[place], block, weight)
    return totals


def _sum(context: PublicContext, total: Ciphertext | None, offset: np.uint64) -> bytes:
    masks = uniform_residues(SystemEntropy(), DEGREE)
    masks[_OUTPUT] = offset
    first, second = context.residues(conceal(context, total, masks))[:, 0]
    return pack_rows(second[None, None], _LAST) + struct.pack("<Q", int(first[_OUTPUT]))


def _product(context: PublicContext, block: Ciphertext, polynomial: U64) -> Ciphertext | None:
    if not polynomial.any():
        return None
    return context.multiply_add(None, block, context.weights(polynomial.astype(np.int64)))


def _owner(run: str) -> bytes:
    return hashlib.sha256(_KEPT_LABEL + run.encode()).digest()
