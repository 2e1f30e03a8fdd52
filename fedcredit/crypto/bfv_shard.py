"""The answerer's arithmetic of profile bfv-8192, for some of its outputs.

Blocks of 1024 rows and runs of 8 outputs share one polynomial: row c of block j is coefficient c of the asker's
polynomial; in the answerer's, a row of weight w in output k of the run stands at coefficient ``1024*k + 1023 - c`` with
value w. The coefficient ``1024*k + 1023`` of the product is then the weighted sum over the block: exponents of rows c
and c' add up to it only where c = c', and a wrap-around would need 8192 more or less.

Source: Huang et al. (Cheetah), USENIX Security 2022, section 3; Lu et al. (Squirrel), USENIX Security 2023.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.bfv import Ciphertext, PublicContext, Weights
from fedcredit.crypto.prg import Entropy, uniform_below
from fedcredit.crypto.seal_format import DEGREE, PRIMES, pack60, packed_size
from fedcredit.errors import PeerError

__all__ = ["BLOCK_ROWS", "PLACES", "Shard", "ShardTask", "answer_size", "flood_half_width", "output_places"]

PLACES = 8
"""Outputs that share a ciphertext: balances upload (grows with it) and download (shrinks)."""

BLOCK_ROWS = DEGREE // PLACES
"""Rows that share a ciphertext."""

_PLAINTEXT_BYTES = 2 * 8 * DEGREE  # a transformed polynomial: two primes


def output_places(count: int = PLACES) -> NDArray[np.int64]:
    """Coefficients that hold the first ``count`` outputs of a run."""
    return np.arange(count) * BLOCK_ROWS + BLOCK_ROWS - 1


def answer_size(outputs: int) -> int:
    """Bytes of the answer for one run: the second polynomial whole, the first at its outputs only."""
    return packed_size(DEGREE) + 8 * outputs


def flood_half_width(plain_bits: int) -> int:
    """Largest h for which a flood in [-h, h] still decodes.

    After the switch the noise is at most (N + 1)/2 from rounding and 1 from all that was before it, so decryption is
    exact while ``(N + 1)/2 + 1 + h < q_0 / 2^(plain_bits + 1)``; 8 spare.
    """
    return (PRIMES[0] >> (plain_bits + 1)) - (DEGREE // 2 + 10)


class ShardTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a shard needs to know; plain bytes, so that it can move to another process.

    Args:
        plain_bits: k of the plain modulus 2^k.
        public: The asker's public key.
        rows: Number of rows.
        first: First output of this shard, a multiple of 8.
        outputs: Number of outputs of this shard.
        codes: int32 little-endian (features, rows); features with an output in this shard.
        offsets: First output of each of those features.
        weights: int32 little-endian (columns, rows); weighted columns of this shard.
        columns: Output of each weighted column.
        memory_bytes: Transformed polynomials are kept up to this size, the others made anew for each vector.
    """

    plain_bits: int
    public: bytes
    rows: int
    first: int
    outputs: int
    codes: bytes
    offsets: tuple[int, ...]
    weights: bytes
    columns: tuple[int, ...]
    memory_bytes: int


