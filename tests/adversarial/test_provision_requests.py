"""Requests of somebody who does not hold the keys, or wants those of another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedcredit.errors import FedCreditError, IntegrityError, SpecError
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision import request as provision_request
from fedcredit.runtime.provision.certificates import make_signing_request
from fedcredit.runtime.provision.consortium import Order, Provisioned, provision
from fedcredit.runtime.provision.keys import PartyKeys, new_keys
from fedcredit.runtime.provision.request import make_request, parse_request, request_bytes
from fedcredit.runtime.provision.spec import ConsortiumSpec

SPEC = ConsortiumSpec.model_validate(
    {
        "name": "north",
        "coordinator": {"exchange": "x.example.org:9443", "fleet": "x.example.org:9444"},
        "member": [{"name": "bank"}, {"name": "utility"}],
    }
)
NODE = MemberKind.NODE


@pytest.fixture
def keys() -> PartyKeys:
    return new_keys(NODE)


class Operator:
    """The operator's machine, to which anybody may send files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.send("coordinator", request_bytes("coordinator", MemberKind.COORDINATOR, new_keys(MemberKind.COORDINATOR)))

    def send(self, name: str, data: bytes) -> Path:
        path = self.folder / f"{name}.request.json"
        path.write_bytes(data)
        return path

    def provision(self, *extra: Path, revoke: tuple[str, ...] = ()) -> Provisioned:
        files = sorted({*self.folder.glob("*.request.json"), *extra})
        return provision(SPEC, self.folder / "out", Order(files, revoke))


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def altered(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    content = json.loads(data)
    change(content)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def change_request(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["request"].update(values)


def change_proof(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


OTHER = new_keys(NODE)
FORGED: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("the name", change_request(name="utility"), "not signed by the identity key"),
    ("the kind", change_request(kind="operator", flower_key=""), "not signed by the identity key"),
    ("the time", change_request(made="2026-01-01T00:00:00+00:00"), "not signed by the identity key"),
    ("the identity", change_request(identity=OTHER.signing.public.raw.hex()), "not signed by the identity key"),
    ("the sealing key", change_request(sealing=OTHER.sealing_public.hex()), "not signed by the identity key"),
    ("the Flower key", change_request(flower_key=OTHER.flower_public), "not signed by the identity key"),
    (
        "the certificate request",
        change_request(tls_request=make_signing_request("bank", OTHER.tls).decode()),
        "not signed by the identity key",
    ),
    ("the signature", change_proof(signature="0" * 128), "not signed by the identity key"),
    ("no signature", change_proof(signature=""), "this is no request"),
    ("the Flower signature", change_proof(flower_signature="00"), "not signed by the Flower key"),
    ("no Flower signature", change_proof(flower_signature=""), "not signed by the Flower key"),
    ("a previous signature", change_proof(previous_signature="0" * 128), "without its signature"),
    ("a previous key", change_request(previous="0" * 64), "not signed by the identity key"),
    ("another format", change_request(format=2), "not as this version"),
    ("a key more", change_request(admin=True), "this is no request"),
    ("no time zone", change_request(made="2026-01-01T00:00:00"), "not as this version"),
    ("no time", change_request(made="now"), "this is no request"),
]


@pytest.mark.parametrize(("change", "text"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_a_changed_request_is_refused(keys: PartyKeys, change: Callable[[dict[str, Any]], None], text: str) -> None:
    data = altered(request_bytes("bank", NODE, keys), change)
    with pytest.raises(IntegrityError, match=text) as caught:
        parse_request(data, "bank.request.json")
    assert caught.value.public.startswith("bank.request.json: ")


def signed_anew(keys: PartyKeys, **values: object) -> bytes:
    """A request whose identity signature is right although something in it is not."""
    content = json.loads(request_bytes("bank", NODE, keys))
    content["request"].update(values)
    text = json.dumps(content["request"], sort_keys=True, separators=(",", ":")).encode()
    domain = provision_request._DOMAIN
    content["signature"] = keys.signing.sign(domain + text).hex()
    if keys.flower is not None:
        signature = keys.flower.sign(domain + text, ec.ECDSA(SHA384()))
        content["flower_signature"] = signature.hex()
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def test_signing_anew_makes_a_right_request(keys: PartyKeys) -> None:
    assert parse_request(signed_anew(keys, name="bank"), "r").name == "bank"


def claiming(keys: PartyKeys, victim: PartyKeys) -> str:
    """A certificate request with the public key of another, signed with the own key."""
    own, other = (
        one.tls.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) for one in (keys, victim)
    )
    der = x509.load_pem_x509_csr(make_signing_request("bank", keys.tls)).public_bytes(Encoding.DER)
    claimed = x509.load_der_x509_csr(der.replace(own, other))
    assert claimed.public_key() == victim.tls.public_key()
    return claimed.public_bytes(Encoding.PEM).decode()


def test_a_certificate_request_must_be_signed_with_its_own_key(keys: PartyKeys) -> None:
    """Who gets a certificate for a key that another holds could be that other at the exchange."""
    with pytest.raises(IntegrityError, match="not signed by the EC P-256 key in it"):
        parse_request(signed_anew(keys, tls_request=claiming(keys, OTHER)), "r")


def test_a_certificate_request_for_another_is_refused(keys: PartyKeys) -> None:
    csr = make_signing_request("utility", keys.tls).decode()
    with pytest.raises(IntegrityError, match="not for bank"):
        parse_request(signed_anew(keys, tls_request=csr), "r")


def test_a_certificate_request_of_another_curve_is_refused(keys: PartyKeys) -> None:
    csr = make_signing_request("bank", ec.generate_private_key(ec.SECP384R1())).decode()
    with pytest.raises(IntegrityError, match="P-256"):
        parse_request(signed_anew(keys, tls_request=csr), "r")


def test_no_certificate_request_is_refused(keys: PartyKeys) -> None:
    with pytest.raises(IntegrityError, match="no certificate request"):
        parse_request(signed_anew(keys, tls_request="x"), "r")


def test_a_flower_key_must_be_held(keys: PartyKeys) -> None:
    """Who puts another house's Flower key into a request would be taken for it by the fleet."""
    with pytest.raises(IntegrityError, match="not signed by the Flower key"):
        parse_request(signed_anew(keys, flower_key=OTHER.flower_public), "r")


@pytest.mark.parametrize("point", ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f"])
def test_a_sealing_key_of_small_order_is_refused(keys: PartyKeys, point: str) -> None:
    """Everybody could open what is sealed to it."""
    with pytest.raises(IntegrityError, match="no usable X25519 key"):
        parse_request(signed_anew(keys, sealing=point), "r")


@pytest.mark.parametrize("name", ["../bank", "a/b", "..", "", "/etc", "bank\n", "BANK", "bank\x00", "ба́нк", "a" * 65])
def test_a_name_that_is_a_path_is_refused_at_both_ends(keys: PartyKeys, tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match="a member's name"):
        make_request(name, NODE, tmp_path / "home")
    assert not (tmp_path / "home").exists()
    with pytest.raises(IntegrityError, match="a member's name"):
        parse_request(altered(request_bytes("bank", NODE, keys), change_request(name=name)), "r")


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[" * 100_000, b"\xff\xfe", b"x" * 100_000])
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_request(data, "r")


def test_every_byte_counts(keys: PartyKeys) -> None:
    data = request_bytes("bank", NODE, keys)
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(FedCreditError):
            parse_request(bytes(changed), "r")


def test_two_parties_cannot_have_one_key(operator: Operator, keys: PartyKeys) -> None:
    operator.send("bank", request_bytes("bank", NODE, keys))
    operator.send("utility", request_bytes("utility", NODE, keys))
    with pytest.raises(IntegrityError, match=r"has a key of (bank|utility)"):
        operator.provision()
    assert not (operator.folder / "out" / "bank").exists()


def test_a_stranger_is_not_in_the_consortium(operator: Operator, keys: PartyKeys) -> None:
    operator.send("eve", request_bytes("eve", NODE, keys))
    with pytest.raises(SpecError, match="eve, which is not in the consortium's file"):
        operator.provision()


def test_a_node_does_not_become_the_coordinator(operator: Operator) -> None:
    with pytest.raises(SpecError, match="and it alone"):
        request_bytes("coordinator", NODE, new_keys(NODE))
    with pytest.raises(SpecError, match="and it alone"):
        make_request("coordinator", NODE, operator.folder / "home")
    assert not (operator.folder / "home").exists()
    operator.send("bank", request_bytes("bank", MemberKind.OPERATOR, new_keys(MemberKind.OPERATOR)))
    with pytest.raises(SpecError, match="asks as operator"):
        operator.provision()


def test_a_name_is_not_taken_over_with_fresh_keys(operator: Operator, keys: PartyKeys) -> None:
    operator.send("bank", request_bytes("bank", NODE, keys))
    operator.provision()
    operator.send("bank", request_bytes("bank", NODE, new_keys(NODE)))
    with pytest.raises(IntegrityError, match="not signed by the identity key of bank in the roster"):
        operator.provision()
    mallory = new_keys(NODE)
    operator.send("bank", request_bytes("bank", NODE, new_keys(NODE), old=mallory))
    with pytest.raises(IntegrityError, match="not signed by the identity key of bank in the roster"):
        operator.provision()


def test_an_older_request_does_not_bring_old_keys_back(operator: Operator, keys: PartyKeys) -> None:
    """The identity is the same, so that only time tells which TLS key is the newer one."""
    first = PartyKeys(keys.identity, keys.sealing, OTHER.tls, keys.flower)
    stale = request_bytes("bank", NODE, first)
    operator.send("bank", request_bytes("bank", NODE, keys))
    operator.provision()
    operator.send("bank", stale)
    with pytest.raises(IntegrityError, match="older than the one accepted"):
        operator.provision()


def test_revoked_keys_do_not_come_back(operator: Operator, keys: PartyKeys) -> None:
    operator.send("bank", request_bytes("bank", NODE, keys))
    operator.provision()
    operator.provision(revoke=("bank",))
    operator.send("bank", request_bytes("bank", NODE, keys))
    with pytest.raises(IntegrityError, match="keys of bank that were revoked"):
        operator.provision()
    operator.send("bank", request_bytes("bank", NODE, PartyKeys(OTHER.identity, keys.sealing, OTHER.tls, OTHER.flower)))
    with pytest.raises(IntegrityError, match="keys of bank that were revoked"):
        operator.provision()


def test_rotated_keys_do_not_come_back_under_another_name(operator: Operator, keys: PartyKeys) -> None:
    operator.send("bank", request_bytes("bank", NODE, keys))
    operator.provision()
    operator.send("bank", request_bytes("bank", NODE, new_keys(NODE), old=keys))
    operator.provision()
    operator.send("utility", request_bytes("utility", NODE, keys))
    with pytest.raises(IntegrityError, match="revoked"):
        operator.provision()


def test_a_request_from_the_future_is_refused(
    operator: Operator, keys: PartyKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.send("bank", signed_anew(keys, made="2999-01-01T00:00:00+00:00"))
    with pytest.raises(IntegrityError, match="its clock is wrong"):
        operator.provision()


def test_keys_are_never_written_over(tmp_path: Path) -> None:
    home = tmp_path / "bank"
    make_request("bank", NODE, home)
    before = {path: path.read_bytes() for path in (home / "keys").iterdir()}
    shutil.copytree(home / "keys", tmp_path / "copy")
    (home / "keys" / "tls.key").chmod(0o644)
    with pytest.raises(SpecError, match="chmod 600"):
        make_request("bank", NODE, home)
    assert {path: path.read_bytes() for path in (home / "keys").iterdir()} == before
