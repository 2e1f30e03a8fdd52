"""From requests to homes: first time, again, with new keys, without a member, with renewed certificates."""

from __future__ import annotations

import json
import shutil
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedcredit.errors import IntegrityError, SpecError
from fedcredit.governance.policy import load_policy
from fedcredit.protocol.align.messages import SCHEMA as ALIGN
from fedcredit.protocol.bin.messages import SCHEMA as BIN
from fedcredit.protocol.boost.messages import SCHEMA as BOOST
from fedcredit.protocol.fedavg.messages import SCHEMA as FEDAVG
from fedcredit.protocol.group_sum.messages import SCHEMA as GROUP_SUM
from fedcredit.protocol.scorecard.messages import SCHEMA as SCORECARD
from fedcredit.protocol.secure_sum.messages import SCHEMA as SECURE_SUM
from fedcredit.protocol.select.messages import SCHEMA as SELECT
from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.provision.authority import open_authority
from fedcredit.runtime.provision.bundle import PROTOCOLS
from fedcredit.runtime.provision.certificates import load_certificate
from fedcredit.runtime.provision.consortium import Order, Provisioned, provision, provision_local, requests_in
from fedcredit.runtime.provision.keys import fingerprint, same_fingerprint
from fedcredit.runtime.provision.pin import pin
from fedcredit.runtime.provision.request import make_request
from fedcredit.runtime.provision.spec import ConsortiumSpec
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.notice import NOTICE_SCHEMA

BASE = {
    "name": "north",
    "coordinator": {"exchange": "x.example.org:9443", "fleet": "x.example.org:9444"},
    "member": [{"name": "bank", "role": "label_holder"}, {"name": "utility"}, {"name": "olga", "kind": "operator"}],
}
SPEC = ConsortiumSpec.model_validate(BASE)
KINDS = SPEC.kinds


def spec(**changes: object) -> ConsortiumSpec:
    return ConsortiumSpec.model_validate(BASE | changes)


class Houses:
    """Homes of all members, the folder of requests and that of bundles, as in real life on different machines."""

    def __init__(self, folder: Path) -> None:
        self.homes, self.requests, self.out = folder / "homes", folder / "requests", folder / "out"
        self.requests.mkdir()

    def ask(self, *names: str, rotate: bool = False) -> None:
        for name in names:
            made = make_request(name, KINDS[PartyId(name)], self.homes / name, rotate=rotate)
            shutil.copy(made.path, self.requests)

    def provision(self, using: ConsortiumSpec = SPEC, **order: object) -> Provisioned:
        return provision(using, self.out, Order(requests_in(self.requests), **order))  # type: ignore[arg-type]

    def pin(self, *names: str) -> None:
        for name in names:
            pin(self.out / name, self.homes / name)

    def version(self, name: str) -> int:
        return open_home(self.homes / name).roster.version


@pytest.fixture
def houses(tmp_path: Path) -> Houses:
    houses = Houses(tmp_path)
    houses.ask(*KINDS)
    return houses


def test_requests_become_homes(houses: Houses) -> None:
    done = houses.provision()
    assert set(done.bundles) == set(KINDS)
    assert done.waiting == ()
    for name in KINDS:
        pinned = pin(done.bundles[name], houses.homes / name, done.fingerprint)
        assert pinned.first
        assert pinned.compared
        assert pinned.fingerprints == done.fingerprints
        home = open_home(houses.homes / name)
        assert home.roster.digest == done.roster.digest
        assert not home.roster.trial


def test_no_private_key_is_in_what_travels(houses: Houses) -> None:
    houses.provision()
    secrets = {
        path.read_bytes()
        for path in houses.homes.rglob("*.key")
        if path.parent.name == "keys" and path.suffix == ".key"
    } | {path.read_bytes() for path in (houses.out / "authority").glob("*.key")}
    assert len(secrets) == 3 * len(KINDS) + 2 + 2  # two nodes have a Flower key, the authority has two
    travelling = [path for path in houses.out.rglob("*") if path.is_file() and "authority" not in path.parts]
    travelling += list(houses.requests.iterdir())
    assert len(travelling) > 20
    for path in travelling:
        data = path.read_bytes()
        assert b"PRIVATE KEY" not in data, path
        for secret in secrets:
            assert secret not in data, path
            assert secret.hex().encode() not in data, path


