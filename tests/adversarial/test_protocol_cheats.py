"""Parties of a real run that sign what they should not: named errors, of the product's own types, and no hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fedcredit.attack.rehearsal import Held, Rehearsal, Reseal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.errors import FedCreditError, IntegrityError, TransportError
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.scorecard.messages import OtherHolder
from fedcredit.protocol.scorecard.roles import SCHEMAS
from fedcredit.spec.load import LoadedSpec
from fedcredit.types import PartyId
from fedcredit.wire.message import Message, decode_struct

pytestmark = pytest.mark.usefixtures("virtual_time")

BANK, TAX, UTILITY, RELAY = (PartyId(name) for name in ("bank", "tax", "utility", "coordinator"))
TYPES: dict[str, type[Message]] = {one.kind: one.message for schema in SCHEMAS for one in schema.messages}
ROWS = 500
SECTIONS = """
[crypto]
profile = "{}"
[bin]
prebins = 4
min_prebin_rows = 20
min_goods = 5
min_bads = 5
max_bins = 3
[scorecard]
min_iv = 0.0
[privacy]
enforce = {}
"""

Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cheats")


def _loaded(folder: Path, profile: str = "unsafe-plaintext", enforce: str = "false") -> LoadedSpec:
    sections = SECTIONS.format(profile, enforce)
    return write_sample(folder, Sample(ROWS, {BANK: 1, TAX: 2, UTILITY: 2}, sections=sections))


def _failure(
    rehearsal: Rehearsal, cheater: PartyId, kind: str, change: Change, *, to: str = "", which: int = 0
) -> FedCreditError:
    """Plays a run in which one message is changed by its own sender; returns the error that ends it."""
    seen = 0

    def rewrite(_sender: PartyId, recipient: PartyId, found: str, body: bytes) -> bytes | None:
        nonlocal seen
        if found != kind or (to and recipient != to):
            return None
        seen += 1
        if seen - 1 != which:
            return None
        return msgspec.msgpack.encode(change(decode_struct(TYPES[kind], body, kind)))

    keys = {cheater: rehearsal.keys()[cheater]}
    rehearsal = replace(rehearsal, tamper=Reseal(keys, rewrite), timeout_s=0.5)
    network = rehearsal.network()
    started = time.perf_counter()
    with pytest.raises(FedCreditError) as caught:
        rehearsal.play(network)
    assert time.perf_counter() - started < 60  # the first run on a machine compiles
    assert seen > which
    strange = {party: error for party, error in network.failures.items() if not isinstance(error, FedCreditError)}
    assert strange == {}
    return caught.value


def _with(**fields: Any) -> Change:
    return lambda message: msgspec.structs.replace(message, **fields)


def _sums(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Changes the sums of an answer of the plaintext profile; its header has 81 bytes."""

    def changed(message: Any) -> Any:
        first, *rest = message.bodies
        values = np.frombuffer(first[81:], dtype="<i8").copy()
        return msgspec.structs.replace(message, bodies=[first[:81] + change(values).astype("<i8").tobytes(), *rest])

    return changed


def _added(*deltas: int) -> Change:
    return _sums(lambda values: values + np.pad(np.array(deltas), (0, len(values) - len(deltas))))


def _first_choice(**fields: Any) -> Change:
    def changed(message: Any) -> Any:
        first = msgspec.structs.replace(message.choices[0], **fields)
        return msgspec.structs.replace(message, choices=[first, *message.choices[1:]])

    return changed


def _bytes(field: str, change: Callable[[bytes], bytes]) -> Change:
    """Changes a field of bytes, or the first where there are several."""

    def changed(value: Any) -> Any:
        if isinstance(value, bytes):
            return change(value)
        first, *rest = value
        return [msgspec.structs.replace(first, body=change(first.body)) if field == "vectors" else change(first), *rest]

    return lambda message: msgspec.structs.replace(message, **{field: changed(getattr(message, field))})


