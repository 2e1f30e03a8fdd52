"""What every back end of the group sum checks before it computes.

All of it is known to the checking party itself, so a failure is a `BoundError` of the caller, never a peer's fault.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.group_sum import Grouping
from fedcredit.crypto.prg import SEED_BYTES
from fedcredit.crypto.profiles import GroupSumParameters
from fedcredit.errors import BoundError

__all__ = ["check_grouping", "check_noise", "check_seed", "check_values", "check_withheld", "names_of"]

_LARGEST_CODE = 1 << 16


def check_seed(seed: bytes, spent: set[bytes]) -> None:
    """Refuses a seed of another length or one that has encrypted a vector before, and notes it as spent.

    Args:
        seed: 32 bytes.
        spent: Digests of the seeds that were used; this one is added.

    Raises:
        BoundError: as said.
    """
    if len(seed) != SEED_BYTES:
        raise BoundError("group-sum.seed", f"a seed of {len(seed)} bytes was given, {SEED_BYTES} are needed")
    name = hashlib.sha256(seed).digest()
    if name in spent:
        raise BoundError("group-sum.seed-spent", "this seed has encrypted a vector before; every vector needs its own")
    spent.add(name)


def check_values(parameters: GroupSumParameters, values: NDArray[np.int64]) -> None:
    """Refuses a vector that the parameters were not derived for.

    Raises:
        BoundError: another dtype or shape, or a value beyond the bound.
    """
    if values.dtype != np.int64 or values.shape != (parameters.rows,):
        raise BoundError(
            "group-sum.vector", f"vector: {values.dtype} {values.shape} found, int64 ({parameters.rows},) is right"
        )
    # Two-sided: the absolute value of the smallest int64 is negative.
    if int(values.max()) > parameters.value_bound or int(values.min()) < -parameters.value_bound:
        raise BoundError("group-sum.value", f"vector: a value exceeds the declared bound {parameters.value_bound}")


def check_grouping(parameters: GroupSumParameters, grouping: Grouping) -> None:
    """Refuses a grouping that the parameters were not derived for, or with bins that are undersized.

    Raises:
        BoundError: names what does not fit.
    """
    if grouping.rows != parameters.rows:
        raise BoundError("group-sum.rows", f"grouping: {grouping.rows} rows found, {parameters.rows} are right")
    if grouping.weights is not None and grouping.weight_bound > parameters.weight_bound:
        raise BoundError(
            "group-sum.weight-bound",
            f"grouping: weights up to {grouping.weight_bound} declared, the parameters hold {parameters.weight_bound}",
        )
    if grouping.outputs < 1 or grouping.min_rows < 0 or max(grouping.bins, default=0) > _LARGEST_CODE:
        raise BoundError(
            "group-sum.grouping",
            f"grouping: {grouping.outputs} outputs, minimum rows {grouping.min_rows}; at least 1 and 0 are "
            f"right, and a feature has at most {_LARGEST_CODE} bins",
        )
    grouping.check()


def check_noise(parameters: GroupSumParameters, noise: NDArray[np.int64] | None, outputs: int) -> None:
    """Refuses noise that the parameters have no room for.

    Raises:
        BoundError: another dtype or shape, or a value beyond the declared slack.
    """
    if noise is None:
        return
    if noise.dtype != np.int64 or noise.shape != (outputs,):
        raise BoundError("group-sum.noise", f"noise: {noise.dtype} {noise.shape} found, int64 ({outputs},) is right")
    if int(noise.max()) > parameters.sum_slack or int(noise.min()) < -parameters.sum_slack:
        raise BoundError("group-sum.noise-bound", f"noise: a value exceeds the declared slack {parameters.sum_slack}")


def check_withheld(withheld: NDArray[np.bool_] | None, outputs: int) -> None:
    """Refuses a choice of withheld outputs of another dtype or shape.

    Raises:
        BoundError: as said.
    """
    if withheld is not None and (withheld.dtype != np.bool_ or withheld.shape != (outputs,)):
        raise BoundError(
            "group-sum.withheld", f"withheld: {withheld.dtype} {withheld.shape} found, bool ({outputs},) is right"
        )


def names_of(noise: NDArray[np.int64] | None, withheld: NDArray[np.bool_] | None) -> str:
    """A name of what an answer adds and withholds; part of the label of everything random in it.

    Other noise under the same flood would show the difference of the two.
    """
    parts = [b"" if noise is None else noise.astype("<i8").tobytes(), b"" if withheld is None else withheld.tobytes()]
    return "/".join("" if not part else hashlib.sha256(part).hexdigest() for part in parts)
