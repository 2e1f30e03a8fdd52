"""A bank's visits and its privacy ledger: booked before anything leaves, once for the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fedcredit.errors import DisclosureRefused
from fedcredit.governance.privacy_account import PrivacyAccount
from fedcredit.governance.privacy_ledger import PrivacyLedger
from fedcredit.governance.privacy_limit import PrivacyLimit
from fedcredit.protocol.secure_sum.messages import Contribution
from fedcredit.runtime.rounds.privacy import BookedBank
from fedcredit.spec.load import parse_toml
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import Message

SPEC = parse_toml(
    '[run]\nname = "r"\nmode = "simulation"\nmodel = "fedavg"\n[fedavg]\nrounds = 2\n'
    '[differential_privacy]\nunit = "record"\n'
    + "".join(f'[[party]]\nname = "b{i}"\nrole = "label_holder"\nsource = "b.csv"\nlabel = "y"\n' for i in range(3))
)


class Played:
    """A role that brings one vector a visit."""

    def __init__(self, stages: Sequence[str], body: bytes = b"x") -> None:
        self.stages, self.body, self.visits = list(stages), body, 0

    def answer(self, _: Sequence[Message]) -> Sequence[tuple[PartyId, Message]]:
        self.visits += 1
        zero = bytes(32)
        message = Contribution(
            number=self.visits,
            context=zero,
            length=1,
            bound=1,
            body=self.body,
            pair_key=zero,
            seed_digest=zero,
            boxes=[],
        )
        return [(COORDINATOR, message)]

    def state(self) -> bytes:
        return bytes([self.visits])

    @property
    def finished(self) -> bool:
        return self.visits == len(self.stages)

    @property
    def stage(self) -> str:
        return self.stages[self.visits - 1]


def account(limit: PrivacyLimit | None = None) -> PrivacyAccount:
    return PrivacyAccount(PrivacyLedger(":memory:", limit), SPEC, RunId("aa"), "v1", 3000)


def test_each_visit_is_booked_before_it_leaves() -> None:
    one = account()
    bank = BookedBank(Played(["exponents", "moments", "round/1", "score"]), one, begins=True)
    for count in (1, 2, 3, 3):
        assert len(bank.answer([])) == 1
        assert sum(event.times for event in one.ledger.report(RunId("aa")).events) == count
    assert bank.finished
    assert bank.state() == b"\x04"


def test_a_visit_that_is_played_again_is_free_and_with_other_bytes_refused() -> None:
    one = account()
    BookedBank(Played(["round/1"]), one, begins=True).answer([])
    BookedBank(Played(["round/1"]), one, begins=True).answer([])
    assert one.ledger.report(RunId("aa")).events[0].times == 1
    with pytest.raises(DisclosureRefused, match="other content"):
        BookedBank(Played(["round/1"], b"y"), one, begins=False).answer([])


def test_nothing_is_answered_in_a_run_beyond_the_limit() -> None:
    role = Played(["round/1"])
    with pytest.raises(DisclosureRefused, match=r"rounds? would fit"):
        BookedBank(role, account(PrivacyLimit(max_epsilon=0.1)), begins=True)
    assert role.visits == 0