class Shard:
    """Answers requests for the outputs of one task.

    Args:
        task: Which outputs, and what they sum.
        entropy: Source of masks and flood.

    Raises:
        PeerError: malformed public key.
    """

    def __init__(self, task: ShardTask, entropy: Entropy) -> None:
        self.context = PublicContext(task.plain_bits, task.public)
        self._task = task
        self._entropy = entropy
        self._runs = -(-task.outputs // PLACES)
        self._blocks = -(-task.rows // BLOCK_ROWS)
        self._codes = np.frombuffer(task.codes, dtype="<i4").reshape(len(task.offsets), task.rows)
        self._weights = np.frombuffer(task.weights, dtype="<i4").reshape(len(task.columns), task.rows)
        self._flood = flood_half_width(task.plain_bits)
        kept = task.memory_bytes // (_PLAINTEXT_BYTES * max(1, self._runs))
        self._kept = [list(self._block(number)) for number in range(min(kept, self._blocks))]

    def answer(self, request: bytes, masks: NDArray[np.uint64]) -> bytes:
        """Answers of all runs of this shard, one after the other.

        Args:
            request: The asker's ciphertexts, one for each block.
            masks: uint64 (outputs,), added to the sums modulo t; zeros for an answer that its asker may read.

        Raises:
            PeerError: malformed request.
        """
        parts: list[bytes] = []
        for run, total in enumerate(self.sums(request)):
            count = min(PLACES, self._task.outputs - run * PLACES)
            sealed = self.conceal(total, masks[run * PLACES : run * PLACES + count])
            parts.append(self.extract(sealed, count))
        return b"".join(parts)

    def sums(self, request: bytes) -> list[Ciphertext]:
        """Products summed over all blocks, in coefficient form and not yet concealed; these must not leave."""
        size = PublicContext.SEEDED_BYTES
        if len(request) != size * self._blocks:
            raise PeerError("bfv.length", f"request: {len(request)} bytes, {size * self._blocks} expected")
        totals: list[Ciphertext | None] = [None] * self._runs
        for number in range(self._blocks):
            block = self.context.read_seeded(request[number * size : (number + 1) * size])
            kept = self._kept[number] if number < len(self._kept) else self._block(number)
            for run, weights in enumerate(kept):
                if weights is not None:
                    totals[run] = self.context.multiply_add(totals[run], block, weights)
        out: list[Ciphertext] = []
        for total in totals:
            if total is not None:
                self.context.leave_ntt(total)
            out.append(self.context.zero() if total is None else total)
        return out

    def conceal(self, total: Ciphertext, masks: NDArray[np.uint64]) -> Ciphertext:
        """Hides all but the outputs: fresh zero, masks, modulus switch; each has a test that fails without it."""
        self.context.add_fresh_zero(total)
        self.context.add_values(total, self.blinding(masks))
        self.context.switch_down(total)
        return total

    def blinding(self, masks: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """What is added modulo t, uint64 (8192,): ``masks`` at the outputs, uniform values everywhere else."""
        words = np.frombuffer(self._entropy.take(8 * DEGREE), dtype="<u8")
        values = words & np.uint64(self.context.plain_modulus - 1)  # t is a power of two: no bias
        values[output_places(len(masks))] = masks
        return values

    def extract(self, sealed: Ciphertext, outputs: int) -> bytes:
        """Bytes of one run's answer: of the first polynomial only the outputs leave, under a flood."""
        first, second = self.context.residues(sealed)[:, 0]
        drawn = uniform_below(self._entropy, 2 * self._flood + 1, outputs)
        flood = np.array([value - self._flood for value in drawn], dtype=np.int64)
        values = (first[output_places(outputs)].astype(np.int64) + flood) % PRIMES[0]
        return pack60(second) + struct.pack(f"<{outputs}Q", *values.tolist())

    def _block(self, number: int) -> Iterator[Weights | None]:
        """Polynomials of one block for all runs; None where no row of the block falls into the run."""
        task = self._task
        rows = slice(number * BLOCK_ROWS, min(task.rows, (number + 1) * BLOCK_ROWS))
        row = np.arange(BLOCK_ROWS - 1, BLOCK_ROWS - 1 - (rows.stop - rows.start), -1)
        table = np.zeros((self._runs * PLACES, BLOCK_ROWS), dtype=np.int64)
        for feature, offset in enumerate(task.offsets):
            output = self._codes[feature, rows] + (offset - task.first)
            inside = (output >= 0) & (output < task.outputs)  # a feature may reach into a neighbour shard
            table[output[inside], row[inside]] = 1
        for column, place in enumerate(task.columns):
            table[place - task.first, row] = self._weights[column, rows]
        for run in table.reshape(self._runs, DEGREE):
            yield self.context.weights(run) if run.any() else None
