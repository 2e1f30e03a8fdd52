"""Every message of a secure sum, malformed, moved, replayed or out of turn: a named error, and whose it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from fedcredit.crypto.secure_sum import SumShape, body_size
from fedcredit.errors import BoundError, FedCreditError, IntegrityError, PeerError, TransportError
from fedcredit.protocol.secure_sum.member import SumMember
from fedcredit.protocol.secure_sum.messages import Begin, Contribution, Join, Opening, Prepared, Survivors, Welcome
from fedcredit.protocol.secure_sum.rules import SumRules, UnsafeUnsigned, join_text
from fedcredit.types import PartyId
from fedcredit.wire.message import Message

if TYPE_CHECKING:
    from tests.adversarial.secure_sum_town import Profile, Town, crossed, house, signing_key, vectors
else:
    sys.path.append(str(Path(__file__).parent))
    from secure_sum_town import Profile, Town, crossed, house, signing_key, vectors

A, B, C, D = (PartyId(f"bank_0{number}") for number in range(1, 5))
PROFILES: list[Profile] = ["masked+he", "masked"]
Change = Callable[[Any], Any]


def put(**fields: Any) -> Change:
    return lambda message: msgspec.structs.replace(message, **fields)


def of(field: str, at: int, **fields: Any) -> Change:
    """Changes one entry of a list."""

    def change(message: Any) -> Any:
        entries = list(getattr(message, field))
        entries[at] = msgspec.structs.replace(entries[at], **fields)
        return msgspec.structs.replace(message, **{field: entries})

    return change


def flipped(field: str, at: int = -1) -> Change:
    def change(message: Any) -> Any:
        data = bytearray(getattr(message, field))
        data[at] ^= 0x80
        return msgspec.structs.replace(message, **{field: bytes(data)})

    return change


def lists(field: str, change: Callable[[list[Any]], list[Any]]) -> Change:
    return lambda message: msgspec.structs.replace(message, **{field: change(list(getattr(message, field)))})


def town_at(step: str, profile: Profile) -> tuple[Town, dict[PartyId, Any]]:
    """A town of four, and what the relay would say next."""
    town = Town(4, profile)
    for bank in town.banks:
        town.told(bank, town.members[bank].join())
    out = town.relay.advance()
    if step == "welcome":
        return town, dict(out)
    for bank, message in out.items():
        town.told(bank, town.members[bank].prepare(message))  # type: ignore[arg-type]
    out = town.relay.advance()
    if step == "begin":
        return town, dict(out)
    for bank, message in out.items():
        town.members[bank].begin(message)  # type: ignore[arg-type]
    town.contribute(vectors(town.banks, 8, 5), 5)
    out = town.relay.advance()
    if step == "survivors":
        return town, dict(out)
    for bank, message in out.items():
        town.told(bank, town.members[bank].unmask(message))  # type: ignore[arg-type]
    return town, dict(town.relay.advance())


def take(member: SumMember, message: Message) -> object:
    if isinstance(message, Welcome):
        return member.prepare(message)
    if isinstance(message, Begin):
        member.begin(message)
        return None
    if isinstance(message, Survivors):
        return member.unmask(message)
    assert isinstance(message, Opening)
    return member.open(message)


TO_BANKS: list[tuple[str, str, Change, type[FedCreditError], str]] = [
    ("welcome", "unsorted", lists("members", lambda m: m[::-1]), PeerError, "secure_sum.roster"),
    ("welcome", "twice", lists("members", lambda m: [m[0], *m]), PeerError, "secure_sum.roster"),
    ("welcome", "stranger", of("members", 3, party="mallory"), PeerError, "secure_sum.stranger"),
    ("welcome", "without it", lists("members", lambda m: m[1:]), PeerError, "secure_sum.left"),
    ("welcome", "too few", lists("members", lambda m: m[:2]), TransportError, "secure_sum.floor"),
    ("welcome", "own key", of("members", 0, key=b"\5" * 32), PeerError, "secure_sum.own"),
    ("welcome", "another's key", of("members", 1, key=b"\5" * 32), PeerError, "wire.signature"),
    ("welcome", "no signature", of("members", 1, signature=b""), PeerError, "wire.signature"),
    ("begin", "stranger", of("fresh", 3, party="mallory"), PeerError, "secure_sum.stranger"),
    ("begin", "unsorted", lists("fresh", lambda m: m[::-1]), PeerError, "secure_sum.roster"),
    ("begin", "without it", lists("fresh", lambda m: m[1:]), PeerError, "secure_sum.left"),
    ("begin", "too few", lists("fresh", lambda m: m[:2]), TransportError, "secure_sum.floor"),
    ("begin", "own keys", of("fresh", 0, pair_key=b"\5" * 32), PeerError, "secure_sum.own"),
    ("begin", "another's pair key", of("fresh", 1, pair_key=b"\5" * 32), PeerError, "boxes.forged"),
    ("begin", "another's digest", of("fresh", 1, seed_digest=b"\5" * 32), PeerError, "boxes.forged"),
    ("begin", "no box", of("fresh", 1, box=b""), PeerError, "boxes.forged"),
    ("survivors", "number", put(number=2), PeerError, "secure_sum.number"),
    ("survivors", "unsorted", lists("fresh", lambda m: m[::-1]), PeerError, "secure_sum.roster"),
    ("survivors", "stranger", of("fresh", 3, party="mallory"), PeerError, "secure_sum.stranger"),
    ("survivors", "without it", lists("fresh", lambda m: m[1:]), PeerError, "secure_sum.left"),
    ("survivors", "too few", lists("fresh", lambda m: m[:2]), TransportError, "secure_sum.floor"),
    ("survivors", "own keys", of("fresh", 0, seed_digest=b"\5" * 32), PeerError, "secure_sum.own"),
    ("survivors", "forged box", of("fresh", 2, box=bytes(82)), PeerError, "boxes.forged"),
    ("opening", "number", put(number=2), PeerError, "secure_sum.number"),
    ("opening", "other survivors", put(survivors=[A, B, C]), PeerError, "secure_sum.roster"),
    ("opening", "next stranger", put(members=[A, B, C, "mallory"]), PeerError, "secure_sum.stranger"),
    ("opening", "next unsorted", put(members=[B, A, C]), PeerError, "secure_sum.roster"),
    ("opening", "short total", put(total=b"\0" * 5), PeerError, "*"),
]

ENCRYPTED_ONLY: list[tuple[str, Change, type[FedCreditError], str]] = [
    ("short secrets", put(secrets=bytes(33)), PeerError, "secure_sum.shares"),
    ("no field element", put(secrets=b"\xff" * 33 * 4), PeerError, "shares.share"),
    ("another secret", flipped("secrets", 0), PeerError, "*"),
    ("damaged total", flipped("total"), PeerError, "bfv.checksum"),
]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("step", "how", "change", "error", "code"), TO_BANKS, ids=[f"{o[0]}-{o[1]}" for o in TO_BANKS])
def test_a_bank_refuses_what_the_relay_must_not_say(
    profile: Profile, step: str, how: str, change: Change, error: type[FedCreditError], code: str
) -> None:
    town, out = town_at(step, profile)
    before = town.members[A].state()
    with pytest.raises(error) as caught:
        take(town.members[A], change(out[A]))
    assert code in {"*", caught.value.code}, how
    assert town.members[A].state() == before, "a refusal changes nothing"
    take(town.members[A], out[A])


@pytest.mark.parametrize(("how", "change", "error", "code"), ENCRYPTED_ONLY, ids=[one[0] for one in ENCRYPTED_ONLY])
def test_a_bank_refuses_an_opening_that_does_not_open(
    how: str, change: Change, error: type[FedCreditError], code: str
) -> None:
    town, out = town_at("opening", "masked+he")
    with pytest.raises(error) as caught:
        town.members[A].open(change(out[A]))
    assert code in {"*", caught.value.code}, how


@pytest.mark.parametrize("profile", PROFILES)
def test_a_bank_the_others_go_on_without_has_its_total_and_no_more(profile: Profile) -> None:
    town, out = town_at("opening", profile)
    assert town.members[A].open(put(members=[B, C, D])(out[A])).members == town.banks
    with pytest.raises(TransportError, match=r"secure_sum\.left"):
        town.members[A].contribute("x", np.arange(3), 5)


def test_a_total_beyond_its_bound_is_refused() -> None:
    town, out = town_at("opening", "masked")
    words = np.full(8, 21, dtype="<u8").view(np.uint8).reshape(8, 8)[:, :2].tobytes()
    with pytest.raises(PeerError) as caught:
        town.members[A].open(put(total=words)(out[A]))
    assert caught.value.code == "secure_sum.range"


TO_RELAY: list[tuple[type[Message], str, Change, str]] = [
    (Prepared, "too few boxes", lists("boxes", lambda m: m[:-1]), "secure_sum.box"),
    (Prepared, "short box", lists("boxes", lambda m: [*m[:-1], b"\0" * 9]), "secure_sum.box"),
    (Contribution, "number", put(number=2), "secure_sum.number"),
    (Contribution, "short body", lambda m: msgspec.structs.replace(m, body=m.body[:-1]), "*"),
    (Contribution, "length", put(length=9000), "*"),
    (Contribution, "bits outside the words", flipped("body"), "*"),
    (Contribution, "bound", put(bound=1 << 62), "secure_sum.*"),
    (Contribution, "boxes", lists("boxes", lambda m: [*m, b""]), "secure_sum.box"),
]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("kind", "how", "change", "code"), TO_RELAY, ids=[f"{o[0].__name__}-{o[1]}" for o in TO_RELAY])
def test_the_relay_refuses_what_it_cannot_pass_on(
    profile: Profile, kind: type[Message], how: str, change: Change, code: str
) -> None:
    town = Town(4, profile)
    if kind is Prepared:
        for bank in town.banks:
            town.told(bank, town.members[bank].join())
        message: Any = town.members[A].prepare(town.relay.advance()[A])  # type: ignore[arg-type]
    else:
        town.start()
        message = town.members[A].contribute("x", np.arange(8), 40_000)
    with pytest.raises(PeerError) as caught:
        town.relay.take(A, change(message))
    assert caught.value.culprit == A
    assert caught.value.code.startswith(code.rstrip("*")), how
    town.relay.take(A, crossed(message))


@pytest.mark.parametrize("profile", PROFILES)
def test_shares_about_another_list_are_refused(profile: Profile) -> None:
    town, out = town_at("survivors", profile)
    shares = town.members[A].unmask(out[A])
    for change in (put(survivors=bytes(32)), put(number=2), put(shares=shares.shares[:-1])):
        with pytest.raises(PeerError) as caught:
            town.relay.take(A, change(shares))
        assert caught.value.culprit == A


@pytest.mark.parametrize("profile", PROFILES)
def test_a_wrong_share_is_noticed(profile: Profile) -> None:
    town, out = town_at("survivors", profile)
    for bank, message in out.items():
        shares = town.members[bank].unmask(message)
        town.relay.take(bank, flipped("shares", 0)(shares) if bank == B else shares)

    def opened() -> None:
        for bank, message in town.relay.advance().items():
            town.members[bank].open(message)  # type: ignore[arg-type]

    with pytest.raises(PeerError) as caught:
        opened()
    assert caught.value.code in {"secure_sum.share", "shares.secret"}


@pytest.mark.parametrize("profile", PROFILES)
def test_messages_out_of_turn_are_refused(profile: Profile) -> None:
    town, out = town_at("begin", profile)
    member = town.members[A]
    with pytest.raises(PeerError, match=r"secure_sum\.turn"):
        member.contribute("x", np.arange(3), 5)
    take(member, out[A])
    with pytest.raises(PeerError, match=r"secure_sum\.turn"):
        member.begin(out[A])
    with pytest.raises(PeerError, match=r"secure_sum\.turn"):
        member.prepare(Welcome(members=[]))
    with pytest.raises(PeerError, match=r"secure_sum\.turn"):
        town.relay.take(A, member.join())
    with pytest.raises(PeerError, match=r"secure_sum\.turn"):
        town.relay.advance()
    first = member.contribute("x", np.arange(3), 5)
    town.relay.take(A, first)
    with pytest.raises(PeerError, match=r"secure_sum\.turn"):
        town.relay.take(A, first)


@pytest.mark.parametrize("profile", PROFILES)
def test_an_opening_is_not_taken_twice(profile: Profile) -> None:
    town, out = town_at("opening", profile)
    town.members[A].open(out[A])
    with pytest.raises(PeerError, match=r"secure_sum\.turn"):
        town.members[A].open(out[A])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_message_of_the_last_sum_is_no_message_of_this_one(profile: Profile) -> None:
    town = Town(4, profile).start()
    values = vectors(town.banks, 8, 5)
    town.contribute(values, 5)
    old = town.contribution(A)
    survivors = town.relay.advance()
    for bank, message in survivors.items():
        town.told(bank, town.members[bank].unmask(message))  # type: ignore[arg-type]
    town.opened()
    with pytest.raises(PeerError, match=r"secure_sum\.number"):
        town.relay.take(A, old)
    town.contribute(values, 5)
    with pytest.raises(PeerError, match=r"secure_sum\.number"):
        town.members[A].unmask(survivors[A])  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", PROFILES)
def test_other_values_for_the_same_sum_are_refused(profile: Profile) -> None:
    town = Town(4, profile).start()
    member = town.members[A]
    first = member.contribute("x", np.arange(3), 5)
    assert member.contribute("x", np.arange(3), 5) == first, "the same again gives the same bytes"
    again = SumMember(town.rules, town.houses[A], member.state())
    assert again.contribute("x", np.arange(3), 5) == first, "in another process too"
    for what, values, bound in (("x", np.arange(1, 4), 5), ("y", np.arange(3), 5), ("x", np.arange(3), 6)):
        with pytest.raises(IntegrityError, match=r"escrow\.bound"):
            again.contribute(what, values, bound)


def test_a_state_that_was_rolled_back_does_not_bring_other_values() -> None:
    town = Town(4).start()
    before = town.members[A].state()
    town.members[A].contribute("x", np.arange(3), 5)
    old = SumMember(town.rules, town.houses[A], before)
    with pytest.raises(IntegrityError, match=r"escrow\.bound"):
        old.contribute("x", np.arange(1, 4), 5)


@pytest.mark.parametrize("profile", PROFILES)
def test_banks_that_ask_for_different_sums_are_named(profile: Profile) -> None:
    town = Town(4, profile).start()
    for bank in town.banks:
        town.told(bank, town.members[bank].contribute("y" if bank == C else "x", np.arange(3), 5))
    with pytest.raises(PeerError) as caught:
        town.relay.advance()
    assert (caught.value.code, caught.value.culprit) == ("secure_sum.about", C)


def test_what_does_not_add_up_is_refused() -> None:
    town = Town(4).start()
    member = town.members[A]
    for values, bound in ((np.array([6]), 5), (np.array([-6]), 5), (np.array([1]), 0), (np.array([1]), 1 << 62)):
        with pytest.raises(BoundError):
            member.contribute("x", values, bound)
    with pytest.raises(BoundError):
        member.contribute("x", np.array([1], dtype=np.int32), 5)


def test_two_banks_with_one_key_are_refused() -> None:
    """A bank that could sign another's key as its own would read the other's boxes."""
    town = Town(4)
    first = town.members[A].join()
    stolen = signing_key(B).sign(join_text(town.rules, B, first.key))
    town.relay.take(A, first)
    town.relay.take(B, Join(key=first.key, signature=stolen))
    for bank in (C, D):
        town.relay.take(bank, town.members[bank].join())
    with pytest.raises(PeerError) as caught:
        town.members[C].prepare(town.relay.advance()[C])  # type: ignore[arg-type]
    assert caught.value.code == "secure_sum.duplicate"


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), b"\xff" * 32])
def test_keys_that_protect_nothing_are_refused(key: bytes) -> None:
    town = Town(4)
    town.relay.take(A, Join(key=key, signature=signing_key(A).sign(join_text(town.rules, A, key))))
    for bank in (B, C, D):
        town.relay.take(bank, town.members[bank].join())
    with pytest.raises(PeerError) as caught:
        town.members[C].prepare(town.relay.advance()[C])  # type: ignore[arg-type]
    assert caught.value.code in {"boxes.low-order", "boxes.key"}


def test_rules_that_protect_nobody_are_refused() -> None:
    with pytest.raises(BoundError, match=r"secure_sum\.floor"):
        SumRules("r", (A, B))
    with pytest.raises(BoundError, match=r"secure_sum\.banks"):
        SumRules("r", (A, B, B))
    with pytest.raises(BoundError, match=r"secure_sum\.banks"):
        SumRules("r", tuple(PartyId(f"b{number}") for number in range(300)))
    with pytest.raises(BoundError, match=r"secure_sum\.banks"):
        SumMember(SumRules("r", (A, B, C)), house(D, [A, B, C]))
    assert SumRules("r", (A, B, C, D), colluding=2).floor == 4
    assert UnsafeUnsigned().sign(b"x") == b""


def test_a_damaged_state_is_refused() -> None:
    town = Town(3)
    with pytest.raises(PeerError):
        SumMember(town.rules, town.houses[A], town.members[A].state()[:-1])


def test_a_body_of_another_profile_has_another_size() -> None:
    shape = SumShape(8, 5, 16)
    assert body_size(shape, encrypted=False) == 16
    assert body_size(shape, encrypted=True) > 60_000
