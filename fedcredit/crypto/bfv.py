"""BFV with coefficient packing, through SEAL: the only module that imports TenSEAL.

Three types keep apart who may do what. `KeylessContext` adds ciphertexts. `PublicContext` knows a public key: it
encrypts, multiplies by its owner's polynomials and conceals an answer. `SecretContext` makes a key pair, encrypts and
decrypts; `SecretContext.kept` is the one way out of it for the secret key, to its owner's disk. No batching, rotation,
relinearisation or Galois key exists here.

Guarantees: a wire message is read by this module alone (exact length, parameters, checksum, every residue below its
prime) before SEAL sees it, in files this module wrote; SEAL then validates again. Anything else is a `PeerError`.
The second half of a public key and of a fresh request is expanded from a seed, so no peer chooses it.

Not covered: authenticity (signed envelopes have it), timing, a process that can read this process's memory.

Source: Fan and Vercauteren, ePrint 2012/144; Huang et al. (Cheetah), USENIX Security 2022, section 3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from fedcredit.crypto import seal_format as fmt
from fedcredit.crypto.bfv_header import HEADER_BYTES, open_message, seal_message
from fedcredit.crypto.bfv_parameters import MAX_PLAIN_BITS, BfvParameters, parameters_of
from fedcredit.crypto.bfv_refusals import refusing
from fedcredit.crypto.scratch import make_scratch
from fedcredit.crypto.ternary import TERNARY_BYTES, pack_ternary, ternary_residues, unpack_ternary
from fedcredit.errors import BoundError, IntegrityError, PeerError

__all__ = ["MAX_PLAIN_BITS", "Ciphertext", "KeylessContext", "PublicContext", "SecretContext", "Weights"]

_LAST = 1  # primes of a ciphertext after the switch
_HELPER_PRIME_BITS = (60, 60, 60, 60)
_PLAIN_LEVEL = slice(16, 48)  # where a plaintext's file says what level it is of: behind the header of 16 bytes


@dataclass(frozen=True)
class Ciphertext:
    """A ciphertext of SEAL; the steps of `PublicContext` change it in place."""

    raw: Any


@dataclass(frozen=True)
class Weights:
    """An answerer's polynomial in NTT form."""

    raw: Any


