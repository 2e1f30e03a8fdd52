"""What a house's policy says of differential privacy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fedcredit.errors import PolicyDenied

__all__ = ["PrivacyLimit"]


@dataclass(frozen=True)
class PrivacyLimit:
    """What runs of averaging must keep to; nothing is asked for unless it is named.

    Args:
        require_unit: What must be protected; None = runs without noise may take part.
        max_epsilon: Largest epsilon of all runs on one version of the data together; None = no limit. With a limit a
            run without noise is refused, since its epsilon is infinite.
        delta: Of that figure.
        enforce: False counts without refusing; simulation only.
    """

    require_unit: Literal["record", "bank"] | None = None
    max_epsilon: float | None = None
    delta: float = 1e-5
    enforce: bool = True

    def __post_init__(self) -> None:
        """Refuses limits that bind nobody.

        Raises:
            PolicyDenied: naming the figure.
        """
        if self.max_epsilon is not None and not (math.isfinite(self.max_epsilon) and self.max_epsilon > 0):
            raise PolicyDenied("dp.limit", f"the policy's max_epsilon is {self.max_epsilon}, a number above 0 is right")
        if not 0 < self.delta < 1:
            raise PolicyDenied("dp.limit", f"the policy's delta is {self.delta}, a number between 0 and 1 is right")

    def check_unit(self, unit: str) -> None:
        """Refuses a run that protects something else than the house asks for.

        Raises:
            PolicyDenied: naming both.
        """
        if self.enforce and self.require_unit is not None and unit != self.require_unit:
            raise PolicyDenied(
                "policy.privacy",
                f'differential_privacy.unit is "{unit}", this house\'s policy asks for "{self.require_unit}"',
            )
