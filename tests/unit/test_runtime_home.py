"""Opening a home: every fault is one line that names the file and what would be right."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedcredit.errors import FedCreditError, IntegrityError, SpecError
from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.types import PartyId, Role

SPEC = ConsortiumSpec.model_validate(
    {
        "name": "trial",
        "trial": True,
        "coordinator": {"exchange": "127.0.0.1:9443", "fleet": "localhost:9444"},
        "member": [
            {"name": "bank", "role": "label_holder", "data": {"loans": {"source": 'a "b".csv', "test_ids": "ids"}}},
            {"name": "tax_office"},
            {"name": "olga", "kind": "operator"},
        ],
    }
)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    provision_local(SPEC, folder)
    return folder


@pytest.fixture
def home(trial: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trial / "bank", tmp_path / "bank"))


def test_every_member_of_a_trial_opens(trial: Path) -> None:
    for name, kind in SPEC.kinds.items():
        home = open_home(trial / name)
        assert (home.party, home.kind, home.roster.version) == (name, kind, 1)
        assert home.member.identity.raw == home.identity.public.raw
        assert home.roster.trial
        assert (home.keys / "flower.key").exists() is (kind is MemberKind.NODE)


def test_settings_are_those_of_the_consortium(trial: Path) -> None:
    bank = open_home(trial / "bank").node
    assert bank.role is Role.LABEL_HOLDER
    assert bank.data[PartyId("loans")].source == 'a "b".csv'
    assert bank.data[PartyId("loans")].test_ids == "ids"
    assert open_home(trial / "tax_office").node.role is None
    coordinator = open_home(trial / "coordinator").coordinator
    assert coordinator.exchange.listen == "127.0.0.1:9443"
    assert coordinator.flower.proxy == "localhost:9444"
    assert open_home(trial / "olga").operator.exchange.request_timeout_s == 60
    ports = {bank.metrics.listen, coordinator.metrics.listen, open_home(trial / "tax_office").node.metrics.listen}
    assert len(ports) == 3


def test_settings_of_another_kind_are_refused(trial: Path) -> None:
    home = open_home(trial / "bank")
    with pytest.raises(SpecError, match="the home of node bank"):
        _ = home.coordinator
    with pytest.raises(SpecError, match="the home of node bank"):
        _ = home.operator
    with pytest.raises(SpecError, match="the home of operator olga"):
        _ = open_home(trial / "olga").node


def test_no_secret_is_shown(trial: Path) -> None:
    home = open_home(trial / "bank")
    shown = repr(home)
    assert "PRIVATE KEY" not in shown
    assert repr(home.sealing) not in shown


def test_folders_are_this_users_alone(home: Path) -> None:
    opened = open_home(home)
    for folder in (opened.state, opened.runs, opened.logs, home, home / "keys"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (home / "keys").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


Fault = Callable[[Path, Path], object]
FAULTS: list[tuple[str, Fault, type[FedCreditError], str]] = [
    ("no folder", lambda home, _: shutil.rmtree(home), SpecError, "no such folder"),
    ("no settings", lambda home, _: (home / "node.toml").unlink(), SpecError, "none of node.toml"),
    (
        "two settings",
        lambda home, _: (home / "operator.toml").write_text('party = "bank"'),
        SpecError,
        "more than one of",
    ),
    ("wrong key in settings", lambda home, _: append(home, "[exchnage]"), SpecError, 'did you mean "exchange"'),
    ("no pins", lambda home, _: (home / "pins.json").unlink(), SpecError, "pin the bundle"),
    ("damaged pins", lambda home, _: (home / "pins.json").write_text("{}"), IntegrityError, "damaged"),
    ("other pinned version", lambda home, _: pins(home, roster_version=7), IntegrityError, "version 7 was pinned"),
    ("other pinned digest", lambda home, _: pins(home, roster_digest="0" * 64), IntegrityError, "pinned here"),
    ("other pinned key", lambda home, _: pins(home, consortium_key="0" * 64), IntegrityError, "another consortium key"),
    ("other pinned name", lambda home, _: pins(home, party="utility"), IntegrityError, "pinned for utility"),
    ("no roster", lambda home, _: (home / "roster.json").unlink(), SpecError, "pin the bundle again"),
    ("settings of another", lambda home, o: copy(o / "node.toml", home), IntegrityError, "pinned for bank"),
    ("keys open to the group", lambda home, _: (home / "keys" / "tls.key").chmod(0o640), SpecError, "mode 0640"),
    ("folder open to all", lambda home, _: (home / "keys").chmod(0o755), SpecError, "mode 0755"),
    ("home that all write", lambda home, _: home.chmod(0o777), SpecError, "decide for this house"),
    ("policy that all write", lambda home, _: opened_to_all(home, "policy.toml"), SpecError, "decide for this house"),
    ("settings that all write", lambda home, _: opened_to_all(home, "node.toml"), SpecError, "decide for this house"),
    ("no keys", lambda home, _: shutil.rmtree(home / "keys"), SpecError, "from the backup"),
    ("no tls key", lambda home, _: (home / "keys" / "tls.key").unlink(), SpecError, "from the backup"),
    ("no identity", lambda home, _: (home / "keys" / "identity.key").unlink(), SpecError, "from the backup"),
    ("short key", lambda home, _: (home / "keys" / "identity.key").write_bytes(b"x"), IntegrityError, "1 bytes"),
    ("no certificate", lambda home, _: (home / "certificate.pem").unlink(), SpecError, "pin the bundle again"),
    ("damaged certificate", lambda home, _: (home / "certificate.pem").write_text("x"), IntegrityError, "no PEM"),
    ("another authority", lambda home, o: copy(o / "authority.pem", home / "ca.pem"), IntegrityError, "in the roster"),
    (
        "another's certificate",
        lambda home, o: copy(o / "certificate.pem", home),
        IntegrityError,
        "fedcredit://trial/bank",
    ),
    ("another's tls key", lambda home, o: copy(o / "keys/tls.key", home / "keys"), IntegrityError, "private key of"),
    ("damaged tls key", lambda home, _: (home / "keys/tls.key").write_text("x"), IntegrityError, "no PEM private key"),
    (
        "another's identity",
        lambda home, o: copy(o / "keys/identity.key", home / "keys"),
        IntegrityError,
        "identity.key",
    ),
    ("another's sealing", lambda home, o: copy(o / "keys/sealing.key", home / "keys"), IntegrityError, "sealing.key"),
    ("another's Flower key", lambda home, o: copy(o / "keys/flower.key", home / "keys"), IntegrityError, "flower.key"),
    ("damaged Flower key", lambda home, _: (home / "keys/flower.key").write_text("x"), IntegrityError, "OpenSSH"),
]


def opened_to_all(home: Path, name: str) -> None:
    """A file that everybody may write, in a home that everybody may enter."""
    home.chmod(0o755)
    (home / name).chmod(0o666)


def test_what_nobody_can_reach_may_have_any_mode(home: Path) -> None:
    """Bundles are unpacked under all kinds of masks; a home of mode 0700 keeps everybody out."""
    (home / "policy.toml").chmod(0o666)
    open_home(home)


def append(home: Path, text: str) -> None:
    with (home / "node.toml").open("a") as file:
        file.write(text)


def pins(home: Path, **changes: object) -> None:
    path = home / "pins.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def copy(source: Path, target: Path) -> None:
    shutil.copy(source, target)


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same names a second time, under an authority of its own."""
    return provision_local(SPEC, tmp_path_factory.mktemp("again"))[PartyId("bank")]


@pytest.mark.parametrize(("fault", "error", "text"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_each_fault_is_named(
    trial: Path, home: Path, again: Path, fault: Fault, error: type[FedCreditError], text: str
) -> None:
    stranger = Path(shutil.copytree(trial / "tax_office", home.parent / "other"))
    shutil.copy(again / "ca.pem", stranger / "authority.pem")
    fault(home, stranger)
    with pytest.raises(error, match=text) as caught:
        open_home(home)
    assert "\n" not in caught.value.public


def test_the_clock_is_named_when_the_certificate_is_out_of_its_time(trial: Path) -> None:
    now = datetime.now(UTC)
    with pytest.raises(SpecError, match=r"clock says .* \d+ minutes too early; set it") as early:
        open_home(trial / "bank", now=now - timedelta(days=2))
    assert early.value.code == "certificate.early"
    with pytest.raises(SpecError, match=r"expired at .*clock says") as late:
        open_home(trial / "bank", now=now + timedelta(days=366))
    assert late.value.code == "certificate.expired"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_keys_of_another_user_are_refused(home: Path) -> None:
    os.chown(home / "keys" / "tls.key", 12345, 12345)
    with pytest.raises(SpecError, match="belongs to user 12345"):
        open_home(home)