class KeylessContext:
    """Parameters and arithmetic without any key: what a coordinator has.

    Args:
        plain: k of the plain modulus 2^k, in [2, 46], or whole parameters; derived locally, never from a peer.
    """

    HEADER_BYTES = HEADER_BYTES

    def __init__(self, plain: int | BfvParameters) -> None:
        self.parameters = parameters_of(plain)
        self.plain_modulus = self.parameters.plain_modulus
        self._scratch = make_scratch()
        primes = seal.CoeffModulus.Create(fmt.DEGREE, [prime.bit_length() for prime in self.parameters.primes])
        if tuple(int(m.value()) for m in primes) != self.parameters.primes:
            raise IntegrityError("bfv.primes", "this SEAL chooses coefficient primes other than the documented ones")
        self._context = _seal_context(primes, self.plain_modulus)
        self._evaluator = seal.Evaluator(self._context)
        self.parameters_id = _parms_id(self._context.key_parms_id())
        self._ids = {
            len(self.parameters.data): _parms_id(self._context.first_parms_id()),
            _LAST: _parms_id(self._context.last_parms_id()),
        }

    def open(self, kind: bytes, message: bytes, size: int | None = None) -> bytes:
        """Body of a message of these parameters; see `fedcredit.crypto.bfv_header.open_message`.

        Raises:
            PeerError: another length, magic, kind, parameters or checksum.
        """
        return open_message(kind, self.parameters_id, message, size)

    def seal(self, kind: bytes, body: bytes) -> bytes:
        """A message: header and body."""
        return seal_message(kind, self.parameters_id, body)

    def read_full(self, body: bytes, *, switched: bool = False) -> Ciphertext:
        """A ciphertext of which both polynomials travel.

        Raises:
            PeerError: malformed, or its second polynomial is zero, which would be no encryption.
        """
        primes = self._primes(switched=switched)
        residues = fmt.unpack_rows(body, primes, "ciphertext")
        if len(residues) != 2 or not bool(residues[1].any()):
            raise PeerError("bfv.ciphertext", "ciphertext: two polynomials, the second not zero, were expected")
        return self._load_ciphertext(fmt.ciphertext_file(self._ids[len(primes)], residues))

    def read_fresh(self, body: bytes) -> Ciphertext:
        """A fresh ciphertext of a key's owner, in coefficient form; a `PeerError` where it is malformed."""
        size, primes = self.parameters.seeded_size, self.parameters.data
        if len(body) != size:
            raise PeerError("bfv.length", f"ciphertext: {len(body)} bytes, {size} expected")
        first = fmt.unpack_rows(body[: -fmt.SEED_BYTES], primes, "ciphertext")[0]
        return self._load_ciphertext(fmt.seeded_file(self._ids[len(primes)], first, body[-fmt.SEED_BYTES :]))

    def write_full(self, ciphertext: Ciphertext) -> bytes:
        """Both polynomials, packed."""
        residues = self.residues(ciphertext)
        return fmt.pack_rows(residues, self.parameters.data[: residues.shape[1]])

    def full_size(self, *, switched: bool = False) -> int:
        """Bytes of `write_full`."""
        return 2 * fmt.rows_size(self._primes(switched=switched))

    def residues(self, ciphertext: Ciphertext) -> NDArray[np.uint64]:
        """Residues, uint64 (2, primes, 8192), in coefficient form unless the ciphertext is in NTT form."""
        file = self._scratch.written(ciphertext.raw.save)
        return fmt.read_ciphertext(file, int(ciphertext.raw.coeff_modulus_size()))

    def add(self, total: Ciphertext, other: Ciphertext) -> None:
        """Adds ``other`` to ``total``.

        Raises:
            PeerError: the sum would be no encryption, which only crafted ciphertexts reach.
        """
        with refusing("adding ciphertexts"):
            self._evaluator.add_inplace(total.raw, other.raw)

    def switch_down(self, ciphertext: Ciphertext) -> None:
        """Switches to the one prime left: divides the noise by the others and rounds, which hides its origin."""
        with refusing("switching the modulus"):
            self._evaluator.mod_switch_to_inplace(ciphertext.raw, self._context.last_parms_id())

    def _primes(self, *, switched: bool) -> tuple[int, ...]:
        return self.parameters.data[: _LAST if switched else None]

    def _plaintext(self, coefficients: NDArray[np.uint64]) -> Any:
        plain = seal.Plaintext()
        with refusing("a plaintext"):
            self._scratch.loaded(fmt.plaintext_file(coefficients), lambda path: plain.load(self._context, path))
        return plain

    def _load_ciphertext(self, file: bytes) -> Ciphertext:
        ciphertext = seal.Ciphertext()
        with refusing("a ciphertext"):
            self._scratch.loaded(file, lambda path: ciphertext.load(self._context, path))
        return Ciphertext(ciphertext)

    def _over_key_primes(self, file: Callable[[bytes], bytes], *, inverse: bool = False) -> NDArray[np.uint64]:
        # SEAL transforms at data levels only, and its keys live one level above: a helper context whose data primes
        # are this one's key primes expands a seed and transforms. It never holds a key as a key, only its numbers.
        extra = _spare_prime(self.parameters.primes)
        primes = self.parameters.primes
        helper = _seal_context([seal.Modulus(p) for p in (*primes, extra)], self.plain_modulus, checked=False)
        ciphertext, evaluator = seal.Ciphertext(), seal.Evaluator(helper)
        self._scratch.loaded(file(_parms_id(helper.first_parms_id())), lambda path: ciphertext.load(helper, path))
        (evaluator.transform_from_ntt_inplace if inverse else evaluator.transform_to_ntt_inplace)(ciphertext)
        return fmt.read_ciphertext(self._scratch.written(ciphertext.save), len(primes))


