"""The gate: nothing leaves that schema, roster, policy and ledger do not all allow, and every refusal is noted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fedcredit.errors import BoundError, DisclosureRefused, FedCreditError, PeerError, PolicyDenied
from fedcredit.governance.audit import AuditLog
from fedcredit.governance.gate import Gate, House, RunContext
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy
from fedcredit.types import PartyId, Role, RunId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend
from fedcredit.wire.envelope import SigningKey
from fedcredit.wire.message import Message, Name
from fedcredit.wire.notice import ErrorNotice
from fedcredit.wire.schema import Declared, ProtocolSchema, merge

BANK, TAX, HUB = PartyId("bank"), PartyId("tax"), PartyId("coordinator")
RUN = RunId("run-1")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
L, P, C = (frozenset({role}) for role in (Role.LABEL_HOLDER, Role.FEATURE_HOLDER, Role.COORDINATOR))


class Ask(Message, frozen=True, kw_only=True, tag="probe.ask"):
    body: bytes


class Tell(Message, frozen=True, kw_only=True, tag="probe.tell"):
    body: bytes
    label: Name = "x"


class Stray(Message, frozen=True, kw_only=True, tag="other.stray"):
    body: bytes


SCHEMA = merge(
    ProtocolSchema(
        "probe", (Declared(Ask, L, P | C, max_bytes=100), Declared(Tell, P, L | C, max_bytes=200, spends=True))
    )
)
KEYS = {party: SigningKey(party.encode().ljust(32, b"\x00")) for party in (BANK, TAX, HUB)}
CONTEXT = RunContext(
    RUN,
    "digest",
    {BANK: Role.LABEL_HOLDER, TAX: Role.FEATURE_HOLDER, HUB: Role.COORDINATOR},
    {party: key.public for party, key in KEYS.items()},
    SCHEMA,
)
POLICY = Policy(
    counterparties=(BANK, TAX, HUB),
    protocols=("probe",),
    messages=("probe.ask", "probe.tell"),
    runs=("digest",),
    expires=NOW + timedelta(days=1),
    max_message_bytes=5_000,
    max_run_bytes=100_000,
    max_run_messages=3,
)
COST = (Cost(CostKind.EQUATIONS, "x0", 2),)
DECLARATION = Declaration("v1", Basis(1_000, 100), COST)
SPEND = Spend("ab" * 32, COST)


class Door:
    """A gate with its log in sight."""

    def __init__(self, party: PartyId, policy: Policy = POLICY, now: datetime = NOW) -> None:
        self.ledger = Ledger(":memory:")
        self.log = AuditLog(None, party, RUN, lambda: now)
        self.gate = Gate(CONTEXT, House(party, KEYS[party], policy, self.ledger, self.log, lambda: now))

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.lines]


@pytest.fixture
def tax() -> Iterator[Door]:
    door = Door(TAX)
    door.gate.declare(BANK, DECLARATION)
    yield door
    door.ledger.close()


def _refused(door: Door, to: PartyId, message: Message, spend: Spend | None = None) -> FedCreditError:
    """The refusal, after a check that it is in the log and that nothing was counted as sent."""
    before = (door.gate.bytes_sent, door.gate.messages_sent)
    with pytest.raises(FedCreditError) as caught:
        door.gate.release(to, message, "start", spend)
    last = door.events()[-1]
    assert (last["event"], last["code"], last["recipient"]) == ("refused", caught.value.code, to)
    assert (door.gate.bytes_sent, door.gate.messages_sent) == before
    return caught.value


def test_ledger_first_then_log_then_bytes(tax: Door) -> None:
    released = tax.gate.release(BANK, Tell(body=b"sums"), "start", SPEND)
    entry = tax.events()[-1]
    assert (entry["event"], entry["kind"], entry["recipient"]) == ("sent", "probe.tell", "bank")
    assert (entry["bytes"], entry["body_sha256"]) == (len(released.data), released.body_sha256)
    assert (entry["spend"], entry["learner"]) == ([["equations", "x0", 2]], "bank")
    assert tax.ledger.report(RUN)[0].equations == 2
    message = Door(BANK).gate.admit(released.data, TAX, "start", Tell)
    assert message.body == b"sums"


def test_nothing_leaves_when_the_log_cannot_be_written(tax: Door) -> None:
    tax.log.close()
    with pytest.raises(FedCreditError, match="closed"):
        tax.gate.release(BANK, Tell(body=b"sums"), "start", SPEND)
    assert tax.gate.messages_sent == 0
    assert tax.ledger.report(RUN)[0].equations == 2  # spent is spent


def test_an_undeclared_message_does_not_pass(tax: Door) -> None:
    assert _refused(tax, BANK, Stray(body=b"")).code == "schema.undeclared"


def test_roles_are_held(tax: Door) -> None:
    assert _refused(tax, BANK, Ask(body=b"")).code == "schema.roles"
    assert _refused(Door(BANK), TAX, Tell(body=b""), SPEND).code == "schema.roles"


def test_strangers_and_oneself_get_nothing(tax: Door) -> None:
    for to in (PartyId("eve"), TAX):
        assert _refused(tax, to, Tell(body=b""), SPEND).code == "gate.recipient"


def test_a_message_over_its_declared_size_does_not_pass() -> None:
    assert _refused(Door(BANK), TAX, Ask(body=b"x" * 101)).code == "schema.oversize"


def test_a_cost_is_stated_exactly_where_one_is_declared(tax: Door) -> None:
    assert _refused(tax, BANK, Tell(body=b"")).code == "gate.spend"
    assert _refused(Door(BANK), TAX, Ask(body=b""), SPEND).code == "gate.spend"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"runs": ("other",)}, "policy.run"),
        ({"expires": NOW}, "policy.expiry"),
        ({"expires": None}, "policy.expiry"),
        ({"counterparties": (BANK,)}, "policy.counterparty"),
        ({"protocols": ()}, "policy.protocol"),
        ({"messages": ("probe.tell",)}, "policy.message"),
        ({"max_message_bytes": 4_000}, "policy.limit"),
        ({"max_run_bytes": 4_000}, "policy.limit"),
        ({"max_run_messages": 0}, "policy.limit"),
        ({"kind_messages": {"probe.ask": 0}}, "policy.limit"),
    ],
)
def test_the_policy_is_asked_about_everything(change: dict[str, object], code: str) -> None:
    door = Door(BANK, POLICY.model_copy(update=change))
    error = _refused(door, TAX, Ask(body=b"x"))
    assert isinstance(error, PolicyDenied)
    assert error.code == code


def test_counters_run_over_the_whole_run() -> None:
    door = Door(BANK, POLICY.model_copy(update={"kind_messages": {"probe.ask": 2}}))
    for _ in range(2):
        door.gate.release(TAX, Ask(body=b"x"), "start")
    assert "kind_messages of probe.ask allows 2" in _refused(door, TAX, Ask(body=b"x")).public
    plenty = Door(BANK)
    for to in (TAX, HUB, TAX):
        plenty.gate.release(to, Ask(body=b"x"), "start")
    assert "max_run_messages allows 3" in _refused(plenty, HUB, Ask(body=b"x")).public


def test_an_undeclared_or_excessive_cost_leaves_nothing(tax: Door) -> None:
    assert isinstance(_refused(Door(TAX), BANK, Tell(body=b""), SPEND), DisclosureRefused)
    more = Spend("cd" * 32, (Cost(CostKind.EQUATIONS, "x0", 3),))
    assert _refused(tax, BANK, Tell(body=b""), more).code == "ledger.beyond-declaration"
    assert tax.ledger.report(RUN)[0].equations == 0


def test_a_refused_declaration_is_noted(tax: Door) -> None:
    too_much = replace(DECLARATION, costs=(Cost(CostKind.EQUATIONS, "x0", 99),), purpose="more")
    with pytest.raises(DisclosureRefused, match="still possible 8"):
        tax.gate.declare(BANK, too_much)
    assert [entry["event"] for entry in tax.events()] == ["declared", "refused"]


def test_a_retry_sends_the_same_body_or_nothing(tax: Door) -> None:
    first = tax.gate.release(BANK, Tell(body=b"sums"), "start", SPEND)
    again = tax.gate.release(BANK, Tell(body=b"sums"), "start", SPEND)
    assert (again.body_sha256, again.sequence) == (first.body_sha256, 1)
    assert _refused(tax, BANK, Tell(body=b"sums with fresh noise"), SPEND).code == "ledger.answer-differs"
    assert tax.ledger.report(RUN)[0].equations == 2


def test_a_relayed_answer_is_booked_to_who_learns_it(tax: Door) -> None:
    tax.gate.release(HUB, Tell(body=b"sums"), "start", replace(SPEND, learner=BANK))
    assert tax.ledger.report(RUN)[0].equations == 2
    assert tax.events()[-1]["learner"] == "bank"
    for stranger in (PartyId("eve"), TAX):
        spend = Spend("cd" * 32, (), learner=stranger)
        assert _refused(tax, HUB, Tell(body=b""), spend).code == "gate.learner"


def test_a_message_beyond_its_own_bounds_costs_nothing(tax: Door) -> None:
    assert isinstance(_refused(tax, BANK, Tell(body=b"", label="x" * 129), SPEND), BoundError)
    with pytest.raises(PolicyDenied, match="stage"):
        tax.gate.release(BANK, Tell(body=b""), "x" * 129, SPEND)
    assert tax.ledger.report(RUN)[0].equations == 0


def test_a_house_at_its_limits_can_still_say_that_it_stops() -> None:
    door = Door(BANK, POLICY.model_copy(update={"max_run_messages": 0}))
    released = door.gate.release(TAX, ErrorNotice(code="a.b", text="stopped"), "start")
    assert Door(TAX).gate.admit_notice(released.data, BANK).text == "stopped"
    silent = Door(BANK, Policy())
    assert _refused(silent, TAX, ErrorNotice(code="a.b", text="stopped")).code == "policy.expiry"


def test_what_enters_is_noted_and_its_envelope_is_the_evidence() -> None:
    released = Door(BANK).gate.release(TAX, Ask(body=b"x"), "start")
    tax = Door(TAX)
    assert tax.gate.evidence_of(BANK) == ""
    tax.gate.admit(released.data, BANK, "start", Ask)
    entry = tax.events()[-1]
    assert (entry["event"], entry["sender"], entry["body_sha256"]) == ("received", "bank", released.body_sha256)
    assert len(tax.gate.evidence_of(BANK)) == 64
    with pytest.raises(PeerError, match="again"):
        tax.gate.admit(released.data, BANK, "start", Ask)
    last = tax.events()[-1]
    assert (last["event"], last["code"]) == ("rejected", "wire.replay")


def test_the_secret_key_is_not_in_what_is_printed() -> None:
    door = Door(BANK)
    assert "SigningKey" not in repr(door.gate._house)
