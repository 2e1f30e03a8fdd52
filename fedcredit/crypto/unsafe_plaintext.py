"""The group sum without any encryption: for simulations, as the plaintext twin of the other back ends.

UNSAFE. The answerer reads every value of the asker. A profile of this name is refused outside simulation by the spec,
and the summary of a run says that encryption was off; nothing ever falls back to it.

Guarantees: none. Leakage: everything.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.group_checks import (
    check_grouping,
    check_noise,
    check_seed,
    check_values,
    check_withheld,
    names_of,
)
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.prg import SEED_BYTES, Entropy, SeedStream
from fedcredit.crypto.profiles import UNSAFE_PLAINTEXT, GroupSumParameters
from fedcredit.errors import BoundError, PeerError

__all__ = [
    "UnsafePlaintextAnswerer",
    "UnsafePlaintextAsker",
    "UnsafePlaintextPendingSum",
    "unsafe_plaintext_size",
    "unsafe_plaintext_unmask",
]

_MAGIC = b"UNSAFE-PLAINTEXT"
_HEADER = len(_MAGIC) + 1 + 2 * 32
_LOW_BITS = 26


class UnsafePlaintextPendingSum:
    """One vector under way; there is nothing secret about it."""

    def __init__(self, parameters: GroupSumParameters, request: bytes, outputs: dict[str, int]) -> None:
        self._parameters = parameters
        self._request = request
        self._outputs = outputs
        self._opened: set[str] = set()

    def open(self, answerer: str, answer: bytes, withheld: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Sums of one answerer, int64 (outputs,), 0 where withheld; once per answerer.

        Raises:
            PeerError: malformed, of another request, or a value outside the proven range.
            BoundError: an answer of this answerer was opened before, or its hints are missing.
        """
        check_withheld(withheld, self._outputs.get(answerer, 0))
        sums = self._read(answerer, answer, b"A")
        if withheld is not None:
            sums[withheld] = 0
        _check_range(self._parameters, sums)
        return sums

    def open_masked(self, answerer: str, answer: bytes) -> bytes:
        """What is left of a masked answer; only `unsafe_plaintext_unmask` makes sense of it."""
        return self._read(answerer, answer, b"M").astype("<i8").tobytes()

    def _read(self, answerer: str, answer: bytes, kind: bytes) -> NDArray[np.int64]:
        if answerer not in self._outputs:
            raise BoundError("group-sum.hints-missing", f"{answerer}: its answer came before its hints")
        if answerer in self._opened:
            raise BoundError("group-sum.opened", f"{answerer}: its answer to this vector was opened before")
        values = _opened(self._parameters, kind, self._request, answer, self._outputs[answerer])
        self._opened.add(answerer)
        return values


class UnsafePlaintextAsker:
    """Sends its values in the clear."""

    def __init__(self, parameters: GroupSumParameters) -> None:
        self._parameters = _checked(parameters)
        self._outputs: dict[str, int] = {}
        self._spent: set[bytes] = set()

    def setup(self) -> bytes:
        """Empty."""
        return b""

    def accept_hints(self, answerer: str, hints: bytes, outputs: int) -> None:
        """Takes note of an answerer, which has no hints here.

        Raises:
            PeerError: hints where there are none, or a second set.
        """
        if hints or answerer in self._outputs:
            raise PeerError("group-sum.hints-twice", f"{answerer}: hints that are not empty, or a second set")
        self._outputs[answerer] = outputs

    def encrypt(self, values: NDArray[np.int64], seed: bytes) -> tuple[bytes, UnsafePlaintextPendingSum]:
        """Writes one vector down, after the checks that the other back ends make.

        Raises:
            BoundError: a value exceeds the bound, or the seed was used before.
        """
        check_values(self._parameters, values)
        check_seed(seed, self._spent)
        request = _sealed(self._parameters, b"R", b"", values)
        return request, UnsafePlaintextPendingSum(self._parameters, request, self._outputs)


