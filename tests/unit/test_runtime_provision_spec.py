"""consortium.toml and settings: unknown keys and wrong values are one line that says what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcredit.catalog.load import load_catalog
from fedcredit.errors import SpecError
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.house.settings import (
    CoordinatorSettings,
    NodeSettings,
    OperatorSettings,
    SettingsSection,
    read_settings,
)
from fedcredit.runtime.provision.spec import load_consortium
from fedcredit.shipped import known_file
from fedcredit.types import COORDINATOR, PartyId

CONFIGS = Path(__file__).parents[2] / "configs" / "consortium"
TEXT = """
name = "north"
[coordinator]
exchange = "x.example.org:9443"
fleet = "[::1]:9444"
names = ["10.0.0.1"]
[certificates]
days = 90
[[member]]
name = "bank"
role = "label_holder"
[member.data.loans]
source = "loans.csv"
test_ids = "${IDS}/ids.txt"
[member.data.cards]
source = "postgresql://u:${P}@host/db"
query = "select 1"
[[member]]
name = "olga"
kind = "operator"
"""


def load(folder: Path, text: str) -> None:
    path = folder / "c.toml"
    path.write_text(text)
    load_consortium(path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TEXT)
    spec = load_consortium(tmp_path / "c.toml")
    assert spec.kinds == {COORDINATOR: MemberKind.COORDINATOR, "bank": MemberKind.NODE, "olga": MemberKind.OPERATOR}
    assert spec.coordinator.hosts == ("x.example.org", "::1", "10.0.0.1")
    assert (spec.certificates.days, spec.certificates.renew_days, spec.trial) == (90, 30, False)
    data = spec.member[0].data
    assert data[PartyId("loans")].source == str(tmp_path.resolve() / "loans.csv")
    assert data[PartyId("loans")].test_ids == "${IDS}/ids.txt"
    assert data[PartyId("cards")].source == "postgresql://u:${P}@host/db"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_are_right(path: Path) -> None:
    spec = load_consortium(path)
    assert len(spec.member) == (5 if path.name == "district.toml" else 4)
    assert spec.coordinator.address == spec.coordinator.exchange == spec.coordinator.fleet, "one destination a house"


TWO = 'exchange = "x.example.org:9443"\nfleet = "[::1]:9444"'


def test_one_address_stands_for_exchange_and_fleet(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TEXT.replace(TWO, 'address = "x.example.org:9443"'))
    spec = load_consortium(tmp_path / "c.toml").coordinator
    assert (spec.exchange, spec.fleet) == ("x.example.org:9443", "x.example.org:9443")
    assert spec.hosts == ("x.example.org", "10.0.0.1")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("", 'coordinator.address: missing; add it: "host:port" that all members reach'),
        ('address = "::1"', 'coordinator.address: found "::1"; use "host:port"'),
        ("address = 9443", "coordinator.address: found 9443; use a text in quotes"),
        ('addres = "x:1"', 'coordinator.addres: unknown key; did you mean "address"? (and 2 more)'),
        ('address = "x:1"\nfleet = "x:2"', "coordinator.fleet: stands beside address; write address alone, or"),
        ('fleet = "x:2"', "coordinator.exchange: missing; add it"),
    ],
)
def test_one_address_or_two_and_nothing_between(tmp_path: Path, written: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, TEXT.replace(TWO, written))
    assert text in caught.value.public
    assert ("(and" in caught.value.public) == ("(and" in text)


def test_the_district_is_in_production_and_every_house_has_what_its_runs_need(tmp_path: Path) -> None:
    spec = load_consortium(CONFIGS / "district.toml")
    assert (spec.trial, spec.local.mode) == (True, "production")
    for member in spec.member:
        for records in member.data.values():
            assert records.catalog is not None
            catalog = known_file("catalog", records.catalog, tmp_path)  # found from any folder
            assert load_catalog(catalog).holder == member.name
            assert records.registry == "${FEDCREDIT_DISTRICT}/register.csv.gz"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[certificates]", "[certificate]", 'certificate: unknown key; did you mean "certificates"?'),
        ("days = 90", "dais = 90", 'certificates.dais: unknown key; did you mean "days"?'),
        ("days = 90", "days = 0", "certificates.days: found 0; use a number of at least 1"),
        ("days = 90", 'days = "90"', 'certificates.days: found "90"; use a whole number'),
        ("days = 90", "days = 20", "certificates.renew_days: not below certificates.days"),
        ("fleet = ", "flet = ", 'coordinator.flet: unknown key; did you mean "fleet"? (and 1 more)'),
        ('fleet = "[::1]:9444"', "", "coordinator.fleet: missing; add it"),
        ("[::1]:9444", "::1", 'coordinator.fleet: found "::1"; use "host:port"'),
        ("10.0.0.1", "a b", "coordinator: 'a b': neither a DNS name nor an IP address"),
        ('"label_holder"', '"lender"', 'member.1.role: found "lender"; use one of "label_holder", "feature_holder"'),
        ('kind = "operator"', 'kind = "coordinator"', 'member.2.kind: found "coordinator"; use "node" or "operator"'),
        ('kind = "operator"', 'kidn = "operator"', 'member.2.kidn: unknown key; did you mean "kind"?'),
        ('name = "olga"', 'name = "bank"', 'member.name: "bank" names 2 members'),
        ('name = "olga"', 'name = "coordinator"', '"coordinator" is reserved'),
        ('name = "olga"', 'name = "authority"', '"authority" is reserved'),
        ('name = "olga"', 'name = "../olga"', "member.2.name: found"),
        ('kind = "operator"', 'kind = "operator"\nrole = "label_holder"', "an operator has neither role nor data"),
        (
            'source = "loans.csv"',
            'sorce = "loans.csv"',
            'member.1.data.loans.sorce: unknown key; did you mean "source"?',
        ),
        ('source = "loans.csv"', "source = 1", "member.1.data.loans.source: found 1; use a text in quotes"),
        ('name = "north"', 'name = "North"', 'name: found "North"'),
        ('name = "north"', 'name = "north', "not valid TOML"),
        ("[[member]]", "[member]", "TOML"),
    ],
)
def test_each_fault_is_one_line(tmp_path: Path, old: str, new: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, TEXT.replace(old, new, 1))
    assert text in caught.value.public
    assert "c.toml" in caught.value.public
    assert "\n" not in caught.value.public


def test_a_password_is_never_repeated(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, TEXT.replace('query = "select 1"', 'query = ["postgresql://u:secret@host"]'))
    assert "secret" not in str(caught.value)
    path = tmp_path / "node.toml"
    path.write_text('party = "bank"\n[data.x]\nsource = ""\nquery = "s3cret"\n[data."a b"]\nsource = "s3cret"')
    with pytest.raises(SpecError) as caught:
        read_settings(NodeSettings, path)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("model", [NodeSettings, CoordinatorSettings, OperatorSettings])
def test_defaults_need_a_name_only(tmp_path: Path, model: type[SettingsSection]) -> None:
    path = tmp_path / "x.toml"
    path.write_text('party = "bank"')
    assert read_settings(model, path).model_dump()["party"] == "bank"
    path.write_text("")
    with pytest.raises(SpecError, match="party: missing"):
        read_settings(model, path)
    path.write_bytes(b"\xff")
    with pytest.raises(SpecError, match="UTF-8"):
        read_settings(model, path)
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(SpecError, match="1 MiB"):
        read_settings(model, path)
    with pytest.raises(SpecError, match="cannot be read"):
        read_settings(model, tmp_path / "none")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("[exchange]\nreconnect_s = 0", "exchange.reconnect_s: found 0"),
        ("[exchange]\nreconnect_s = inf", "exchange.reconnect_s"),
        ("[metrics]\nlisten = 9464", "metrics.listen: found 9464; use a text in quotes"),
        ('[metrics]\nlisten = "9464"', 'metrics.listen: found "9464"; use "host:port"'),
        ("[flower]\nport = 70000", "flower.port: found 70000; use a number of at most 65535"),
        ('[data."../x"]\nsource = "y"', "1 to 64 of the characters"),
        ("data = 1", "data: found 1; use a table of keys"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, line: str, text: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f'party = "bank"\n{line}\n')
    with pytest.raises(SpecError) as caught:
        read_settings(NodeSettings, path)
    assert text in caught.value.public
