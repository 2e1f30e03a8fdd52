"""Parties of a boosting run that sign what they should not: each ends the run in an error that names it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fedcredit.attack.rehearsal import InMemory, Rehearsal, Reseal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.crypto.prg import SEED_BYTES, UnsafeSeededEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.errors import DisclosureRefused, FedCreditError, IntegrityError
from fedcredit.governance.caps import CapRules
from fedcredit.governance.ledger import Ledger
from fedcredit.protocol.boost.messages import TreeShapes
from fedcredit.protocol.boost.roles import SCHEMAS
from fedcredit.protocol.boost.slots import SlotFormat
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.spec.load import LoadedSpec
from fedcredit.types import PartyId
from fedcredit.wire.message import Message, decode_struct

pytestmark = pytest.mark.usefixtures("virtual_time")

BANK, TAX, UTILITY = (PartyId(name) for name in ("bank", "tax", "utility"))
TYPES: dict[str, type[Message]] = {one.kind: one.message for schema in SCHEMAS for one in schema.messages}
ROWS = 500
HEADER = 81  # bytes before the sums of an answer of the plaintext profile
BOOST = {"trees": 3, "depth": 2, "bins": 6, "holder_bins": 5, "min_bin_rows": 20, "min_child_rows": 10}

Split = tuple[int, tuple[int, ...]]


@dataclass
class Seen:
    """What the run has shown so far."""

    shapes: dict[PartyId, TreeShapes] = field(default_factory=dict)

    def slots(self, of: PartyId) -> SlotFormat:
        return SlotFormat(tuple(one.bins for one in self.shapes[of].features))


Change = Callable[[Any, Seen], Any]
Look = Callable[[PartyId, str, Any], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boost-cheats")


def loaded(folder: Path, boost: Mapping[str, object] | None = None, privacy: str = "noise_rows = 0.0") -> LoadedSpec:
    keys = "".join(f"{key} = {value}\n" for key, value in {**BOOST, **(boost or {})}.items())
    sections = f'[crypto]\nprofile = "unsafe-plaintext"\n[privacy]\nenforce = false\n{privacy}\n[boost]\n{keys}'
    return write_sample(folder, Sample(ROWS, {BANK: 1, TAX: 2, UTILITY: 2}, sections=sections, model="boost"))


def failure(
    rehearsal: Rehearsal, cheater: PartyId, kind: str, change: Change, which: int | None = 0, look: Look | None = None
) -> FedCreditError:
    """Plays a run in which a party changes one of its messages, or each; returns the error that ends it."""
    seen, count = Seen(), 0

    def rewrite(sender: PartyId, recipient: PartyId, found: str, body: bytes) -> bytes | None:
        nonlocal count
        if found == "boost.shapes":
            seen.shapes[sender] = decode_struct(TreeShapes, body, found)
        if look is not None:
            look(sender, found, decode_struct(TYPES[found], body, found))
        if sender != cheater or found != kind or (cheater == BANK and recipient != TAX):
            return None
        count += 1
        if which is not None and count - 1 != which:
            return None
        return msgspec.msgpack.encode(change(decode_struct(TYPES[kind], body, kind), seen))

    keys = {party: key for party, key in rehearsal.keys().items() if party in {cheater, TAX, UTILITY}}
    return ended(replace(rehearsal, tamper=Reseal(keys, rewrite)), lambda: count > (which or 0))


def ended(rehearsal: Rehearsal, happened: Callable[[], bool]) -> FedCreditError:
    rehearsal = replace(rehearsal, timeout_s=0.5)
    network = rehearsal.network()
    started = time.perf_counter()
    with pytest.raises(FedCreditError) as caught:
        rehearsal.play(network)
    assert time.perf_counter() - started < 60  # the first run on a machine compiles
    assert happened()
    strange = {party: error for party, error in network.failures.items() if not isinstance(error, FedCreditError)}
    assert strange == {}
    return caught.value


def with_(**fields: Any) -> Change:
    return lambda message, _: msgspec.structs.replace(message, **fields)


def wanted(*splits: Split) -> Change:
    """Other splits in the slots of a message to the tax office."""

    def changed(message: Any, seen: Seen) -> Any:
        form = seen.slots(TAX)
        return msgspec.structs.replace(message, slots=form.write(splits, len(message.slots) // form.size))

    return changed


def raw(change: Callable[[bytes, SlotFormat], bytes]) -> Change:
    return lambda message, seen: msgspec.structs.replace(message, slots=change(message.slots, seen.slots(TAX)))


def first_feature(**fields: Any) -> Change:
    def changed(message: Any, _: Seen) -> Any:
        first = msgspec.structs.replace(message.features[0], **fields)
        return msgspec.structs.replace(message, features=[first, *message.features[1:]])

    return changed


def bitmaps(change: Callable[[list[bytes]], list[bytes]]) -> Change:
    return lambda message, _: msgspec.structs.replace(message, bitmaps=change(message.bitmaps))


def inverted(data: bytes) -> bytes:
    """The other side of every row, with padding that stays zero."""
    rows = np.unpackbits(np.frombuffer(data, np.uint8))
    last = int(np.flatnonzero(rows)[-1]) + 1
    return np.packbits(1 - rows[:last]).tobytes().ljust(len(data), b"\0")


def flipped(at: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda each: [bytes([each[0][0] ^ 0x80 >> at]) + each[0][1:], *each[1:]]


def added(*deltas: int) -> Change:
    def changed(message: Any, _: Seen) -> Any:
        first, *rest = message.bodies
        values = np.frombuffer(first[HEADER:], dtype="<i8").copy()
        values[: len(deltas)] += deltas
        return msgspec.structs.replace(message, bodies=[first[:HEADER] + values.tobytes(), *rest])

    return changed


ANY: Split = (0, (0,))
SPLITS = {
    "no-threshold": (wanted((0, (0, 2))), "boost.threshold"),
    "without-first-bin": (wanted((0, (1,))), "boost.slots"),
    "everything": (wanted((0, (0, 1, 2, 3, 4))), "boost.slots"),
    "nothing": (raw(lambda data, form: bytes(len(data))), "boost.slots"),
    "bin-beyond": (wanted((0, (0, 5))), "boost.slots"),
    "feature-beyond": (wanted((2, (0,))), "boost.slots"),
    "no-feature-with-bins": (raw(lambda data, form: b"\xff\xff\x80" + data[3:]), "boost.slots"),
    "too-long": (raw(lambda data, form: data + data[: form.size]), "boost.slots"),
    "too-short": (raw(lambda data, form: data[: -form.size] or b"\0"), "boost.slots"),
    "one-byte-more": (raw(lambda data, form: data + b"\0"), "boost.slots"),
    "no-bytes": (with_(slots=b""), "wire.malformed"),
    "another-round": (with_(round=1), "boost.round"),
    "another-tree": (with_(tree=1), "boost.round"),
    "no-round": (with_(round=-1), "wire.malformed"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_splits_that_are_none(folder: Path, name: str) -> None:
    change, code = SPLITS[name]
    error = failure(Rehearsal(loaded(folder)), BANK, "boost.splits", change)
    assert error.code == code
    assert "bank" in error.public


@pytest.mark.parametrize(
    "splits",
    [(ANY, ANY), ((0, (0, 1)), ANY, ANY), (ANY, (0, (0, 2)))],
    ids=["twice", "more-than-slots", "second-is-none"],
)
def test_several_splits_in_a_round(folder: Path, splits: tuple[Split, ...]) -> None:
    """The second round of a tree has two slots."""

    def changed(message: Any, seen: Seen) -> Any:
        form = seen.slots(TAX)
        return msgspec.structs.replace(message, slots=form.write(splits, max(2, len(splits))))

    error = failure(Rehearsal(loaded(folder)), BANK, "boost.splits", changed, which=1)
    assert error.code in {"boost.slots", "boost.threshold"}
    assert error.public.startswith("bank")


def test_an_unused_slot_before_a_used_one(folder: Path) -> None:
    def changed(message: Any, seen: Seen) -> Any:
        form = seen.slots(TAX)
        used, unused = form.write([ANY], 1), form.write([], 1)
        return msgspec.structs.replace(message, slots=unused + used)

    assert failure(Rehearsal(loaded(folder)), BANK, "boost.splits", changed, which=1).code == "boost.slots"


def test_more_thresholds_than_declared(folder: Path) -> None:
    """One a feature is declared: another of the same feature is refused."""
    asked: list[Split] = []
    refused: list[Split] = []

    def change(message: Any, seen: Seen) -> Any:
        form = seen.slots(TAX)
        slots = len(message.slots) // form.size
        if not asked:
            asked.extend(form.read(message.slots, slots))
            return message
        feature, left = asked[0]
        refused.append((feature, tuple(range(len(left) % 4 + 1))))
        return msgspec.structs.replace(message, slots=form.write(refused[:1], slots))

    error = failure(Rehearsal(loaded(folder, {"holder_thresholds": 1})), BANK, "boost.splits", change, which=None)
    assert isinstance(error, DisclosureRefused)
    assert error.code == "boost.thresholds"
    assert error.public.startswith("bank")


def test_a_split_of_a_feature_that_was_not_offered(folder: Path) -> None:
    offered: list[bytes] = []

    def change(message: Any, seen: Seen) -> Any:
        other = 1 if offered[0][0] & 0x80 else 0
        form = seen.slots(TAX)
        return msgspec.structs.replace(message, slots=form.write([(other, (0,))], len(message.slots) // form.size))

    def look(sender: PartyId, kind: str, message: Any) -> None:
        if sender == TAX and kind == "boost.offer":
            offered.append(message.offered)

    rehearsal = Rehearsal(loaded(folder, {"column_sampling": 0.5}))
    error = failure(rehearsal, BANK, "boost.splits", change, look=look)
    assert error.code == "boost.offer"
    assert error.public.startswith("bank")


def test_a_split_again_costs_nothing(folder: Path) -> None:
    """What was disclosed before is no new disclosure: no bit more is paid."""
    asked: list[Split] = []
    again: list[Split] = []

    def change(message: Any, seen: Seen) -> Any:
        form = seen.slots(TAX)
        slots = len(message.slots) // form.size
        if not asked:
            asked.extend(form.read(message.slots, slots))
            return message
        again.append(asked[0])
        return msgspec.structs.replace(message, slots=form.write(again[:1], slots))

    ledger = Ledger(":memory:", CapRules(enforce=False, simulation=True))
    rehearsal = Rehearsal(loaded(folder), ledgers={TAX: ledger})
    failure(rehearsal, BANK, "boost.splits", change, which=None)  # the role did not ask: to it, the answer is a lie
    (line,) = ledger.report(rehearsal.run)
    assert len(again) > 0
    assert line.row_bits == len(asked) > 0
    ledger.close()


def retried(folder: Path, change: Change) -> FedCreditError:
    """A run that ends by itself, begun again by the same parties; in the second attempt the label holder cheats."""
    rehearsal = Rehearsal(loaded(folder))
    secrets = {
        party: KeptSecrets(
            RunSecret(bytes([place]) * 32), UnsafeSeededEntropy(bytes(SEED_BYTES)).child(party), NoEscrow()
        )
        for place, party in enumerate((BANK, TAX, UTILITY))
    }
    again = {
        party: replace(kept, replayable=UnsafeSeededEntropy(bytes(SEED_BYTES)).child(party))
        for party, kept in secrets.items()
    }
    kept_by_tax = InMemory()
    replace(rehearsal, secrets=secrets, checkpoints={TAX: kept_by_tax}).play()
    assert kept_by_tax.load() is not None
    return failure(replace(rehearsal, secrets=again, checkpoints={TAX: kept_by_tax}), BANK, "boost.splits", change)


def test_other_splits_after_a_restart(folder: Path) -> None:
    """Who may try a round again with other splits would learn those too."""

    def change(message: Any, seen: Seen) -> Any:
        form = seen.slots(TAX)
        slots = len(message.slots) // form.size
        honest = form.read(message.slots, slots)
        other: Split = (0, (0,)) if honest != [(0, (0,))] else (0, (0, 1))
        return msgspec.structs.replace(message, slots=form.write([other], slots))

    error = retried(folder, change)
    assert isinstance(error, IntegrityError)
    assert error.code == "escrow.bound"


STARTS = [
    (with_(tree=0), 1, "boost.tree"),
    (with_(tree=3), 0, "boost.tree"),
    (with_(tree=10_001), 0, "wire.malformed"),
    (with_(more=False), 1, "wire.kind"),
    (with_(tree=2), 1, "group_sum.index"),
]


@pytest.mark.parametrize(("change", "which", "code"), STARTS)
def test_trees_out_of_turn(folder: Path, change: Change, which: int, code: str) -> None:
    error = failure(Rehearsal(loaded(folder)), BANK, "boost.tree", change, which)
    assert error.code == code
    assert "bank" in error.public


def test_a_tree_that_belongs_to_the_label_holder(folder: Path) -> None:
    rehearsal = Rehearsal(loaded(folder, {"first_trees_local": 1}))
    error = failure(rehearsal, BANK, "boost.tree", with_(tree=0))
    assert error.code == "boost.tree"


BASES = [
    (lambda m, _: msgspec.structs.replace(m, n_bad=m.n_eff + 1), "disclosure.basis"),
    (with_(n_eff=10**6), "disclosure.basis"),
    (lambda m, _: msgspec.structs.replace(m, n_eff=m.n_eff + 1), "disclosure.basis"),
    (with_(n_eff=0), "wire.malformed"),
    (with_(n_bad=0), "wire.malformed"),
]


@pytest.mark.parametrize(("change", "code"), BASES)
def test_a_basis_that_cannot_be(folder: Path, change: Change, code: str) -> None:
    error = failure(Rehearsal(loaded(folder)), BANK, "boost.basis", change)
    assert error.code == code


KEPT: dict[str, tuple[Callable[[bytes], bytes], set[str]]] = {
    "never-disclosed": (lambda kept: b"\xff" * len(kept), {"boost.kept", "boost.bits"}),
    "longer": (lambda kept: kept + b"\0", {"boost.bits"}),
    "shorter": (lambda kept: kept[:-1] or b"\0\0\0", {"boost.bits"}),
    "padding": (lambda kept: kept[:-1] + bytes([kept[-1] | 1]), {"boost.bits", "boost.kept"}),
    "empty": (lambda _: b"", {"wire.malformed"}),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept_splits_that_were_never_disclosed(folder: Path, name: str) -> None:
    change, codes = KEPT[name]
    how: Change = lambda message, _: msgspec.structs.replace(message, kept=change(message.kept))  # noqa: E731 - a table
    error = failure(Rehearsal(loaded(folder)), BANK, "boost.kept", how)
    assert error.code in codes
    assert "bank" in error.public


def test_one_more_kept_split_than_disclosed(folder: Path) -> None:
    """Six could have been disclosed; the mask says that all were, and its padding is in order."""
    how: Change = lambda message, _: msgspec.structs.replace(message, kept=b"\xfc")  # noqa: E731
    error = failure(Rehearsal(loaded(folder)), BANK, "boost.kept", how)
    assert error.code == "boost.kept"
    assert error.public.startswith("bank")


def test_a_mask_of_another_selection(folder: Path) -> None:
    """The label holder is told of fewer paths than it needs: it stops, whoever lied on the way."""
    how: Change = lambda message, _: msgspec.structs.replace(message, kept=bytes(len(message.kept)))  # noqa: E731
    assert failure(Rehearsal(loaded(folder)), BANK, "boost.kept", how).code == "boost.paths"


SHAPES: dict[str, tuple[Change, str]] = {
    "none": (with_(features=[]), "boost.shapes"),
    "code-twice": (lambda m, _: msgspec.structs.replace(m, features=m.features[:1] * 2), "boost.shapes"),
    "ordered": (first_feature(ordered=6), "boost.shapes"),
    "direction-of-categories": (first_feature(ordered=0, monotone="increasing"), "boost.shapes"),
    "thresholds": (first_feature(thresholds=4), "boost.shapes"),
    "negative": (first_feature(thresholds=-1), "wire.malformed"),
    "no-bins": (first_feature(bins=0, ordered=0), "wire.malformed"),
    "bins-1": (
        lambda m, _: msgspec.structs.replace(
            m, features=[msgspec.structs.replace(one, bins=1, ordered=1) for one in m.features]
        ),
        "group_sum.outputs",
    ),
    "more-bins": (first_feature(bins=9), "group_sum.outputs"),
    "many-bins": (first_feature(bins=10_000), "group_sum.outputs"),
    "too-many-bins": (first_feature(bins=10_001), "wire.malformed"),
    "fewer-features": (lambda m, _: msgspec.structs.replace(m, features=m.features[:1]), "group_sum.outputs"),
    "too-many-features": (
        lambda m, _: msgspec.structs.replace(
            m, features=[msgspec.structs.replace(m.features[0], code=f"F{place}") for place in range(0xFFFF)]
        ),
        "boost.shapes",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_are_none(folder: Path, name: str) -> None:
    change, code = SHAPES[name]
    error = failure(Rehearsal(loaded(folder)), TAX, "boost.shapes", change)
    assert error.code == code
    assert "tax" in error.public


def test_bins_moved_from_one_feature_to_another(folder: Path) -> None:
    """As many sums as before, but those of a feature no longer add up."""

    def change(message: Any, _: Seen) -> Any:
        one, other = message.features
        moved = [msgspec.structs.replace(one, bins=6), msgspec.structs.replace(other, bins=4, ordered=4)]
        return msgspec.structs.replace(message, features=moved)

    error = failure(Rehearsal(loaded(folder)), TAX, "boost.shapes", change)
    assert isinstance(error, IntegrityError)
    assert error.public.startswith("tax: the bins of feature F1 do not add up")


OFFERS = {
    "another-tree": (with_(tree=1), "boost.tree"),
    "longer": (lambda m, _: msgspec.structs.replace(m, offered=m.offered + b"\0"), "boost.bits"),
    "padding": (lambda m, _: msgspec.structs.replace(m, offered=bytes([m.offered[0] | 1])), "boost.bits"),
    "more-than-answered": (with_(offered=b"\xc0"), "group-sum.range"),
    "empty": (with_(offered=b""), "wire.malformed"),
}


@pytest.mark.parametrize("name", OFFERS)
def test_offers_that_are_none(folder: Path, name: str) -> None:
    change, code = OFFERS[name]
    error = failure(Rehearsal(loaded(folder, {"column_sampling": 0.5})), TAX, "boost.offer", change)
    assert error.code == code
    assert "tax" in error.public


BITMAPS: dict[str, tuple[Change, str]] = {
    "none": (bitmaps(lambda _: []), "boost.bitmaps"),
    "too-many": (bitmaps(lambda each: each * 2), "boost.bitmaps"),
    "another-round": (lambda m, _: msgspec.structs.replace(m, round=m.round ^ 1), "boost.bitmaps"),
    "another-tree": (lambda m, _: msgspec.structs.replace(m, tree=m.tree + 1), "boost.bitmaps"),
    "shorter": (bitmaps(lambda each: [each[0][:-1], *each[1:]]), "boost.bits"),
    "longer": (bitmaps(lambda each: [each[0] + b"\0", *each[1:]]), "boost.bits"),
    "padding": (bitmaps(lambda each: [each[0][:-1] + bytes([each[0][-1] | 1]), *each[1:]]), "boost.bits"),
    "empty": (bitmaps(lambda each: [b"", *each[1:]]), "boost.bits"),
    "all-right": (bitmaps(lambda each: [bytes(len(each[0])), *each[1:]]), "boost.bitmap"),
    "other-side": (bitmaps(lambda each: [inverted(each[0]), *each[1:]]), "boost.bitmap"),
    "one-row": (bitmaps(flipped(0)), "boost.bitmap"),
    "moved": (bitmaps(lambda each: [each[0][1:-1] + each[0][:1] + each[0][-1:], *each[1:]]), "boost.bitmap"),
}


@pytest.mark.parametrize("name", BITMAPS)
def test_bitmaps_that_are_none(folder: Path, name: str) -> None:
    change, code = BITMAPS[name]
    error = failure(Rehearsal(loaded(folder)), TAX, "boost.bitmaps", change)
    assert error.code == code
    assert error.public.startswith("tax")


@pytest.mark.parametrize("name", ["all-right", "other-side"])
def test_bitmaps_that_lie_beyond_the_noise(folder: Path, name: str) -> None:
    change, code = BITMAPS[name]
    rehearsal = Rehearsal(loaded(folder, {"learning_rate": 1.0}, "noise_rows = 0.3"))
    assert failure(rehearsal, TAX, "boost.bitmaps", change).code == code


PATHS = {
    "rows": (lambda m, _: msgspec.structs.replace(m, rows=m.rows - 1), "boost.paths"),
    "splits": (lambda m, _: msgspec.structs.replace(m, splits=m.splits + 1), "boost.paths"),
    "shorter": (lambda m, _: msgspec.structs.replace(m, bits=m.bits[:-1]), "boost.bits"),
    "longer": (lambda m, _: msgspec.structs.replace(m, bits=m.bits + b"\0"), "boost.bits"),
    "none": (with_(bits=b""), "boost.bits"),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_that_are_none(folder: Path, name: str) -> None:
    change, code = PATHS[name]
    error = failure(Rehearsal(loaded(folder)), TAX, "boost.paths", change)
    assert error.code == code
    assert error.public.startswith("tax")


def test_sums_that_do_not_add_up(folder: Path) -> None:
    for which in (0, 1, 3, 5):
        error = failure(Rehearsal(loaded(folder)), TAX, "group_sum.answer", added(1), which)
        assert isinstance(error, IntegrityError)
        assert error.public.startswith("tax: the bins of feature F1 do not add up")


def test_sums_that_add_up_and_are_a_lie_fail_with_the_bitmap(folder: Path) -> None:
    """Moved between the ends of a feature, so that it looks the best of all: its bitmap then says otherwise."""
    error = failure(Rehearsal(loaded(folder)), TAX, "group_sum.answer", added(-3000, 0, 0, 0, 3000))
    assert isinstance(error, IntegrityError)
    assert error.code == "boost.bitmap"
    assert error.public.startswith("tax: a bitmap of feature F1")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"outputs": 11}, "group_sum.outputs"),
        ({"purpose": "scorecard"}, "group_sum.purpose"),
        ({"hints": b"x"}, "group-sum.hints-twice"),
    ],
)
def test_hints_of_another_size(folder: Path, fields: dict[str, Any], code: str) -> None:
    error = failure(Rehearsal(loaded(folder)), TAX, "group_sum.hints", with_(**fields))
    assert error.code == code
    assert error.public.startswith("tax")
