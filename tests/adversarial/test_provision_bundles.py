"""Bundles that were changed, belong to others, or are old."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fedcredit.errors import FedCreditError, IntegrityError, SpecError
from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.house.roster import MemberKind, parse_roster, sign_roster
from fedcredit.runtime.provision.certificates import Issuer, issue_certificate, load_certificate
from fedcredit.runtime.provision.consortium import Order, provision, requests_in
from fedcredit.runtime.provision.keys import fingerprint, new_keys
from fedcredit.runtime.provision.pin import pin
from fedcredit.runtime.provision.request import make_request
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.types import PartyId
from fedcredit.wire.envelope import SigningKey


def spec(name: str = "north") -> ConsortiumSpec:
    return ConsortiumSpec.model_validate(
        {
            "name": name,
            "coordinator": {"exchange": "x.example.org:9443", "fleet": "x.example.org:9444"},
            "member": [{"name": "bank"}, {"name": "utility"}],
        }
    )


class World:
    """A consortium whose bundles version 1 and 2 are there, and whose bank has pinned version 1."""

    def __init__(self, folder: Path, name: str = "north") -> None:
        self.requests, self.out, self.spec = folder / "requests", folder / "out", spec(name)
        self.requests.mkdir(parents=True)
        for party, kind in self.spec.kinds.items():
            shutil.copy(make_request(party, kind, folder / party).path, self.requests)
        self.bank, self.utility = folder / "bank", folder / "utility"
        self.provision()
        self.first = Path(shutil.copytree(self.out / "bank", folder / "first"))
        self.fingerprint = pin(self.first, self.bank).fingerprint
        self.provision(renew=True)
        self.second = self.out / "bank"

    def provision(self, *, renew: bool = False) -> None:
        provision(self.spec, self.out, Order(requests_in(self.requests), renew=renew))

    @property
    def key(self) -> SigningKey:
        return SigningKey((self.out / "authority" / "consortium.key").read_bytes())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "north")


def files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def refused(world: World, bundle: Path, text: str, home: Path | None = None) -> None:
    """The pin fails with this text and leaves the home as it was."""
    home = home or world.bank
    before = files(home)
    with pytest.raises(FedCreditError, match=text) as caught:
        pin(bundle, home)
    assert "\n" not in caught.value.public
    assert files(home) == before


def test_the_next_version_is_taken_and_the_same_again(world: World) -> None:
    assert pin(world.second, world.bank).version == 2
    assert pin(world.second, world.bank).version == 2
    assert open_home(world.bank).roster.version == 2


def test_every_byte_of_the_roster_counts(world: World, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(world.second, tmp_path / "changed"))
    data = (bundle / "roster.json").read_bytes()
    for place in range(0, len(data), 41):
        changed = bytearray(data)
        changed[place] ^= 1
        (bundle / "roster.json").write_bytes(bytes(changed))
        with pytest.raises(IntegrityError):
            pin(bundle, world.bank)
    assert open_home(world.bank).roster.version == 1


def test_a_changed_roster_in_a_home_is_refused(world: World) -> None:
    path = world.bank / "roster.json"
    path.write_bytes(path.read_bytes().replace(b"x.example.org", b"y.example.org", 1))
    with pytest.raises(IntegrityError, match="the signature is not the consortium's"):
        open_home(world.bank)


def test_an_older_version_is_refused(world: World) -> None:
    pin(world.second, world.bank)
    refused(world, world.first, "version 1 is older than the pinned version 2")
    shutil.copy(world.first / "roster.json", world.bank)
    with pytest.raises(IntegrityError, match="version 1, but version 2 was pinned"):
        open_home(world.bank)


def test_another_history_is_refused_although_the_key_signed_it(world: World, tmp_path: Path) -> None:
    """The consortium's key shows one party another list of members than the others."""
    bundle = Path(shutil.copytree(world.second, tmp_path / "fork"))
    data = json.loads((bundle / "roster.json").read_bytes())
    key = bytes.fromhex(data["consortium_key"])
    roster = parse_roster((bundle / "roster.json").read_bytes(), key, "r")
    forked = roster.__class__(**{**roster.__dict__, "history": ("0" * 64,)})
    (bundle / "roster.json").write_bytes(sign_roster(forked, world.key))
    refused(world, bundle, "two histories")
    same = roster.__class__(**{**roster.__dict__, "fleet": "z.example.org:1", "version": 1, "history": ()})
    (bundle / "roster.json").write_bytes(sign_roster(same, world.key))
    refused(world, bundle, "two histories")


def test_the_bundle_of_another_consortium_is_refused(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "south", "south")
    refused(world, other.second, "signed by another consortium key")
    fresh = Path(shutil.copytree(world.bank, tmp_path / "fresh", ignore=shutil.ignore_patterns("pins.json")))
    refused(world, other.second, "none of its members has the keys", fresh)


def test_another_key_under_the_same_names_is_refused(world: World, tmp_path: Path) -> None:
    """Somebody with the members' requests, which are not secret, plays the consortium."""
    out = tmp_path / "mallory"
    provision(world.spec, out, Order(requests_in(world.requests)))
    refused(world, out / "bank", "signed by another consortium key")
    fresh = Path(shutil.copytree(world.bank, tmp_path / "fresh", ignore=shutil.ignore_patterns("pins.json")))
    with pytest.raises(IntegrityError, match="not the one given"):
        pin(out / "bank", fresh, world.fingerprint)
    assert pin(world.second, fresh, world.fingerprint).compared


