"""What a run with differential privacy releases: which sums, how often, and with how much noise each.

Both who adds the noise and who counts it read this one table, so that nothing leaves under a figure of something else.

| release | unit ``record`` | unit ``bank`` |
|---|---|---|
| ``columns``: sums by which banks agree on columns | in the sum, `SUM_MULTIPLIER` | in the sum, as updates |
| ``update``: a round's update | in each local step, rows drawn at random | in the sum |

Nothing else about training rows may leave such a run: no validation losses, no control variates. Not covered by any
figure: numbers of rows, which banks take part, and measures of the finished model on held-out rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fedcredit.crypto.discrete_gaussian import SumNoise
from fedcredit.errors import BoundError, SpecError
from fedcredit.spec.horizontal import FedavgSection, SecureSumSection
from fedcredit.spec.model import RunSpec

__all__ = ["COLUMN_SUMS", "SUM_MULTIPLIER", "Release", "averaging", "noise_sources", "releases", "sum_noise"]

SUM_MULTIPLIER: Final = 10.0
"""Noise of counts and losses over all rows, over what one row adds: small beside thousands of rows, and cheap."""

COLUMN_SUMS: Final = 2
"""Sums by which banks agree on columns: rows by exponent and by category, then moments."""


@dataclass(frozen=True)
class Release:
    """One kind of release of a run.

    Args:
        name: ``columns`` or ``update``.
        multiplier: Standard deviation of the noise over the sensitivity.
        times: How often the run releases it.
        steps: Noisy steps in each.
        rate: Probability with which a row takes part in a step; 1 = all do.
        summed: Whether the noise is added to the sum by its members, each with a share.
    """

    name: str
    multiplier: float
    times: int
    steps: int = 1
    rate: float = 1.0
    summed: bool = True


def averaging(spec: RunSpec) -> FedavgSection:
    """``[fedavg]`` of a run.

    Raises:
        SpecError: the run does not average.
    """
    if spec.fedavg is None:
        raise SpecError("dp.model", f'[differential_privacy] is for model = "fedavg", this run is "{spec.run.model}"')
    return spec.fedavg


def releases(spec: RunSpec, rows: int) -> Mapping[str, Release]:
    """What a run releases about one bank, by name; empty under ``unit = "none"``.

    Args:
        spec: With ``[fedavg]`` and ``[differential_privacy]``.
        rows: Training rows of the bank; only matters under ``record``.

    Raises:
        BoundError: no rows.
        SpecError: the run does not average.
    """
    privacy, fedavg = spec.differential_privacy, averaging(spec)
    if privacy.unit == "none":
        return {}
    record = privacy.unit == "record"
    around = SUM_MULTIPLIER if record else privacy.noise_multiplier
    update = Release("update", privacy.noise_multiplier, fedavg.rounds)
    if record:
        if rows < 1:
            raise BoundError("dp.rows", f"a bank with {rows} training rows cannot train with noise")
        steps = fedavg.local_epochs * -(-rows // fedavg.batch_size)
        rate = min(1.0, fedavg.batch_size / rows)
        update = Release("update", privacy.noise_multiplier, fedavg.rounds, steps, rate, summed=False)
    return {"columns": Release("columns", around, COLUMN_SUMS), "update": update}


def noise_sources(members: int, section: SecureSumSection) -> int:
    """Members of a sum whose noise is counted on: honest ones that any total holds, whatever the relay tells to whom.

    An honest relay opens over more than (n + colluding) / 2 members. One that tells members different lists of who
    has answered, with those that collude, opens a total over as few as ``min_banks - colluding`` honest ones.

    Source: docs/adr/0013-secure-sum.md, 2.

    Args:
        members: Members of the sum when the vector is sent.
        section: ``[secure_sum]``.

    Raises:
        BoundError: nobody's noise can be counted on.
    """
    least = max(section.min_banks, section.colluding + 2, 3)
    if members < least or least - section.colluding < 1:
        raise BoundError(
            "dp.sources",
            f"a sum of {members} banks needs {least}, of which {section.colluding} may collude: no noise is left",
        )
    return least - section.colluding


def sum_noise(release: Release, sensitivity: int, members: int, section: SecureSumSection) -> SumNoise:
    """What a member adds to its vector in one sum of a release.

    Args:
        release: One with ``summed``.
        sensitivity: Largest L2 norm of what one unit adds, in units of the sum.
        members: Members of the sum when the vector is sent.
        section: ``[secure_sum]``.

    Raises:
        BoundError: the noise of this release belongs into the local steps, or the scale is too coarse.
    """
    if not release.summed:
        raise BoundError("dp.noise", f"the noise of {release.name!r} is added in the local steps, not in the sum")
    return SumNoise(sensitivity, release.multiplier, noise_sources(members, section))
