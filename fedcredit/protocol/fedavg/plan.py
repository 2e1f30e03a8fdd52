"""What a run's averaging is, apart from anybody's records: the same at all banks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import msgspec

from fedcredit.errors import SpecError
from fedcredit.kernels.nn_server import ServerRules
from fedcredit.kernels.nn_train import LocalRules
from fedcredit.spec.model import FedavgSection, RunSpec

__all__ = ["FULL", "FULL_BITS", "LOSS_CAP", "LearnPlan", "plan_averaging"]

FULL_BITS = 24
FULL = 1 << FULL_BITS
"""One, in units of what is averaged: an update is rounded to 2^-24, as float32 rounds a number near 1."""

LOSS_CAP = 16.0
"""Nats; the loss of a row counts as at most this: a probability of default of one in nine million."""

_ALGORITHMS: dict[str, Literal["mean", "adam", "yogi"]] = {"fedadam": "adam", "fedyogi": "yogi"}


@dataclass(frozen=True)
class LearnPlan:
    """How banks learn together.

    Args:
        network: ``logistic``, ``mlp`` or ``monotone``.
        hidden: Units of its hidden layers.
        embedding: Most dimensions of a category.
        rounds: Most rounds.
        local: Training between two averages.
        server: What becomes of an average.
        scaffold: Whether control variates take out how banks differ.
        clip: Largest L2 norm of a bank's update.
        patience: Rounds without a better validation loss after which averaging ends; 0 = all rounds, all rows train.
        validation: Share of a bank's training rows that judge a round, where there is patience.
        least_category: Rows of all banks below which a category is none of its own.
        fine_tune: Passes with which a bank makes the final model its own.
        reference: Whether every bank judges each round on public rows.
        seed: ``run.seed``: of the first parameters, the order of rows and the hash of categories.
        unit: What noise protects: ``none``, ``record`` or ``bank``.
    """

    network: Literal["logistic", "mlp", "monotone"]
    hidden: tuple[int, ...]
    embedding: int
    rounds: int
    local: LocalRules
    server: ServerRules
    scaffold: bool
    clip: float
    patience: int
    validation: float
    least_category: int
    fine_tune: int
    reference: bool
    seed: int
    unit: Literal["none", "record", "bank"]

    @property
    def bound(self) -> int:
        """Largest absolute value a bank brings to a round's sum."""
        return round(max(self.clip, LOSS_CAP) * FULL) + 1

    @property
    def judged(self) -> bool:
        """Whether anything is measured of the parameters a round began with."""
        return self.patience > 0 or self.reference

    @property
    def weighted(self) -> bool:
        """Whether a bank counts by its rows; where a whole bank is protected, each counts the same."""
        return self.unit != "bank"

    def seed_of(self, label: str) -> bytes:
        """32 bytes for one use; public, and the same in every run of the same spec, whichever way it is carried."""
        return hashlib.sha256(f"fedcredit/fedavg/{self.seed}/{label}".encode()).digest()

    def digest(self) -> str:
        """Names the plan."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


def plan_averaging(spec: RunSpec) -> LearnPlan:
    """The plan of a run.

    Raises:
        SpecError: keys that do not go together.
    """
    section = spec.fedavg or FedavgSection()
    unit = spec.differential_privacy.unit
    scaffold = section.algorithm == "scaffold"
    if scaffold and section.momentum:
        right = "SCAFFOLD's control variates are mean gradients, which momentum would weigh; use 0"
        raise SpecError("spec.fedavg", f"fedavg.momentum: found {section.momentum} with scaffold; {right}")
    if scaffold and unit != "none":
        right = "control variates would be shown without noise; use another algorithm"
        raise SpecError("spec.fedavg", f"fedavg.algorithm: scaffold with differential_privacy.unit = {unit}; {right}")
    if unit != "none" and section.early_stopping:
        right = "validation losses would be shown without noise; use 0"
        raise SpecError("spec.fedavg", f"fedavg.early_stopping: found {section.early_stopping} with noise on; {right}")
    if unit != "none" and section.reference is not None:
        right = "votes on public rows would be shown without noise; leave it out"
        raise SpecError("spec.fedavg", f"fedavg.reference: given with differential_privacy.unit = {unit}; {right}")
    local = LocalRules(
        section.local_epochs,
        section.batch_size,
        section.learning_rate,
        section.momentum,
        section.weight_decay,
        section.proximal if section.algorithm == "fedprox" else 0.0,
    )
    betas = (section.server_beta1, section.server_beta2, section.server_tau)
    server = ServerRules(_ALGORITHMS.get(section.algorithm, "mean"), section.server_rate, *betas)
    return LearnPlan(
        network=section.network,
        hidden=section.hidden,
        embedding=section.embedding,
        rounds=section.rounds,
        local=local,
        server=server,
        scaffold=scaffold,
        clip=spec.differential_privacy.clip_norm if unit == "bank" else section.clip_update,
        patience=section.early_stopping,
        validation=section.validation_fraction,
        least_category=section.min_category_rows,
        fine_tune=section.fine_tune_epochs,
        reference=section.reference is not None,
        seed=spec.run.seed,
        unit=unit,
    )
