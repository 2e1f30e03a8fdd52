"""Encrypted group sums, back end 1b: BFV with coefficient packing, library cryptography only.

Guarantees: the answerer learns nothing of the vector (BFV encryption under a key it does not have). An asker that
follows the protocol learns the sums: an answer carries, under a flood, the outputs' coefficients of the first
polynomial, and a second polynomial that a fresh encryption of zero has made pseudo-random even to it; the coefficients
that hold mixtures of rows are masked modulo t and do not leave at all; the switch to one prime divides the noise that
depends on the grouping by 2^60.

Not covered: an asker that crafts its vector reads up to one residue of 60 bits an output, so ledgers count answers;
an answerer that lies; timing. Two answers to one request are two releases: a retry resends the bytes of the first,
which is why both sides take a `fedcredit.crypto.kept.Once`.

Parameters: `fedcredit.crypto.profiles` (proof), 128-bit security by the HE standard's table (180 of 218 bits).

Leakage: number of rows and of outputs, to each side of the other.

Source: docs/adr/0003-library-ciphers.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.bfv import PublicContext, SecretContext
from fedcredit.crypto.bfv_shard import BLOCK_ROWS, PLACES, Shard, output_places
from fedcredit.crypto.bfv_shard import answer_size as run_size
from fedcredit.crypto.bfv_shares import shares_of, task_of
from fedcredit.crypto.bfv_worker import ShardProcess
from fedcredit.crypto.commitment import content_digest
from fedcredit.crypto.group_checks import (
    check_grouping,
    check_noise,
    check_seed,
    check_values,
    check_withheld,
    names_of,
)
from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.kept import Once, afresh
from fedcredit.crypto.prg import SEED_BYTES, Entropy, SystemEntropy, expand
from fedcredit.crypto.profiles import BFV_8192, GroupSumParameters
from fedcredit.crypto.seal_format import DEGREE, PRIMES, packed_size, unpack60
from fedcredit.errors import BoundError, FedCreditError, PeerError, TransportError

__all__ = ["BfvAnswerer", "BfvAsker", "BfvPending", "Resources", "answer_size", "request_size", "unmask"]

_REQUEST, _ANSWER, _MASKED = b"req", b"ans", b"mans"
_TAG_BYTES = 16


@dataclass(frozen=True)
class Resources:
    """What an answerer may use.

    Args:
        workers: Processes that share the work, the answerer's own included; None chooses by size and processors.
        memory_bytes: Transformed polynomials are kept up to this size (131 kB each), the others made anew each time.
    """

    workers: int | None = None
    memory_bytes: int = 2 << 30


class BfvAsker:
    """The asker's side: owns the secret key.

    Args:
        parameters: From `profiles.derive` with profile bfv-8192.
        once: Makes the key pair and every request, or gives back those of a process before this one.

    Raises:
        BoundError: parameters of another profile.
        IntegrityError: what was kept is damaged, or no key pair of these parameters.
    """

    def __init__(self, parameters: GroupSumParameters, once: Once = afresh) -> None:
        _check_profile(parameters)
        self._parameters, self._once = parameters, once
        bits = parameters.sum_bits
        self._context = SecretContext(bits, once("key", parameters.digest(), lambda: SecretContext(bits).kept()))
        self._name = _conversation(parameters, self.setup())
        self._outputs: dict[str, int] = {}
        self._seeds: set[bytes] = set()

    def setup(self) -> bytes:
        """The public key, 184 kB; every answerer needs it first."""
        return self._context.public_bytes()

    def accept_hints(self, answerer: str, hints: bytes, outputs: int) -> None:
        """Takes note of an answerer; this back end has no hints.

        Raises:
            PeerError: hints that are not empty, no outputs, or a second set.
        """
        if answerer in self._outputs:
            raise PeerError("bfv.hints", f"{answerer}: hints were given before")
        if hints or outputs < 1:
            raise PeerError("bfv.hints", f"{answerer}: {len(hints)} bytes for {outputs} outputs; none were expected")
        self._outputs[answerer] = outputs

    def encrypt(self, values: NDArray[np.int64], seed: bytes) -> tuple[bytes, BfvPending]:
        """Encrypts one vector.

        Args:
            values: int64 (rows,), absolute values up to the parameters' value bound.
            seed: 32 bytes, used once. SEAL takes its randomness from the operating system and from nowhere else, so
                the seed only names the request: encrypting again would give other bytes, and a retry must resend.

        Raises:
            BoundError: a value exceeds the bound, a wrong shape, or the seed was used before.
        """
        check_values(self._parameters, values)
        check_seed(seed, self._seeds)
        name = f"vector/{hashlib.sha256(seed).hexdigest()}"
        request = self._once(name, self._name + content_digest(values), lambda: self._encrypted(values))
        return request, BfvPending(self._parameters, self._context, dict(self._outputs), request)

    def _encrypted(self, values: NDArray[np.int64]) -> bytes:
        residues = values.astype(np.uint64) & np.uint64(self._context.plain_modulus - 1)
        blocks = [residues[at : at + BLOCK_ROWS] for at in range(0, len(residues), BLOCK_ROWS)]
        body = b"".join(self._context.encrypt_seeded(block) for block in blocks)
        return self._context.seal(_REQUEST, self._name + body)


class BfvPending:
    """One vector under way; made by `BfvAsker.encrypt`."""

    def __init__(
        self, parameters: GroupSumParameters, context: SecretContext, outputs: dict[str, int], request: bytes
    ) -> None:
        self._parameters = parameters
        self._context = context
        self._outputs = outputs
        self._opened: set[str] = set()
        self._tag = _tag(request)

    def open(self, answerer: str, answer: bytes, withheld: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Sums of one answerer, int64 (outputs,), 0 where withheld; once per answerer.

        Raises:
            PeerError: malformed answer, an answer to another request, or a sum outside the proven range.
            BoundError: unknown answerer, or its answer was opened before.
        """
        check_withheld(withheld, self._outputs.get(answerer, 0))
        values = self._read(answerer, answer, _ANSWER)
        if withheld is not None:
            values[withheld] = 0
        return _centred(self._parameters, values)

    def open_masked(self, answerer: str, answer: bytes) -> bytes:
        """What is left of a masked answer, uint64 little-endian (outputs,): uniform to the asker.

        Raises:
            PeerError: malformed answer, or an answer to another request.
            BoundError: unknown answerer, or its answer was opened before.
        """
        return self._read(answerer, answer, _MASKED).astype("<u8").tobytes()

    def _read(self, answerer: str, answer: bytes, kind: bytes) -> NDArray[np.uint64]:
        outputs = self._outputs.get(answerer)
        if outputs is None:
            raise BoundError("bfv.answerer", f"{answerer}: hints of this answerer were not accepted before the vector")
        if answerer in self._opened:
            raise BoundError("bfv.opened", f"{answerer}: the answer to this vector was opened before")
        counts = _runs(outputs)
        body = self._context.open(kind, answer, _TAG_BYTES + sum(run_size(count) for count in counts))
        if body[:_TAG_BYTES] != self._tag:
            raise PeerError("bfv.tag", f"{answerer}: an answer to another request")
        at, found = _TAG_BYTES, []
        for count in counts:
            found.append(self._read_run(body[at : at + run_size(count)], count))
            at += run_size(count)
        self._opened.add(answerer)
        return np.concatenate(found)

    def _read_run(self, part: bytes, outputs: int) -> NDArray[np.uint64]:
        split = packed_size(DEGREE)
        second = unpack60(part[:split], PRIMES[:1], "answer")[0, 0]
        values = np.frombuffer(part[split:], dtype="<u8").astype(np.uint64)
        if bool((values >= np.uint64(PRIMES[0])).any()) or not bool(second.any()):
            raise PeerError("bfv.residue", "answer: a residue is not below its prime, or nothing is encrypted")
        places = output_places(outputs)
        return self._context.decrypt_at(self._context.read_extracted(second, places, values), places)


