"""Hybrid runs between houses against an exchange and members that lie about networks; and what is refused before."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fedcredit.runtime.exchange.types import LinkSettings
from fedcredit.runtime.hybrid import attempt
from fedcredit.runtime.hybrid.networks import SUMS, Network, network_run
from fedcredit.runtime.runs.proposal import Finished
from fedcredit.runtime.session import session
from fedcredit.types import COORDINATOR, PartyId, RunId

if TYPE_CHECKING:
    from tests.unit.deployment.conftest import Frame, Trial

RUN = RunId("ab" * 16)
BANKS = [PartyId(f"bank_0{number}") for number in (1, 2, 3)]
TAX = PartyId("tax_office")
SECTIONS: dict[str, dict[str, Any]] = {
    "partition": {"party": "bank", "by": "size", "banks": 3, "min_rows": 100, "seed": 4},
    "network": {"timeout_s": 3.0},
}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def hybrid(trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trial]:
    """Three banks and a feature holder, whose links are those of the hub."""

    def make(**sections: Any) -> Trial:
        made = trial(holders=(TAX,), rows=450, sections={**SECTIONS, **sections})
        for bank in BANKS:
            shutil.copy(made.folder / "records" / "bank.csv", made.folder / "records" / f"{bank}.csv")
        monkeypatch.setattr(attempt, "ExchangeLink", session.__dict__["ExchangeLink"])
        return made

    return make


def nobody_has_a_model(made: Trial, ended: dict[PartyId, Finished]) -> list[str]:
    """Checks that all failed and none has a part; the codes of those that found out by themselves."""
    assert not any(one.ok for one in ended.values()), ended
    for party in made.spec.parties:
        assert not (made.home(party).runs / RUN).exists()
    return sorted({one.code for one in ended.values()} - {"run.peer-failed", "run.peer-ended"})


def moved(run: RunId, sender: PartyId, to: Callable[[Frame], Frame]) -> Callable[[Frame], Sequence[Frame]]:
    """An exchange that delivers, of one sender's frames in one room, each another one."""
    return lambda frame: [to(frame)] if (frame.run, frame.sender) == (run, sender) and frame.sequence else [frame]


@pytest.mark.slow
def test_the_hub_carries_an_honest_run(hybrid: Callable[..., Trial]) -> None:
    made = hybrid()
    ended = made.play_all(made.order(made.proposal()))
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    rooms = {network_run(RUN, name) for name in (*BANKS, SUMS)}
    assert {frame.run for frame in made.hub.seen} == rooms
    for frame in made.hub.seen:  # no bank is in another's part
        for bank in BANKS:
            assert frame.run != network_run(RUN, bank) or not {frame.sender, frame.recipient} & (set(BANKS) - {bank})


@pytest.mark.parametrize("party", [TAX, COORDINATOR])
def test_what_one_bank_is_told_is_not_taken_in_anothers_part(hybrid: Callable[..., Trial], party: PartyId) -> None:
    made = hybrid()
    first, second = network_run(RUN, BANKS[0]), network_run(RUN, BANKS[1])
    other = PartyId(COORDINATOR if party == TAX else TAX)
    made.hub.relay = lambda frame: (
        [frame, replace(frame, run=second)]
        if (frame.run, frame.sender, frame.recipient) == (first, party, other) and frame.sequence == 1
        else [frame]
    )
    codes = nobody_has_a_model(made, made.play_all(made.order(made.proposal())))
    assert any(code.startswith("sealed.") for code in codes), codes


@pytest.mark.slow
def test_a_bank_cannot_speak_in_another_banks_name(hybrid: Callable[..., Trial]) -> None:
    made = hybrid()
    own, others = network_run(RUN, BANKS[1]), network_run(RUN, BANKS[0])
    made.hub.relay = moved(own, BANKS[1], lambda frame: replace(frame, run=others, sender=BANKS[0]))
    codes = nobody_has_a_model(made, made.play_all(made.order(made.proposal())))
    assert any(code.startswith("sealed.") for code in codes), codes


def test_a_bank_that_is_let_into_another_banks_part_is_not_heard(hybrid: Callable[..., Trial]) -> None:
    made = hybrid()
    own, others = network_run(RUN, BANKS[1]), network_run(RUN, BANKS[0])
    made.hub.relay = moved(own, BANKS[1], lambda frame: replace(frame, run=others))
    codes = nobody_has_a_model(made, made.play_all(made.order(made.proposal())))
    assert "sealed.peer" in codes, codes


@pytest.mark.slow
def test_a_lying_name_of_a_network_gives_other_keys(
    hybrid: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, honest = hybrid(), attempt.__dict__["_settings"]

    def lying(part: session.Part, network: Network, number: int) -> LinkSettings:
        if (part.party, network.name) == (TAX, BANKS[0]):
            network = replace(network, name=BANKS[2])
        return honest(part, network, number)  # type: ignore[no-any-return]

    monkeypatch.setattr(attempt, "_settings", lying)
    codes = nobody_has_a_model(made, made.play_all(made.order(made.proposal())))
    assert any(code.startswith("sealed.") for code in codes), codes


def test_a_house_refuses_what_hybrid_runs_cannot(hybrid: Callable[..., Trial]) -> None:
    made = hybrid(align={"mode": "blind", "decoys": 1.0, "min_overlap": 10, "registry": "register.csv"})
    decision = made.consider(BANKS[0], made.proposal())
    assert (decision.state, decision.code) == ("denied", "hybrid.align"), (decision.code, decision.text)


def test_a_bank_whose_policy_does_not_sum_says_so(hybrid: Callable[..., Trial]) -> None:
    made = hybrid()
    for party in (BANKS[0], TAX):
        made.change_policy(party, protocols=["align", "bin", "group_sum", "scorecard", "select"])
    assert made.consider(TAX, made.proposal()).state == "approved"
    decision = made.consider(BANKS[0], made.proposal())
    assert decision.state == "denied"
    assert "secure_sum" in decision.text