def test_a_roster_that_names_another_key_than_it_is_signed_with(world: World, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(world.second, tmp_path / "changed"))
    data = json.loads((bundle / "roster.json").read_bytes())
    mallory = SigningKey(b"m" * 32)
    roster = parse_roster((bundle / "roster.json").read_bytes(), bytes.fromhex(data["consortium_key"]), "r")
    forged = json.loads(sign_roster(roster, mallory))
    forged["consortium_key"] = data["consortium_key"]
    text = json.dumps(forged, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    (bundle / "roster.json").write_bytes(text)
    refused(world, bundle, "the signature is not the consortium's")


def test_the_bundle_of_another_member_is_refused(world: World) -> None:
    refused(world, world.out / "utility", "fedcredit://north/bank is expected")


def test_a_stolen_certificate_is_worth_nothing_without_its_key(world: World) -> None:
    pin(world.out / "utility", world.utility)
    shutil.copy(world.second / "certificate.pem", world.utility)
    with pytest.raises(IntegrityError, match="fedcredit://north/utility is expected"):
        open_home(world.utility)


def test_a_certificate_for_the_own_name_with_another_key_is_refused(world: World) -> None:
    """Even one that the authority issued: the roster names the key."""
    authority = world.out / "authority"
    state = json.loads((authority / "state.json").read_bytes())
    certificate = load_certificate((world.second / "certificate.pem").read_bytes(), "c")
    start = certificate.not_valid_before_utc
    issuer = Issuer("north", (authority / "ca.key").read_bytes(), state["ca"].encode(), start, 10)
    key = new_keys(MemberKind.NODE).tls
    pin(world.second, world.bank)
    (world.bank / "certificate.pem").write_bytes(issue_certificate(issuer, "bank", key.public_key()))
    with pytest.raises(IntegrityError, match="its key is not the one that the roster names for bank"):
        open_home(world.bank)


def test_a_node_with_a_certificate_that_may_serve_is_refused(world: World) -> None:
    authority = world.out / "authority"
    ca = json.loads((authority / "state.json").read_bytes())["ca"].encode()
    start = load_certificate(ca, "ca").not_valid_before_utc
    issuer = Issuer("north", (authority / "ca.key").read_bytes(), ca, start, 10)
    pin(world.second, world.bank)
    request = load_certificate((world.bank / "certificate.pem").read_bytes(), "c").public_key()
    serving = issue_certificate(issuer, "bank", request, ["x.example.org"])  # type: ignore[arg-type]
    (world.bank / "certificate.pem").write_bytes(serving)
    with pytest.raises(IntegrityError, match="only the coordinator's certificate may serve"):
        open_home(world.bank)


def test_an_authority_of_ones_own_is_refused(world: World, tmp_path: Path) -> None:
    out = tmp_path / "mallory"
    provision(world.spec, out, Order(requests_in(world.requests)))
    bundle = Path(shutil.copytree(world.second, tmp_path / "changed"))
    shutil.copy(out / "bank" / "ca.pem", bundle)
    refused(world, bundle, "not the authority in the roster")
    shutil.copy(world.second / "ca.pem", bundle)
    shutil.copy(out / "bank" / "certificate.pem", bundle)
    refused(world, bundle, "not issued by the authority of north")


def test_other_keys_than_those_asked_for_are_refused(world: World, tmp_path: Path) -> None:
    """The sealing key of the home was replaced after the request was made."""
    (world.bank / "keys" / "sealing.key").write_bytes(b"s" * 32)
    refused(world, world.second, "the roster names other keys for bank")


def test_a_bundle_that_is_not_whole_is_refused(world: World, tmp_path: Path) -> None:
    for name in ("roster.json", "ca.pem", "certificate.pem"):
        bundle = Path(shutil.copytree(world.second, tmp_path / name, ignore=shutil.ignore_patterns(name)))
        refused(world, bundle, f"{name}: cannot be read")


def test_a_home_without_keys_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="make a request there first"):
        pin(world.second, tmp_path / "nobody")


def test_a_member_whose_keys_were_exchanged_is_named(world: World, tmp_path: Path) -> None:
    """Who holds the consortium's key can put other keys under a name, but not without everybody being told."""
    pin(world.second, world.bank)
    made = make_request("utility", MemberKind.NODE, tmp_path / "mallory")
    for path in world.requests.glob("utility*"):
        path.unlink()
    provision(world.spec, world.out, Order([], revoke=["utility"]))
    provision(world.spec, world.out, Order([made.path]))
    assert pin(world.second, world.bank).changes == ("utility has new keys",)
    provision(world.spec, world.out, Order([], revoke=["utility"]))
    assert pin(world.second, world.bank).changes == ("utility left",)
    (world.bank / "roster.json").write_bytes(b"{}")
    assert "compare all members again" in pin(world.second, world.bank).changes[0]


def test_no_key_is_in_any_bundle(world: World) -> None:
    secrets = [path.read_bytes() for path in world.bank.parent.rglob("*.key")]
    assert len(secrets) == 3 + 4 + 4 + 2
    for path in (world.out / "bank").rglob("*"):
        data = path.read_bytes()
        assert b"PRIVATE" not in data
        assert not any(secret in data or secret.hex().encode() in data for secret in secrets)


def test_fingerprints_shown_are_those_of_the_members(world: World) -> None:
    pinned = pin(world.second, world.bank)
    home = open_home(world.bank)
    assert pinned.fingerprints == {name: fingerprint(one.identity.raw) for name, one in home.roster.members.items()}
    assert pinned.fingerprints[PartyId("bank")] == fingerprint(home.identity.public.raw)
