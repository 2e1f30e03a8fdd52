"""Averaging under secure sums is averaging in the clear, bit for bit, whichever way it is carried."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedcredit.attack.averaging import RUN, AveragingRehearsal, Crossing, averaging_spec, made_up_bank
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.errors import IntegrityError, PeerError, TransportError
from fedcredit.protocol.fedavg.bank import FedavgBank
from fedcredit.protocol.fedavg.learner import Learned, Learner
from fedcredit.protocol.fedavg.messages import ModelReady
from fedcredit.protocol.fedavg.oracle import average_in_the_clear
from fedcredit.protocol.fedavg.relay import FedavgRelay
from fedcredit.protocol.fedavg.roles import SCHEMAS, bank, coordinate
from fedcredit.protocol.pool import UnsafeLocalPools
from fedcredit.protocol.secure_sum.messages import Contribution, Join
from fedcredit.runtime.local import LocalNetwork, LocalSettings
from fedcredit.types import COORDINATOR, PartyId, Role
from fedcredit.wire.message import Message

Keys = Mapping[str, Any]

BANK_1, BANK_2, BANK_3, BANK_4, BANK_5 = (PartyId(f"bank_{number}") for number in range(1, 6))


def rehearsal(
    banks: int = 3, fedavg: Keys | None = None, profile: str = "masked+he", **more: Any
) -> AveragingRehearsal:
    spec = averaging_spec(banks, fedavg, secure_sum={"profile": profile})
    tables = {one.name: made_up_bank(one.name, 160 + 40 * at, shift=0.1 * at) for at, one in enumerate(spec.party)}
    return AveragingRehearsal(spec, tables, **more)


def same(one: Learned, other: Learned) -> None:
    assert one.model.digest() == other.model.digest()
    assert (one.personal is None) == (other.personal is None)
    if one.personal is not None and other.personal is not None:
        assert one.personal.digest() == other.personal.digest()
    assert one.history == other.history
    assert one.pooled == other.pooled
    assert one.members == other.members
    assert np.array_equal(one.margins, other.margins)


@pytest.mark.parametrize(
    ("fedavg", "profile"),
    [
        ({"network": "logistic"}, "masked+he"),
        ({"network": "mlp", "fine_tune_epochs": 1, "early_stopping": 1}, "masked+he"),
        ({"network": "monotone", "algorithm": "fedyogi", "server_rate": 0.03}, "masked"),
        ({"network": "mlp", "algorithm": "scaffold"}, "masked"),
        ({"network": "mlp", "algorithm": "fedprox"}, "masked"),
    ],
)
def test_over_visits(fedavg: Keys, profile: str) -> None:
    played = rehearsal(4, fedavg, profile)
    ended, found = played.play()
    clear = average_in_the_clear({party: one.learner() for party, one in played.inputs().items()})
    assert set(found) == set(clear) == set(ended.banks)
    for party, learned in found.items():
        same(learned, clear[party])
    assert ended.model == found[BANK_1].model.digest()
    assert ended.rounds == len(found[BANK_1].history)
    assert ended.lost == ()


def test_rounds_judged_on_public_rows_over_visits() -> None:
    played = rehearsal(3, {"reference": "public.csv"}, "masked", reference=made_up_bank(PartyId("public"), 200))
    _, found = played.play()
    clear = average_in_the_clear({party: one.learner() for party, one in played.inputs().items()})
    same(found[BANK_2], clear[BANK_2])


def test_over_channels() -> None:
    played = rehearsal(3, {"network": "mlp", "fine_tune_epochs": 1})
    roster = {**dict.fromkeys(played.tables, Role.LABEL_HOLDER), COORDINATOR: Role.COORDINATOR}
    network = LocalNetwork(
        LocalSettings(run=RUN, spec_digest="0" * 64, roster=roster, schemas=SCHEMAS, entropy=SystemEntropy())
    )
    roles: dict[PartyId, Any] = {party: bank(network.channel(party), one) for party, one in played.inputs().items()}
    roles[COORDINATOR] = coordinate(network.channel(COORDINATOR), played.spec, RUN)
    try:
        found = asyncio.run(network.run_roles(roles))
    finally:
        network.close()
    clear = average_in_the_clear({party: one.learner() for party, one in played.inputs().items()})
    for party, learned in clear.items():
        same(found[party], learned)
    assert found[COORDINATOR].model == clear[BANK_1].model.digest()


def test_over_pools() -> None:
    played = rehearsal(3)
    pools = UnsafeLocalPools(tuple(played.tables))

    async def learn(party: PartyId, learner: Learner) -> Learned:
        pool = pools.pool(party)
        while not learner.finished:
            asked = learner.ask(len(pool.members))
            learner.take(await pool.sum(asked.what, asked.values, asked.bound), pool.members)
        return learner.result()

    async def everyone() -> list[Learned]:
        return await asyncio.gather(*(learn(party, one.learner()) for party, one in played.inputs().items()))

    clear = average_in_the_clear({party: one.learner() for party, one in played.inputs().items()})
    for found, learned in zip(asyncio.run(everyone()), clear.values(), strict=True):
        same(found, learned)


def without(played: AveragingRehearsal, lost: PartyId, sums: int) -> dict[PartyId, Learned]:
    """In the clear, with a bank whose vectors are in the first few sums only."""
    learners = {party: one.learner() for party, one in played.inputs().items()}
    members, before = tuple(sorted(learners)), tuple(sorted(learners))
    while not all(one.finished for one in learners.values()):
        if learners[BANK_1].sums == sums and lost in learners:
            learners.pop(lost)
            members = tuple(sorted(learners))
        total = np.stack([learners[party].ask(len(before)).values for party in members]).sum(axis=0)
        for one in learners.values():
            one.take(total, members)
        before = members
    return {party: one.result() for party, one in learners.items()}


@pytest.mark.parametrize(("step", "sums"), [(2, 0), (3, 0), (7, 2), (8, 3), (9, 3)])
@pytest.mark.parametrize("profile", ["masked+he", "masked"])
def test_a_bank_that_is_lost_is_left_out_from_then_on(step: int, sums: int, profile: str) -> None:
    """Before its keys were known, before a vector, and after one whose total it then belongs to."""
    played = rehearsal(5, {"network": "logistic"}, profile, lost={step: [BANK_4]})
    ended, found = played.play()
    assert ended.lost == (BANK_4,)
    clear = without(rehearsal(5, {"network": "logistic"}), BANK_4, sums)
    for party in (BANK_1, BANK_2, BANK_3, BANK_5):
        same(found[party], clear[party])


def test_too_few_banks_end_the_run_and_nothing_is_opened() -> None:
    with pytest.raises(TransportError) as error:
        rehearsal(3, lost={5: [BANK_2]}).play()
    assert error.value.code == "secure_sum.floor"


def test_the_same_question_again_has_the_same_answer() -> None:
    """A process that died after its answer was lost: the state before it and the same question."""
    played = rehearsal(3, {"network": "logistic", "rounds": 2}, "masked")
    inputs, relay = played.inputs(), FedavgRelay(played.spec, RUN)
    states: dict[PartyId, bytes | None] = dict.fromkeys(inputs)
    questions, told = relay.start(), 0
    while questions:
        answers: dict[PartyId, list[Message]] = {}
        for party, question in questions.items():
            first, again = (FedavgBank(inputs[party], states[party]) for _ in range(2))
            answer = first.answer(list(question))
            assert again.answer(list(question)) == answer
            assert again.finished == first.finished
            states[party], answers[party] = first.state(), [message for _, message in answer]
            told += 1
        questions = relay.arrived(answers)
    assert relay.finished
    assert told == 3 * (3 + 2 * 5)


def test_other_values_for_the_same_sum_are_refused() -> None:
    """A bank whose records changed between two visits has bound itself to what it brought before."""
    played = rehearsal(3, {"network": "logistic"})
    inputs, relay = played.inputs(), FedavgRelay(played.spec, RUN)
    states: dict[PartyId, bytes | None] = dict.fromkeys(inputs)
    questions = relay.start()
    for _ in range(2):
        answers = {}
        for party, question in questions.items():
            one = FedavgBank(inputs[party], states[party])
            answers[party] = [message for _, message in one.answer(list(question))]
            states[party] = one.state()
        questions = relay.arrived(answers)
    mine = inputs[BANK_1]
    FedavgBank(mine, states[BANK_1]).answer(list(questions[BANK_1]))
    other = replace(mine, table=made_up_bank(BANK_1, 160, seed=9))
    with pytest.raises(IntegrityError, match="bound to other content"):
        FedavgBank(other, states[BANK_1]).answer(list(questions[BANK_1]))


def test_banks_that_end_with_different_models_are_found_out() -> None:
    def lie(crossing: Crossing) -> Message:
        one = crossing.message
        return (
            ModelReady(model="0" * 64, rounds=one.rounds)
            if isinstance(one, ModelReady) and crossing.sender == BANK_3
            else one
        )

    with pytest.raises(PeerError, match="different models"):
        rehearsal(3, {"network": "logistic", "rounds": 1}, "masked", alter=lie).play()


def test_a_bank_that_ends_early_is_named() -> None:
    def stop(crossing: Crossing) -> Message:
        early = isinstance(crossing.message, Contribution) and crossing.message.number == 2
        return ModelReady(model="0" * 64, rounds=1) if early and crossing.sender == BANK_3 else crossing.message

    with pytest.raises(PeerError, match="goes on") as error:
        rehearsal(3, {"network": "logistic"}, "masked", alter=stop).play()
    assert error.value.culprit in {BANK_1, BANK_2}


def test_messages_out_of_turn_are_refused() -> None:
    played = rehearsal(3)
    one = FedavgBank(played.inputs()[BANK_1])
    join = Join(key=bytes(32), signature=b"")
    with pytest.raises(PeerError, match="first visit"):
        one.answer([join])
    one = FedavgBank(played.inputs()[BANK_1])
    one.answer([])
    for wrong in ([], [join], [join, join]):
        with pytest.raises(PeerError, match="visit"):
            one.answer(wrong)
    relay = FedavgRelay(played.spec, RUN)
    with pytest.raises(PeerError, match="not one"):
        relay.arrived({BANK_1: [], BANK_2: [join], BANK_3: [join]})
    with pytest.raises(PeerError, match="not every bank"):
        relay.result()


def test_a_damaged_state_is_refused() -> None:
    inputs = rehearsal(3).inputs()[BANK_1]
    one = FedavgBank(inputs)
    one.answer([])
    state = one.state()
    for wrong in (b"", state[:-1], b"\x93" + state[1:]):
        with pytest.raises((IntegrityError, PeerError)):
            FedavgBank(inputs, wrong)


def test_the_coordinator_needs_no_network_library() -> None:
    code = "import sys, fedcredit.protocol.fedavg.relay; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = code.replace("relay", "bank")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
