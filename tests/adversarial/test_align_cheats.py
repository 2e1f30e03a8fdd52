"""Parties of a blind alignment that sign what they should not: a named error that says who, and no hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from fedcredit.attack.blind_rehearsal import BlindRehearsal
from fedcredit.attack.rehearsal import Reseal
from fedcredit.crypto.blind_group import times_base
from fedcredit.errors import FedCreditError
from fedcredit.protocol.align.blind_feature_holder import align_blind_holder
from fedcredit.protocol.align.blind_inputs import BlindInputs
from fedcredit.protocol.align.messages import SCHEMA, Tokens
from fedcredit.protocol.channel import Channel
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.message import Message, decode_struct

pytestmark = pytest.mark.usefixtures("virtual_time")

BANK, TAX, WATER = (PartyId(name) for name in ("bank", "tax", "water"))
TYPES: dict[str, type[Message]] = {one.kind: one.message for one in SCHEMA.messages}
REGISTER = [f"E{number:03d}" for number in range(100)]
LISTS = {BANK: REGISTER[:20], TAX: REGISTER[3:63], WATER: REGISTER[:60]}
"""17 common customers; lists of 60 entries each, so that one can stand for another."""

Change = Callable[[Any], Any]


def _rehearsal() -> BlindRehearsal:
    return BlindRehearsal(LISTS, REGISTER, min_overlap=5, timeout_s=0.5)


def _failure(rehearsal: BlindRehearsal) -> FedCreditError:
    """Plays a run that must end in an error of the product's own types, soon."""
    network = rehearsal.network()
    started = time.perf_counter()
    with pytest.raises(FedCreditError) as caught:
        rehearsal.play(network)
    assert time.perf_counter() - started < 30
    strange = {party: error for party, error in network.failures.items() if not isinstance(error, FedCreditError)}
    assert strange == {}
    return caught.value


def _cheating(cheater: PartyId, kind: str, change: Change, *, to: str = "", owner: str = "") -> FedCreditError:
    """The error of a run in which a party changes the first of its own messages of this kind."""
    rehearsal, done = _rehearsal(), False

    def rewrite(_sender: PartyId, recipient: PartyId, found: str, body: bytes) -> bytes | None:
        nonlocal done
        if done or found != kind or (to and recipient != to):
            return None
        message: Any = decode_struct(TYPES[kind], body, kind)
        if owner and message.owner != owner:
            return None
        done = True
        return msgspec.msgpack.encode(change(message))

    keys = {cheater: rehearsal.keys()[cheater]}
    error = _failure(replace(rehearsal, tamper=Reseal(keys, rewrite)))
    assert done
    return error


def _with(**fields: Any) -> Change:
    return lambda message: msgspec.structs.replace(message, **fields)