class BfvAnswerer:
    """The answerer's side: owns a grouping and the asker's public key. Close it, or use it as a context manager.

    Args:
        parameters: From `profiles.derive`, as the asker has them.
        setup: The asker's public bytes.
        grouping: The fixed matrix.
        entropy: Where the secret seed of masks and of withheld outputs comes from. Flood and blinding are the
            operating system's in every process, because the library's part of an answer cannot be repeated either.
        resources: What the answerer may use; None for the defaults.
        once: Makes every answer, or gives back that of a process before this one.

    Raises:
        BoundError: another profile, or a grouping that does not fit the parameters.
        PeerError: malformed public bytes.
    """

    def __init__(
        self,
        parameters: GroupSumParameters,
        setup: bytes,
        grouping: Grouping,
        entropy: Entropy,
        resources: Resources | None = None,
        once: Once = afresh,
    ) -> None:
        _check_profile(parameters)
        check_grouping(parameters, grouping)
        self._once = once
        self._name = _conversation(parameters, setup)
        self._parameters = parameters
        self._seed = entropy.take(SEED_BYTES)
        self._outputs = grouping.outputs
        allowed = resources or Resources()
        shares = shares_of(grouping, allowed.workers)
        memory_bytes = allowed.memory_bytes // len(shares)
        tasks = [task_of(parameters.sum_bits, setup, grouping, share, memory_bytes) for share in shares]
        self._bounds = [(task.first, task.first + task.outputs) for task in tasks]
        self._others = [ShardProcess(task) for task in tasks[1:]]
        try:
            self._own = Shard(tasks[0], SystemEntropy())
        except BaseException:
            self.close()
            raise

    def hints(self) -> bytes:
        """Empty: this back end has none."""
        return b""

    def answer(
        self, request: bytes, noise: NDArray[np.int64] | None = None, withheld: NDArray[np.bool_] | None = None
    ) -> bytes:
        """Encrypted sums for one request; a second answer to one request, not kept by `once`, is a second release.

        Args:
            request: From `BfvAsker.encrypt`.
            noise: int64 (outputs,) added to the sums, absolute values up to the parameters' sum slack; None for none.
            withheld: bool (outputs,), outputs that get a mask uniform modulo t which nobody keeps; None for none.

        Raises:
            PeerError: malformed request, or one under another key.
            BoundError: noise beyond the declared slack, or withheld outputs of another shape.
            TransportError: a worker process has ended.
            IntegrityError: the request was answered with something else before.
        """
        check_withheld(withheld, self._outputs)
        masks = np.zeros(self._outputs, dtype=np.uint64)
        if withheld is not None:
            masks[withheld] = self._uniform("withheld", request, names_of(noise, withheld))[withheld]
        return self._answer(request, _ANSWER, masks, noise)

    def answer_masked(self, request: bytes, noise: NDArray[np.int64] | None = None) -> tuple[bytes, bytes]:
        """An answer under a mask uniform modulo t, and the mask, uint64 little-endian (outputs,).

        Raises:
            PeerError: malformed request, or one under another key.
            BoundError: noise beyond the declared slack.
            TransportError: a worker process has ended.
        """
        mask = self._uniform("mask", request, names_of(noise, None))
        return self._answer(request, _MASKED, mask, noise), mask.astype("<u8").tobytes()

    def close(self) -> None:
        """Ends the worker processes; they also end with this object and with this process."""
        for other in self._others:
            other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _uniform(self, use: str, request: bytes, names: str) -> NDArray[np.uint64]:
        """Uniform values modulo t, uint64 (outputs,); other ones for another request."""
        label = f"bfv/{use}/{hashlib.sha256(request).hexdigest()}/{names}"
        words = np.frombuffer(expand(self._seed, label, 8 * self._outputs), dtype="<u8")
        return words & np.uint64((1 << self._parameters.sum_bits) - 1)  # t is a power of two: no bias

    def _answer(self, request: bytes, kind: bytes, masks: NDArray[np.uint64], noise: NDArray[np.int64] | None) -> bytes:
        check_noise(self._parameters, noise, self._outputs)
        context = self._own.context
        blocks = -(-self._parameters.rows // BLOCK_ROWS)
        body = context.open(_REQUEST, request, _TAG_BYTES + blocks * PublicContext.SEEDED_BYTES)
        if body[:_TAG_BYTES] != self._name:
            raise PeerError("bfv.conversation", "request: made with another key or for other sizes")
        if noise is not None:
            masks = (masks + noise.astype(np.uint64)) & np.uint64(context.plain_modulus - 1)
        # The seed stands for the grouping: `grouping_secrets` derives it from every cell. A mask says what is added.
        about = hashlib.sha256(kind + self._seed + request + content_digest(masks)).digest()
        return self._once(
            f"answer/{_tag(request).hex()}",
            about,
            lambda: context.seal(kind, _tag(request) + b"".join(self._parts(body[_TAG_BYTES:], masks))),
        )

    def _parts(self, body: bytes, masks: NDArray[np.uint64]) -> list[bytes]:
        try:
            for other, (first, last) in zip(self._others, self._bounds[1:], strict=True):
                other.start(body, masks[first:last])
            try:
                parts = [self._own.answer(body, masks[: self._bounds[0][1]])]
            finally:  # a worker's answer must not be left behind for the next request
                outcomes = [_outcome(other) for other in self._others]
            for outcome in outcomes:
                if isinstance(outcome, FedCreditError):
                    raise outcome
                parts.append(outcome)
        except TransportError:
            self.close()  # what the other workers still send belongs to no later request
            raise
        return parts


def request_size(parameters: GroupSumParameters) -> int:
    """Bytes of one request."""
    blocks = -(-parameters.rows // BLOCK_ROWS)
    return PublicContext.HEADER_BYTES + _TAG_BYTES + blocks * PublicContext.SEEDED_BYTES


def answer_size(outputs: int) -> int:
    """Bytes of one answer."""
    return PublicContext.HEADER_BYTES + _TAG_BYTES + sum(run_size(count) for count in _runs(outputs))


def unmask(parameters: GroupSumParameters, masked: bytes, mask: bytes) -> NDArray[np.int64]:
    """Sums of a masked answer, from what its asker opened and the mask its answerer kept.

    Args:
        parameters: As the asker has them.
        masked: As `BfvPending.open_masked` gives it.
        mask: As `BfvAnswerer.answer_masked` gives it.

    Returns:
        int64 (outputs,).

    Raises:
        PeerError: lengths that differ, values that are not canonical, or a sum outside the proven range.
    """
    if len(masked) != len(mask) or len(mask) % 8 or not mask:
        raise PeerError("bfv.mask", f"{len(masked)} masked bytes and a mask of {len(mask)}; equal lengths expected")
    left, right = (np.frombuffer(data, dtype="<u8") for data in (masked, mask))
    if bool(((left | right) >> np.uint64(parameters.sum_bits)).any()):
        raise PeerError("bfv.mask", f"a masked value or a mask is not below 2^{parameters.sum_bits}")
    return _centred(parameters, (left - right) & np.uint64((1 << parameters.sum_bits) - 1))


def _check_profile(parameters: GroupSumParameters) -> None:
    if parameters.profile != BFV_8192 or parameters.degree != DEGREE:
        raise BoundError("bfv.profile", f"parameters of profile {parameters.profile}; {BFV_8192} expected")


def _centred(parameters: GroupSumParameters, values: NDArray[np.uint64]) -> NDArray[np.int64]:
    modulus = 1 << parameters.sum_bits
    sums = values.astype(np.int64)
    sums[sums >= modulus // 2] -= modulus
    if int(np.abs(sums).max()) > parameters.sum_bound:
        raise PeerError("bfv.range", f"a sum exceeds the proven bound of {parameters.sum_bound}")
    return sums


def _conversation(parameters: GroupSumParameters, setup: bytes) -> bytes:
    # Keys are fresh for each asker, so the public key names the conversation.
    data = parameters.digest() + setup
    return hashlib.blake2b(data, digest_size=_TAG_BYTES, person=b"fedcredit/sum").digest()


def _tag(request: bytes) -> bytes:
    return hashlib.blake2b(request, digest_size=_TAG_BYTES, person=b"fedcredit/answer").digest()


def _runs(outputs: int) -> list[int]:
    return [min(PLACES, outputs - at) for at in range(0, outputs, PLACES)]


def _outcome(other: ShardProcess) -> bytes | FedCreditError:
    try:
        return other.finish()
    except FedCreditError as error:
        return error
