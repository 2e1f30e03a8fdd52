"""Averaging with noise: what is noised, how much, and what is not said at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fedcredit.attack.averaging import AveragingRehearsal, averaging_spec, made_up_bank
from fedcredit.crypto.noise_plan import SUM_MULTIPLIER
from fedcredit.errors import BoundError
from fedcredit.protocol.fedavg.learner import Learned, Learner
from fedcredit.protocol.fedavg.oracle import average_in_the_clear
from fedcredit.protocol.fedavg.plan import FULL
from fedcredit.types import PartyId

BANK_1 = PartyId("bank_1")
SECRETS = {PartyId(f"bank_{number}"): bytes([number]) * 32 for number in range(1, 5)}


def rehearsal(unit: str, fedavg: Mapping[str, Any] | None = None, **privacy: Any) -> AveragingRehearsal:
    spec = averaging_spec(
        4, {"network": "logistic", "rounds": 2, **(fedavg or {})}, differential_privacy={"unit": unit, **privacy}
    )
    tables = {one.name: made_up_bank(one.name, 300) for one in spec.party}
    return AveragingRehearsal(spec, tables, secrets=SECRETS)


def learners(unit: str, **more: Any) -> dict[PartyId, Learner]:
    return {party: one.learner() for party, one in rehearsal(unit, **more).inputs().items()}


def asked(machines: Mapping[PartyId, Learner]) -> dict[PartyId, np.ndarray[Any, np.dtype[np.int64]]]:
    return {party: one.ask(4).values for party, one in machines.items()}


def take(machines: Mapping[PartyId, Learner]) -> np.ndarray[Any, np.dtype[np.int64]]:
    total: np.ndarray[Any, np.dtype[np.int64]] = np.stack(list(asked(machines).values())).sum(axis=0)
    for one in machines.values():
        one.take(total, tuple(sorted(machines)))
    return total


@pytest.mark.parametrize("unit", ["record", "bank"])
def test_a_run_with_noise_ends_in_one_model_and_no_pooled_scores(unit: str) -> None:
    played = rehearsal(unit, noise_multiplier=0.5)
    ended, found = played.play()
    again = average_in_the_clear({party: one.learner() for party, one in played.inputs().items()})
    assert {one.model.digest() for one in found.values()} == {ended.model}
    assert again[BANK_1].model.digest() == ended.model
    assert all(one.pooled is None for one in found.values())
    assert found[BANK_1].own.rows > 0


def test_columns_carry_noise_of_the_planned_size() -> None:
    """About one row: 4 columns, so a deviation of 10 times 2 rows in the opened sum, if all four members' is there."""
    noisy, plain = learners("record"), learners("none")
    exact, found = take(plain), take(noisy)
    assert found[0] == exact[0]
    apart = (found - exact)[1:]
    members = 3 - 1  # of four members three open the sum, and one may collude: two carry the whole noise
    deviation = SUM_MULTIPLIER * 2 * np.sqrt(4 / members)
    assert apart.std() == pytest.approx(deviation, rel=0.1)
    assert abs(apart.mean()) < 5 * deviation / np.sqrt(len(apart))


def test_rows_are_told_and_nothing_else_without_noise() -> None:
    noisy, plain = learners("record"), learners("none")
    one, other = asked(noisy)[BANK_1], asked(plain)[BANK_1]
    assert one[0] == other[0]
    assert (one[1:] != other[1:]).mean() > 0.9


def test_updates_of_whole_banks_count_the_same_and_carry_noise() -> None:
    machines = learners("bank", noise_multiplier=0.5, clip_norm=0.25)
    quiet = learners("bank", noise_multiplier=1e-6, clip_norm=0.25)
    for one in (machines, quiet):
        take(one)
        take(one)
    size = len(machines[BANK_1]._standing.server.parameters)
    total = take(machines)
    assert total[size] == 4 * FULL
    least = len(quiet[BANK_1]._standing.server.parameters)  # noise may find another category
    for values in asked(quiet).values():
        assert values[least] == FULL
        assert np.linalg.norm(values[:least] / FULL) <= 0.25 + 1e-3
    own = machines[BANK_1]._memory.history[0].own_norm
    assert own > 0.2


def test_updates_of_records_are_noised_in_the_steps_and_shrunk_as_ever() -> None:
    found = average_in_the_clear(learners("record", fedavg={"clip_update": 0.05}, noise_multiplier=3.0))
    assert all(record.own_norm <= 0.05 + 1e-5 for record in found[BANK_1].history)


def test_the_same_question_has_the_same_noise_and_another_has_other() -> None:
    """Noise follows the bank's secret and what it hides: a repeat shows nothing new."""
    first, again = asked(learners("record"))[BANK_1], asked(learners("record"))[BANK_1]
    assert np.array_equal(first, again)
    spec = rehearsal("record").spec
    other = AveragingRehearsal(
        spec, {one.name: made_up_bank(one.name, 300, seed=1) for one in spec.party}, secrets=SECRETS
    )
    unlike = other.inputs()[BANK_1].learner().ask(4).values
    exact = asked(learners("none"))[BANK_1]
    plain = averaging_spec(4, {"network": "logistic", "rounds": 2})
    base = AveragingRehearsal(plain, other.tables).inputs()[BANK_1].learner().ask(4).values
    assert abs(float(np.corrcoef((first - exact)[1:], (unlike - base)[1:])[0, 1])) < 0.1


def result(unit: str, **more: Any) -> Learned:
    return average_in_the_clear(learners(unit, **more))[BANK_1]


def test_noise_in_columns_leaves_inputs_in_range() -> None:
    found = result("record", noise_multiplier=0.1)
    exact = result("none")
    assert len(found.model.encoding.scales) == len(exact.model.encoding.scales)
    assert all(one > 0.01 for one in found.model.encoding.deviations)
    assert all(abs(one) < 4 for one in found.model.encoding.means)


def test_noise_has_to_be_given_where_it_is_on_and_only_there() -> None:
    with_noise, without = rehearsal("record").inputs()[BANK_1], rehearsal("none").inputs()[BANK_1]
    learner = with_noise.learner()
    with pytest.raises(BoundError, match="noise"):
        Learner(BANK_1, with_noise.rows(), learner._plan)
    with pytest.raises(BoundError, match="noise"):
        Learner(BANK_1, without.rows(), without.learner()._plan, learner._own._protection)