def _bytes(field: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda message: msgspec.structs.replace(message, **{field: change(getattr(message, field))})


def _second(point: bytes) -> Callable[[bytes], bytes]:
    """Puts other bytes in the place of the second entry of 32."""
    return lambda data: data[:32] + point + data[64:]


def _high_bit(data: bytes) -> bytes:
    """The same point as libsodium reads it."""
    return data[:31] + bytes([data[31] | 0x80]) + data[32:]


IDENTITY, NEGATIVE = bytes(32), b"\x01" + bytes(31)
FIELD_PRIME = (2**255 - 19).to_bytes(32, "little")


@pytest.mark.parametrize(
    ("point", "code"),
    [
        (IDENTITY, "blind.identity"),
        (NEGATIVE, "blind.encoding"),
        (FIELD_PRIME, "blind.encoding"),
        (b"\xff" * 32, "blind.encoding"),
    ],
    ids=["identity", "negative", "not reduced", "too large"],
)
@pytest.mark.parametrize(
    ("cheater", "to"),
    [(TAX, WATER), (BANK, TAX), (TAX, COORDINATOR)],
    ids=["holder to holder", "bank to holder", "holder to coordinator"],
)
def test_points_that_are_none_or_of_low_order_are_refused(
    cheater: PartyId, to: PartyId, point: bytes, code: str
) -> None:
    error = _cheating(cheater, "align.tokens", _bytes("tokens", _second(point)), to=to)
    assert error.code == code
    assert str(error).startswith(f"{cheater}: item 1 is")


def test_the_second_encoding_of_a_point_is_refused() -> None:
    """libsodium would read it as the same point: a list could then hold one token twice."""
    error = _cheating(TAX, "align.tokens", _bytes("tokens", _high_bit), to=WATER)
    assert (error.code, str(error).split(":")[0]) == ("blind.encoding", TAX)


def _twice(data: bytes) -> bytes:
    return data[:32] + data[:32] + data[64:]


@pytest.mark.parametrize(
    ("cheater", "to", "owner"),
    [(TAX, WATER, TAX), (TAX, WATER, BANK), (WATER, COORDINATOR, BANK), (BANK, TAX, WATER), (BANK, COORDINATOR, TAX)],
)
def test_a_token_twice_is_refused_wherever_it_arrives(cheater: PartyId, to: PartyId, owner: PartyId) -> None:
    error = _cheating(cheater, "align.tokens", _bytes("tokens", _twice), to=to, owner=owner)
    assert error.code == "align.duplicate"
    assert str(error).startswith(f"{cheater}: the list of {owner}")


def _swapping(owner: PartyId) -> FedCreditError:
    """The tax office sends water the tokens of its own list again, as those of another's."""
    rehearsal = _rehearsal()
    sent: list[bytes] = []

    def rewrite(_sender: PartyId, recipient: PartyId, kind: str, body: bytes) -> bytes | None:
        if kind != "align.tokens" or recipient != WATER:
            return None
        message = decode_struct(Tokens, body, kind)
        if message.owner == owner:
            return msgspec.msgpack.encode(msgspec.structs.replace(message, tokens=sent[0]))
        sent.append(message.tokens)
        return None

    return _failure(replace(rehearsal, tamper=Reseal({TAX: rehearsal.keys()[TAX]}, rewrite)))


def test_a_list_sent_again_as_another_is_refused() -> None:
    error = _swapping(BANK)
    assert error.code == "align.replayed"
    assert str(error).startswith("tax: the list of bank holds tokens of the list of tax")


def test_a_list_that_comes_back_to_its_owner_is_refused() -> None:
    """With two parties, the feature holder shows the bank the bank's own tokens as its list."""
    held: list[Tokens] = []

    class Late:
        """A channel that waits for the bank's list and sends it back as the own one."""

        def __init__(self, channel: Channel) -> None:
            self._channel = channel

        def __getattr__(self, name: str) -> Any:
            return getattr(self._channel, name)

        async def send(self, to: PartyId, message: Any, **options: Any) -> None:
            if isinstance(message, Tokens) and to == BANK:
                held.append(await self._channel.receive(BANK, Tokens))
                message = msgspec.structs.replace(message, tokens=held[0].tokens)
            await self._channel.send(to, message, **options)

        async def receive(self, sender: PartyId, kind: Any) -> Any:
            return held[0] if kind is Tokens else await self._channel.receive(sender, kind)

    async def cheat(channel: Channel, inputs: BlindInputs) -> Any:
        return await align_blind_holder(Late(channel), inputs)

    lists = {BANK: REGISTER[:20], TAX: REGISTER[:60]}
    error = _failure(BlindRehearsal(lists, REGISTER, timeout_s=0.5, cheats={TAX: cheat}))
    assert held
    assert error.code == "align.replayed"
    assert str(error).startswith("tax: the list of tax holds tokens of the list of bank")


def test_a_list_of_another_run_is_refused() -> None:
    """The envelope of an earlier run, signed by the same party for the same recipient."""
    earlier: list[bytes] = []

    def keep(sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        if (sender, recipient, kind) == (TAX, WATER, "align.tokens"):
            earlier.append(data)
        return (data,)

    def replay(sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        return (earlier[0],) if (sender, recipient, kind) == (TAX, WATER, "align.tokens") else (data,)

    replace(_rehearsal(), run=RunId("before"), tamper=keep).play()
    error = _failure(replace(_rehearsal(), tamper=replay))
    assert error.code == "wire.run"


def test_tokens_of_another_run_match_nothing() -> None:
    """Signed anew for this run, they are points like any other, and their owner has no row in common."""
    kept: list[bytes] = []
    rehearsal = _rehearsal()

    def keep(_sender: PartyId, recipient: PartyId, kind: str, body: bytes) -> bytes | None:
        if (recipient, kind) == (WATER, "align.tokens") and decode_struct(Tokens, body, kind).owner == TAX:
            kept.append(decode_struct(Tokens, body, kind).tokens)
        return None

    def replay(_sender: PartyId, recipient: PartyId, kind: str, body: bytes) -> bytes | None:
        if (recipient, kind) == (WATER, "align.tokens") and decode_struct(Tokens, body, kind).owner == TAX:
            return msgspec.msgpack.encode(msgspec.structs.replace(decode_struct(Tokens, body, kind), tokens=kept[0]))
        return None

    keys = {TAX: rehearsal.keys()[TAX]}
    replace(rehearsal, run=RunId("before"), tamper=Reseal(keys, keep)).play()
    error = _failure(replace(rehearsal, tamper=Reseal(keys, replay)))
    assert error.code == "align.below-floor"


@pytest.mark.parametrize(
    ("cheater", "kind", "change", "to", "code"),
    [
        (TAX, "align.tokens", _bytes("tokens", lambda data: data[:-32]), WATER, "align.length"),
        (TAX, "align.tokens", _bytes("tokens", lambda data: data + data[:32]), WATER, "align.length"),
        (TAX, "align.tokens", _bytes("tokens", lambda data: data[:-1]), WATER, "align.length"),
        (WATER, "align.tokens", _bytes("tokens", lambda data: data[:-32]), COORDINATOR, "align.length"),
        (TAX, "align.blinded", _with(entries=59), WATER, "align.length"),
        (TAX, "align.blinded", _with(owner=TAX), WATER, "align.length"),
        (WATER, "align.blinded", _with(entries=61), COORDINATOR, "align.length"),
        (TAX, "align.tokens", _with(first=1), WATER, "align.order"),
        (TAX, "align.tokens", _with(owner=BANK), WATER, "align.owner"),
        (TAX, "align.size", _with(entries=61), WATER, "align.length"),
        (COORDINATOR, "align.replies", _bytes("pairs", lambda data: data[:-64]), WATER, "align.length"),
        (COORDINATOR, "align.replies", _bytes("pairs", lambda data: bytes(32) + data[32:]), WATER, "blind.identity"),
        (COORDINATOR, "align.replies", _bytes("pairs", lambda data: b"\xff" * 64 + data[64:]), WATER, "blind.encoding"),
        (TAX, "align.replies", _bytes("pairs", lambda data: bytes(32) + data[32:]), BANK, "blind.identity"),
        (TAX, "align.replies", _with(first=7), BANK, "align.order"),
        (BANK, "align.reply_key", _with(public=bytes(32)), COORDINATOR, "blind.identity"),
        (BANK, "align.reply_key", _with(public=NEGATIVE), COORDINATOR, "blind.encoding"),
        (BANK, "align.places", _bytes("places", lambda data: data[:-4]), TAX, "align.length"),
        (BANK, "align.places", _with(owner=WATER), TAX, "align.owner"),
    ],
)
def test_lists_keep_their_length_their_order_and_their_owner(
    cheater: PartyId, kind: str, change: Change, to: PartyId, code: str
) -> None:
    error = _cheating(cheater, kind, change, to=to)
    assert error.code == code
    # A length that was announced differently to two parties is found at whoever hands the list on.
    assert cheater in str(error)


def _places(change: Callable[[np.ndarray], None]) -> Change:
    def changed(data: bytes) -> bytes:
        values = np.frombuffer(data, dtype="<i4").copy()
        change(values)
        return values.tobytes()

    return _bytes("places", changed)


def _moved(values: np.ndarray) -> None:
    values[values == 0] = 10_000


def _negative(values: np.ndarray) -> None:
    values[values == 0] = -2


def _repeated(values: np.ndarray) -> None:
    values[values == 0] = 1


def _dropped(values: np.ndarray) -> None:
    values[values == values.max()] = -1


def _added(values: np.ndarray) -> None:
    values[np.flatnonzero(values == -1)[0]] = values.max() + 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_moved, "align.unknown-place"),
        (_negative, "align.unknown-place"),
        (_repeated, "align.repeated-place"),
        (_dropped, "align.missing-place"),
        (_added, "align.unknown-place"),
    ],
)
@pytest.mark.parametrize(
    ("cheater", "to", "owner"),
    [(COORDINATOR, BANK, TAX), (BANK, WATER, TAX), (WATER, TAX, TAX)],
    ids=["coordinator", "first on the way back", "last on the way back"],
)
def test_places_told_to_a_feature_holder_make_an_order(
    cheater: PartyId, to: PartyId, owner: PartyId, change: Callable[[np.ndarray], None], code: str
) -> None:
    assert _cheating(cheater, "align.places", _places(change), to=to, owner=owner).code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [(_moved, "align.unknown-place"), (_negative, "align.unknown-place"), (_repeated, "align.repeated-place")],
)
@pytest.mark.parametrize(("cheater", "to"), [(BANK, TAX), (TAX, WATER), (WATER, COORDINATOR)])
def test_places_told_to_the_coordinator_make_an_order(
    cheater: PartyId, to: PartyId, change: Callable[[np.ndarray], None], code: str
) -> None:
    error = _cheating(cheater, "align.places", _places(change), to=to, owner=BANK)
    assert error.code == code