class PublicContext(KeylessContext):
    """Parameters and a public key: what an answerer has.

    Args:
        plain: As `KeylessContext`.
        public: As `SecretContext.public_bytes` gives it: a key for these parameters, or the call is refused.

    Raises:
        PeerError: malformed key, or one for other parameters.
    """

    KIND = b"key"
    BODY_BYTES = fmt.rows_size(fmt.PRIMES) + fmt.SEED_BYTES  # of a number's parameters, as `SEEDED_BYTES` is
    SEEDED_BYTES = fmt.rows_size(fmt.PRIMES[:-1]) + fmt.SEED_BYTES

    def __init__(self, plain: int | BfvParameters, public: bytes) -> None:
        super().__init__(plain)
        body = self.open(self.KIND, public, self.parameters.key_size)
        first = fmt.unpack_rows(body[: -fmt.SEED_BYTES], self.parameters.primes, "public key")[0]
        key = seal.PublicKey()
        with refusing("a public key"):
            residues = self._over_key_primes(lambda level: fmt.seeded_file(level, first, body[-fmt.SEED_BYTES :]))
            file = fmt.public_key_file(self.parameters_id, residues)
            self._scratch.loaded(file, lambda path: key.load(self._context, path))
        self._encryptor = seal.Encryptor(self._context, key)
        self._product = seal.Ciphertext()  # reused: one allocation instead of one a product

    def weights(self, coefficients: NDArray[np.int64]) -> Weights:
        """A polynomial to multiply with, transformed once; int64 (8192,), absolute values below half the modulus.

        The polynomial must not be zero: a product with zero is no encryption.
        """
        plain = self._plaintext((coefficients % self.plain_modulus).astype(np.uint64))
        self._evaluator.transform_to_ntt_inplace(plain, self._context.first_parms_id())
        return Weights(plain)

    def read_seeded(self, body: bytes) -> Ciphertext:
        """As `read_fresh`, in NTT form."""
        ciphertext = self.read_fresh(body)
        self._evaluator.transform_to_ntt_inplace(ciphertext.raw)
        return ciphertext

    def multiply_add(self, total: Ciphertext | None, ciphertext: Ciphertext, weights: Weights) -> Ciphertext:
        """``total + ciphertext * weights``, all in NTT form; the product alone where there is no total yet."""
        with refusing("multiplying ciphertexts"):
            if total is None:
                total = Ciphertext(seal.Ciphertext())
                self._evaluator.multiply_plain(ciphertext.raw, weights.raw, total.raw)
            else:
                self._evaluator.multiply_plain(ciphertext.raw, weights.raw, self._product)
                self._evaluator.add_inplace(total.raw, self._product)
        return total

    def leave_ntt(self, ciphertext: Ciphertext) -> None:
        """Back to coefficient form, in which it can be masked and switched."""
        with refusing("transforming a ciphertext"):
            self._evaluator.transform_from_ntt_inplace(ciphertext.raw)

    def zero(self) -> Ciphertext:
        """A fresh encryption of zero, in coefficient form."""
        ciphertext = seal.Ciphertext()
        self._encryptor.encrypt_zero(ciphertext)
        return Ciphertext(ciphertext)

    def encrypt(self, coefficients: NDArray[np.uint64]) -> Ciphertext:
        """Encrypts a polynomial under the public key; uint64 (up to 8192,), each below the plain modulus."""
        ciphertext = seal.Ciphertext()
        self._encryptor.encrypt(self._plaintext(coefficients), ciphertext)
        return Ciphertext(ciphertext)

    def add_fresh_zero(self, ciphertext: Ciphertext) -> None:
        """Adds a fresh encryption of zero: the second polynomial becomes pseudo-random even to the key's owner."""
        self.add(ciphertext, self.zero())

    def add_values(self, ciphertext: Ciphertext, coefficients: NDArray[np.uint64]) -> None:
        """Adds values modulo t, uint64 (8192,), to every coefficient: masks where they are uniform."""
        with refusing("adding values"):
            self._evaluator.add_plain_inplace(ciphertext.raw, self._plaintext(coefficients))

    def add_noise(self, ciphertext: Ciphertext, residues: NDArray[np.uint64]) -> None:
        """Adds a polynomial to the first one of a fresh-sized ciphertext in coefficient form: noise, not a message.

        Args:
            ciphertext: What is changed.
            residues: uint64 (data primes, 8192), one integer a coefficient modulo each prime.
        """
        pair = np.stack([residues, np.zeros_like(residues)])
        self.add(ciphertext, self._load_ciphertext(fmt.ciphertext_file(self._ids[len(residues)], pair)))


