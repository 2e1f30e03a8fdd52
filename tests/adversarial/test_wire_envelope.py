"""Every way to misplace or forge an envelope has its own named error."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from fedcredit.errors import BoundError, FedCreditError, PeerError, SpecError
from fedcredit.types import PartyId
from fedcredit.wire.envelope import OVERHEAD, Envelope, Expected, Route, SigningKey, VerifyKey, open_envelope, seal

BANK, TAX, EVE = PartyId("bank"), PartyId("tax"), PartyId("eve")
KEYS = {party: SigningKey(party.encode().ljust(32, b"\x00")) for party in (BANK, TAX, EVE)}
ROUTE = Route("run-1", "probe", "fit", BANK, TAX, 4)
EXPECTED = Expected("run-1", BANK, TAX, 4, 1000, {party: key.public for party, key in KEYS.items()})


def _code(data: bytes, expected: Expected = EXPECTED) -> str:
    with pytest.raises(FedCreditError) as caught:
        open_envelope(data, expected)
    assert isinstance(caught.value, PeerError)
    return caught.value.code


def test_an_honest_envelope_opens() -> None:
    envelope = open_envelope(seal(KEYS[BANK], ROUTE, "probe.ask", b"body"), EXPECTED)
    assert (envelope.kind, envelope.body, envelope.stage, envelope.sequence) == ("probe.ask", b"body", "fit", 4)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"run": "run-2"}, "wire.run"),
        ({"sender": EVE}, "wire.sender"),
        ({"recipient": EVE}, "wire.recipient"),
        ({"sequence": 3}, "wire.replay"),
        ({"sequence": 5}, "wire.gap"),
    ],
)
def test_a_signed_envelope_from_another_place_is_refused(change: dict[str, object], code: str) -> None:
    route = replace(ROUTE, **change)  # type: ignore[arg-type]
    assert _code(seal(KEYS[BANK], route, "probe.ask", b"body")) == code


def test_another_partys_key_is_refused() -> None:
    assert _code(seal(KEYS[EVE], ROUTE, "probe.ask", b"body")) == "wire.signature"


def test_a_sender_outside_the_roster_is_refused() -> None:
    assert _code(seal(KEYS[BANK], ROUTE, "probe.ask", b"body"), replace(EXPECTED, keys={})) == "wire.sender"


@pytest.mark.parametrize(
    "change",
    [
        {"run": "run-1", "protocol": "other"},
        {"stage": "score"},
        {"kind": "probe.tell"},
        {"body": b"other"},
        {"body": b""},
        {"signature": b"\x00" * 64},
    ],
)
def test_no_field_can_be_changed_under_a_signature(change: dict[str, object]) -> None:
    envelope = msgspec.msgpack.decode(seal(KEYS[BANK], ROUTE, "probe.ask", b"body"), type=Envelope)
    forged = msgspec.msgpack.encode(msgspec.structs.replace(envelope, **change))
    assert _code(forged) == "wire.signature"


def test_size_is_checked_before_anything_is_read() -> None:
    assert _code(b"\x00" * (1000 + OVERHEAD + 1)) == "wire.oversize"
    assert _code(b"\x00" * (1000 + OVERHEAD)) == "wire.malformed"


def test_only_a_notice_may_overtake_and_never_be_replayed() -> None:
    later = seal(KEYS[BANK], replace(ROUTE, sequence=9), "run.error", b"")
    assert open_envelope(later, EXPECTED, overtakes=True).sequence == 9
    earlier = seal(KEYS[BANK], replace(ROUTE, sequence=3), "run.error", b"")
    with pytest.raises(PeerError, match="again"):
        open_envelope(earlier, EXPECTED, overtakes=True)


def test_the_framing_of_longest_names_stays_below_the_allowance() -> None:
    name = "\U0001f3e6" * 128
    route = Route(name, name, name, PartyId(name), PartyId(name), 2**53)
    assert len(seal(KEYS[BANK], route, name, b"")) < OVERHEAD


def test_names_no_envelope_could_carry_are_refused_at_home() -> None:
    for stage in ("", "x" * 129):
        with pytest.raises(BoundError):
            seal(KEYS[BANK], replace(ROUTE, stage=stage), "probe.ask", b"")


def test_keys_of_wrong_length_are_refused() -> None:
    with pytest.raises(BoundError, match="32"):
        SigningKey(b"short")
    with pytest.raises(SpecError, match="32"):
        VerifyKey(b"short")