def _all_placed(values: np.ndarray) -> None:
    """Every row has a place: those that are common and were left out, and those that are not common."""
    free = np.flatnonzero(values == -1)
    values[free] = values.max() + 1 + np.arange(len(free))


def test_a_label_holder_cannot_place_a_row_that_is_not_common() -> None:
    error = _cheating(BANK, "align.places", _places(_all_placed), to=TAX, owner=BANK)
    assert error.code == "align.unknown-place"
    assert "not common to all has a place" in str(error)


def test_a_reply_copied_over_all_is_found_by_the_coordinator() -> None:
    """A shuffler that makes every bit set makes the bank keep a row that is not common."""

    def copied(which: int) -> Change:
        return _bytes("pairs", lambda data: data[64 * which : 64 * which + 64] * (len(data) // 64))

    codes: set[str] = set()
    for which in range(60):  # three of five bits are set, in a random order
        codes.add(_cheating(WATER, "align.replies", copied(which), to=TAX).code)
        if len(codes) == 2:
            break
    # A bit that was not set empties the list, one that was set fills it.
    assert codes == {"align.below-floor", "align.unknown-place"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_with(rows=35), "align.rows"),
        (_with(counted=18), "align.rows"),
        (_with(rows=36, counted=18), "align.missing-place"),
        (_with(rows=32, counted=16), "align.unknown-place"),
        (_with(rows=4, counted=2), "align.rows"),
        (_with(test_rows=bytes(5)), "align.test-rows"),
    ],
)
def test_the_label_holders_numbers_are_checked(change: Change, code: str) -> None:
    error = _cheating(BANK, "align.rows", change, to=TAX)
    assert error.code == code


