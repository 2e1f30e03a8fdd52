"""What a house allows to leave, written by the house. An empty or absent policy allows nothing.

``policy.toml``::

    mode = "production"
    counterparties = ["bank"]
    protocols = ["align", "bin", "scorecard", "group_sum"]
    messages = ["*"]                       # or kinds, such as "group_sum.answer"
    runs = ["<spec digest>"]               # approved specs
    approvals = 2                          # different people who have to approve a run; `runs` alone approves none then
    expires = 2027-01-01T00:00:00Z
    max_message_bytes = 200_000_000
    max_run_bytes = 20_000_000_000
    max_run_messages = 100_000
    kind_messages = { "group_sum.answer" = 2_000 }
    align_modes = ["registry", "blind"]    # how rows of a run may be found
    min_decoys = 1.0                       # under "blind"; below 1.0, other houses learn more of who is a customer

    [caps]                                 # only ever stricter than the defaults
    equations = 50
    row_bits = 12
    bins_returned = 40
    ids_asked = 500_000

    [differential_privacy]                 # of runs that average; what is not named is not asked for
    require_unit = "record"                # or "bank"
    max_epsilon = 8.0                      # of all runs on one version of the data together
    delta = 1e-5
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedcredit.errors import PolicyDenied, SpecError
from fedcredit.governance.caps import CapRules
from fedcredit.governance.privacy_limit import PrivacyLimit
from fedcredit.types import PartyId

__all__ = ["SAFE_DECOYS", "CapSection", "Policy", "PrivacySection", "load_policy", "simulation_policy"]

SAFE_DECOYS = 1.0
"""Decoys for each customer that a policy asks for unless it says another number: as many as there are customers."""

_Size = Annotated[int, Field(ge=0)]
_Modes = tuple[Literal["plain", "blind", "registry"], ...]
_SAFE_MODES: _Modes = ("registry", "blind")
_Cap = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_ANY = "*"


class CapSection(BaseModel):
    """Caps of the house, in the units of the ledger; None = the default alone."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    equations: _Cap | None = None
    row_bits: _Cap | None = None
    bins_returned: _Cap | None = None
    ids_asked: _Cap | None = None


