"""An auditor's replay: the bytes of a request from the vectors and seeds that its sender kept.

The sender committed to both in the request itself; the holder logged the request's SHA-256. Equal bytes prove that
what was encrypted is what is shown. Never done by a feature holder: it is the label holder's vectors that are shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.backends import make_asker
from fedcredit.crypto.commitment import commit_vector
from fedcredit.crypto.profiles import BFV_8192
from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import BoundError
from fedcredit.protocol.group_sum.messages import Request, SealedVector
from fedcredit.protocol.group_sum.session import Conversation, vector_seed
from fedcredit.wire.message import encode

__all__ = ["rebuild_request", "vector_seeds"]


def rebuild_request(
    conversation: Conversation, index: int, vectors: Sequence[NDArray[np.int64]], seeds: Sequence[bytes]
) -> bytes:
    """Bytes of the message that asked these vectors.

    Args:
        conversation: With the session's nonces, as the escrow of any party has them.
        index: Number of the first vector.
        vectors: Packed, int64 (rows,) each; all vectors of the message (`Conversation.requests`).
        seeds: 32 bytes each, from the escrow or from `vector_seeds`.

    Raises:
        BoundError: a profile whose library takes no seed (bfv-8192): there, only the commitments can be checked.
    """
    if conversation.session.profile == BFV_8192:
        raise BoundError("group_sum.replay", f"{BFV_8192}: its library takes no seed; check the commitments instead")
    secret = RunSecret(bytes(32))  # of no consequence: what an asker encrypts follows from the vectors' seeds alone
    asker = make_asker(conversation.parameters, conversation.reference, secret.entropy("group_sum/replay"))
    sealed = [
        SealedVector(commitment=commit_vector(vector, seed), body=asker.encrypt(vector, seed)[0])
        for vector, seed in zip(vectors, seeds, strict=True)
    ]
    return encode(Request(purpose=conversation.purpose, index=index, vectors=sealed))


def vector_seeds(
    secret: RunSecret, conversation: Conversation, index: int, vectors: Sequence[NDArray[np.int64]]
) -> list[bytes]:
    """The seeds of vectors from the run secret of the party that asked them; ``index`` is the first one's number."""
    return [vector_seed(secret, conversation, at, vector) for at, vector in enumerate(vectors, index)]
