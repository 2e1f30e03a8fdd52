"""What releases cost in (epsilon, delta): computed from what was released, by dp-accounting's Renyi accountant.

Nothing here adds epsilons. An :class:`Event` says which mechanism ran with which figures; its cost is that of the
matching ``DpEvent``, composed with all the others.

*Orders are whole numbers.* At whole orders alpha, noise from the discrete Gaussian law and integer sensitivities have
exactly the Renyi moments of the continuous mechanism, with Poisson sampling too: ``E[(P/Q)^k] = exp((k^2 - k) s^2 / 2
v)`` holds for both, since the shift k*s maps the integers onto themselves. At other orders that is not known. The price
is below 1 % of epsilon where the multiplier is 1 or more, and some 10 % at 0.6.

*Neighbours* differ by one unit, added or taken out: a row of one bank, or all that one bank adds.

Source: Mironov, CSF 2017; Mironov, Talwar, Zhang, arXiv 1908.10530 (sampling); Canonne, Kamath, Steinke, NeurIPS 2020
(discrete noise; conversion, proposition 12); Kairouz, Liu, Steinke, ICML 2021 (sums of discrete noises).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Final, Literal

import dp_accounting
from dp_accounting.rdp import RdpAccountant

from fedcredit.crypto.noise_plan import Release, averaging, noise_sources, releases
from fedcredit.errors import DisclosureRefused, IntegrityError
from fedcredit.spec.model import RunSpec

__all__ = [
    "ACCOUNTANT",
    "ORDERS",
    "Event",
    "Mechanism",
    "Planned",
    "Unit",
    "epsilon_of",
    "fitting",
    "plan",
    "read_event",
    "rounds_words",
    "shown",
]

Unit = Literal["none", "record", "bank"]
Mechanism = Literal["none", "sampled_gaussian", "discrete_sum"]

ORDERS: Final = (*range(2, 65), *range(72, 129, 8), 160, 192, 256, 384, 512)
"""Renyi orders that are tried; any subset gives a valid bound."""

ACCOUNTANT: Final = f"dp-accounting {version('dp-accounting')}, Renyi, whole orders"

_EXCESS: Final = 1e-50
"""Bound on what a sum of discrete noises costs beyond one of the same variance; see `discrete_gaussian.LEAST_SD`."""

_MECHANISMS: Final = ("none", "sampled_gaussian", "discrete_sum")


@dataclass(frozen=True)
class Event:
    """Releases of one kind, as far as their cost goes.

    Args:
        release: Name of the kind.
        mechanism: ``sampled_gaussian`` (Poisson sample, clipped, noise), ``discrete_sum`` (members' noise in a sum), or
            ``none``: no noise, so no finite cost.
        noise_multiplier: Standard deviation of the noise over the sensitivity, > 0; 0 under ``none``.
        rate: Probability with which a unit takes part in a step, in (0, 1].
        steps: Mechanisms in one release.
        times: Releases.
    """

    release: str
    mechanism: Mechanism
    noise_multiplier: float
    rate: float = 1.0
    steps: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        """Refuses figures that no mechanism has.

        Raises:
            IntegrityError: naming them.
        """
        noisy = math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0
        right = noisy if self.mechanism != "none" else self.noise_multiplier == 0
        whole = all(isinstance(count, int) and count >= 1 for count in (self.steps, self.times))
        sampled = 0 < self.rate <= 1 and (self.rate == 1 or self.mechanism == "sampled_gaussian")
        if not (self.mechanism in _MECHANISMS and right and whole and sampled and self.release):
            raise IntegrityError(
                "dp.event",
                f"a release {self.release[:32]!r} by {self.mechanism[:32]!r} with multiplier {self.noise_multiplier}, "
                f"rate {self.rate}, {self.times} times {self.steps} steps is none that can be counted",
            )

    def record(self) -> dict[str, object]:
        """Its figures as JSON values; `read_event` is the way back."""
        return asdict(self)

    def cost(self) -> dp_accounting.DpEvent:
        """The event that the accountant composes."""
        if self.mechanism == "none":
            return dp_accounting.NonPrivateDpEvent()
        if self.mechanism == "discrete_sum":
            rho = 1 / (2 * self.noise_multiplier**2)
            one: dp_accounting.DpEvent = dp_accounting.ZCDpEvent(rho=rho, xi=_EXCESS)
        else:
            one = dp_accounting.GaussianDpEvent(self.noise_multiplier)
            if self.rate < 1:
                one = dp_accounting.PoissonSampledDpEvent(self.rate, one)
        return dp_accounting.SelfComposedDpEvent(one, self.steps * self.times)


@dataclass(frozen=True)
class Planned:
    """What a run will release about one bank at most, and what that costs.

    Args:
        unit: What is protected.
        delta: Of the figure.
        epsilon: Of all events together; infinite where there is no noise.
        events: The releases.
    """

    unit: Unit
    delta: float
    epsilon: float
    events: tuple[Event, ...]

    def one(self, release: str) -> Event:
        """A single release of a kind, as it is booked when it leaves.

        Raises:
            IntegrityError: the run has no such release.
        """
        for event in self.events:
            if event.release == release:
                return replace(event, times=1)
        raise IntegrityError("dp.release", f"a release {release!r} was not planned for this run")


def plan(spec: RunSpec, rows: int, banks: int) -> Planned:
    """What a run of averaging will cost one bank, before it starts.

    Args:
        spec: The run's specification.
        rows: Rows the bank trains on.
        banks: Banks in the first sum.

    Raises:
        DisclosureRefused: above the spec's own ``max_epsilon``; the text says how many rounds would fit.
        BoundError: no rows, or nobody's noise can be counted on.
        SpecError: the run does not average.
    """
    privacy, rounds = spec.differential_privacy, averaging(spec).rounds
    if privacy.unit == "none":
        return Planned("none", privacy.delta, math.inf, (Event("update", "none", 0.0, times=rounds),))
    if any(one.summed for one in releases(spec, rows).values()):
        noise_sources(banks, spec.secure_sum)
    events = tuple(_event(one) for one in releases(spec, rows).values())
    planned = Planned(privacy.unit, privacy.delta, epsilon_of(events, privacy.delta), events)
    if privacy.max_epsilon is not None and planned.epsilon > privacy.max_epsilon:
        fits = fitting(planned.events, (), privacy.max_epsilon, privacy.delta)
        raise DisclosureRefused(
            "dp.max-epsilon",
            f"{rounds} rounds cost epsilon {shown(planned.epsilon)} at delta {privacy.delta:g}, "
            f"differential_privacy.max_epsilon is {privacy.max_epsilon:g}: {rounds_words(fits)}",
        )
    return planned


def _event(release: Release) -> Event:
    mechanism: Mechanism = "discrete_sum" if release.summed else "sampled_gaussian"
    return Event(release.name, mechanism, release.multiplier, release.rate, release.steps, release.times)


def read_event(record: Mapping[str, object]) -> Event:
    """An event from its recorded figures.

    Raises:
        IntegrityError: they are not those of an event.
    """
    try:
        return Event(**record)  # type: ignore[arg-type]  # what the fields hold is checked by the event itself
    except TypeError:
        raise IntegrityError("dp.event", "a recorded release has not the figures of one") from None


def epsilon_of(events: Iterable[Event], delta: float) -> float:
    """Epsilon of all events together at ``delta``; infinite if one has no noise, 0 if there is none."""
    alike: dict[Event, int] = {}
    for event in events:  # the accountant's work grows with the kinds of events, not with their number
        one = replace(event, release="any", steps=1, times=1)
        alike[one] = alike.get(one, 0) + event.steps * event.times
    accountant = RdpAccountant(orders=list(ORDERS))
    accountant.compose(
        dp_accounting.ComposedDpEvent([replace(one, times=times).cost() for one, times in alike.items()])
    )
    return float(accountant.get_epsilon(delta))


def fitting(planned: Iterable[Event], spent: Iterable[Event], max_epsilon: float, delta: float) -> int:
    """How many rounds a plan could have beside what is spent, 0 if none.

    Only updates become fewer with the rounds.
    """
    events, before = tuple(planned), tuple(spent)
    rounds = max((event.times for event in events if event.release == "update"), default=0)

    def passes(tried: int) -> bool:
        shorter = [replace(one, times=tried) if one.release == "update" else one for one in events]
        return epsilon_of((*before, *shorter), delta) > max_epsilon

    low, high = 0, rounds + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return low


def rounds_words(rounds: int) -> str:
    """How many rounds would fit, as the end of a sentence."""
    if not rounds:
        return "not one round would fit"
    return "1 round would fit" if rounds == 1 else f"{rounds} rounds would fit"


def shown(epsilon: float) -> str:
    """Epsilon in a text, never rounded down."""
    return "infinite" if math.isinf(epsilon) else f"{math.ceil(epsilon * 1000) / 1000:g}"
