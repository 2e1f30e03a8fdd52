"""Bytes of SEAL objects, read and written with numpy: nothing a peer sent is ever parsed by SEAL.

SEAL's Python binding moves objects through files and has no buffers. Its file layout is simple, so this module writes
the files from arrays whose length and range it has checked itself, and reads the files SEAL wrote. On the wire travel
neither headers nor lengths of SEAL: residues only, 60 bits each, in a fixed order.

Source: Microsoft SEAL 4.3, serialization.h, ciphertext.cpp, plaintext.cpp, dynarray.h, randomgen.cpp.
"""

from __future__ import annotations

import struct
import zlib
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedcredit.errors import IntegrityError, PeerError

__all__ = [
    "DEGREE",
    "PRIMES",
    "SEED_BYTES",
    "ciphertext_file",
    "pack60",
    "pack_rows",
    "packed_size",
    "plaintext_file",
    "public_key_file",
    "read_ciphertext",
    "read_plaintext",
    "read_seeded",
    "rows_size",
    "seeded_file",
    "unpack60",
    "unpack_rows",
]

DEGREE = 8192
"""Degree N of the ring Z[X]/(X^N + 1)."""

PRIMES = (1152921504606683137, 1152921504606748673, 1152921504606830593)
"""Coefficient primes: two for data, of which the switch drops the second; the last is SEAL's key-level prime."""

SEED_BYTES = 64
"""Seed of the generator from which SEAL expands the second half of a fresh ciphertext."""

_HEADER = struct.Struct("<HBBBBHQ")  # magic, header size, major, minor, compression, reserved, total size
_MAGIC, _MAJOR, _MINOR = 0xA15E, 4, 3
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")  # parms_id, NTT, polynomials, degree, primes, scale, correction factor
_PLAINTEXT = struct.Struct("<32sQd")  # parms_id, coefficients, scale
_ARRAY_PREFIX = _HEADER.size + 8
_BLAKE2XB = b"\x01"
_SEED_OBJECT = _HEADER.size + 1 + SEED_BYTES
_WIDE = 60
_LOW60 = np.uint64((1 << 60) - 1)


def pack60(values: NDArray[np.uint64]) -> bytes:
    """Packs residues below 2^60, two in 15 bytes, little-endian.

    Args:
        values: uint64, any shape, an even number of values below 2^60.
    """
    pairs = np.ascontiguousarray(values, dtype=np.uint64).reshape(-1, 2)
    low = pairs[:, 0] | (pairs[:, 1] << np.uint64(60))
    high = pairs[:, 1] >> np.uint64(4)
    out = np.empty((len(pairs), 15), dtype=np.uint8)
    out[:, :8] = low.astype("<u8").view(np.uint8).reshape(-1, 8)
    out[:, 8:] = high.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :7]
    return out.tobytes()


def packed_size(count: int) -> int:
    """Bytes of ``count`` packed residues; ``count`` is even."""
    return count // 2 * 15


def unpack60(data: bytes, primes: tuple[int, ...], what: str) -> NDArray[np.uint64]:
    """Unpacks one or more polynomials of residues.

    Args:
        data: Packed residues; length a multiple of one polynomial over all ``primes``.
        primes: Prime of each row of residues.
        what: Name of the message, for the error's text.

    Returns:
        uint64 (polynomials, len(primes), 8192).

    Raises:
        PeerError: wrong length, or a residue that is not below its prime.
    """
    step = packed_size(DEGREE) * len(primes)
    if not data or len(data) % step:
        raise PeerError("bfv.length", f"{what}: {len(data)} bytes, a multiple of {step} expected")
    raw = np.frombuffer(data, dtype=np.uint8).reshape(-1, 15)
    words = np.zeros((len(raw), 16), dtype=np.uint8)
    words[:, :15] = raw
    wide = words.view("<u8")
    values = np.empty((len(raw), 2), dtype=np.uint64)
    values[:, 0] = wide[:, 0] & _LOW60
    values[:, 1] = (wide[:, 0] >> np.uint64(60)) | (wide[:, 1] << np.uint64(4))
    residues = values.reshape(-1, len(primes), DEGREE)
    for row, prime in enumerate(primes):
        if bool((residues[:, row] >= np.uint64(prime)).any()):
            raise PeerError("bfv.residue", f"{what}: a residue is not below its prime")
    return residues


def rows_size(primes: tuple[int, ...]) -> int:
    """Bytes of one polynomial whose residues modulo each prime are packed by `pack_rows`."""
    return sum(_row_size(prime) for prime in primes)


def pack_rows(residues: NDArray[np.uint64], primes: tuple[int, ...]) -> bytes:
    """Packs polynomials, residues modulo a prime of 60 bits as `pack60` does, others in as few bytes each as hold them.

    Args:
        residues: uint64 (polynomials, len(primes), 8192), each below its prime.
        primes: Prime of each row.
    """
    return b"".join(
        pack60(row) if prime.bit_length() == _WIDE else _narrow(row, prime)
        for polynomial in residues
        for row, prime in zip(polynomial, primes, strict=True)
    )