@pytest.mark.parametrize("test_rows", [b"", bytes(2), bytes(4), b"\x00\x00\x01"])
def test_test_rows_fit_the_common_order(test_rows: bytes) -> None:
    rehearsal = replace(_rehearsal(), decoys=0.0)

    def rewrite(_sender: PartyId, recipient: PartyId, kind: str, body: bytes) -> bytes | None:
        if kind != "align.rows" or recipient != TAX:
            return None
        message = decode_struct(TYPES[kind], body, kind)
        return msgspec.msgpack.encode(msgspec.structs.replace(message, test_rows=test_rows))

    error = _failure(replace(rehearsal, tamper=Reseal({BANK: rehearsal.keys()[BANK]}, rewrite)))
    assert error.code == "align.test-rows"


def test_replaced_tokens_only_take_rows_away() -> None:
    """What is not prevented: a shuffler that puts other points in. The owner of the list loses rows, at random."""
    rehearsal, lost = _rehearsal(), 20
    scalars = np.zeros((lost, 32), dtype=np.uint8)
    scalars[:, 0] = np.arange(1, lost + 1)

    def rewrite(_sender: PartyId, recipient: PartyId, kind: str, body: bytes) -> bytes | None:
        if kind != "align.tokens" or recipient != COORDINATOR:
            return None
        message = decode_struct(Tokens, body, kind)
        others = times_base(scalars).tobytes()
        return msgspec.msgpack.encode(msgspec.structs.replace(message, tokens=others + message.tokens[len(others) :]))

    found = replace(
        rehearsal, min_overlap=1, oversample=4.0, decoys=0.5, tamper=Reseal({TAX: rehearsal.keys()[TAX]}, rewrite)
    ).play()
    honest = set(LISTS[BANK]) & set(LISTS[TAX]) & set(LISTS[WATER])
    members = found[BANK].members
    assert members is not None
    kept = {one for one, member in zip(found[BANK].ids, members, strict=True) if member}
    assert kept < honest
    assert found[TAX].ids == found[WATER].ids == found[BANK].ids


def test_an_envelope_changed_on_the_wire_is_refused() -> None:
    def flipped(sender: PartyId, _recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        if sender == TAX and kind == "align.tokens":
            at = len(data) // 2
            return (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],)
        return (data,)

    assert _failure(replace(_rehearsal(), tamper=flipped)).code == "wire.signature"
