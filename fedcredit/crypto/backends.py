"""Which code carries a profile: the one place that chooses a back end.

A back end is imported when its profile is asked for, so that the library behind bfv-8192 is loaded by runs that use it
and by no others. There is no fallback: a profile that cannot be carried is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.cores import on_cores
from fedcredit.crypto.group_sum import Answerer, Asker, Grouping
from fedcredit.crypto.kept import Once, afresh
from fedcredit.crypto.prg import Entropy
from fedcredit.crypto.profiles import BFV_8192, RLWE_8192, UNSAFE_PLAINTEXT, GroupSumParameters
from fedcredit.errors import BoundError, PeerError

__all__ = ["answer_size", "make_answerer", "make_asker", "on_every_core", "request_size", "unmask"]

T = TypeVar("T")
R = TypeVar("R")


def make_asker(parameters: GroupSumParameters, reference: bytes, entropy: Entropy, once: Once = afresh) -> Asker:
    """The secret side of the group sum.

    Args:
        parameters: From `profiles.derive`.
        reference: 32-byte seed from `reference.reference_seed`; unused where the back end has no reference string.
        entropy: Source of long-lived keys; vectors take their randomness from their own seeds.
        once: Keeps what a library draws that takes no seed.

    Raises:
        BoundError: an unknown profile.
    """
    del entropy  # no back end of today draws an asker's long-lived key from it: 1a has none, 1b takes the library's
    if parameters.profile == RLWE_8192:
        from fedcredit.crypto.hinted import HintedAsker  # noqa: PLC0415 - loaded when its profile is used

        return HintedAsker(parameters, reference)
    if parameters.profile == BFV_8192:
        from fedcredit.crypto.bfv_sum import BfvAsker  # noqa: PLC0415 - loaded when its profile is used

        return BfvAsker(parameters, once)
    if parameters.profile == UNSAFE_PLAINTEXT:
        from fedcredit.crypto.unsafe_plaintext import UnsafePlaintextAsker  # noqa: PLC0415 - loaded when used

        return UnsafePlaintextAsker(parameters)
    raise _unknown(parameters)


def make_answerer(
    parameters: GroupSumParameters,
    reference: bytes,
    setup: bytes,
    grouping: Grouping,
    entropy: Entropy,
    once: Once = afresh,
) -> Answerer:
    """The public side of the group sum.

    Args:
        parameters: From `profiles.derive`, the same as the asker's.
        reference: 32-byte seed from `reference.reference_seed`, derived here and not received.
        setup: What the asker's `setup` gave.
        grouping: Rows to outputs.
        entropy: Source of blinding, flood and masks.
        once: Keeps what a library draws that takes no seed.

    Raises:
        BoundError: an unknown profile, or a grouping that does not fit the parameters.
        PeerError: setup bytes where there should be none, or malformed ones.
    """
    if parameters.profile == BFV_8192:
        from fedcredit.crypto.bfv_sum import BfvAnswerer  # noqa: PLC0415 - loaded when its profile is used

        return BfvAnswerer(parameters, setup, grouping, entropy, once=once)
    if setup:
        raise PeerError("group-sum.setup", f"setup: {len(setup)} bytes found, none are right for {parameters.profile}")
    if parameters.profile == RLWE_8192:
        from fedcredit.crypto.hinted import HintedAnswerer  # noqa: PLC0415 - loaded when its profile is used

        return HintedAnswerer(parameters, reference, grouping, entropy)
    if parameters.profile == UNSAFE_PLAINTEXT:
        from fedcredit.crypto.unsafe_plaintext import UnsafePlaintextAnswerer  # noqa: PLC0415 - loaded when used

        return UnsafePlaintextAnswerer(parameters, grouping, entropy)
    raise _unknown(parameters)


def on_every_core(parameters: GroupSumParameters, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Encrypts, answers or opens several vectors, on every core where the back end's objects allow it.

    The library behind bfv-8192 holds the interpreter's lock and its objects serve one thread at a time.

    Returns:
        Results in the order of the items.
    """
    return on_cores(function, items) if parameters.profile == RLWE_8192 else [function(item) for item in items]


def answer_size(parameters: GroupSumParameters, outputs: int) -> int:
    """Bytes of the answer to one encrypted vector, exactly, masked or not.

    Raises:
        BoundError: an unknown profile.
    """
    if parameters.profile == RLWE_8192:
        from fedcredit.crypto.hinted import answer_size as hinted_answer_size  # noqa: PLC0415 - as above

        return hinted_answer_size(parameters, outputs)
    if parameters.profile == BFV_8192:
        from fedcredit.crypto.bfv_sum import answer_size as bfv_answer_size  # noqa: PLC0415 - as above

        return bfv_answer_size(outputs)
    if parameters.profile == UNSAFE_PLAINTEXT:
        from fedcredit.crypto.unsafe_plaintext import unsafe_plaintext_size  # noqa: PLC0415 - as above

        return unsafe_plaintext_size(outputs)
    raise _unknown(parameters)


def request_size(parameters: GroupSumParameters) -> int:
    """Bytes of one encrypted vector, exactly.

    Raises:
        BoundError: an unknown profile.
    """
    if parameters.profile == RLWE_8192:
        from fedcredit.crypto.hinted import request_size as hinted_request_size  # noqa: PLC0415 - as above

        return hinted_request_size(parameters)
    if parameters.profile == BFV_8192:
        from fedcredit.crypto.bfv_sum import request_size as bfv_request_size  # noqa: PLC0415 - as above

        return bfv_request_size(parameters)
    if parameters.profile == UNSAFE_PLAINTEXT:
        from fedcredit.crypto.unsafe_plaintext import unsafe_plaintext_size  # noqa: PLC0415 - as above

        return unsafe_plaintext_size(parameters.rows)
    raise _unknown(parameters)


def unmask(parameters: GroupSumParameters, masked: bytes, mask: bytes) -> NDArray[np.int64]:
    """Sums of a masked answer, from what its asker opened and the mask its answerer kept; int64 (outputs,).

    Raises:
        PeerError: malformed, of different answers, or a sum outside the proven range.
        BoundError: an unknown profile.
    """
    if parameters.profile == RLWE_8192:
        from fedcredit.crypto.hinted import unmask as hinted_unmask  # noqa: PLC0415 - loaded when its profile is used

        return hinted_unmask(parameters, masked, mask)
    if parameters.profile == BFV_8192:
        from fedcredit.crypto.bfv_sum import unmask as bfv_unmask  # noqa: PLC0415 - loaded when its profile is used

        return bfv_unmask(parameters, masked, mask)
    if parameters.profile == UNSAFE_PLAINTEXT:
        from fedcredit.crypto.unsafe_plaintext import unsafe_plaintext_unmask  # noqa: PLC0415 - loaded when used

        return unsafe_plaintext_unmask(parameters, masked, mask)
    raise _unknown(parameters)


def _unknown(parameters: GroupSumParameters) -> BoundError:
    known = f"{RLWE_8192}, {BFV_8192}, {UNSAFE_PLAINTEXT}"
    return BoundError("profile.name", f"no back end carries the profile {parameters.profile!r}; there are {known}")
