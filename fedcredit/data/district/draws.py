"""Seeded randomness of made-up records: named streams, the same for the same seed on every release of numpy.

Nothing here is secret or protects anything: whoever knows the seed of a district can draw every record of it. Streams
have names, so that a holder that is added or a column that is drawn differently leaves all others as they were.

Source: RFC 8439 (ChaCha20), used as a generator with a key that is no secret; Devroye, "Non-Uniform Random Variate
Generation" (1986), section II.2 (inversion); Anscombe, Biometrika 35 (1948) (square root of a count is near normal).
"""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

__all__ = ["Bools", "Draws", "Floats", "Ints"]

_LABEL = b"fedcredit/district/v1/"

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Draws:
    """A family of independent streams.

    Args:
        seed: Any whole number.
        path: Name of the family.
    """

    def __init__(self, seed: int, path: str = "") -> None:
        self._seed = seed
        self._path = path

    def child(self, name: str) -> Draws:
        """A family of its own for one purpose."""
        return Draws(self._seed, f"{self._path}{name}/")

    def uniform(self, name: str, size: int) -> NDArray[np.float64]:
        """``size`` values in the open interval (0, 1), multiples of 2^-33."""
        key = hashlib.sha256(_LABEL + f"{self._seed}/{self._path}{name}".encode()).digest()
        stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(4 * size))
        return np.asarray((np.frombuffer(stream, dtype="<u4") + 0.5) * 2.0**-32)

    def normal(self, name: str, size: int) -> Floats:
        """``size`` standard normal values."""
        return np.asarray(ndtri(self.uniform(name, size)), dtype=np.float32)

    def exponential(self, name: str, size: int) -> Floats:
        """``size`` exponential values of mean 1."""
        return np.asarray(-np.log(self.uniform(name, size)), dtype=np.float32)

    def chance(self, name: str, probability: ArrayLike, size: int) -> Bools:
        """Which of ``size`` events happen; one probability for all or one for each."""
        return np.asarray(self.uniform(name, size) < np.asarray(probability))

    def whole(self, name: str, below: int, size: int) -> Ints:
        """``size`` whole numbers in [0, below)."""
        return np.asarray(self.uniform(name, size) * below, dtype=np.int64)

    def pick(self, name: str, shares: ArrayLike, size: int) -> Ints:
        """``size`` positions in ``shares``, each as often as its share says."""
        edges = np.cumsum(np.asarray(shares, dtype=np.float64))
        chosen = np.searchsorted(edges / edges[-1], self.uniform(name, size), side="right")
        return np.minimum(chosen, len(edges) - 1).astype(np.int64)

    def count(self, name: str, mean: Floats) -> Ints:
        """Whole numbers with about the mean and the variance of a Poisson law, by the square root of a normal."""
        root = np.sqrt(np.maximum(mean, 0.0)) + 0.5 * self.normal(name, len(mean))
        return np.asarray(np.where(root > 0, root * root + 0.25, 0.0), dtype=np.int64)

    def order(self, name: str, size: int) -> Ints:
        """A permutation of [0, size)."""
        return np.argsort(self.uniform(name, size), kind="stable").astype(np.int64)