def _each(field: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda message: msgspec.structs.replace(message, **{field: [change(one) for one in getattr(message, field)]})


def _first_table(change: Callable[[list[int]], list[int]]) -> Change:
    return lambda message: msgspec.structs.replace(message, tables=[change(message.tables[0]), *message.tables[1:]])


def _flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def _strewn(data: bytes) -> bytes:
    """One bit flipped in each of 64 residues of 27 bits, at ever other places in them.

    A residue is multiplied by a small coefficient of the secret: one flip alone meets a 0 in one run of eight, flips of
    equal weight cancel in one of seventy. Nothing is changed then, and nothing is to be found.
    """
    changed = bytearray(data)
    for at in range(len(data) // 2, len(data) // 2 + 64 * 29, 29):
        changed[at] ^= 1
    return bytes(changed)


_GROUP_SUM = [
    (TAX, "answer", _added(1), "group_sum.total"),
    (TAX, "answer", _added(-(1 << 18), 1 << 18), "bin.counts"),
    (TAX, "answer", _added(1 << 60), "group-sum.range"),
    (TAX, "answer", _sums(lambda values: values[:-1]), "group-sum.frame"),
    (TAX, "answer", _with(purpose="scorecard/bins"), "group_sum.purpose"),
    (TAX, "answer", _with(index=1), "group_sum.index"),
    (TAX, "hints", lambda m: msgspec.structs.replace(m, outputs=m.outputs + 1), "group_sum.outputs"),
    (TAX, "hints", _with(purpose="other"), "group_sum.purpose"),
    (TAX, "hints", _with(outputs=0), "wire.malformed"),
    (TAX, "grouping_commitment", _with(purpose="other"), "group_sum.purpose"),
    (TAX, "grouping_commitment", _with(commitment=bytes(31)), "wire.malformed"),
    (TAX, "nonce_reveal", _with(nonce=bytes(32)), "reference.commitment"),
    (BANK, "nonce_reveal", _with(nonce=bytes(32)), "reference.commitment"),
    (BANK, "nonce_commitment", _with(commitment=bytes(32)), "reference.commitment"),
    (BANK, "setup", _with(purpose="other"), "group_sum.purpose"),
    (BANK, "setup", _with(setup=b"key"), "group-sum.setup"),
    (BANK, "request", _with(purpose="other"), "group_sum.index"),
    (BANK, "request", _with(index=1), "group_sum.index"),
    (BANK, "request", _with(vectors=[]), "wire.malformed"),
    (BANK, "request", lambda m: msgspec.structs.replace(m, vectors=m.vectors * 2), "group_sum.index"),
    (TAX, "answer", lambda m: msgspec.structs.replace(m, bodies=m.bodies * 2), "group_sum.index"),
]


@pytest.mark.parametrize(("cheater", "kind", "change", "code"), _GROUP_SUM)
def test_group_sums(folder: Path, cheater: PartyId, kind: str, change: Change, code: str) -> None:
    other = BANK if cheater == TAX else TAX
    error = _failure(Rehearsal(_loaded(folder)), cheater, f"group_sum.{kind}", change, to=other)
    assert error.code == code


def test_a_holder_whose_bins_do_not_add_up_is_named(folder: Path) -> None:
    for which in (0, 1, 3, 4):  # counts, own columns, residuals of two rounds; 2 holds products, which have no total
        error = _failure(Rehearsal(_loaded(folder)), TAX, "group_sum.answer", _added(1), to=BANK, which=which)
        assert isinstance(error, IntegrityError)
        assert error.public.startswith("tax: the bins of feature F")


_ALIGN_AND_BIN = [
    (TAX, "align.ids", _with(ids=[]), "align.empty"),
    (BANK, "align.index", lambda m: msgspec.structs.replace(m, ids=["stranger", *m.ids[1:]]), "align.index"),
    (BANK, "align.index", lambda m: msgspec.structs.replace(m, ids=[m.ids[1], *m.ids[1:]]), "align.index"),
    (BANK, "align.index", lambda m: msgspec.structs.replace(m, test_rows=m.test_rows[:-1]), "align.index"),
    (BANK, "align.index", lambda m: msgspec.structs.replace(m, test_rows=b"\xff" * len(m.test_rows)), "align.index"),
    (BANK, "bin.basis", lambda m: msgspec.structs.replace(m, n_bad=m.n_eff + 1), "disclosure.basis"),
    (BANK, "bin.basis", _with(n_eff=10**6), "disclosure.basis"),
    (BANK, "bin.basis", _with(n_eff=0), "wire.malformed"),
    (TAX, "bin.shapes", _with(features=[]), "bin.shapes"),
    (TAX, "bin.shapes", lambda m: msgspec.structs.replace(m, features=m.features[:1] * 2), "bin.shapes"),
    (TAX, "bin.shapes", lambda m: msgspec.structs.replace(m, features=m.features[:1]), "group_sum.outputs"),
    (TAX, "bin.budgets", lambda m: msgspec.structs.replace(m, equations=m.equations[:-1]), "bin.budgets"),
    (TAX, "bin.budgets", _with(equations=[float("nan")] * 2), "wire.malformed"),
    (TAX, "bin.budgets", _with(equations=[-1.0] * 2), "wire.malformed"),
]

_SELECTION = [
    (_first_choice(code="F9"), "scorecard.choice"),
    (_first_choice(group=[0]), "scorecard.choice"),
    (_first_choice(woe=[0]), "scorecard.choice"),
    (_first_choice(woe=[0] * 9), "scorecard.choice"),
    (_first_choice(group=[], woe=[]), "scorecard.choice"),
    (_first_choice(woe=[101, 0, 0]), "wire.malformed"),
    (lambda m: msgspec.structs.replace(m, choices=m.choices[:1] * 2), "scorecard.choice"),
    (_with(own_columns=5), "group_sum.index"),
    (_with(others=[OtherHolder(party="tax", columns=2)]), "scorecard.others"),
    (_with(others=[OtherHolder(party="bank", columns=2)]), "scorecard.others"),
    (_with(others=[OtherHolder(party="coordinator", columns=2)]), "scorecard.others"),
    (_with(others=[OtherHolder(party="ghost", columns=2)]), "scorecard.others"),
    (_with(others=[OtherHolder(party="utility", columns=7)]), "group_sum.outputs"),
]

_FIT = [
    (BANK, "kept", _with(codes=["F9"]), "scorecard.kept"),
    (BANK, "kept", lambda m: msgspec.structs.replace(m, codes=m.codes[:1] * 2), "scorecard.kept"),
    (BANK, "kept", _with(codes=[]), "scorecard.points"),
    (BANK, "points", lambda m: msgspec.structs.replace(m, tables=m.tables[:-1]), "scorecard.points"),
    (
        BANK,
        "points",
        _first_table(lambda table: table[:-1]),
        "scorecard.points",
    ),
    (
        BANK,
        "points",
        _first_table(lambda table: [*table, 0]),
        "scorecard.points",
    ),
    (BANK, "points", _with(round=3), "scorecard.points"),
    (BANK, "points", _with(rows="test"), "scorecard.points"),
    (BANK, "points", _with(rows="all"), "wire.malformed"),
    (BANK, "step", _with(more=False), "wire.stage"),
    (BANK, "totals_key", _bytes("public", lambda key: key[:-1]), "bfv.length"),
    (BANK, "totals_key", _bytes("public", _flipped), "bfv.checksum"),
    (TAX, "mask_key", _with(key=bytes(32)), "masks.low-order"),
    (TAX, "mask_key", _with(key=b"\x05" * 32), "totals.range"),
    (TAX, "partial", _with(round=1), "scorecard.round"),
    (TAX, "partial", _with(rows="test"), "scorecard.round"),
    (TAX, "partial", _bytes("body", lambda body: body[:-1]), "bfv.checksum"),
    (TAX, "partial", _bytes("body", _flipped), "bfv.checksum"),
    (RELAY, "total", _with(round=1), "scorecard.round"),
    (RELAY, "total", _with(rows="test"), "scorecard.round"),
    (RELAY, "total", _bytes("body", lambda body: body[:-1]), "bfv.length"),
    (RELAY, "total", _bytes("body", _flipped), "bfv.checksum"),
    (TAX, "masked_products", lambda m: msgspec.structs.replace(m, masked=[*m.masked, b""]), "scorecard.products"),
    (TAX, "masked_products", _with(masked=[]), "scorecard.products"),
    (TAX, "masked_products", _with(other="bank"), "scorecard.products"),
    (
        TAX,
        "masked_products",
        _each("masked", lambda one: one[:-8]),
        "group-sum.mask",
    ),
    (UTILITY, "product_masks", _with(masks=[]), "scorecard.products"),
    (UTILITY, "product_masks", lambda m: msgspec.structs.replace(m, masks=[b"", *m.masks[1:]]), "group-sum.mask"),
    (
        UTILITY,
        "product_masks",
        _each("masks", lambda one: bytes(len(one))),
        "group-sum.range",
    ),
]


@pytest.mark.parametrize(("cheater", "kind", "change", "code"), _ALIGN_AND_BIN)
def test_alignment_and_binning(folder: Path, cheater: PartyId, kind: str, change: Change, code: str) -> None:
    assert _failure(Rehearsal(_loaded(folder)), cheater, kind, change).code == code


@pytest.mark.parametrize(("change", "code"), _SELECTION)
def test_a_selection_that_does_not_fit(folder: Path, change: Change, code: str) -> None:
    assert _failure(Rehearsal(_loaded(folder)), BANK, "scorecard.selection", change, to=TAX).code == code


@pytest.mark.parametrize(("cheater", "kind", "change", "code"), _FIT)
def test_fit_and_totals(folder: Path, cheater: PartyId, kind: str, change: Change, code: str) -> None:
    assert _failure(Rehearsal(_loaded(folder)), cheater, f"scorecard.{kind}", change).code == code


@pytest.mark.parametrize(("cheater", "change"), [(TAX, _with(masked=[])), (TAX, _with(other="bank"))])
def test_products_that_do_not_fit_name_both_holders(folder: Path, cheater: PartyId, change: Change) -> None:
    error = _failure(Rehearsal(_loaded(folder)), cheater, "scorecard.masked_products", change)
    assert "tax and utility" in error.public


@pytest.mark.parametrize("profile", ["rlwe-8192", "bfv-8192"])
@pytest.mark.parametrize(
    ("cheater", "kind", "field"),
    [(TAX, "answer", "bodies"), (BANK, "request", "vectors"), (TAX, "hints", "hints"), (BANK, "setup", "setup")],
)
@pytest.mark.parametrize("how", ["truncated", "emptied", "zeroed", "flipped"])
def test_damaged_ciphertext_under_a_valid_signature(
    folder: Path, profile: str, cheater: PartyId, kind: str, field: str, how: str
) -> None:
    changes = {
        "truncated": lambda data: data[:-1],
        "emptied": lambda _: b"",
        "zeroed": lambda data: bytes(len(data)),
        "flipped": _strewn if kind == "hints" else _flipped,
    }
    if (profile, kind) in {("rlwe-8192", "setup"), ("bfv-8192", "hints")}:
        changes = dict.fromkeys(changes, lambda _: b"x")  # this profile has no such bytes: any are too many
    _failure(Rehearsal(_loaded(folder, profile)), cheater, f"group_sum.{kind}", _bytes(field, changes[how]))


def test_a_label_holder_that_names_more_columns_than_the_ledger_allows_is_refused(folder: Path) -> None:
    rehearsal = Rehearsal(_loaded(folder, enforce="true"))
    error = _failure(rehearsal, BANK, "scorecard.selection", _with(own_columns=50), to=UTILITY)
    assert error.code == "ledger.cap"


def test_points_that_spell_out_bins_are_refused(folder: Path) -> None:
    """Digits of one number: whatever the noise, the total would give the bin of every row."""

    def changed(message: Any) -> Any:
        tables = [[(bin_ + 1) << (8 * place) for bin_ in range(len(t))] for place, t in enumerate(message.tables)]
        return msgspec.structs.replace(message, tables=tables)

    error = _failure(Rehearsal(_loaded(folder)), BANK, "scorecard.points", changed, to=UTILITY)
    assert error.code == "scorecard.table"


def test_a_vanished_holder_is_named_within_the_time_out_and_the_others_end(folder: Path) -> None:
    async def gone(channel: Channel, _holding: Holding, _held: Held) -> None:
        channel.stage("reference")
        await asyncio.Event().wait()

    rehearsal = Rehearsal(_loaded(folder), cheats={UTILITY: gone}, timeout_s=0.3)
    network = rehearsal.network()
    started = time.perf_counter()
    with pytest.raises(TransportError, match="utility"):
        rehearsal.play(network)
    assert time.perf_counter() - started < 60
    assert {BANK, TAX, RELAY} <= network.failures.keys()
