"""What every role really receives in a run is what the LEAKAGE.md files name: no field more, no field less."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fedcredit.protocol
from fedcredit.attack.recorder import recording
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import BY_REGISTER, Sample, write_sample
from fedcredit.errors import SpecError
from fedcredit.protocol.align.messages import SCHEMA as ALIGN
from fedcredit.protocol.bin.messages import SCHEMA as BIN
from fedcredit.protocol.bin.messages import FeatureShape, FeatureShapes
from fedcredit.protocol.boost.roles import SCHEMAS as BOOST_SCHEMAS
from fedcredit.protocol.scorecard.roles import SCHEMAS
from fedcredit.runtime.accounts import leakage_steps
from fedcredit.types import COORDINATOR, Role
from fedcredit.wire.leakage import LeakageRow, check_leakage, parse_leakage
from fedcredit.wire.message import Message, kind_of
from fedcredit.wire.schema import Declared, ProtocolSchema

ROOT = Path(fedcredit.protocol.__file__).parent
SECTIONS = """
[crypto]
profile = "unsafe-plaintext"
[bin]
prebins = 6
min_prebin_rows = 50
max_bins = 4
min_bads = 5
[scorecard]
min_iv = 0.0
"""

BOOST_SECTIONS = """
[crypto]
profile = "unsafe-plaintext"
[boost]
trees = 6
column_sampling = 0.5
"""

PARTIES = {"bank": 2, "tax": 2, "utility": 2}

Field = tuple[Role, str, str]

_OF_PRODUCTS = {
    "grouping_commitment": ("purpose", "commitment"),
    "hints": ("purpose", "outputs", "hints"),
    "answer": ("purpose", "index", "bodies"),
}
PRODUCTS_ONLY = {
    (Role.FEATURE_HOLDER, f"group_sum.{kind}", name) for kind, names in _OF_PRODUCTS.items() for name in names
}
"""Named on the page of group sums and received where feature holders ask each other: in a scorecard over rows that all
know, never in boosting, and not where rows are hidden."""

NOT_HERE: dict[str, set[Field]] = {
    "run": set(),
    "boost": PRODUCTS_ONLY,
    "hidden": PRODUCTS_ONLY,
    "hidden_boost": PRODUCTS_ONLY,
}
"""For each run what its pages name of kinds that were sent, for a role that was not sent them."""

HEARD_BY_A_HOLDER = {
    "boost.basis": {"n_eff", "n_bad"},
    "boost.tree": {"tree", "more"},
    "boost.splits": {"tree", "round", "slots"},
    "boost.kept": {"kept"},
    "group_sum.request": {"purpose", "index", "vectors.commitment", "vectors.body"},
    "group_sum.setup": {"purpose", "setup"},
    "group_sum.nonce_commitment": {"commitment"},
    "group_sum.nonce_reveal": {"nonce"},
}
"""All that a feature holder receives after the rows were aligned; a field more is a question to the owner."""

CHOICE = {"select.rows": {"public", "train", "test", "train_commitment", "test_commitment"}}
REGISTER = {"align.register": {"digest", "rows"}}
HEARD_WHERE_ROWS_ARE_HIDDEN = {
    **REGISTER,
    **CHOICE,
    "bin.basis": {"n_eff", "n_bad"},
    "group_sum.request": {"purpose", "index", "vectors.commitment", "vectors.body"},
    "group_sum.setup": {"purpose", "setup"},
    "group_sum.nonce_commitment": {"commitment"},
    "group_sum.nonce_reveal": {"nonce"},
    "scorecard.kept": {"codes"},
    "scorecard.mask_key": {"key"},
    "scorecard.points": {"round", "rows", "tables"},
    "scorecard.selection": {
        "choices.code",
        "choices.group",
        "choices.woe",
        "own_columns",
        "others.party",
        "others.columns",
    },
    "scorecard.step": {"more"},
    "scorecard.totals_key": {"public"},
    "select.shade_sums": {"body"},
    "select.shades": {"public", "bodies"},
    "select.shared": {"of", "bodies"},
}
"""All that a feature holder receives in a scorecard run by a register, the alignment included: no id and no split."""

TOLD_BY_ROW = {
    "hidden": {"select.columns", "scorecard.total"},
    "hidden_boost": {"boost.bitmaps", "boost.chosen_paths"},
}
"""Messages to the label holder that hold something for each row, in a run by a register."""


def _page(name: str) -> tuple[LeakageRow, ...]:
    return parse_leakage((ROOT / name / "LEAKAGE.md").read_text(encoding="utf-8"))


def _fields(value: Any, prefix: str = "") -> set[str]:
    """Names of the fields that hold something, from the values themselves rather than from the classes."""
    if isinstance(value, msgspec.Struct):
        return set().union(*(_fields(getattr(value, n), f"{prefix}{n}.") for n in value.__struct_fields__))
    if isinstance(value, (list, tuple)) and any(isinstance(one, msgspec.Struct) for one in value):
        return set().union(*(_fields(one, prefix) for one in value))
    return {prefix[:-1]}


Heard = tuple[set[Field], list[tuple[str, str, str]], list[Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """Fields received, messages received, transcript of one run of three parties and the coordinator."""
    sample = Sample(1500, PARTIES, sections=SECTIONS)
    return _heard(Rehearsal(write_sample(tmp_path_factory.mktemp("received"), sample)))


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """A scorecard by a register in which the holders know other enterprises too, and not all customers."""
    sample = Sample(1500, PARTIES, sections=SECTIONS, align=BY_REGISTER, strangers=700, known=0.9)
    return _heard(Rehearsal(write_sample(tmp_path_factory.mktemp("hidden"), sample)))


@pytest.fixture(scope="module")
def hidden_boost(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """The same of a boosting run."""
    sample = Sample(
        1500,
        PARTIES,
        bad_rate=0.4,
        sections=BOOST_SECTIONS,
        model="boost",
        align=BY_REGISTER,
        strangers=700,
        known=0.9,
    )
    return _heard(Rehearsal(write_sample(tmp_path_factory.mktemp("hidden_boost"), sample)))


@pytest.fixture(scope="module")
def boost(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """The same of a boosting run."""
    sample = Sample(1500, PARTIES, bad_rate=0.4, sections=BOOST_SECTIONS, model="boost")
    return _heard(Rehearsal(write_sample(tmp_path_factory.mktemp("boost"), sample)))


def _heard(rehearsal: Rehearsal) -> Heard:
    network = rehearsal.network()
    with recording() as notes:
        rehearsal.play(network)
    roster = rehearsal.roster
    fields = {
        (roster[party], kind_of(message), name) for party, _, message in notes.received for name in _fields(message)
    }
    return fields, [(party, sender, kind_of(message)) for party, sender, message in notes.received], network.transcript


def _schemas(name: str) -> tuple[ProtocolSchema, ...]:
    return BOOST_SCHEMAS if name in {"boost", "hidden_boost"} else SCHEMAS


every_run = pytest.mark.parametrize("name", ["run", "boost", "hidden", "hidden_boost"])


@every_run
def test_received_is_what_the_pages_name(name: str, request: pytest.FixtureRequest) -> None:
    """Of every kind of message that was sent, every role receives exactly the fields that its page has rows for."""
    received, _, transcript = request.getfixturevalue(name)
    kinds = {entry.kind for entry in transcript}
    rows = [row for schema in _schemas(name) for row in _page(schema.name) if row.message in kinds]
    named = {(row.receiver, row.message, row.field) for row in rows}
    assert received <= named
    assert named - received == NOT_HERE[name]


@every_run
def test_the_run_report_names_the_same(name: str, request: pytest.FixtureRequest) -> None:
    """``leakage.json`` of a run is made from these steps."""
    received, _, transcript = request.getfixturevalue(name)
    steps = leakage_steps([schema.name for schema in _schemas(name)], {entry.kind for entry in transcript})
    told = {(Role(step["receiver"]), step["message"], step["field"]) for step in steps}
    assert told - NOT_HERE[name] == received


def test_no_row_of_a_page_is_for_nothing(run: Heard, boost: Heard, hidden: Heard, hidden_boost: Heard) -> None:
    """Together these runs receive all that the pages name, the messages of blind alignment apart."""
    received = run[0] | boost[0] | hidden[0] | hidden_boost[0]
    named = {
        (row.receiver, row.message, row.field)
        for schema in {*SCHEMAS, *BOOST_SCHEMAS}
        for row in _page(schema.name)
        if schema is not ALIGN or row.message in {"align.ids", "align.index", "align.register"}
    }
    assert received == named


def test_a_feature_holder_of_a_boosting_run_hears_no_more_than_this(boost: Heard) -> None:
    heard: dict[str, set[str]] = {}
    for role, kind, name in boost[0]:
        if role is Role.FEATURE_HOLDER and not kind.startswith("align."):
            heard.setdefault(kind, set()).add(name)
    assert heard == HEARD_BY_A_HOLDER


def test_where_rows_are_hidden_a_holder_hears_no_more_than_this(hidden: Heard, hidden_boost: Heard) -> None:
    for found, right in ((hidden, HEARD_WHERE_ROWS_ARE_HIDDEN), (hidden_boost, HEARD_BY_A_HOLDER | CHOICE | REGISTER)):
        heard: dict[str, set[str]] = {}
        for role, kind, name in found[0]:
            if role is Role.FEATURE_HOLDER:
                heard.setdefault(kind, set()).add(name)
        assert heard == right


@pytest.mark.parametrize("name", TOLD_BY_ROW)
def test_where_rows_are_hidden_nobody_names_an_id_or_a_split(name: str, request: pytest.FixtureRequest) -> None:
    """No message of a run by a register has a field of ids or of rows in the open, for anyone."""
    received = request.getfixturevalue(name)[0]
    kinds = {kind for _, kind, _ in received}
    assert not kinds & {"align.ids", "align.index", "boost.paths", "scorecard.masked_products"}
    told = {kind for role, kind, _ in received if role is Role.LABEL_HOLDER}
    assert told >= TOLD_BY_ROW[name]


@pytest.mark.parametrize("name", ["boost", "hidden_boost"])
def test_the_coordinator_of_a_boosting_run_hears_nothing(name: str, request: pytest.FixtureRequest) -> None:
    boost = request.getfixturevalue(name)
    assert not [one for one in boost[0] if one[0] is Role.COORDINATOR]
    assert COORDINATOR not in {party for party, _, _ in boost[1]}


@every_run
def test_the_recorder_saw_every_message_of_the_transcript(name: str, request: pytest.FixtureRequest) -> None:
    _, received, transcript = request.getfixturevalue(name)
    assert sorted(received) == sorted((entry.recipient, entry.sender, entry.kind) for entry in transcript)
    assert len(received) > 60


def test_pages_and_messages_agree_through_the_products_own_check() -> None:
    for schema in {*SCHEMAS, *BOOST_SCHEMAS}:
        check_leakage(_page(schema.name), schema)


@pytest.mark.parametrize("name", ["run", "hidden"])
def test_the_coordinator_receives_ciphertext_and_public_words_only(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    assert {(kind, name) for role, kind, name in run[0] if role is Role.COORDINATOR} == {
        ("scorecard.totals_key", "public"),
        ("scorecard.step", "more"),
        ("scorecard.partial", "round"),
        ("scorecard.partial", "rows"),
        ("scorecard.partial", "body"),
    }
    assert COORDINATOR in {party for party, _, _ in run[1]}


class TalkativeShapes(Message, frozen=True, kw_only=True, tag="bin.shapes"):
    """As the real one, with a field nobody declared."""

    features: list[FeatureShape]
    names: list[str]


class TalkativeBudget(Message, frozen=True, kw_only=True, tag="bin.remainder"):
    """A message nobody declared."""

    rows: list[int]


@pytest.mark.parametrize("talkative", [TalkativeShapes, TalkativeBudget])
def test_an_undeclared_field_or_message_fails_the_check(talkative: type[Message]) -> None:
    like = BIN.by_kind("bin.shapes")
    others = tuple(one for one in BIN.messages if one.kind != kind_of(talkative))
    added = Declared(message=talkative, senders=like.senders, receivers=like.receivers, max_bytes=like.max_bytes)
    schema = ProtocolSchema(BIN.name, (*others, added))
    missing = "names" if talkative is TalkativeShapes else "rows"
    with pytest.raises(SpecError, match=rf"lacks rows for label_holder \| {kind_of(talkative)} \| {missing} \[leakage"):
        check_leakage(_page("bin"), schema)


def test_a_field_that_is_gone_fails_the_check() -> None:
    others = tuple(one for one in BIN.messages if one.message is not FeatureShapes)
    with pytest.raises(SpecError, match=r"bin\.shapes \| features\.code names no field"):
        check_leakage(_page("bin"), ProtocolSchema(BIN.name, others))


@pytest.mark.parametrize("name", sorted({schema.name for schema in (*SCHEMAS, *BOOST_SCHEMAS)}))
def test_every_protocol_of_a_run_has_a_page(name: str) -> None:
    assert importlib.import_module(f"fedcredit.protocol.{name}.messages").SCHEMA in (*SCHEMAS, *BOOST_SCHEMAS)
    assert all(row.learns and row.bound for row in _page(name))