def unpack_rows(data: bytes, primes: tuple[int, ...], what: str) -> NDArray[np.uint64]:
    """Unpacks what `pack_rows` packed; arguments, result and errors as those of `unpack60`."""
    step = rows_size(primes)
    if not data or len(data) % step:
        raise PeerError("bfv.length", f"{what}: {len(data)} bytes, a multiple of {step} expected")
    residues = np.empty((len(data) // step, len(primes), DEGREE), dtype=np.uint64)
    at = 0
    for polynomial in residues:
        for row, prime in zip(polynomial, primes, strict=True):
            part = data[at : at + _row_size(prime)]
            at += len(part)
            row[:] = unpack60(part, (prime,), what) if prime.bit_length() == _WIDE else _widen(part, prime, what)
    return residues


def plaintext_file(coefficients: NDArray[np.uint64]) -> bytes:
    """A plaintext polynomial in coefficient form; uint64 (up to 8192,), each below the plain modulus."""
    return _object(_PLAINTEXT.pack(bytes(32), len(coefficients), 1.0) + _array(coefficients))


def ciphertext_file(parms_id: bytes, residues: NDArray[np.uint64]) -> bytes:
    """A ciphertext in coefficient form; residues uint64 (polynomials, primes, 8192)."""
    return _object(_members(parms_id, residues.shape[0], residues.shape[1], ntt=False) + _array(residues))


def seeded_file(parms_id: bytes, first: NDArray[np.uint64], seed: bytes) -> bytes:
    """A fresh ciphertext whose second polynomial SEAL expands from the seed; first uint64 (primes, 8192)."""
    generator = _object(_BLAKE2XB + seed)
    return _object(_members(parms_id, 2, first.shape[0], ntt=False) + _array(first) + generator)


def public_key_file(parms_id: bytes, residues: NDArray[np.uint64]) -> bytes:
    """A public key; residues uint64 (2, primes, 8192) in NTT form."""
    return _object(_members(parms_id, 2, residues.shape[1], ntt=True) + _array(residues))


def read_plaintext(file: bytes, coefficients: int) -> NDArray[np.uint64]:
    """Coefficients of a plaintext file SEAL wrote; uint64 (coefficients,)."""
    payload = _payload(file, _PLAINTEXT.size + _ARRAY_PREFIX + 8 * coefficients)
    return _words(payload[_PLAINTEXT.size + _ARRAY_PREFIX :]).copy()


def read_ciphertext(file: bytes, primes: int) -> NDArray[np.uint64]:
    """Residues of a two-polynomial ciphertext file SEAL wrote; uint64 (2, primes, 8192)."""
    start = _CIPHERTEXT.size + _ARRAY_PREFIX
    payload = _payload(file, start + 16 * primes * DEGREE)
    return _words(payload[start:]).reshape(2, primes, DEGREE).copy()


def read_seeded(file: bytes, primes: int) -> tuple[NDArray[np.uint64], bytes]:
    """First polynomial, uint64 (primes, 8192), and the seed of the second, of a seeded file SEAL wrote."""
    start = _CIPHERTEXT.size + _ARRAY_PREFIX
    end = start + 8 * primes * DEGREE
    payload = _payload(file, end + _SEED_OBJECT)
    if payload[end + _HEADER.size : end + _HEADER.size + 1] != _BLAKE2XB:
        raise IntegrityError("bfv.generator", "SEAL expanded a ciphertext with a generator other than BLAKE2xb")
    return _words(payload[start:end]).reshape(primes, DEGREE).copy(), payload[-SEED_BYTES:]


def _row_size(prime: int) -> int:
    return packed_size(DEGREE) if prime.bit_length() == _WIDE else DEGREE * _narrow_bytes(prime)


def _narrow_bytes(prime: int) -> int:
    return (prime.bit_length() + 7) // 8


def _narrow(row: NDArray[np.uint64], prime: int) -> bytes:
    return np.ascontiguousarray(row, dtype="<u8").view(np.uint8).reshape(-1, 8)[:, : _narrow_bytes(prime)].tobytes()


def _widen(data: bytes, prime: int, what: str) -> NDArray[np.uint64]:
    words = np.zeros((DEGREE, 8), dtype=np.uint8)
    words[:, : _narrow_bytes(prime)] = np.frombuffer(data, dtype=np.uint8).reshape(DEGREE, -1)
    values = words.reshape(-1).view("<u8").astype(np.uint64)
    if bool((values >= np.uint64(prime)).any()):
        raise PeerError("bfv.residue", f"{what}: a residue is not below its prime")
    return values


def _words(data: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)


def _object(payload: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER.size, _MAJOR, _MINOR, 0, 0, _HEADER.size + len(payload)) + payload


def _array(values: NDArray[np.uint64]) -> bytes:
    return _object(struct.pack("<Q", values.size) + np.ascontiguousarray(values, dtype="<u8").tobytes())


def _members(parms_id: bytes, polynomials: int, primes: int, *, ntt: bool) -> bytes:
    return _CIPHERTEXT.pack(parms_id, ntt, polynomials, DEGREE, primes, 1.0, 1)


def _payload(file: bytes, size: int) -> bytes:
    magic, header, major, _, mode, _, total = _HEADER.unpack(file[: _HEADER.size])
    if (magic, header, major, total) != (_MAGIC, _HEADER.size, _MAJOR, len(file)):
        raise IntegrityError(
            "bfv.file", f"SEAL {major} wrote a file this version does not know; SEAL {_MAJOR} expected"
        )
    body = file[_HEADER.size :]
    if mode == 1:
        body = zlib.decompress(body)
    elif mode == 2:
        body = cast("bytes", pa.Codec("zstd").decompress(body, decompressed_size=size, asbytes=True))
    if len(body) != size:
        raise IntegrityError("bfv.file", f"SEAL wrote {len(body)} bytes where {size} were expected")
    return body
