"""Sections of runs with several banks: how one source becomes many, secure sums, averaging, hybrid runs, privacy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fedcredit.spec.section import (
    NAME_PATTERN,
    NotNegative,
    Positive,
    Section,
    Seed,
    Share,
    Text,
    as_tuple,
)
from fedcredit.types import Role

__all__ = [
    "LEAST_BANKS",
    "MOST_ENCRYPTED_BANKS",
    "DifferentialPrivacySection",
    "FedavgSection",
    "HybridSection",
    "PartitionSection",
    "SecureSumSection",
    "expand_banks",
]

LEAST_BANKS = 3
"""Of two banks in a sum, each learns the other's part by subtracting its own."""

MOST_ENCRYPTED_BANKS = 256
"""Banks in an encrypted sum: what the noise of their ciphertexts leaves room for (`fedcredit.crypto.secure_sum`)."""

Count = Annotated[int, Field(ge=1)]
Sizes = Annotated[tuple[Count, ...], BeforeValidator(as_tuple)]


class PartitionSection(Section):
    """``[partition]``: one source becomes the records of several banks; simulation only.

    Attributes:
        party: Name of the ``[[party]]`` that is taken apart; its parts are called NAME_01, NAME_02, ….
        by: ``column`` (one bank for each of its most frequent values), ``dirichlet`` (shares of the two labels drawn
            for each bank), ``size`` (random rows, sizes by a power law), or ``iid`` (random rows, equal sizes).
        column: Column that names the bank, under ``by = "column"``; never a feature.
        banks: How many.
        alpha: Of the Dirichlet distribution, or exponent of the power law; smaller is more uneven for the first.
        min_rows: Least rows of a bank.
        seed: Of the draw.
    """

    party: Annotated[str, Field(pattern=NAME_PATTERN)]
    by: Literal["column", "dirichlet", "size", "iid"]
    column: Text | None = None
    banks: Annotated[int, Field(ge=LEAST_BANKS, le=999)]
    alpha: Positive = 0.5
    min_rows: Count = 1
    seed: Seed = 0


class SecureSumSection(Section):
    """``[secure_sum]``: how banks add what none may show.

    Attributes:
        profile: ``masked+he`` (masks, and encrypted so that the coordinator does not learn the sum), or ``masked``.
        min_banks: Fewest banks in a sum that is opened.
        colluding: Banks that may work together with the coordinator against another.
    """

    profile: Literal["masked+he", "masked"] = "masked+he"
    min_banks: Annotated[int, Field(ge=LEAST_BANKS)] = LEAST_BANKS
    colluding: Count = 1


class FedavgSection(Section):
    """``[fedavg]``: a shared network model over several banks.

    Attributes:
        algorithm: ``fedavg``, ``fedprox``, ``fedadam``, ``fedyogi`` or ``scaffold``.
        network: ``logistic``, ``mlp`` (with embeddings of categories), or ``monotone``.
        hidden: Units of the hidden layers of ``mlp`` and ``monotone``.
        embedding: Most dimensions of a category's embedding.
        rounds: Rounds of averaging.
        local_epochs: Passes over a bank's own rows in a round.
        batch_size: Rows in a step.
        learning_rate: Step size, > 0.
        momentum: Of the local steps, in [0, 1).
        weight_decay: Penalty on squared weights.
        proximal: Pull towards the global model, under ``fedprox``.
        server_rate: Step size of the averaged update.
        server_beta1: Momentum of ``fedadam`` and ``fedyogi``.
        server_beta2: Decay of their second moments.
        server_tau: Their degree of adaptivity, > 0.
        clip_update: Largest L2 norm of a bank's update; larger ones are shrunk to it before they are masked.
        fine_tune_epochs: Passes over its own rows with which a bank makes the final model its own; 0 = none.
        early_stopping: Rounds without a better validation loss after which averaging ends; 0 = off.
        validation_fraction: Share of a bank's training rows that judge a round.
        min_category_rows: Fewest rows of all banks together for a category of its own.
        reference: File of labelled public rows that every bank has, on which each round is judged.
        round_timeout_s: Seconds to wait for a bank before a round goes on without it.
        ray_address: Of a Ray cluster that the banks of a simulation are spread over; None = this machine.
    """

    algorithm: Literal["fedavg", "fedprox", "fedadam", "fedyogi", "scaffold"] = "fedavg"
    network: Literal["logistic", "mlp", "monotone"] = "mlp"
    hidden: Sizes = (32, 16)
    embedding: Count = 8
    rounds: Count = 20
    local_epochs: Count = 1
    batch_size: Count = 256
    learning_rate: Positive = 0.1
    momentum: Share = 0.0
    weight_decay: NotNegative = 0.0
    proximal: NotNegative = 0.01
    server_rate: Positive = 1.0
    server_beta1: Share = 0.9
    server_beta2: Share = 0.99
    server_tau: Positive = 1e-3
    clip_update: Positive = 10.0
    fine_tune_epochs: Annotated[int, Field(ge=0)] = 0
    early_stopping: Annotated[int, Field(ge=0)] = 0
    validation_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    min_category_rows: Count = 20
    reference: Text | None = None
    round_timeout_s: Positive = 600.0
    ray_address: Text | None = None


