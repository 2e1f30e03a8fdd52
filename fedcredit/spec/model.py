"""The run's specification as frozen values: every section and key of the configuration file, with its default.

Validation happens on construction and raises pydantic's error; ``fedcredit.spec.load`` turns that into one line of
``SpecError`` that names file and key. Rules that span keys stand in ``fedcredit.spec.rules``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fedcredit.spec.horizontal import (
    DifferentialPrivacySection,
    FedavgSection,
    HybridSection,
    PartitionSection,
    SecureSumSection,
    expand_banks,
)
from fedcredit.spec.rules import check_rules
from fedcredit.spec.section import (
    NAME_PATTERN,
    AutoOrCount,
    Codes,
    Columns,
    NotNegative,
    Number,
    Positive,
    Section,
    Seed,
    Text,
    as_tuple,
    number_or_text,
)
from fedcredit.types import PartyId, Role

__all__ = [
    "NAME_PATTERN",
    "AlignSection",
    "BinSection",
    "BoostSection",
    "CryptoSection",
    "DifferentialPrivacySection",
    "FedavgSection",
    "HybridSection",
    "NetworkSection",
    "PartitionSection",
    "PartySection",
    "PrivacySection",
    "RunSection",
    "RunSpec",
    "ScorecardSection",
    "Section",
    "SecureSumSection",
    "SplitSection",
]


def _role(value: object) -> object:
    """Turn the text of a role into the enumeration."""
    roles = {Role.LABEL_HOLDER.value: Role.LABEL_HOLDER, Role.FEATURE_HOLDER.value: Role.FEATURE_HOLDER}
    if isinstance(value, str) and value in roles:
        return roles[value]
    raise PydanticCustomError("fedcredit", "{right}", {"right": f"use one of {', '.join(map(json.dumps, roles))}"})


class RunSection(Section):
    """``[run]``: what is run, and whether on one machine or between institutions.

    Attributes:
        name: Short name, ``[a-z0-9_-]``.
        model: ``scorecard``, ``boost`` or ``fedavg``.
        mode: ``simulation`` (all parties on one machine) or ``production``; has no default on purpose.
        seed: Seed of everything that is not secret; secrets never come from it.
        on_missing: What the others do when a feature holder is gone for good: ``stop``, or ``continue`` without it.
    """

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    model: Literal["scorecard", "boost", "fedavg"] = "scorecard"
    mode: Literal["simulation", "production"]
    seed: Seed = 0
    on_missing: Literal["stop", "continue"] = "stop"


class SplitSection(Section):
    """``[split]``: which rows are held out.

    Attributes:
        test_fraction: Share of rows held out by the keyed hash of the id, in (0, 1).
        seed: Key of that hash, the same at every party.
        test_ids: File of ids, one a line; exactly these are held out.
        time: Column of the label holder; with ``test_from``, rows at or after it are held out.
        test_from: First value of ``time`` that is held out: a number, or text that sorts as the column does.
        test_source: File of labelled rows that every bank has and none trains on, held out in place of own rows;
            averaging only.
    """

    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    seed: Seed = 0
    test_ids: Text | None = None
    time: Text | None = None
    test_from: Annotated[int | float | str | None, BeforeValidator(number_or_text)] = None
    test_source: Text | None = None


class AlignSection(Section):
    """``[align]``: which rows a run is about, and how the parties find them.

    Attributes:
        mode: ``registry`` (every party indexes one public register, membership stays hidden), ``blind`` (private set
            intersection), or ``plain`` (ids in the open, simulation only).
        rows: ``common`` = rows that every party has; ``label_holder`` = all rows of the label holder, missing where
            another party does not know them; ``auto`` = ``label_holder`` under ``registry``, else ``common``.
        ids: ``uscc`` = Unified Social Credit Codes, spelling repaired and check character verified; ``text`` = as is.
        registry: File of public ids, one column; the common order of ``registry``, the source of decoys of ``blind``.
        decoys: Rows of no customer for each row of a customer (``blind``); 0 = none, which shows who is a customer.
        min_overlap: Least number of common rows of customers (``blind``).
    """

    mode: Literal["plain", "blind", "registry"] = "blind"
    rows: Literal["auto", "common", "label_holder"] = "auto"
    ids: Literal["text", "uscc"] = "text"
    registry: Text | None = None
    decoys: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 1.0
    min_overlap: Annotated[int, Field(ge=1)] = 100

    @property
    def every_row(self) -> bool:
        """Whether all rows of the label holder take part, unknown to others or not."""
        return self.rows == "label_holder" or (self.rows == "auto" and self.mode == "registry")

    @property
    def hidden(self) -> bool:
        """Whether rows that do not count are mixed in, and only the label holder knows which."""
        return self.mode == "registry" or (self.mode == "blind" and self.decoys > 0)


class PartySection(Section):
    """One ``[[party]]``: who it is, where its records are, and how its columns are to be read.

    Attributes:
        name: ``[a-z0-9_-]``; ``coordinator`` is reserved.
        role: Label holder or feature holder.
        source: Path, ``known:NAME`` or SQLAlchemy URL; ``${VARIABLES}`` are expanded when it is read.
        query: SQL text, with a URL only.
        catalog: File that describes raw tables and the features derived from them; ``source`` is then their place.
        as_of: Day, ``YYYY-MM-DD``, after which nothing is known to a derived feature; with ``catalog`` only.
        id: Column of the ids, or ``row_number`` if the source has none.
        label: Column of the label, 1 = defaulted; at the label holder only.
        columns: Feature columns; None = every other column of the source.
        categorical: Columns of coded numbers that are categories.
        special: Per column, codes that are no numbers and get bins of their own.
        monotone: Per column, direction of *default risk* with the value.
        part: Number of the part of ``source`` that this bank has, under ``[partition]``.
    """

    name: Annotated[PartyId, Field(pattern=NAME_PATTERN)]
    role: Annotated[Literal[Role.LABEL_HOLDER, Role.FEATURE_HOLDER], BeforeValidator(_role)]
    source: Text
    query: Text | None = None
    catalog: Text | None = None
    as_of: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    id: Text = "id"
    label: Text | None = None
    columns: Annotated[Columns, Field(min_length=1)] | None = None
    categorical: Columns = ()
    special: Mapping[Text, Codes] = Field(default_factory=dict)
    monotone: Mapping[Text, Literal["increasing", "decreasing", "auto"]] = Field(default_factory=dict)
    part: Annotated[int, Field(ge=1)] | None = None


class BinSection(Section):
    """``[bin]``: prebins at the holders, bins merged by the label holder.

    Attributes:
        prebins: Quantile bins per numeric column, 2 to 100.
        max_bins: Bins left after merging, 2 to ``prebins``.
        min_share: Least share of the rows in a bin, 0 to 0.5.
        min_goods: Least goods in a bin.
        min_bads: Least bads in a bin.
        min_prebin_rows: Least rows in a prebin; a smaller one would say much about few rows.
        smoothing: Added to goods and bads of every bin before the logarithm, >= 0.
        max_categories: Categories that stand alone before the rest is grouped as other.
    """

    prebins: Annotated[int, Field(ge=2, le=100)] = 20
    max_bins: Annotated[int, Field(ge=2, le=100)] = 8
    min_share: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    min_goods: Annotated[int, Field(ge=1)] = 20
    min_bads: Annotated[int, Field(ge=1)] = 20
    min_prebin_rows: Annotated[int, Field(ge=1)] = 100
    smoothing: NotNegative = 0.5
    max_categories: Annotated[int, Field(ge=1, le=1000)] = 50


class ScorecardSection(Section):
    """``[scorecard]``: scale of the points, selection of features, fit.

    Attributes:
        base_score: Points at ``base_odds``.
        base_odds: Goods to bads at the base score, > 0.
        pdo: Points that double the odds, > 0.
        min_iv: Least information value of a feature, >= 0.
        max_vif: Largest variance inflation factor, > 1.
        max_correlation: Largest absolute correlation of two WOE columns, in (0, 1].
        max_stability: Largest population stability index between train and test, > 0.
        fit: ``moments``, ``one-step`` or ``mle``.
        max_totals: Totals per row that the fit may spend, 1 to 3.
        ridge: Penalty on the squared coefficients, in units of rows; keeps collinear columns from diverging.
        true_bad_rate: Bad rate outside the sample when the sample was balanced; None = as in the sample.
        max_features: Most features kept; None = all that pass.
        total_step: Step to which a holder rounds its part of a fit's totals, at random, in logits, > 0.
        total_noise: Standard deviation of a holder's noise on them, in logits; 0 under ``mle`` is for simulation only.
    """

    base_score: Number = 600.0
    base_odds: Positive = 20.0
    pdo: Positive = 50.0
    min_iv: NotNegative = 0.02
    max_vif: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 10.0
    max_correlation: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_stability: Positive = 0.25
    fit: Literal["moments", "one-step", "mle"] = "one-step"
    max_totals: Annotated[int, Field(ge=1, le=3)] = 2
    ridge: NotNegative = 1.0
    true_bad_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_features: Annotated[int, Field(ge=1)] | None = None
    total_step: Positive = 0.5
    total_noise: NotNegative = 0.25


class BoostSection(Section):
    """``[boost]``: gradient-boosted trees.

    ``gradient_bits``, ``row_sampling`` and ``early_stopping`` may be written here too; they are kept in ``[privacy]``.

    Attributes:
        trees: Number of trees.
        depth: Levels of splits, 1 to 10.
        growth: ``depth`` splits a whole level at a time, ``leaf`` the best leaf of the tree at a time.
        max_leaves: Leaves of a tree grown by leaf, 2 to 2^depth; None = 2^depth.
        bins: Bins per feature of the label holder, 2 to 256.
        holder_bins: Bins per feature of a feature holder, 2 to 256.
        min_bin_rows: Least rows in a bin of a feature holder; a smaller one would say much about few rows.
        learning_rate: Shrinkage, in (0, 1].
        l2: Penalty on leaf values.
        min_child_weight: Least sum of second derivatives in a child.
        min_child_rows: Least rows in a child.
        first_trees_local: Trees at the start from the label holder's features only.
        holder_thresholds: Distinct thresholds per feature a holder discloses; 0 = no cap, simulation only.
        column_sampling: Share of its features that each owner, by its own draw, offers to a tree, in (0, 1].
        validation_fraction: Share of the training rows that early stopping is judged on, in (0, 0.5].
    """

    trees: Annotated[int, Field(ge=1, le=10_000)] = 20
    depth: Annotated[int, Field(ge=1, le=10)] = 3
    growth: Literal["depth", "leaf"] = "depth"
    max_leaves: Annotated[int, Field(ge=2, le=1024)] | None = None
    bins: Annotated[int, Field(ge=2, le=256)] = 32
    holder_bins: Annotated[int, Field(ge=2, le=256)] = 16
    min_bin_rows: Annotated[int, Field(ge=1)] = 100
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.3
    l2: NotNegative = 1.0
    min_child_weight: NotNegative = 1.0
    min_child_rows: Annotated[int, Field(ge=1)] = 100
    first_trees_local: Annotated[int, Field(ge=0)] = 0
    holder_thresholds: Annotated[int, Field(ge=0)] = 3
    column_sampling: Annotated[float, Field(gt=0, le=1)] = 1.0
    validation_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.2

    @property
    def leaves(self) -> int:
        """Most leaves of a tree."""
        return 2**self.depth if self.max_leaves is None else self.max_leaves


class CryptoSection(Section):
    """``[crypto]``: the profile of the encrypted group sums; ``unsafe-plaintext`` is for simulation only."""

    profile: Literal["rlwe-8192", "bfv-8192", "unsafe-plaintext"] = "rlwe-8192"


class NetworkSection(Section):
    """``[network]``: time-out, and a modelled network in simulation.

    Attributes:
        bandwidth_mbps: Modelled megabits a second of each party's line to the exchange, each way; 0 = not modelled.
        latency_ms: Modelled milliseconds one way between two parties, through the exchange; 0 = not modelled.
        timeout_s: Seconds to wait for a peer before it is named as gone, > 0.
    """

    bandwidth_mbps: NotNegative = 0.0
    latency_ms: NotNegative = 0.0
    timeout_s: Positive = 120.0


class PrivacySection(Section):
    """``[privacy]``: what this run asks of the holders' disclosure ledgers; a holder's policy may only be stricter.

    Attributes:
        noise_rows: Standard deviation of holder noise in rows of maximal gradient (boost); 0 = off.
        max_equations: Group sums per feature, or ``auto`` = from the effective rows and bads.
        max_bins_returned: Bins whose WOE returns to their owner, or ``auto``.
        enforce: False only counts; refused outside simulation.
        gradient_bits: Bits of a quantised gradient, 2 to 16.
        row_sampling: Share of rows a tree sees, in (0, 1].
        early_stopping: Trees without improvement after which boosting ends; 0 = off.
        ledger_dir: Folder of persistent ledgers; None = in the run's own folder.
    """

    noise_rows: NotNegative = 4.0
    max_equations: AutoOrCount = "auto"
    max_bins_returned: AutoOrCount = "auto"
    enforce: bool = True
    gradient_bits: Annotated[int, Field(ge=2, le=16)] = 8
    row_sampling: Annotated[float, Field(gt=0, le=1)] = 1.0
    early_stopping: Annotated[int, Field(ge=0)] = 0
    ledger_dir: Text | None = None


class RunSpec(Section):
    """One run: everything that decides its result, frozen. Its digest is the run's identity."""

    run: RunSection
    split: SplitSection = SplitSection()
    align: AlignSection = AlignSection()
    party: Annotated[tuple[PartySection, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    bin: BinSection = BinSection()
    scorecard: ScorecardSection = ScorecardSection()
    boost: BoostSection | None = None
    fedavg: FedavgSection | None = None
    crypto: CryptoSection = CryptoSection()
    network: NetworkSection = NetworkSection()
    privacy: PrivacySection = PrivacySection()
    partition: PartitionSection | None = None
    secure_sum: SecureSumSection = SecureSumSection()
    differential_privacy: DifferentialPrivacySection = DifferentialPrivacySection()
    hybrid: HybridSection = HybridSection()

    @model_validator(mode="before")
    @classmethod
    def _banks_of_the_partition(cls, data: Any) -> Any:
        return expand_banks(data)

    @model_validator(mode="before")
    @classmethod
    def _section_of_the_model(cls, data: Any) -> Any:
        """A run of boosting or averaging has its section with every default, so that the digest covers it."""
        if isinstance(data, dict) and isinstance(data.get("run"), dict):
            for name in ("boost", "fedavg"):
                if data["run"].get("model") == name and data.get(name) is None:
                    return {**data, name: {}}
        return data

    @model_validator(mode="after")
    def _rules(self) -> Self:
        check_rules(self)
        return self

    @property
    def parties(self) -> tuple[PartyId, ...]:
        """Names of the parties in the order of the file."""
        return tuple(party.name for party in self.party)

    @property
    def label_holder(self) -> PartySection:
        """The party that knows who defaulted; of several, the first."""
        return next(party for party in self.party if party.role is Role.LABEL_HOLDER)

    @property
    def banks(self) -> tuple[PartySection, ...]:
        """All label holders, in the order of the file."""
        return tuple(party for party in self.party if party.role is Role.LABEL_HOLDER)

    @property
    def several_banks(self) -> bool:
        """Whether labels are at more than one party: averaging, or a hybrid run."""
        return len(self.banks) > 1

    def for_bank(self, name: PartyId) -> RunSpec:
        """The run of one bank with all feature holders, as one of the runs side by side that a hybrid run is."""
        others = {bank.name for bank in self.banks} - {name}
        left = tuple(party for party in self.party if party.name not in others)
        return self.model_validate({**dict(self), "party": left})

    @property
    def feature_holders(self) -> tuple[PartySection, ...]:
        """The parties that hold features only, in the order of the file."""
        return tuple(party for party in self.party if party.role is Role.FEATURE_HOLDER)

    @property
    def simulation(self) -> bool:
        """Whether all parties run on one machine."""
        return self.run.mode == "simulation"
