"""Runs with several banks: what a partition becomes, what is refused, and that plain runs keep their digests."""

from __future__ import annotations

import pytest

from fedcredit.errors import SpecError
from fedcredit.spec.digest import canonical_json, spec_digest
from fedcredit.spec.load import parse_toml
from fedcredit.spec.model import RunSpec
from fedcredit.spec.travel import read_travelling, travelling_json
from fedcredit.spec.write import spec_toml
from fedcredit.types import PartyId

BANK = '[[party]]\nname = "{name}"\nrole = "label_holder"\nsource = "{name}.csv"\nlabel = "y"\n'
HOLDER = '[[party]]\nname = "tax"\nrole = "feature_holder"\nsource = "tax.csv"\n'
RUN = '[run]\nname = "r"\nmode = "{mode}"\nmodel = "{model}"\n'
SPLIT = '[partition]\nparty = "bank"\nby = "column"\ncolumn = "lender"\nbanks = 4\n'


def averaging(banks: int = 3, more: str = "", mode: str = "simulation") -> str:
    roster = "".join(BANK.format(name=f"bank{i}") for i in range(banks))
    return RUN.format(mode=mode, model="fedavg") + more + roster


def hybrid(more: str = SPLIT, model: str = "scorecard") -> str:
    return RUN.format(mode="simulation", model=model) + more + BANK.format(name="bank") + HOLDER


def fault(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse_toml(text)
    return str(caught.value)


def test_a_partition_becomes_numbered_banks_with_the_same_source() -> None:
    spec = parse_toml(hybrid())
    assert [bank.name for bank in spec.banks] == ["bank_01", "bank_02", "bank_03", "bank_04"]
    assert [bank.part for bank in spec.banks] == [1, 2, 3, 4]
    assert {bank.source for bank in spec.banks} == {"bank.csv"}
    assert [party.name for party in spec.feature_holders] == ["tax"]
    assert spec.several_banks


def test_what_was_expanded_is_written_and_read_again() -> None:
    spec = parse_toml(hybrid())
    again = parse_toml(spec_toml(spec))
    assert again == spec
    assert spec_digest(again) == spec_digest(spec)


def test_the_run_of_one_bank_is_a_plain_run_with_all_feature_holders() -> None:
    spec = parse_toml(hybrid())
    one = spec.for_bank(PartyId("bank_03"))
    assert isinstance(one, RunSpec)
    assert one.parties == ("bank_03", "tax")
    assert not one.several_banks
    assert one.scorecard == spec.scorecard
    assert spec_digest(one) != spec_digest(spec.for_bank(PartyId("bank_02")))


def test_sections_of_several_banks_leave_the_digest_of_plain_runs_alone() -> None:
    plain = RUN.format(mode="simulation", model="scorecard") + BANK.format(name="bank") + HOLDER
    spec = parse_toml(plain)
    assert spec_digest(parse_toml(plain + "[secure_sum]\ncolluding = 2\n")) == spec_digest(spec)
    assert b"secure_sum" not in canonical_json(spec)
    assert b'"part"' not in canonical_json(spec)


def test_sections_of_several_banks_are_in_their_digest() -> None:
    spec = spec_digest(parse_toml(averaging(4)))
    for more in ("[secure_sum]\ncolluding = 2\n", '[differential_privacy]\nunit = "bank"\n', "[fedavg]\nrounds = 3\n"):
        assert spec_digest(parse_toml(averaging(4, more))) != spec


def test_places_stay_out_of_the_digest_and_at_home() -> None:
    one = parse_toml(averaging(3, '[fedavg]\nreference = "a.csv"\nray_address = "10.0.0.1:6379"\n'))
    other = parse_toml(averaging(3, '[fedavg]\nreference = "b.csv"\n'))
    assert spec_digest(one) == spec_digest(other)
    assert spec_digest(one) != spec_digest(parse_toml(averaging(3)))
    travelling = travelling_json(one, "loans")
    assert "a.csv" not in travelling
    assert "10.0.0.1" not in travelling
    assert spec_digest(read_travelling(travelling)[0]) == spec_digest(one)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (averaging(2), "at least 3"),
        (averaging(3) + HOLDER, "averaging is between banks"),
        (RUN.format(mode="simulation", model="boost") + "".join(BANK.format(name=n) for n in "abc"), "feature_holder"),
        (averaging(3, "[secure_sum]\nmin_banks = 4\n"), "secure_sum.min_banks: found 4"),
        (averaging(3, "[secure_sum]\ncolluding = 2\n"), "secure_sum.colluding: found 2 of 3"),
        (hybrid(SPLIT.replace("banks = 4", "banks = 300")), '"masked+he" with 300 banks; it carries 256'),
        (hybrid('[differential_privacy]\nunit = "bank"\n'), "differential_privacy.unit"),
        (hybrid('[split]\ntest_source = "t.csv"\n'), "split.test_source"),
        (hybrid(SPLIT.replace('"bank"', '"tax"')), "partition.party"),
        (hybrid(SPLIT.replace('column = "lender"\n', "")), "partition.column: missing"),
        (hybrid(SPLIT.replace('by = "column"', 'by = "iid"')), "looks at no column"),
        (hybrid(SPLIT.replace("banks = 4", "banks = 2")), "partition.banks"),
        (hybrid(SPLIT).replace('label = "y"', 'label = "y"\ncolumns = ["lender"]'), "is a feature of"),
        (hybrid("").replace('label = "y"', 'label = "y"\npart = 1'), "given without [partition]"),
        (hybrid(SPLIT).replace('"simulation"', '"production"'), "simulation only"),
        (
            averaging(3, mode="production").replace("fedavg", "scorecard") + HOLDER,
            "hides rows, which several banks with feature holders cannot",
        ),
    ],
    ids=range(16),
)
def test_refusals_say_what_would_be_right(text: str, part: str) -> None:
    assert part in fault(text)
