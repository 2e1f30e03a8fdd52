"""A home that is pinned anew under a running process: what is taken, what is refused, what goes on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedcredit.errors import IntegrityError
from fedcredit.runtime.house.renewal import HomeWatch, RenewedTls, check_follows, revoked_since
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision.request import make_request

if TYPE_CHECKING:
    from tests.unit import renewal_town as towns
else:
    sys.path.insert(0, str(Path(__file__).parent))
    import renewal_town as towns


@pytest.fixture
def town(tmp_path: Path) -> towns.Town:
    return towns.Town(tmp_path).begin()


def test_a_renewed_certificate_is_noticed_and_taken(town: towns.Town) -> None:
    home = town.opened("bank")
    watch, tls = HomeWatch(home), RenewedTls(home)
    assert watch.look() is None
    town.provision(renew=True)
    assert watch.look() is None, "not pinned yet"
    assert tls.certificate == home.tls.certificate
    (town.home("bank") / "node.toml").write_text('party = "bank"\n[flower]\nport = 1\n')
    town.pin("bank")
    new = watch.look()
    assert new is not None
    assert (new.roster.version, watch.refused) == (2, None)
    assert new.tls.certificate != home.tls.certificate
    assert new.settings is home.settings, "settings are those of the start"
    assert watch.home is new
    assert watch.look() is None
    assert (tls.certificate, tls.key, tls.ca) == (new.tls.certificate, new.tls.key, new.tls.ca)


def test_versions_only_rise_in_a_running_process(town: towns.Town, tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(town.home("bank"), before)
    town.provision(renew=True)
    town.pin("bank")
    home = town.opened("bank")
    watch = HomeWatch(home)
    for name in ("roster.json", "ca.pem", "certificate.pem", "pins.json"):  # a whole and valid older home
        shutil.copyfile(before / name, town.home("bank") / name)
    assert watch.look() is None
    assert watch.refused is not None
    assert watch.refused.code == "renewal.downgrade"
    assert watch.home is home
    assert watch.look() is None, "refused as long as it lies there"
    town.pin("bank")
    new = watch.look()
    assert new is not None
    assert new.roster.version == 2
    assert not watch.refused


def test_another_history_or_consortium_is_not_taken(town: towns.Town, tmp_path: Path) -> None:
    home = town.opened("bank")
    watch = HomeWatch(home)
    other = towns.Town(tmp_path / "other")
    shutil.copytree(town.home("bank") / "keys", other.home("bank") / "keys")
    other.begin()
    kept = {name: (town.home("bank") / name).read_bytes() for name in ("roster.json", "pins.json")}
    for name in ("roster.json", "ca.pem", "certificate.pem", "pins.json"):
        shutil.copyfile(other.home("bank") / name, town.home("bank") / name)
    assert watch.look() is None
    assert watch.refused is not None
    assert watch.refused.code == "renewal.consortium"
    assert watch.home.roster.digest == home.roster.digest
    for name, data in kept.items():
        (town.home("bank") / name).write_bytes(data)
    assert watch.look() is None
    with pytest.raises(IntegrityError) as forked:
        check_follows(other.opened("utility").roster, home.roster)
    assert forked.value.code == "renewal.fork"


def test_half_a_pin_changes_nothing(town: towns.Town) -> None:
    watch = HomeWatch(town.opened("bank"))
    pins = (town.home("bank") / "pins.json").read_bytes()
    town.provision(renew=True)
    town.pin("bank")
    whole = (town.home("bank") / "pins.json").read_bytes()
    (town.home("bank") / "pins.json").write_bytes(pins)  # the new roster, the old pins: as in the middle of a pin
    assert watch.look() is None
    assert watch.refused is not None
    assert watch.refused.code == "home.pins"
    (town.home("bank") / "pins.json").write_bytes(whole)
    assert watch.look() is not None
    assert watch.refused is None


def test_a_damaged_certificate_leaves_the_old_one(town: towns.Town) -> None:
    home = town.opened("bank")
    watch, tls = HomeWatch(home), RenewedTls(home)
    town.provision(renew=True)
    town.pin("bank")
    path = town.home("bank") / "certificate.pem"
    path.write_bytes((town.home("utility") / "certificate.pem").read_bytes())
    assert watch.look() is None
    assert isinstance(watch.refused, IntegrityError)
    assert tls.certificate == home.tls.certificate


def test_rotated_keys_are_taken(town: towns.Town) -> None:
    home = town.opened("bank")
    watch = HomeWatch(home)
    town.provision([make_request("bank", MemberKind.NODE, town.home("bank"), rotate=True).path])
    town.pin("bank")
    new = watch.look()
    assert new is not None
    assert new.member.flower_key != home.member.flower_key
    assert new.identity.public.raw != home.identity.public.raw
    assert revoked_since(new.roster, home.roster) == frozenset(), "it changed keys, it was not revoked"


def test_who_was_revoked_is_known_also_if_it_came_back(town: towns.Town, tmp_path: Path) -> None:
    first = town.opened("coordinator").roster
    town.provision(revoke=["utility"])
    town.pin("coordinator")
    second = town.opened("coordinator").roster
    assert revoked_since(second, first) == {"utility"}
    town.gone.clear()
    fresh = make_request("utility", MemberKind.NODE, tmp_path / "fresh").path
    town.provision([fresh])
    town.pin("coordinator")
    third = town.opened("coordinator").roster
    assert "utility" in third.members
    assert revoked_since(third, second) == frozenset()
    assert revoked_since(third, first) == {"utility"}
