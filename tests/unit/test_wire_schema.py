"""Schemas refuse undeclared messages and types without a canonical form; LEAKAGE pages are held against them."""

from __future__ import annotations

import msgspec
import pytest

from fedcredit.errors import PolicyDenied, SpecError
from fedcredit.types import Role
from fedcredit.wire.leakage import check_leakage, parse_leakage
from fedcredit.wire.message import Message, Part
from fedcredit.wire.schema import Declared, ProtocolSchema, leaf_fields, merge

L, P, C = Role.LABEL_HOLDER, Role.FEATURE_HOLDER, Role.COORDINATOR


class Pair(Part, frozen=True, kw_only=True):
    code: str
    bins: list[int]


class Ask(Message, frozen=True, kw_only=True, tag="probe.ask"):
    body: bytes


class Tell(Message, frozen=True, kw_only=True, tag="probe.tell"):
    index: int
    pairs: list[Pair]


class Loose(Message, frozen=True, kw_only=True, tag="probe.loose"):
    anything: dict[str, int]


class Optional(Message, frozen=True, kw_only=True, tag="probe.optional"):
    maybe: int | None = None


class Open(msgspec.Struct):
    name: str


class Holding(Message, frozen=True, kw_only=True, tag="probe.holding"):
    inner: Open


class Untagged(Message, frozen=True, kw_only=True):
    name: str


ASK = Declared(Ask, frozenset({L}), frozenset({P}), 100)
TELL = Declared(Tell, frozenset({P}), frozenset({L, C}), 100, spends=True)
SCHEMA = ProtocolSchema("probe", (ASK, TELL))
ROWS = """
# What is learnt

| Receiver | Message | Field | What it learns | Bound |
|---|---|---|---|---|
| feature_holder | `probe.ask` | `body` | nothing | ring-LWE |
| label_holder | `probe.tell` | `index` | its own number | none |
| label_holder | `probe.tell` | `pairs.code` | a code \\| no name | per run |
| label_holder | `probe.tell` | `pairs.bins` | sums | the cap |
| coordinator | `probe.tell` | `index` | a number | none |
| coordinator | `probe.tell` | `pairs.code` | a code | per run |
| coordinator | `probe.tell` | `pairs.bins` | sums | the cap |

More text.
"""


def test_declared_roles_and_sizes_are_held() -> None:
    assert SCHEMA.allows("probe.ask", L, P, 100) is ASK
    with pytest.raises(PolicyDenied, match="101 bytes"):
        SCHEMA.allows("probe.ask", L, P, 101)
    for sender, receiver in ((P, L), (L, C), (L, L)):
        with pytest.raises(PolicyDenied, match="is not declared from"):
            SCHEMA.allows("probe.ask", sender, receiver, 1)
    with pytest.raises(PolicyDenied, match=r"probe\.more"):
        SCHEMA.by_kind("probe.more")


@pytest.mark.parametrize("message", [Loose, Optional, Holding, Untagged])
def test_types_without_one_canonical_form_are_refused(message: type[Message]) -> None:
    with pytest.raises(SpecError):
        ProtocolSchema("probe", (Declared(message, frozenset({L}), frozenset({P}), 100),))


def test_a_kind_declared_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="twice"):
        ProtocolSchema("probe", (ASK, ASK))
    other = ProtocolSchema("other", (ASK,))
    with pytest.raises(SpecError, match="protocols probe and other"):
        merge(SCHEMA, other)
    with pytest.raises(SpecError, match="different messages"):
        merge(SCHEMA, ProtocolSchema("probe", (TELL,)))


def test_merging_a_schema_with_itself_changes_nothing() -> None:
    merged = merge(SCHEMA, SCHEMA)
    assert merged.protocols == (SCHEMA,)
    assert merged.by_kind("probe.tell") == (SCHEMA, TELL)
    with pytest.raises(PolicyDenied, match="not declared"):
        merged.by_kind("probe.more")


@pytest.mark.parametrize("declared", [(set(), {P}, 9), ({L}, set(), 9), ({L}, {P}, 0)])
def test_incomplete_declarations_are_refused(declared: tuple[set[Role], set[Role], int]) -> None:
    senders, receivers, size = declared
    with pytest.raises(SpecError, match="lacks"):
        ProtocolSchema("probe", (Declared(Ask, frozenset(senders), frozenset(receivers), size),))


def test_nested_fields_are_listed_by_path() -> None:
    assert list(leaf_fields(Tell)) == ["index", "pairs.code", "pairs.bins"]


def test_a_complete_page_passes_and_keeps_escaped_bars() -> None:
    rows = parse_leakage(ROWS)
    check_leakage(rows, SCHEMA)
    assert rows[2].learns == "a code | no name"


def test_a_new_field_fails_until_the_page_says_what_it_tells() -> None:
    for line in ROWS.splitlines():
        if "probe." in line:
            with pytest.raises(SpecError, match="lacks rows"):
                check_leakage(parse_leakage(ROWS.replace(line + "\n", "")), SCHEMA)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("`index` | its", "`number` | its", "names no field"),
        ("| feature_holder |", "| coordinator |", "names no field"),
        ("| feature_holder |", "| bank |", "role 'bank'"),
        ("| ring-LWE |", "|  |", "empty cell"),
        ("| ring-LWE |", "|", "4 cells"),
        ("| Bound |", "| Limit |", "no table"),
        ("| coordinator | `probe.tell` | `pairs.code`", "| coordinator | `probe.tell` | `index`", "there twice"),
    ],
)
def test_wrong_pages_are_refused(old: str, new: str, complaint: str) -> None:
    assert old in ROWS
    with pytest.raises(SpecError, match=complaint):
        check_leakage(parse_leakage(ROWS.replace(old, new)), SCHEMA)
