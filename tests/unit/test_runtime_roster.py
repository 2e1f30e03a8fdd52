"""The roster: signed, canonical, with a history, and nothing in it that contradicts itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedcredit.errors import IntegrityError, SpecError
from fedcredit.runtime.house.roster import (
    Member,
    MemberKind,
    RevokedKeys,
    Roster,
    load_roster,
    parse_roster,
    sign_roster,
    split_address,
)
from fedcredit.runtime.provision.keys import new_keys
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.envelope import SigningKey

KEY = SigningKey(b"c" * 32)


def member(name: str, kind: MemberKind = MemberKind.NODE) -> Member:
    keys = new_keys(kind)
    return Member(
        PartyId(name), kind, keys.signing.public, keys.sealing_public, f"{hash(name) % 2**200:064x}", keys.flower_public
    )


def roster(*members: Member) -> Roster:
    everyone = members or (member("bank"), member(COORDINATOR, MemberKind.COORDINATOR))
    return Roster(
        consortium="trial",
        version=1,
        members={one.name: one for one in everyone},
        exchange="exchange.example.org:9443",
        fleet="[::1]:9444",
        ca_sha256="0" * 64,
    )


def test_a_signed_roster_comes_back(tmp_path: Path) -> None:
    given = roster()
    path = tmp_path / "roster.json"
    path.write_bytes(sign_roster(given, KEY))
    read = load_roster(path, KEY.public.raw)
    assert replace(read, members=dict(read.members)) == given
    assert read.member("bank") == given.members[PartyId("bank")]
    assert read.coordinator.kind is MemberKind.COORDINATOR
    assert len(read.digest) == 64
    assert sign_roster(read, KEY) == path.read_bytes()
    with pytest.raises(TypeError):
        read.members[PartyId("eve")] = given.coordinator  # type: ignore[index]


def test_members_are_found_by_name_and_by_certificate() -> None:
    given = roster()
    bank = given.member("bank")
    assert given.by_tls_key(bank.tls_key_sha256) == bank
    assert given.by_tls_key("1" * 64) is None
    assert given.verify_keys[bank.name].raw == bank.identity.raw
    with pytest.raises(SpecError, match='did you mean "bank"'):
        given.member("bnak")


def test_a_revoked_member_is_said_to_be_revoked() -> None:
    gone = RevokedKeys(PartyId("utility"), "2026-01-01T00:00:00+00:00", ("a",), left=True)
    given = replace(roster(), revoked=(gone,))
    with pytest.raises(SpecError, match="utility was revoked on 2026-01-01"):
        given.member("utility")


def test_history_is_part_of_the_next_version() -> None:
    first = parse_roster(sign_roster(roster(), KEY), KEY.public.raw, "r")
    assert first.previous == ""
    second = replace(first, version=2, history=(first.digest,))
    read = parse_roster(sign_roster(second, KEY), KEY.public.raw, "r")
    assert read.previous == first.digest
    assert read.digest != first.digest
    with pytest.raises(SpecError, match="version 3 with 1 versions before it"):
        sign_roster(replace(second, version=3), KEY)


def test_two_members_with_one_key_are_not_signed() -> None:
    bank, coordinator = roster().members.values()
    twin = replace(member("twin"), sealing=bank.sealing)
    with pytest.raises(SpecError, match="twin has a key of bank"):
        sign_roster(roster(bank, coordinator, twin), KEY)


def test_a_revoked_key_is_not_signed_again() -> None:
    given = roster()
    bank = given.member("bank")
    gone = RevokedKeys(bank.name, "2026-01-01T00:00:00+00:00", bank.public_keys[:1], left=False)
    with pytest.raises(SpecError, match="revoked keys of bank"):
        sign_roster(replace(given, revoked=(gone,)), KEY)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"consortium": "Trial/.."}, "name"),
        ({"exchange": "exchange"}, "no address"),
        ({"fleet": "host:99999"}, "no address"),
        ({"members": {}}, "without a coordinator"),
    ],
)
def test_nonsense_is_not_signed(change: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        sign_roster(replace(roster(), **change), KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": PartyId("../bank")}, "a member's name"),
        ({"name": PartyId("bank\n")}, "a member's name"),
        ({"name": COORDINATOR}, "and it alone"),
        ({"kind": MemberKind.OPERATOR}, "nodes, and they alone"),
        ({"flower_key": "ssh-ed25519 AAAA"}, "ECDSA P-384"),
        ({"flower_key": ""}, "nodes, and they alone"),
    ],
)
def test_no_member_is_like_that(change: dict[str, object], text: str) -> None:
    bank = member("bank")
    with pytest.raises(SpecError, match=text):
        replace(bank, **change)  # type: ignore[arg-type]


def test_members_are_equal_by_what_they_are() -> None:
    bank = member("bank")
    assert bank == replace(bank)
    assert hash(bank) == hash(replace(bank))
    assert bank != replace(bank, sealing=b"s" * 32)
    assert bank != "bank"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"roster\.json: cannot be read"):
        load_roster(tmp_path / "roster.json", KEY.public.raw)


def test_other_forms_of_the_same_json_are_refused() -> None:
    data = sign_roster(roster(), KEY)
    pretty = json.dumps(json.loads(data), indent=1).encode()
    for changed in (pretty, data[:-1], data + b"\n", b"[]", b"{" * 100_000, b"\xff", b" " * (5 << 20)):
        with pytest.raises(IntegrityError):
            parse_roster(changed, KEY.public.raw, "r")


@pytest.mark.parametrize(
    ("text", "parts"), [("a.example:1", ("a.example", 1)), ("[::1]:443", ("::1", 443)), ("127.0.0.1:65535", None)]
)
def test_addresses(text: str, parts: tuple[str, int] | None) -> None:
    assert split_address(text) == (parts or ("127.0.0.1", 65535))


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:0", "host:65536", "ho st:1", "host:١", "a/b:1", "::1:1"]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(SpecError, match="host:port"):
        split_address(text)
