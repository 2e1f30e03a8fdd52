"""The common reference string's seed: from all parties, chosen by none.

Each party commits to a nonce, and reveals it when it holds every commitment; the seed is the hash of all nonces, the
run, the roster and the parameters. One honest nonce makes it uniform and unforeseeable to the others, and a party that
sees the outcome it would like less can only stop the run. A reference string chosen by the asker would print the
answerer's whole grouping (`a_j = 2^j`, `alpha = 0`), so no polynomial of it is ever taken from the wire.

Source: docs/adr/0002-hinted-group-sum.md; Blum, SIGACT News 1983 (commit, then reveal).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.errors import PeerError

__all__ = ["check_commitment", "commit", "reference_seed"]

_COMMITMENT = b"fedcredit/reference/commitment/v1"
_SEED = b"fedcredit/reference/seed/v1"


def commit(nonce: bytes) -> bytes:
    """The 32-byte commitment to a nonce of 32 fresh random bytes.

    It hides because the nonce is uniform, and binds because SHA-256 is collision resistant.

    Raises:
        PeerError: the nonce has another length.
    """
    _check_nonce("nonce", nonce)
    return hashlib.sha256(_framed([_COMMITMENT, nonce])).digest()


def check_commitment(commitment: bytes, nonce: bytes) -> None:
    """Raises unless ``nonce`` is what was committed to.

    Raises:
        PeerError: another nonce, or one of another length.
    """
    if not hmac.compare_digest(commitment, commit(nonce)):
        raise PeerError("reference.commitment", "a revealed nonce is not the one its party committed to")


def reference_seed(
    run_digest: str, roster: Sequence[str], parameters_digest: bytes, nonces: Mapping[str, bytes], purpose: str
) -> bytes:
    """The 32-byte seed from which both sides expand the reference string.

    Args:
        run_digest: Hex digest of the run's configuration and identity.
        roster: All parties that share the string; the order does not matter.
        parameters_digest: `GroupSumParameters.digest` of the parameters agreed.
        nonces: One revealed nonce of 32 bytes for every party of the roster, commitments checked before.
        purpose: What the string is for, such as ``"bin"`` or ``"boost"``; each binning has a string of its own.

    Raises:
        PeerError: a party twice, a nonce missing, unknown, of another length, or used by two parties.
    """
    names = sorted(roster)
    if len(set(names)) != len(names) or not names:
        raise PeerError("reference.roster", f"a roster of {len(names)} parties names one twice or none at all")
    if set(names) != set(nonces):
        raise PeerError("reference.nonces", f"nonces of {sorted(nonces)} were given for the roster {names}")
    for name in names:
        _check_nonce(f"nonce of {name}", nonces[name])
    if len(set(nonces.values())) != len(names):
        raise PeerError("reference.copied", "two parties revealed the same nonce: one copied the other's commitment")
    parts = [_SEED, run_digest.encode(), parameters_digest, purpose.encode(), len(names).to_bytes(8, "little")]
    for name in names:
        parts += [name.encode(), nonces[name]]
    return hashlib.sha256(_framed(parts)).digest()


def _check_nonce(what: str, nonce: bytes) -> None:
    if len(nonce) != SEED_BYTES:
        raise PeerError("reference.nonce", f"{what}: {len(nonce)} bytes found, {SEED_BYTES} are needed")


def _framed(parts: Sequence[bytes]) -> bytes:
    # Lengths in front: no two different lists of parts give the same bytes.
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