class SecretContext(KeylessContext):
    """Parameters and a key pair; nothing but `public_bytes` leaves the house, and nothing but `kept` the process.

    The randomness of SEAL's keys and encryptions is the operating system's and cannot be given.

    Args:
        plain: As `KeylessContext`.
        kept: As `kept` gave it in a process before this one, or a packed secret alone, which has no public key;
            None makes a fresh pair.

    Raises:
        IntegrityError: ``kept`` is not a key pair for these parameters.
    """

    KEPT_BYTES = TERNARY_BYTES + HEADER_BYTES + PublicContext.BODY_BYTES

    def __init__(self, plain: int | BfvParameters, kept: bytes | None = None) -> None:
        super().__init__(plain)
        self._secret = seal.KeyGenerator(self._context).secret_key() if kept is None else self._read_secret(kept)
        self._encryptor = seal.Encryptor(self._context, self._secret)
        self._decryptor = seal.Decryptor(self._context, self._secret)
        self._public = self._fresh_public() if kept is None else kept[TERNARY_BYTES:]
        if kept is not None and len(kept) > TERNARY_BYTES:
            self._check_pair()

    def __repr__(self) -> str:
        return f"SecretContext(plain_bits={self.parameters.plain_bits})"

    def __reduce__(self) -> str:
        raise BoundError("bfv.secret", "a secret context cannot be copied or stored; its owner keeps `kept`")

    def public_bytes(self) -> bytes:
        """The public key: 184 kB."""
        return self._public

    def kept(self) -> bytes:
        """The key pair, `kept_size` long, for its owner's own disk and for no message.

        It holds the secret key in the clear: whoever keeps it does so with mode 0600 and no longer than it is needed.
        The public key is part of it because SEAL draws another one for the same secret each time.
        """
        file, primes = self._scratch.written(self._secret.save), self.parameters.primes
        key = fmt.read_plaintext(file, len(primes) * fmt.DEGREE).reshape(len(primes), fmt.DEGREE)
        pair = np.stack([key, key])  # a file of a ciphertext in NTT form has two polynomials
        residues = self._over_key_primes(lambda level: fmt.public_key_file(level, pair), inverse=True)
        return pack_ternary(residues[0], primes) + self._public

    def encrypt_seeded(self, coefficients: NDArray[np.uint64]) -> bytes:
        """Encrypts a polynomial with the secret key; uint64 (up to 8192,), each below the plain modulus."""
        sealed = self._encryptor.encrypt_symmetric(self._plaintext(coefficients))
        first, seed = fmt.read_seeded(self._scratch.written(sealed.save), len(self.parameters.data))
        return fmt.pack_rows(first[None], self.parameters.data) + seed

    def decrypt(self, ciphertext: Ciphertext) -> NDArray[np.uint64]:
        """All coefficients modulo t, uint64 (8192,)."""
        plain = self._decrypted(ciphertext)
        count = int(plain.coeff_count())
        out = np.zeros(fmt.DEGREE, dtype=np.uint64)
        out[:count] = fmt.read_plaintext(self._scratch.written(plain.save), count)
        return out

    def decrypt_at(self, ciphertext: Ciphertext, places: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Some coefficients modulo t, uint64 (len(places),); quicker than all where they are few."""
        plain = self._decrypted(ciphertext)
        count = int(plain.coeff_count())
        return np.array([plain[p] if p < count else 0 for p in places.tolist()], dtype=np.uint64)

    def noise_budget(self, ciphertext: Ciphertext) -> int:
        """Bits of noise that still fit before decryption fails."""
        return int(self._decryptor.invariant_noise_budget(ciphertext.raw))

    def read_extracted(
        self, second: NDArray[np.uint64], places: NDArray[np.int64], values: NDArray[np.uint64]
    ) -> Ciphertext:
        """Puts an answer together of which only some coefficients of the first polynomial travelled.

        Args:
            second: uint64 (8192,) residues modulo the first prime, already checked.
            places: Coefficients that travelled.
            values: uint64 (len(places),) residues modulo the first prime, already checked.
        """
        residues = np.zeros((2, 1, fmt.DEGREE), dtype=np.uint64)
        residues[1, 0] = second
        residues[0, 0, places] = values
        return self._load_ciphertext(fmt.ciphertext_file(self._ids[_LAST], residues))

    def kept_size(self) -> int:
        """Bytes of `kept`."""
        return TERNARY_BYTES + HEADER_BYTES + self.parameters.key_size

    def _fresh_public(self) -> bytes:
        # A public key is an encryption of zero at the key level; in this form its second half travels as a seed.
        zero = self._encryptor.encrypt_zero_symmetric(self._context.key_parms_id())
        primes = self.parameters.primes
        first, seed = fmt.read_seeded(self._scratch.written(zero.save), len(primes))
        return self.seal(PublicContext.KIND, fmt.pack_rows(first[None], primes) + seed)

    def _read_secret(self, kept: bytes) -> Any:
        if len(kept) not in {TERNARY_BYTES, self.kept_size()}:
            raise IntegrityError("bfv.kept", f"a kept key pair of {len(kept)} bytes, {self.kept_size()} expected")
        residues = ternary_residues(unpack_ternary(kept[:TERNARY_BYTES]), self.parameters.primes)
        pair = np.stack([residues, residues])
        key = self._over_key_primes(lambda level: fmt.ciphertext_file(level, pair))[0]
        plain, secret = fmt.plaintext_file(key.reshape(-1)), seal.SecretKey()
        file = plain[: _PLAIN_LEVEL.start] + self.parameters_id + plain[_PLAIN_LEVEL.stop :]
        self._scratch.loaded(file, lambda path: secret.load(self._context, path))
        return secret

    def _check_pair(self) -> None:
        """Encrypts under the public key and decrypts: another secret's would give noise."""
        probe = np.arange(fmt.DEGREE, dtype=np.uint64) % np.uint64(self.plain_modulus)
        try:
            found = self.decrypt(PublicContext(self.parameters, self._public).encrypt(probe))
        except PeerError as error:
            raise IntegrityError("bfv.kept", "a kept public key is damaged", error.public) from None
        if not np.array_equal(found, probe):
            raise IntegrityError("bfv.kept", "a kept public key is not that of the secret key beside it")

    def _decrypted(self, ciphertext: Ciphertext) -> Any:
        plain = seal.Plaintext()
        with refusing("decrypting"):
            self._decryptor.decrypt(ciphertext.raw, plain)
        return plain


def _seal_context(primes: Any, plain_modulus: int, *, checked: bool = True) -> Any:
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(fmt.DEGREE)
    parameters.set_coeff_modulus(primes)
    parameters.set_plain_modulus(seal.Modulus(plain_modulus))
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128 if checked else seal.SEC_LEVEL_TYPE.NONE)
    if not context.parameters_set():
        raise IntegrityError("bfv.context", f"SEAL refuses the parameters: {context.parameters_error_message()}")
    return context


def _spare_prime(used: tuple[int, ...]) -> int:
    primes = (int(m.value()) for m in seal.CoeffModulus.Create(fmt.DEGREE, list(_HELPER_PRIME_BITS)))
    return next(prime for prime in primes if prime not in used)


def _parms_id(words: Iterable[int]) -> bytes:
    return struct.pack("<4Q", *words)