class UnsafePlaintextAnswerer:
    """Reads the values and adds them up."""

    def __init__(self, parameters: GroupSumParameters, grouping: Grouping, entropy: Entropy) -> None:
        self._parameters = _checked(parameters)
        check_grouping(parameters, grouping)
        self._grouping = grouping
        self._seed = entropy.take(SEED_BYTES)

    def hints(self) -> bytes:
        """Empty."""
        return b""

    def answer(
        self, request: bytes, noise: NDArray[np.int64] | None = None, withheld: NDArray[np.bool_] | None = None
    ) -> bytes:
        """Sums in the clear, uniform words where withheld; noise as in the other back ends.

        Raises:
            PeerError: malformed request.
            BoundError: noise beyond the declared slack.
        """
        check_withheld(withheld, self._grouping.outputs)
        sums = self._sums(request, noise)
        if withheld is not None:
            sums[withheld] = self._words("withheld", request, names_of(noise, withheld))[withheld].astype(np.int64)
        return _sealed(self._parameters, b"A", request, sums)

    def answer_masked(self, request: bytes, noise: NDArray[np.int64] | None = None) -> tuple[bytes, bytes]:
        """Sums under a mask uniform modulo 2^64, and the mask.

        Raises:
            PeerError: malformed request.
            BoundError: noise beyond the declared slack.
        """
        sums = self._sums(request, noise)
        mask = self._words("mask", request, names_of(noise, None))
        masked = (sums.astype(np.uint64) + mask).astype(np.int64)
        return _sealed(self._parameters, b"M", request, masked), mask.tobytes()

    def _words(self, use: str, request: bytes, names: str) -> NDArray[np.uint64]:
        stream = SeedStream(self._seed, f"unsafe-plaintext/{use}/{hashlib.sha256(request).hexdigest()}/{names}")
        return np.frombuffer(stream.take(8 * self._grouping.outputs), dtype="<u8")

    def _sums(self, request: bytes, noise: NDArray[np.int64] | None) -> NDArray[np.int64]:
        grouping = self._grouping
        check_noise(self._parameters, noise, grouping.outputs)
        values = _opened(self._parameters, b"R", b"", request, self._parameters.rows)
        # Two halves: sums of each stay below 2^53, so floating-point counting is exact.
        low, high = values & ((1 << _LOW_BITS) - 1), values >> _LOW_BITS
        parts = [np.empty(0, dtype=np.int64)]
        for feature, bins in enumerate(grouping.bins):
            column = grouping.codes[:, feature]
            halves = (np.bincount(column, weights=half, minlength=bins).astype(np.int64) for half in (low, high))
            parts.append(next(halves) + (next(halves) << _LOW_BITS))
        if grouping.weights is not None:
            parts.append(values @ grouping.weights.astype(np.int64))
        sums: NDArray[np.int64] = np.concatenate(parts)
        return sums if noise is None else sums + noise


def unsafe_plaintext_size(values: int) -> int:
    """Bytes of a vector or of an answer in the clear."""
    return _HEADER + 8 * values


def unsafe_plaintext_unmask(parameters: GroupSumParameters, masked: bytes, mask: bytes) -> NDArray[np.int64]:
    """Sums of a masked answer; int64 (outputs,).

    Raises:
        PeerError: lengths that differ, or a sum outside the proven range.
    """
    if len(masked) != len(mask) or len(mask) % 8:
        raise PeerError(
            "group-sum.mask", f"{len(masked)} masked bytes and a mask of {len(mask)}; equal lengths are right"
        )
    sums = (np.frombuffer(masked, dtype="<u8") - np.frombuffer(mask, dtype="<u8")).astype(np.int64)
    _check_range(parameters, sums)
    return np.asarray(sums)


def _checked(parameters: GroupSumParameters) -> GroupSumParameters:
    if parameters.profile != UNSAFE_PLAINTEXT:
        raise BoundError("group-sum.profile", f"profile {parameters.profile} found, {UNSAFE_PLAINTEXT} is right")
    return parameters


def _check_range(parameters: GroupSumParameters, sums: NDArray[np.int64]) -> None:
    # Two-sided: the absolute value of the smallest int64 is negative.
    if np.any((sums > parameters.sum_bound) | (sums < -parameters.sum_bound)):
        raise PeerError("group-sum.range", "answer: an output is beyond the bound proven for this run")


def _header(parameters: GroupSumParameters, kind: bytes, request: bytes) -> bytes:
    return _MAGIC + kind + parameters.digest() + hashlib.sha256(request).digest()


def _sealed(parameters: GroupSumParameters, kind: bytes, request: bytes, values: NDArray[np.int64]) -> bytes:
    return _header(parameters, kind, request) + values.astype("<i8").tobytes()


def _opened(parameters: GroupSumParameters, kind: bytes, request: bytes, data: bytes, count: int) -> NDArray[np.int64]:
    if len(data) != _HEADER + 8 * count or data[:_HEADER] != _header(parameters, kind, request):
        raise PeerError("group-sum.frame", f"{len(data)} bytes that are not the {count} plain values expected here")
    return np.frombuffer(data, dtype="<i8", offset=_HEADER).astype(np.int64)
