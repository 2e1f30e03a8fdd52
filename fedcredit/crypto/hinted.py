"""The hinted group sum: Regev encryption over a ring with a common reference string, made circuit-private.

Asker, per vector v, with a fresh secret s: ``c_j = -a_j s + e_j + delta v_j`` and ``beta_m = -alpha_m s + eps_m``.
Answerer, once: ``hint_k = sum_j a_j w_kj + alpha_1 u_k + alpha_2 u'_k``, w_kj marking the rows of output k in block j
at ``X^(N-1-c)``. Answerer, per vector: coefficient N-1 of ``sum_j c_j w_kj + beta_1 u_k + beta_2 u'_k``, which is a
plain sum of residues over rows plus a dot product, plus a flood. Asker: adds coefficient N-1 of ``hint_k s``; what
remains is ``delta * sum + noise + flood``, floored exactly (bounds and proof: `fedcredit.crypto.profiles`).

Guarantees: the answerer learns nothing of v; a semi-honest asker learns the sums and, over a whole run, at most
`profiles.statistical_leak_log2` beyond them. Not covered: an asker that crafts v (an answer carries sum_bits bits), an
answerer that adds wrongly; see docs/adr/0002-hinted-group-sum.md. Leakage: sizes.

Source: docs/adr/0002-hinted-group-sum.md; Henzinger et al., USENIX Security 2023 (hints); Regev, STOC 2005;
Lyubashevsky, Peikert & Regev, EUROCRYPT 2010 (ring-LWE).
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import mul

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.cores import on_cores
from fedcredit.crypto.group_checks import (
    check_grouping,
    check_noise,
    check_seed,
    check_values,
    check_withheld,
    names_of,
)
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.hint_frames import (
    FRAME_OVERHEAD,
    Context,
    Kind,
    open_frame,
    read_context,
    request_digest,
    seal_frame,
)
from fedcredit.crypto.hint_sums import (
    bin_hints,
    bin_masks,
    dot_small,
    dot_tiny,
    encode_rows,
    sum_codes,
    sum_weights,
    weight_hint,
)
from fedcredit.crypto.lanes import LANES
from fedcredit.crypto.prg import SEED_BYTES, Entropy, SeedStream, centred_binomial, expand, uniform_below, uniform_words
from fedcredit.crypto.profiles import RLWE_8192, GroupSumParameters
from fedcredit.crypto.residues import RESIDUE_BITS, pack_residues, packed_size, unpack_residues
from fedcredit.crypto.ring import U32, forward, inverse_products, ring_for
from fedcredit.crypto.sampling import reference_string
from fedcredit.errors import BoundError, PeerError

__all__ = ["HintedAnswerer", "HintedAsker", "HintedPendingSum", "answer_size", "decode", "request_size", "unmask"]

Hints = dict[str, U32]
"""Hints by answerer, each uint32 (outputs, L, N)."""

_BINS_AT_ONCE = 8  # one task of a thread: its marks are one byte a row


def decode(parameters: GroupSumParameters, residues: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of answers whose secret part was added: exact, by integers.

    Args:
        parameters: Of the run.
        residues: int64 (outputs, L), reduced.

    Returns:
        int64 (outputs,).

    Raises:
        PeerError: a sum beyond the proven bound: the answer is not one of this request.
    """
    q = parameters.modulus
    lifts = [q // p * pow(q // p, -1, p) for p in parameters.primes]
    sums = np.empty(len(residues), dtype=np.int64)
    for k, row in enumerate(residues.tolist()):
        x = (sum(map(mul, row, lifts)) + parameters.noise_bound) % q
        total = (x - q if x > q // 2 else x) // parameters.delta  # Python floors, also below zero
        if abs(total) > parameters.sum_bound:
            raise PeerError("group-sum.range", f"answer: output {k} is beyond the bound proven for this run")
        sums[k] = total
    return sums


def request_size(parameters: GroupSumParameters) -> int:
    """Bytes of one request."""
    return FRAME_OVERHEAD + packed_size((parameters.rows + 2 * parameters.degree) * len(parameters.primes))


def answer_size(parameters: GroupSumParameters, outputs: int) -> int:
    """Bytes of one answer."""
    return FRAME_OVERHEAD + packed_size(outputs * len(parameters.primes))


def unmask(parameters: GroupSumParameters, masked: bytes, mask: bytes) -> NDArray[np.int64]:
    """Sums of what `HintedPendingSum.open_masked` gave, by the holder of the mask; int64 (outputs,).

    Raises:
        PeerError: malformed, of other parameters, or masked and mask of different answers.
    """
    context = read_context(mask, Kind.MASK)
    ours = Context(parameters.digest(), context.reference, context.request)
    hidden, cover = open_frame(masked, Kind.OPENED_MASKED, ours), open_frame(mask, Kind.MASK, ours)
    primes = np.array(parameters.primes, dtype=np.uint32)
    outputs = len(cover) * 8 // (RESIDUE_BITS * len(primes))
    left, right = (unpack_residues(part, primes, (outputs, len(primes), 1), "mask")[..., 0] for part in (hidden, cover))
    return decode(parameters, (left.astype(np.int64) - right) % primes.astype(np.int64))


class HintedPendingSum:
    """One vector under way: holds its one-time secret, for opening answers only."""

    def __init__(
        self, parameters: GroupSumParameters, context: Context, secret: NDArray[np.int8], hints: Hints
    ) -> None:
        self._parameters = parameters
        self._context = context
        # Coefficient N-1 of a product pairs i with N-1-i and never wraps: the secret is kept reversed for it.
        self._reversed = np.ascontiguousarray(secret[::-1]).astype(np.int32)
        self._hints = hints
        self._opened: set[str] = set()

    def open(self, answerer: str, answer: bytes, withheld: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Sums of one answerer, int64 (outputs,), 0 where withheld; once per answerer.

        Raises:
            PeerError: malformed, of another request, or a value outside the proven range.
            BoundError: an answer of this answerer was opened before, or its hints are missing.
        """
        check_withheld(withheld, len(self._hints.get(answerer, ())))
        residues = self._uncovered(answerer, answer, Kind.ANSWER)
        if withheld is None:
            return decode(self._parameters, residues)
        sums = np.zeros(len(residues), dtype=np.int64)
        sums[~withheld] = decode(self._parameters, residues[~withheld])
        return sums

    def open_masked(self, answerer: str, answer: bytes) -> bytes:
        """What is left of a masked answer, for the holder of the mask (`unmask`); uniform to everyone else.

        Raises:
            PeerError: malformed, or of another request.
            BoundError: an answer of this answerer was opened before, or its hints are missing.
        """
        residues = self._uncovered(answerer, answer, Kind.MASKED_ANSWER)
        return seal_frame(Kind.OPENED_MASKED, self._context, pack_residues(residues.astype(np.uint32)))

    def _uncovered(self, answerer: str, answer: bytes, kind: Kind) -> NDArray[np.int64]:
        if answerer not in self._hints:
            raise BoundError("group-sum.hints-missing", f"{answerer}: its answer came before its hints")
        if answerer in self._opened:
            raise BoundError("group-sum.opened", f"{answerer}: its answer to this vector was opened before")
        hints = self._hints[answerer]
        primes = np.array(self._parameters.primes, dtype=np.uint32)
        body = open_frame(answer, kind, self._context)
        rho = unpack_residues(body, primes, (len(hints), len(primes), 1), "answer")[..., 0].astype(np.int64)
        # Before decoding, whatever comes out: a peer that may try again could read the secret from what is refused.
        self._opened.add(answerer)
        products = dot_small(hints.view(np.int32), self._reversed)
        return np.asarray((rho + products) % primes.astype(np.int64))


class HintedAsker:
    """Secret side: encrypts vectors, each with a secret of its own, and opens answers.

    Args:
        parameters: From `profiles.derive`.
        reference: 32-byte seed from `reference.reference_seed`.
    """

    def __init__(self, parameters: GroupSumParameters, reference: bytes) -> None:
        self._parameters = _checked(parameters)
        self._ring = ring_for(parameters.primes, parameters.degree)
        self._string = reference_string(parameters, reference)
        self._context = Context(parameters.digest(), self._string.digest)
        self._hints: Hints = {}
        self._spent: set[bytes] = set()

    def setup(self) -> bytes:
        """Nothing: both sides expand the reference string themselves."""
        return b""

    def accept_hints(self, answerer: str, hints: bytes, outputs: int) -> None:
        """Takes an answerer's one-time hints.

        Raises:
            PeerError: malformed, of another run, of another number of outputs, or a second set.
        """
        if answerer in self._hints:
            raise PeerError("group-sum.hints-twice", f"{answerer}: a second set of hints")
        if outputs < 1:
            raise BoundError("group-sum.outputs", f"{answerer}: {outputs} outputs were declared, at least 1 is needed")
        body = open_frame(hints, Kind.HINTS, self._context)
        shape = (outputs, len(self._ring.primes), self._ring.degree)
        self._hints[answerer] = unpack_residues(body, self._ring.primes, shape, "hints")

    def encrypt(self, values: NDArray[np.int64], seed: bytes) -> tuple[bytes, HintedPendingSum]:
        """Encrypts one vector.

        All randomness is expanded from the seed, so that an auditor who is given it can repeat the request bit for bit.
        Hazard: two vectors under one seed show their difference to every answerer. This object refuses a seed it has
        seen; across restarts the caller must log the seed as spent before it sends, and resend bytes, never re-encrypt.

        Args:
            values: int64 (rows,), absolute values up to the parameters' value bound.
            seed: 32 fresh bytes from the operating system.

        Returns:
            The request, and what opens its answers.

        Raises:
            BoundError: another shape, a value beyond the bound, a seed of another length or one used before.
        """
        parameters = self._parameters
        check_values(parameters, values)
        check_seed(seed, self._spent)
        secret = centred_binomial(expand(seed, "hinted/secret", 8 * parameters.degree))
        request = seal_frame(Kind.REQUEST, self._context, pack_residues(self._ciphertext(values, secret, seed)))
        context = Context(self._context.parameters, self._context.reference, request_digest(request))
        return request, HintedPendingSum(parameters, context, secret, self._hints)

    def _ciphertext(self, values: NDArray[np.int64], secret: NDArray[np.int8], seed: bytes) -> U32:
        """c_j for the rows there are, then beta_1, beta_2; uint32 (rows + 2N, L)."""
        parameters, ring = self._parameters, self._ring
        transformed = forward(ring, secret.astype(np.int32))
        errors = centred_binomial(expand(seed, "hinted/error", 8 * parameters.rows))
        scale = np.array([parameters.delta % p for p in parameters.primes], dtype=np.int64)
        out = np.empty((parameters.rows + 2 * parameters.degree, len(parameters.primes)), dtype=np.uint32)
        encode_rows(inverse_products(ring, self._string.vector, transformed), values, errors, scale, ring.primes, out)
        errors = centred_binomial(expand(seed, "hinted/blinding-error", 16 * parameters.degree))
        zeros = np.zeros(len(errors), dtype=np.int64)
        products = inverse_products(ring, self._string.alpha, transformed)
        encode_rows(products, zeros, errors, scale, ring.primes, out[parameters.rows :])
        return out


class HintedAnswerer:
    """Public side: owns a grouping and its blinding, never a secret of an asker.

    One object serves one asker under one reference string; a new grouping, or a new run, needs a new object, because
    hints of two groupings under one blinding would print the rows that moved. Flood and masks are expanded from a
    secret seed and the digest of the request, so that a repeated request gets the same bytes and says nothing new; the
    caller still counts requests, since every *different* request is a new answer to the ledger.

    Args:
        parameters: From `profiles.derive`.
        reference: 32-byte seed from `reference.reference_seed`.
        grouping: Rows to outputs; checked here, before anything is sent.
        entropy: Where the secret seeds come from.
    """

    def __init__(self, parameters: GroupSumParameters, reference: bytes, grouping: Grouping, entropy: Entropy) -> None:
        self._parameters = _checked(parameters)
        check_grouping(parameters, grouping)
        self._ring = ring_for(parameters.primes, parameters.degree)
        self._string = reference_string(parameters, reference)
        self._context = Context(parameters.digest(), self._string.digest)
        self._bins = grouping.bins
        self._outputs = grouping.outputs
        self._codes = np.ascontiguousarray(grouping.codes.T).astype(np.uint16)
        self._weights = [] if grouping.weights is None else list(np.ascontiguousarray(grouping.weights.T))
        self._flood_seed = entropy.take(SEED_BYTES)
        self._blind = self._draw_blinding(entropy)

    def hints(self) -> bytes:
        """The hints of all outputs, in order; computed on every core, the same bytes at every call."""
        parts = on_cores(lambda task: self._hint_part(*task), self._tasks())
        return seal_frame(Kind.HINTS, self._context, b"".join(parts))

    def answer(
        self, request: bytes, noise: NDArray[np.int64] | None = None, withheld: NDArray[np.bool_] | None = None
    ) -> bytes:
        """Encrypted sums for one request.

        Args:
            request: From `HintedAsker.encrypt`.
            noise: int64 (outputs,) added to the sums, absolute values up to the parameters' sum slack; None for none.
            withheld: bool (outputs,), outputs in whose place uniform residues modulo q go out; None for none.

        Raises:
            PeerError: malformed request, or one of another run.
            BoundError: noise beyond the declared slack, or withheld outputs of another shape.
        """
        check_withheld(withheld, self._outputs)
        digest, sums = self._sums(request, noise, withheld)
        if withheld is not None:
            sums[withheld] = self._uniform("withheld", digest, names_of(noise, withheld))[withheld]
        context = Context(self._context.parameters, self._context.reference, digest)
        return seal_frame(Kind.ANSWER, context, pack_residues(sums.astype(np.uint32)))

    def answer_masked(self, request: bytes, noise: NDArray[np.int64] | None = None) -> tuple[bytes, bytes]:
        """An answer under a mask uniform mod q, and the mask; each is useless without the other.

        Raises:
            PeerError: malformed request, or one of another run.
            BoundError: noise beyond the declared slack.
        """
        digest, sums = self._sums(request, noise)
        context = Context(self._context.parameters, self._context.reference, digest)
        mask = self._uniform("mask", digest, names_of(noise, None))
        masked = (sums + mask) % self._ring.primes.astype(np.int64)
        return (
            seal_frame(Kind.MASKED_ANSWER, context, pack_residues(masked.astype(np.uint32))),
            seal_frame(Kind.MASK, context, pack_residues(mask.astype(np.uint32))),
        )

    def _draw_blinding(self, entropy: Entropy) -> NDArray[np.int8]:
        """u_k, u'_k of every output, int8 (outputs, 2, N)."""
        degree = self._parameters.degree
        seed = entropy.take(SEED_BYTES)
        blind = np.empty((self._outputs, 2, degree), dtype=np.int8)
        for k in range(self._outputs):
            blind[k] = centred_binomial(expand(seed, f"hinted/blinding/{k}", 16 * degree)).reshape(2, degree)
        return blind

    def _tasks(self) -> Iterator[tuple[int, int, int]]:
        """(feature, first bin, bins) of each task; a weighted column is a feature past the last."""
        for feature, bins in enumerate(self._bins):
            for first in range(0, bins, _BINS_AT_ONCE):
                yield feature, first, min(_BINS_AT_ONCE, bins - first)
        for column in range(len(self._weights)):
            yield len(self._bins) + column, 0, 1

    def _hint_part(self, feature: int, first: int, bins: int) -> bytes:
        string, ring = self._string, self._ring
        place = sum(self._bins[:feature]) + first
        if feature < len(self._bins):
            masks = np.zeros((bins, len(string.vector), ring.degree // LANES), dtype=np.uint8)
            bin_masks(self._codes[feature], first, masks)
            found = bin_hints(ring, masks, self._blind[place : place + bins], string.vector, string.alpha)
        else:
            place += feature - len(self._bins)
            weights = self._weights[feature - len(self._bins)]
            found = weight_hint(ring, weights, self._blind[place], string.vector, string.alpha)[None]
        return pack_residues(found)

    def _uniform(self, use: str, digest: bytes, names: str) -> NDArray[np.int64]:
        """Uniform values modulo q for every output, int64 (outputs, L)."""
        stream = SeedStream(self._flood_seed, f"hinted/{use}/{digest.hex()}/{names}")
        columns = [uniform_words(stream.take, p, self._outputs) for p in self._parameters.primes]
        return np.stack(columns, axis=1).astype(np.int64)

    def _sums(
        self, request: bytes, noise: NDArray[np.int64] | None, withheld: NDArray[np.bool_] | None = None
    ) -> tuple[bytes, NDArray[np.int64]]:
        """Digest of the request, and the flooded sums, int64 (outputs, L), reduced."""
        parameters, primes = self._parameters, self._ring.primes
        check_noise(parameters, noise, self._outputs)
        body = open_frame(request, Kind.REQUEST, self._context)
        rows = parameters.rows
        shape = (rows + 2 * parameters.degree, LANES, 1)
        residues = unpack_residues(body, primes, shape, "request")[..., 0]
        total = np.zeros(self._outputs * LANES, dtype=np.uint64)
        offsets = np.concatenate([[0], np.cumsum(self._bins)]).astype(np.int64)
        sum_codes(residues[:rows], self._codes, offsets, total)
        for column, weights in enumerate(self._weights):
            at = (int(offsets[-1]) + column) * LANES
            sum_weights(residues[:rows], weights, primes, total[at : at + LANES])
        digest = request_digest(request)
        sums = (total.reshape(-1, LANES)[:, : len(primes)] % primes.astype(np.uint64)).astype(np.int64)
        beta = residues[rows:].reshape(2, parameters.degree, LANES)[:, ::-1, : len(primes)]
        sums += dot_tiny(self._blind, np.ascontiguousarray(beta.transpose(0, 2, 1)).astype(np.int32))
        sums += self._offsets(digest, noise, names_of(noise, withheld))
        return digest, np.asarray(sums % primes.astype(np.int64))

    def _offsets(self, digest: bytes, noise: NDArray[np.int64] | None, names: str) -> NDArray[np.int64]:
        """Flood plus scaled noise of every output, the same integer modulo each prime; int64 (outputs, L)."""
        stream = SeedStream(self._flood_seed, f"hinted/flood/{digest.hex()}/{names}")
        flood = uniform_below(stream, self._parameters.flood_width, self._outputs)
        if noise is not None:
            flood = [f + self._parameters.delta * extra for f, extra in zip(flood, noise.tolist(), strict=True)]
        return np.array([[f % p for p in self._parameters.primes] for f in flood], dtype=np.int64)


def _checked(parameters: GroupSumParameters) -> GroupSumParameters:
    if parameters.profile != RLWE_8192:
        raise BoundError("group-sum.profile", f"profile {parameters.profile} found, {RLWE_8192} is right")
    return parameters