class PrivacySection(BaseModel):
    """What runs of averaging must keep to; the house's approval of a spec is needed besides.

    Attributes:
        require_unit: What noise must protect; None = runs without noise may take part.
        max_epsilon: Largest epsilon of all runs on one version of the data together; None = no limit.
        delta: Of that figure.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    require_unit: Literal["record", "bank"] | None = None
    max_epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5


class Policy(BaseModel):
    """One house's policy; every default denies.

    Attributes:
        mode: What kind of run it is for.
        counterparties: Parties that may be sent anything.
        protocols: Protocols that may be run.
        messages: Kinds that may leave; "*" stands for all kinds of the allowed protocols.
        runs: Digests of approved specs.
        any_run: Every spec is approved; simulation only.
        approvals: How many different people of the house have to approve a run before it starts; one denies it.
        expires: Nothing leaves from then on; None = nothing leaves at all.
        max_message_bytes: Largest single message, envelope included.
        max_run_bytes: Most bytes of one run.
        max_run_messages: Most messages of one run.
        kind_messages: Most messages of one run by kind, where it is fewer.
        align_modes: How rows may be found; None = ``registry`` and ``blind``, and in a simulation ``plain``.
        min_decoys: Least decoys for each customer under ``blind``; None = `SAFE_DECOYS`, in a simulation 0. Below it
            feature holders learn with more certainty who is a customer, at 0 of every customer.
        caps: Stricter caps of the disclosure ledger.
        differential_privacy: What runs of averaging must keep to.
        enforce: False counts disclosures without refusing any; simulation only.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    mode: Literal["production", "simulation"] = "production"
    counterparties: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    any_run: bool = False
    approvals: Annotated[int, Field(ge=1, le=20)] = 1
    expires: AwareDatetime | None = None
    max_message_bytes: _Size = 0
    max_run_bytes: _Size = 0
    max_run_messages: _Size = 0
    kind_messages: Mapping[str, _Size] = Field(default_factory=dict)
    align_modes: _Modes | None = None
    min_decoys: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    caps: CapSection = CapSection()
    differential_privacy: PrivacySection = PrivacySection()
    enforce: bool = True

    @model_validator(mode="after")
    def _simulation_only(self) -> Self:
        """Refuses what would unlock real records."""
        if self.mode != "simulation":
            for name, loosened in (("any_run", self.any_run), ("enforce", not self.enforce)):
                if loosened:
                    raise ValueError(f"{name} = {str(getattr(self, name)).lower()} needs mode = 'simulation'")
            if "plain" in (self.align_modes or ()):
                raise ValueError("align_modes = ['plain'] shows every id and needs mode = 'simulation'")
        return self

    @model_validator(mode="after")
    def _people_decide(self) -> Self:
        """Refuses what would let a run start without the people that are asked for."""
        if self.any_run and self.approvals > 1:
            raise ValueError(f"any_run = true approves every run; approvals = {self.approvals} needs any_run = false")
        return self

    @property
    def alignments(self) -> tuple[str, ...]:
        """How the rows of a run may be found."""
        if self.align_modes is not None:
            return self.align_modes
        return _SAFE_MODES if self.mode == "production" else (*_SAFE_MODES, "plain")

    @property
    def least_decoys(self) -> float:
        """Least decoys for each customer under ``blind``."""
        if self.min_decoys is not None:
            return self.min_decoys
        return SAFE_DECOYS if self.mode == "production" else 0.0

    def cap_rules(self) -> CapRules:
        """The policy's word on the ledger's caps."""
        return CapRules(
            equations=self.caps.equations,
            row_bits=self.caps.row_bits,
            bins_returned=self.caps.bins_returned,
            ids_asked=self.caps.ids_asked,
            enforce=self.enforce,
            simulation=self.mode == "simulation",
        )

    def privacy_limit(self) -> PrivacyLimit:
        """The policy's word on the privacy ledger."""
        section = self.differential_privacy
        return PrivacyLimit(section.require_unit, section.max_epsilon, section.delta, self.enforce)

    def check_run(self, spec_digest: str, now: datetime) -> None:
        """Refuses a run that is not approved, or a policy past its time.

        Raises:
            PolicyDenied: naming which.
        """
        if self.expires is None:
            raise PolicyDenied("policy.expiry", "this house's policy has no expiry date, so nothing leaves")
        if now >= self.expires:
            raise PolicyDenied("policy.expiry", f"this house's policy expired at {self.expires.isoformat()}")
        if not self.any_run and spec_digest not in self.runs:
            raise PolicyDenied("policy.run", f"this house has not approved spec {spec_digest[:16]}…")

    def check_recipient(self, recipient: PartyId) -> None:
        """Refuses a recipient the house does not know.

        Raises:
            PolicyDenied: naming it.
        """
        if recipient not in self.counterparties:
            raise PolicyDenied("policy.counterparty", f"this house's policy does not name {recipient} as counterparty")

    def check_alignment(self, mode: str, decoys: float) -> None:
        """Refuses a way of finding the rows of a run that the house does not want.

        Args:
            mode: ``align.mode`` of the run.
            decoys: ``align.decoys`` of the run; only counts under ``blind``.

        Raises:
            PolicyDenied: naming the mode, or the number of decoys.
        """
        if mode not in self.alignments:
            raise PolicyDenied("policy.align", f'this house\'s policy does not allow align.mode = "{mode}"')
        if mode == "blind" and decoys < self.least_decoys:
            learns = "feature holders learn who is a customer" if decoys == 0 else "too few to hide who is a customer"
            raise PolicyDenied(
                "policy.decoys",
                f"align.decoys = {decoys:g}: {learns}; this house's policy asks for at least {self.least_decoys:g}",
            )

    def check_protocol(self, protocol: str) -> None:
        """Refuses a protocol that the house does not take part in.

        Raises:
            PolicyDenied: naming it.
        """
        if protocol not in self.protocols:
            raise PolicyDenied("policy.protocol", f"this house's policy does not allow protocol {protocol}")

    def check_kind(self, protocol: str, kind: str) -> None:
        """Refuses a protocol or kind of message that the house does not take part in.

        Raises:
            PolicyDenied: naming it.
        """
        self.check_protocol(protocol)
        if _ANY not in self.messages and kind not in self.messages:
            raise PolicyDenied("policy.message", f"this house's policy does not allow message {kind}")


def load_policy(path: Path | None) -> Policy:
    """Reads a policy file; an absent one is the empty policy, which denies everything.

    Raises:
        SpecError: not TOML, an unknown key, or a value of the wrong type.
    """
    if path is None or not path.exists():
        return Policy()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError("policy.toml", f"{path.name} is not readable TOML", str(error)) from None
    try:
        # Through JSON, because strict mode then takes arrays for tuples and texts for dates, and nothing else.
        return Policy.model_validate_json(json.dumps(content, default=_date))
    except (ValidationError, TypeError) as error:
        raise SpecError("policy.invalid", f"{path.name}: {_first(error)}") from None


def simulation_policy(
    counterparties: Collection[PartyId],
    protocols: Collection[str],
    *,
    caps: CapSection | None = None,
    enforce: bool = True,
) -> Policy:
    """A policy for simulations: any spec, no limit of size worth naming, default caps enforced."""
    return Policy(
        mode="simulation",
        counterparties=tuple(counterparties),
        protocols=tuple(protocols),
        messages=(_ANY,),
        any_run=True,
        expires=datetime.max.replace(tzinfo=UTC),
        max_message_bytes=2**40,
        max_run_bytes=2**50,
        max_run_messages=2**40,
        caps=caps or CapSection(),
        enforce=enforce,
    )


def _date(value: object) -> str:
    """TOML dates with a zone; a local time would mean another moment on another machine."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()
    raise TypeError(f"{value!s:.40} is no date with a time zone")


def _first(error: ValidationError | TypeError) -> str:
    """First complaint in one line, without the input's value."""
    if isinstance(error, TypeError):
        return str(error)
    one = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in one["loc"]) or "policy"
    return f"{where}: {one['msg']}"