def test_keys_and_authority_are_private(houses: Houses) -> None:
    houses.provision()
    assert stat.S_IMODE((houses.out / "authority").stat().st_mode) == 0o700
    for path in [*houses.homes.rglob("*.key"), *(houses.out / "authority").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in houses.homes.rglob("keys"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_second_run_changes_nothing(houses: Houses) -> None:
    first = houses.provision()
    files = {path: path.read_bytes() for path in houses.out.rglob("*") if path.is_file()}
    again = houses.provision()
    assert again.changes == ()
    assert again.roster == first.roster
    assert {path: path.read_bytes() for path in houses.out.rglob("*") if path.is_file()} == files


def test_members_come_one_after_the_other(tmp_path: Path) -> None:
    houses = Houses(tmp_path)
    houses.ask("bank")
    with pytest.raises(SpecError, match="no request of the coordinator yet"):
        houses.provision()
    houses.ask("coordinator")
    assert houses.provision().waiting == ("utility", "olga")
    assert pin(houses.out / "bank", houses.homes / "bank").changes == ()
    houses.ask("utility", "olga")
    done = houses.provision()
    assert (done.roster.version, done.waiting) == (2, ())
    assert pin(houses.out / "bank", houses.homes / "bank").changes == ("olga came", "utility came")
    assert "utility" in open_home(houses.homes / "bank").roster.members


def test_asking_again_keeps_the_keys(houses: Houses) -> None:
    houses.provision()
    before = (houses.homes / "bank" / "keys" / "identity.key").read_bytes()
    made = make_request("bank", MemberKind.NODE, houses.homes / "bank")
    assert not made.fresh
    assert (houses.homes / "bank" / "keys" / "identity.key").read_bytes() == before
    shutil.copy(made.path, houses.requests)
    assert houses.provision().changes == ()


def test_keys_are_rotated(houses: Houses) -> None:
    first = houses.provision()
    houses.pin("bank", "utility")
    old = first.roster.member("bank")
    houses.ask("bank", rotate=True)
    assert houses.version("bank") == 1  # the old keys count until the new bundle is pinned
    done = houses.provision()
    new = done.roster.member("bank")
    assert not set(old.public_keys) & set(new.public_keys)
    assert done.roster.history == (first.roster.digest,)
    assert [(one.name, one.left, one.keys) for one in done.roster.revoked] == [("bank", False, old.public_keys)]
    pinned = pin(houses.out / "bank", houses.homes / "bank")
    assert pinned.rotated
    assert not pinned.first
    home = open_home(houses.homes / "bank")
    assert home.identity.public.raw == new.identity.raw
    assert not (home.folder / "keys-next").exists()
    assert not (home.folder / "keys-old").exists()
    houses.pin("utility")
    assert open_home(houses.homes / "utility").roster.member("bank") == new
    assert houses.provision().changes == ()  # the first request is still in the folder


def test_a_swap_that_stopped_in_the_middle_goes_on(houses: Houses) -> None:
    houses.provision()
    houses.pin("bank")
    houses.ask("bank", rotate=True)
    houses.provision()
    home = houses.homes / "bank"
    (home / "keys").rename(home / "keys-old")
    houses.pin("bank")
    assert houses.version("bank") == 2


def test_rotation_needs_keys(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"identity\.key: cannot be read"):
        make_request("bank", MemberKind.NODE, tmp_path / "bank", rotate=True)


def test_a_member_is_revoked_and_comes_back_with_new_keys(houses: Houses) -> None:
    first = houses.provision()
    houses.pin(*KINDS)
    done = houses.provision(revoke=["utility"])
    assert "utility" not in done.roster.members
    assert done.waiting == ("utility",)
    assert not (houses.out / "utility").exists()
    with pytest.raises(SpecError, match="utility was revoked on"):
        done.roster.member("utility")
    assert houses.provision(revoke=["utility"]).changes == ()
    houses.pin("bank")
    assert houses.provision().changes == ()  # its old request in the folder brings nothing back
    shutil.rmtree(houses.homes / "utility")
    houses.ask("utility")
    back = houses.provision()
    assert back.roster.version == 3
    assert back.roster.member("utility") != first.roster.member("utility")
    houses.pin("utility")
    assert houses.version("utility") == 3


def test_a_revoked_member_is_told_so(houses: Houses) -> None:
    houses.provision()
    houses.pin("utility")
    bundle = shutil.copytree(houses.out / "utility", houses.out / "kept")
    houses.provision(revoke=["utility"])
    shutil.copy(houses.out / "bank" / "roster.json", bundle)
    with pytest.raises(IntegrityError, match="keys of utility were revoked on"):
        pin(Path(bundle), houses.homes / "utility")


def test_an_unknown_name_is_not_revoked(houses: Houses) -> None:
    houses.provision()
    with pytest.raises(SpecError, match='did you mean "utility"'):
        houses.provision(revoke=["utilty"])


def test_certificates_are_renewed_when_they_end_soon_or_when_asked(houses: Houses) -> None:
    now = datetime.now(UTC)
    assert houses.provision().roster.version == 1
    assert houses.provision(now=now + timedelta(days=300)).changes == ()
    soon = houses.provision(now=now + timedelta(days=340))
    assert soon.roster.version == 2
    assert len([line for line in soon.changes if "renewed" in line]) == len(KINDS)
    end = load_certificate((houses.out / "bank" / "certificate.pem").read_bytes(), "c").not_valid_after_utc
    assert end > now + timedelta(days=700)
    assert houses.provision(now=now + timedelta(days=341)).changes == ()
    assert houses.provision(now=now + timedelta(days=341), renew=True).roster.version == 3


def test_no_certificate_outlives_the_authority(houses: Houses) -> None:
    short = spec(certificates={"days": 100, "renew_days": 10, "authority_days": 120})
    now, seen = datetime.now(UTC), set()
    for days in range(0, 500, 80):
        houses.provision(short, now=now + timedelta(days=days))
        authority, member = (
            load_certificate((houses.out / "bank" / name).read_bytes(), name) for name in ("ca.pem", "certificate.pem")
        )
        assert member.not_valid_after_utc <= authority.not_valid_after_utc
        member.verify_directly_issued_by(authority)
        seen.add(authority.serial_number)
    assert len(seen) > 1


def test_a_new_address_reaches_certificate_and_roster(houses: Houses) -> None:
    first = houses.provision()
    houses.pin("bank", "coordinator")
    moved = spec(coordinator={"exchange": "y.example.org:443", "fleet": "y.example.org:444", "names": ["10.0.0.1"]})
    done = houses.provision(moved)
    assert done.roster.exchange == "y.example.org:443"
    assert done.roster.ca_sha256 != first.roster.ca_sha256
    assert [line for line in done.changes if "renewed" in line] == ["coordinator: certificate renewed, 365 days"]
    houses.pin("bank", "coordinator")
    assert houses.version("coordinator") == 2


def test_a_home_keeps_what_the_house_wrote(houses: Houses) -> None:
    houses.provision()
    houses.pin("bank")
    (houses.homes / "bank" / "policy.toml").write_text('mode = "production"\n')
    houses.provision(renew=True)
    assert pin(houses.out / "bank", houses.homes / "bank").kept == ("policy.toml",)
    assert (houses.homes / "bank" / "policy.toml").read_text() == 'mode = "production"\n'


def test_the_policy_of_a_bundle_denies(houses: Houses) -> None:
    houses.provision()
    policy = load_policy(houses.out / "bank" / "policy.toml")
    assert (policy.mode, policy.counterparties, policy.runs, policy.expires) == ("production", (), (), None)
    assert not (houses.out / "olga" / "policy.toml").exists()


def test_a_member_missing_from_the_file_is_named(houses: Houses) -> None:
    houses.provision()
    less = spec(member=[{"name": "bank"}, {"name": "olga", "kind": "operator"}])
    for path in houses.requests.glob("utility*"):
        path.unlink()
    with pytest.raises(SpecError, match="--revoke utility"):
        houses.provision(less)
    changed = spec(member=[{"name": "bank"}, {"name": "utility"}, {"name": "olga"}])
    with pytest.raises(SpecError, match="olga is in the roster as operator"):
        houses.provision(changed)


def test_a_local_trial_is_ready_and_stays_so(tmp_path: Path) -> None:
    trial = spec(trial=True)
    homes = provision_local(trial, tmp_path)
    started = time.process_time()
    assert provision_local(trial, tmp_path) == homes
    assert time.process_time() - started < 1.5  # a fixture of many tests; 0.15 s where nothing else runs
    for name, folder in homes.items():
        assert open_home(folder).roster.version == 1, name
    policy = load_policy(homes[PartyId("bank")] / "policy.toml")
    assert policy.mode == "simulation"
    assert policy.any_run
    assert set(policy.counterparties) == {"coordinator", "utility"}
    more = spec(trial=True, member=[*BASE["member"], {"name": "telco"}])
    homes = provision_local(more, tmp_path)
    assert open_home(homes[PartyId("bank")]).roster.version == 2
    assert "telco" in load_policy(homes[PartyId("bank")] / "policy.toml").counterparties


def test_all_protocols_are_named() -> None:
    schemas = (ALIGN, BIN, BOOST, FEDAVG, GROUP_SUM, NOTICE_SCHEMA, SCORECARD, SECURE_SUM, SELECT)
    assert sorted(schema.name for schema in schemas) == list(PROTOCOLS)


def test_local_is_for_trials_only(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="set trial = true"):
        provision_local(SPEC, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bundles_are_not_made_into_homes(tmp_path: Path) -> None:
    trial = spec(trial=True)
    provision_local(trial, tmp_path)
    with pytest.raises(SpecError, match="the home of a member, with its keys"):
        provision(trial, tmp_path, Order())


def test_local_ports_do_not_collide(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="collide"):
        provision_local(spec(trial=True, local={"first_port": 9440}), tmp_path)


def test_one_command_at_a_time(houses: Houses) -> None:
    with open_authority(houses.out / "authority", "north"), pytest.raises(SpecError, match="wait for it to end"):
        houses.provision()
    assert houses.provision().roster.version == 1


def test_one_consortium_per_folder(houses: Houses) -> None:
    houses.provision()
    with pytest.raises(SpecError, match="of consortium north, not south"):
        houses.provision(spec(name="south"))
    (houses.out / "authority" / "ca.key").unlink()
    with pytest.raises(SpecError, match="restore it from the backup"):
        houses.provision()
    (houses.out / "authority" / "state.json").write_text("{")
    with pytest.raises(IntegrityError, match="damaged"):
        houses.provision()


def test_a_failed_run_changes_nothing(houses: Houses) -> None:
    houses.provision()
    state = (houses.out / "authority" / "state.json").read_bytes()
    houses.ask("bank", rotate=True)
    with pytest.raises(SpecError, match="--revoke nobody"):
        houses.provision(revoke=["nobody"])
    assert (houses.out / "authority" / "state.json").read_bytes() == state


def test_requests_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such folder"):
        requests_in(tmp_path / "none")
    with pytest.raises(SpecError, match=r"no \*\.request\.json"):
        requests_in(tmp_path)


def test_fingerprints_are_short_and_readable() -> None:
    shown = fingerprint(b"k" * 32)
    assert [len(group) for group in shown.split()] == [5] * 8
    assert shown.replace(" ", "").isdecimal()
    assert shown != fingerprint(b"j" * 32)
    assert same_fingerprint(shown, shown.replace(" ", "-"))
    assert not same_fingerprint(shown, "")
    assert not same_fingerprint("", "")


def test_the_authority_of_the_coordinator_is_the_only_one_that_serves(houses: Houses) -> None:
    houses.provision()
    for name in KINDS:
        certificate = load_certificate((houses.out / name / "certificate.pem").read_bytes(), name)
        usages = [one.value for one in certificate.extensions if "extendedKeyUsage" in str(one.oid)]
        shown = str(usages)
        assert ("serverAuth" in shown) is (name == COORDINATOR)
        assert "clientAuth" in shown


def test_a_request_holds_public_things_only(tmp_path: Path) -> None:
    made = make_request("bank", MemberKind.NODE, tmp_path / "bank")
    content = json.loads(made.path.read_bytes())
    assert set(content) == {"request", "signature", "flower_signature", "previous_signature"}
    assert set(content["request"]) == {
        "format",
        "name",
        "kind",
        "made",
        "identity",
        "sealing",
        "tls_request",
        "flower_key",
        "previous",
    }


def test_a_trial_of_production_waits_for_people_and_shows_nobody_who_is_a_customer(tmp_path: Path) -> None:
    data = {"loans": {"source": "raw", "catalog": "/c/bank.toml", "registry": "/r/register.csv.gz"}}
    members = [{"name": "bank", "role": "label_holder", "data": data}, {"name": "utility"}]
    folders = provision_local(spec(trial=True, local={"mode": "production"}, member=members), tmp_path)
    home = open_home(folders[PartyId("bank")])
    assert home.node.data[PartyId("loans")].catalog == "/c/bank.toml"
    assert home.node.data[PartyId("loans")].registry == "/r/register.csv.gz"
    policy = load_policy(home.policy)
    assert (policy.mode, policy.any_run, policy.enforce) == ("production", False, True)
    assert (policy.alignments, policy.least_decoys) == (("registry", "blind"), 1.0)
    assert set(policy.counterparties) == {"utility", COORDINATOR}
    assert set(policy.protocols) == set(PROTOCOLS)
    assert "TRIAL" in home.policy.read_text()
