"""Averaging on the three banks of Taiwan's card clients comes to what pooled rows come to. Needs FEDCREDIT_DATA."""

from __future__ import annotations

import itertools
import os
from functools import cache
from pathlib import Path

import pytest

from fedcredit.data.load import load_table, load_tables
from fedcredit.errors import DataError
from fedcredit.protocol.fedavg.columns import BankRows, rows_of
from fedcredit.protocol.fedavg.learner import Learned, Learner
from fedcredit.protocol.fedavg.oracle import average_in_the_clear, train_on_pooled
from fedcredit.protocol.fedavg.own import WORSE
from fedcredit.protocol.fedavg.plan import plan_averaging
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.types import PartyId

CONFIG = Path(__file__).parents[2] / "configs" / "simulations" / "taiwan_fedavg.toml"

LOGISTIC = ("fedavg.network=logistic", "fedavg.learning_rate=0.1")
NEAR = {"logistic": 0.002, "mlp": 0.005}
"""AUC by which averages may stay behind pooled rows."""

LEAST = {"logistic": 0.725, "mlp": 0.765}
"""AUC on the held-out rows."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def loaded(*overrides: str) -> LoadedSpec:
    if not os.environ.get("FEDCREDIT_DATA"):
        pytest.skip("FEDCREDIT_DATA is not set: the public files are not on this machine")
    return load_spec(CONFIG, overrides)


@cache
def rows() -> dict[PartyId, BankRows]:
    """Each bank's rows; they are the same for every way to learn."""
    found = loaded()
    spec = found.spec
    try:
        tables = load_tables(found)
        held_out = load_table(spec.party[0].model_copy(update={"source": spec.split.test_source}), found.base)
    except DataError as error:
        pytest.skip(str(error))
    plan = plan_averaging(spec)
    return {
        party.name: rows_of(tables[party.name], party, held_out, validation=plan.validation, seed=plan.seed)
        for party in spec.party
    }


def learned(*overrides: str) -> tuple[Learned, Learned]:
    """Averaged, and pooled."""
    plan = plan_averaging(loaded(*overrides).spec)
    found = average_in_the_clear({party: Learner(party, one, plan) for party, one in rows().items()})
    assert len({one.model.digest() for one in found.values()}) == 1
    return found[PartyId("bank_1")], train_on_pooled(list(rows().values()), plan)


@pytest.mark.parametrize(("network", "overrides"), [("logistic", LOGISTIC), ("mlp", ())])
def test_averages_come_to_what_pooled_rows_come_to(network: str, overrides: tuple[str, ...]) -> None:
    averaged, pooled = learned(*overrides)
    assert averaged.own.auc is not None
    assert pooled.own.auc is not None
    assert averaged.own.auc > LEAST[network]
    assert averaged.own.auc > pooled.own.auc - NEAR[network]
    assert abs(averaged.own.auc - pooled.own.auc) < 2 * NEAR[network]


@pytest.mark.parametrize(
    "keys",
    [
        ("algorithm=fedprox",),
        ("algorithm=scaffold",),
        ("algorithm=fedadam", "server_rate=0.03"),
        ("algorithm=fedyogi", "server_rate=0.03"),
    ],
    ids=lambda keys: keys[0].partition("=")[2],
)
def test_so_do_the_other_algorithms(keys: tuple[str, ...]) -> None:
    averaged, _ = learned(*(f"fedavg.{key}" for key in keys))
    assert averaged.own.auc is not None
    assert averaged.own.auc > LEAST["mlp"]


def test_honest_rounds_leave_public_rows_as_they_are() -> None:
    """What `own.WORSE` is measured by: from one round to the next the loss of rows that all have hardly rises."""
    averaged, _ = learned("fedavg.early_stopping=20", "fedavg.learning_rate=0.5")
    losses = [one.validation_loss for one in averaged.history if one.validation_loss is not None]
    assert max(after / before for before, after in itertools.pairwise(losses)) < 1 + WORSE / 2
