"""Noise for differential privacy: a bank's share in what it brings to a sum, and how it trains on its rows.

How much noise a release needs stands in `fedcredit.crypto.noise_plan`, from which it is counted too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.discrete_gaussian import NoiseSource, noise_for
from fedcredit.crypto.noise_plan import releases, sum_noise
from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import BoundError
from fedcredit.kernels.nn import Network
from fedcredit.kernels.nn_train import Steps
from fedcredit.protocol.fedavg.columns import Examples
from fedcredit.spec.model import RunSpec
from fedcredit.types import RunId

__all__ = ["Protection"]

Ints = NDArray[np.int64]


class Protection:
    """One bank's noise in one run.

    Args:
        spec: The run's, with ``differential_privacy.unit`` other than ``none``.
        run: Its name.
        secret: The bank's run secret: noise of the same content is the same, of other content unrelated.
        train: The rows the bank trains on; noise of training is another on any other rows.

    Raises:
        BoundError: no rows, or there is nothing to protect.
    """

    def __init__(self, spec: RunSpec, run: RunId, secret: RunSecret, train: Examples) -> None:
        self._spec, self._run, self._secret = spec, run, secret
        self._rows = train.digest()
        self._releases = releases(spec, len(train))
        if not self._releases:
            raise BoundError("fedavg.noise", "noise for a run whose differential_privacy.unit is none")

    def summed(self, release: str) -> bool:
        """Whether a release has its noise in the sum."""
        return release in self._releases and self._releases[release].summed

    def deviation(self, release: str, sensitivity: int, members: int) -> float:
        """Standard deviation of the noise in an opened sum of so many, in its units: more than what is counted on."""
        return sum_noise(self._releases[release], sensitivity, members, self._spec.secure_sum).total_sd(members)

    def noised(self, release: str, what: str, values: Ints, sensitivity: int, members: int) -> tuple[Ints, int]:
        """Values with this bank's share of the noise, and what the share stays within.

        Args:
            release: ``columns`` or ``update``.
            what: Name of the sum.
            values: int64 (m,).
            sensitivity: Largest L2 norm, in units of the sum, by which one row or bank changes it.
            members: Banks in the sum.

        Raises:
            BoundError: nobody's noise can be counted on.
        """
        noise = sum_noise(self._releases[release], sensitivity, members, self._spec.secure_sum)
        content = hashlib.sha256(values.astype("<i8").tobytes()).digest()
        share = f"{sensitivity}/{noise.variance}".encode()
        bound = (self._run.encode(), what.encode(), release.encode(), content, share)
        entropy = self._secret.entropy("fedavg/noise", *bound)
        limit = noise.bound(len(values))
        return values + np.clip(noise_for(entropy, len(values), noise), -limit, limit), limit

    def steps(self, round_: int, parameters: NDArray[np.float64]) -> Callable[[Network], Steps] | None:
        """Private batches and gradients of one round's training; None where noise is added to the sum instead.

        Args:
            round_: Number of the round, or of a training after the last.
            parameters: float64 (m,), where it starts.
        """
        update = self._releases["update"]
        if update.summed:
            return None
        from fedcredit.kernels.nn_private import PrivateRules, PrivateSteps  # noqa: PLC0415 - loads Opacus, for seconds

        clip = self._spec.differential_privacy.clip_norm
        rules = PrivateRules(update.multiplier, clip, update.rate, update.steps)
        content = hashlib.sha256(parameters.astype("<f8").tobytes()).digest()
        bound = (self._run.encode(), str(round_).encode(), content, self._rows)
        entropy = self._secret.entropy("fedavg/steps", *bound)
        return lambda network: PrivateSteps(network, rules, NoiseSource(entropy))
