"""One secret of a party for one run, from which every other secret of that party in that run is derived.

A derived secret is a keyed hash of a label and of *what it protects* (a synthetic IV): another vector, another
grouping, another reference string gives an unrelated secret. So a party that starts again with the same run secret
sends the same bytes for the same content, and nothing it derives ever serves two contents, neither after a crash nor
in a fork or a restored copy of the machine. Whoever derives has to bind all that the secret protects; what cannot be
bound that way (a key both sides agree on before the content is known) needs `Escrow.bind` besides.

Source: HMAC, FIPS 198-1; RFC 5297 (synthetic IV); RFC 8439 (streams).
"""

from __future__ import annotations

import hmac
import os

from fedcredit.crypto.prg import SEED_BYTES, Entropy, SeedStream
from fedcredit.errors import BoundError

__all__ = ["RunSecret"]

_PRODUCT = b"fedcredit/run-secret/v1"


class RunSecret:
    """32 bytes of one party for one run; they stay in its own house and are never used for another run.

    Args:
        key: 32 bytes, fresh from the operating system for every run.

    Raises:
        BoundError: another length.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != SEED_BYTES:
            raise BoundError("secret.length", f"a run secret of {len(key)} bytes was given, {SEED_BYTES} are needed")
        self._key = bytes(key)

    @classmethod
    def fresh(cls) -> RunSecret:
        """A new one, from the operating system."""
        return cls(os.urandom(SEED_BYTES))

    def __repr__(self) -> str:
        return "RunSecret(secret)"

    def __reduce__(self) -> str:
        raise BoundError("secret.copied", "a run secret cannot be copied or stored; its owner keeps the 32 bytes")

    def derive(self, label: str, *bound: bytes) -> bytes:
        """32 bytes for one use.

        Args:
            label: Name of the use.
            bound: All that the result protects or belongs to: run, purpose, digests of content. Lengths are part of
                the hash, so that no two different lists of parts give the same bytes.
        """
        parts = [_PRODUCT, label.encode(), *bound]
        return hmac.digest(self._key, b"".join(len(part).to_bytes(8, "little") + part for part in parts), "sha256")

    def entropy(self, label: str, *bound: bytes) -> Entropy:
        """A stream of uniform bytes for one use; arguments as `derive`.

        It starts at the same byte for the same arguments: what is drawn from it, and in which order, must follow from
        what is bound.
        """
        return SeedStream(self.derive(label, *bound), "run-secret")