class DifferentialPrivacySection(Section):
    """``[differential_privacy]``: noise in what is averaged, and how it is counted.

    Attributes:
        unit: ``none``, ``record`` (one row of one bank) or ``bank`` (all rows of one bank).
        noise_multiplier: Standard deviation of the noise over the clipping norm.
        clip_norm: Largest L2 norm of a row's gradient (``record``) or of a bank's update (``bank``).
        delta: Of (epsilon, delta).
        max_epsilon: Above which the run is refused before it starts.
    """

    unit: Literal["none", "record", "bank"] = "none"
    noise_multiplier: Positive = 1.0
    clip_norm: Positive = 1.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    max_epsilon: Positive | None = None


class HybridSection(Section):
    """``[hybrid]``: one scorecard or one set of trees over several banks and several feature holders.

    Attributes:
        own_intercepts: Whether each bank keeps an intercept (trees: a base margin) of its own.
        personal_trees: Trees that each bank adds for its own rows, from what it knows by then; nobody is asked.
        personal_rate: Their learning rate.
        personal_leaves: Their leaves, at most.
        personal_rows: Least rows in one of them.
        woe_rows: Rows with the pool's odds that are added to each bin of a bank before it takes a WOE of its own; 0 =
            the pool's WOE for all.
        slope_ridge: Penalty that holds a bank's own coefficients to those of the pool; 0 = the pool's for all.
    """

    own_intercepts: bool = True
    personal_trees: Annotated[int, Field(ge=0)] = 0
    personal_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    personal_leaves: Annotated[int, Field(ge=2, le=64)] = 4
    personal_rows: Count = 20
    woe_rows: NotNegative = 100.0
    slope_ridge: NotNegative = 10.0


def expand_banks(data: Any) -> Any:
    """Puts the banks of ``[partition]`` in the place of the party that it takes apart; anything else stays as it is.

    A spec that was expanded before has parties with a ``part`` and is left alone, so that what was written can be read.
    """
    if not isinstance(data, dict) or not isinstance(data.get("party"), (list, tuple)):
        return data
    partition, parties = data.get("partition"), data["party"]
    if isinstance(partition, Section):
        partition = partition.model_dump()
    if not isinstance(partition, Mapping) or not all(isinstance(one, Mapping) for one in parties):
        return data
    name, banks = partition.get("party"), partition.get("banks")
    if not isinstance(banks, int) or not LEAST_BANKS <= banks <= 999:  # the section itself refuses it
        return data
    if any(one.get("part") is not None for one in parties):
        return data
    width = max(2, len(str(banks)))
    expanded: list[Any] = []
    for one in parties:
        if one.get("name") != name or one.get("role") not in {Role.LABEL_HOLDER, Role.LABEL_HOLDER.value}:
            expanded.append(one)
            continue
        expanded += [{**one, "name": f"{name}_{part:0{width}d}", "part": part} for part in range(1, banks + 1)]
    return {**data, "party": expanded}
