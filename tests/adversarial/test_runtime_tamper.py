"""A hand on the wire: every interference ends in its named error, never in a result or a hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from fedcredit.errors import FedCreditError, PeerError, TransportError
from fedcredit.protocol.channel import Channel
from fedcredit.runtime.local import LocalNetwork, LocalSettings, Tamper
from fedcredit.types import PartyId, Role, RunId
from fedcredit.wire.envelope import Envelope, Route, SigningKey, seal
from fedcredit.wire.message import Message, encode
from fedcredit.wire.schema import Declared, ProtocolSchema

pytestmark = pytest.mark.usefixtures("virtual_time")

BANK, TAX = PartyId("bank"), PartyId("tax")
L, P = frozenset({Role.LABEL_HOLDER}), frozenset({Role.FEATURE_HOLDER})
RUN = RunId("run-1")


class Ask(Message, frozen=True, kw_only=True, tag="probe.ask"):
    number: int


class Other(Message, frozen=True, kw_only=True, tag="probe.other"):
    number: int


class Upward(Message, frozen=True, kw_only=True, tag="probe.upward"):
    number: int


SCHEMA = ProtocolSchema(
    "probe",
    (
        Declared(Ask, L, P, max_bytes=100),
        Declared(Other, L, P, max_bytes=3_000),
        Declared(Upward, P, L, max_bytes=100),
    ),
)


class Keys:
    """Gives every party the key that its place in the roster names."""

    def __init__(self) -> None:
        self._taken = 0

    def take(self, size: int, /) -> bytes:
        self._taken += 1
        return bytes([self._taken]) * size


BANK_KEY, TAX_KEY = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)


async def asking(channel: Channel) -> None:
    channel.stage("ask")
    for number in range(3):
        await channel.send(TAX, Ask(number=number))


async def hearing(channel: Channel) -> list[int]:
    channel.stage("ask")
    return [(await channel.receive(BANK, Ask)).number for _ in range(3)]


def _run(tamper: Tamper | None, bank: Callable[[Channel], Coroutine[Any, Any, Any]] = asking) -> list[int]:
    settings = LocalSettings(
        RUN,
        "digest",
        {BANK: Role.LABEL_HOLDER, TAX: Role.FEATURE_HOLDER},
        [SCHEMA],
        Keys(),
        timeout_s=0.3,
        tamper=tamper,
    )
    network = LocalNetwork(settings)
    roles = {BANK: bank(network.channel(BANK)), TAX: hearing(network.channel(TAX))}
    result: list[int] = asyncio.run(network.run_roles(roles))[TAX]
    return result


@dataclass
class Wire:
    """Applies a change to the middle one of three messages, with what passed before in sight."""

    change: Callable[[bytes, list[bytes]], Sequence[bytes]]
    passed: list[bytes] = field(default_factory=list)

    def __call__(self, _sender: PartyId, _recipient: PartyId, kind: str, data: bytes) -> Sequence[bytes]:
        if kind != "probe.ask":
            return (data,)
        self.passed.append(data)
        return self.change(data, self.passed) if len(self.passed) == 2 else (data,)


def _forge(key: SigningKey = BANK_KEY, message: Message | None = None, **changes: Any) -> Sequence[bytes]:
    """The second message as a party with this key could have sealed it otherwise."""
    message = message or Ask(number=1)
    protocol, kind = changes.pop("protocol", "probe"), changes.pop("kind", message.__struct_config__.tag)
    fields = {"run": RUN, "stage": "ask", "sender": BANK, "recipient": TAX, "sequence": 1, **changes}
    body = fields.pop("body", encode(message))
    return (seal(key, Route(protocol=protocol, **fields), kind, body),)


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_untouched_and_truthfully_resealed_messages_arrive() -> None:
    assert _run(None) == [0, 1, 2]
    assert _run(Wire(lambda _data, _passed: _forge())) == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _data, passed: (passed[0],), "wire.replay"),
        (lambda data, _: (data, data), "wire.replay"),
        (lambda _data, _passed: (), "wire.gap"),
        (lambda data, _: (data[:-1],), "wire.malformed"),
        (lambda data, _: (data + b"\x00",), "wire.malformed"),
        (lambda data, _: (_flip(data, len(data) - 1),), "wire.signature"),
        (lambda data, _: (b"\x00" * 20_000,), "wire.oversize"),
        (lambda data, _: (b"",), "wire.malformed"),
        (lambda _data, _passed: _forge(run="run-0"), "wire.run"),
        (lambda _data, _passed: _forge(TAX_KEY), "wire.signature"),
        (lambda _data, _passed: _forge(SigningKey(b"e" * 32)), "wire.signature"),
        (lambda _data, _passed: _forge(sender=TAX), "wire.sender"),
        (lambda _data, _passed: _forge(recipient=BANK), "wire.recipient"),
        (lambda _data, _passed: _forge(stage="score"), "wire.stage"),
        (lambda _data, _passed: _forge(sequence=7), "wire.gap"),
        (lambda _data, _passed: _forge(protocol="other"), "wire.undeclared"),
        (lambda _data, _passed: _forge(kind="probe.more"), "wire.undeclared"),
        (lambda _data, _passed: _forge(message=Other(number=1)), "wire.kind"),
        (lambda _data, _passed: _forge(message=Upward(number=1)), "wire.roles"),
        (lambda _data, _passed: _forge(body=b"\x00" * 101), "wire.oversize"),
        (lambda _data, _passed: _forge(body=b"\x00"), "wire.malformed"),
        (lambda _data, _passed: _forge(body=encode(Other(number=1))), "wire.malformed"),
    ],
)
def test_interference_has_its_named_error(change: Callable[[bytes, list[bytes]], Sequence[bytes]], code: str) -> None:
    with pytest.raises(PeerError) as caught:
        _run(Wire(change))
    assert caught.value.code == code
    assert "bank" in caught.value.public


def test_reordered_messages_are_noticed() -> None:
    held: list[bytes] = []

    def swap(data: bytes, _: list[bytes]) -> Sequence[bytes]:
        held.append(data)
        return ()

    wire = Wire(swap)

    def reorder(sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> Sequence[bytes]:
        delivered = wire(sender, recipient, kind, data)
        return (*delivered, *held) if len(wire.passed) == 3 else delivered

    with pytest.raises(PeerError, match="number 2, 1 is missing"):
        _run(reorder)


def test_a_duplicate_of_the_last_message_is_noticed_too() -> None:
    count: list[int] = []

    def twice(_sender: PartyId, _recipient: PartyId, _kind: str, data: bytes) -> Sequence[bytes]:
        count.append(1)
        return (data, data) if len(count) == 3 else (data,)

    with pytest.raises(PeerError, match="never asked for"):
        _run(twice)


def test_a_dropped_last_message_ends_in_a_transport_error() -> None:
    count: list[int] = []

    def drop(_sender: PartyId, _recipient: PartyId, _kind: str, data: bytes) -> Sequence[bytes]:
        count.append(1)
        return () if len(count) == 3 else (data,)

    with pytest.raises(TransportError, match="bank"):
        _run(drop)


def test_a_forged_notice_does_not_pass_for_the_real_one() -> None:
    async def failing(channel: Channel) -> None:
        channel.stage("ask")
        await channel.send(TAX, Other(number=1))  # of a kind that the other side does not wait for

    def forge(_sender: PartyId, _recipient: PartyId, kind: str, data: bytes) -> Sequence[bytes]:
        if kind != "run.error":
            return (data,)
        envelope = msgspec.msgpack.decode(data, type=Envelope)
        return (msgspec.msgpack.encode(msgspec.structs.replace(envelope, body=b"\x00")),)

    with pytest.raises(FedCreditError, match=r"probe\.other where probe\.ask was expected"):
        _run(forge, failing)
