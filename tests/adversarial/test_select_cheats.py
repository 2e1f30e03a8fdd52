"""Parties of a run by a register that sign what they should not: named errors, of the product's own types, no hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from fedcredit.attack.recorder import recording
from fedcredit.attack.rehearsal import Rehearsal, Reseal
from fedcredit.attack.sample import BY_REGISTER, REGISTER, Sample, write_sample
from fedcredit.crypto.prg import SystemEntropy
from fedcredit.crypto.secret import RunSecret
from fedcredit.crypto.slots import Selection, SlotsSecret, add
from fedcredit.crypto.slots_parameters import MODULUS
from fedcredit.errors import FedCreditError, IntegrityError, PeerError
from fedcredit.protocol.align import roles
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.align.registry import register_digest, registry_holder
from fedcredit.protocol.boost import feature_holder as trees
from fedcredit.protocol.boost.roles import SCHEMAS as BOOST_SCHEMAS
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.protocol.scorecard import coordinator
from fedcredit.protocol.scorecard.roles import SCHEMAS
from fedcredit.protocol.select.feature_holder import take_rows
from fedcredit.protocol.select.messages import RowChoice
from fedcredit.spec.load import LoadedSpec
from fedcredit.types import PartyId
from fedcredit.wire.envelope import Envelope
from fedcredit.wire.message import Message, decode_struct

pytestmark = pytest.mark.usefixtures("virtual_time")

BANK, TAX, UTILITY, RELAY = (PartyId(name) for name in ("bank", "tax", "utility", "coordinator"))
TYPES: dict[str, type[Message]] = {
    one.kind: one.message for schema in (*SCHEMAS, *BOOST_SCHEMAS) for one in schema.messages
}
ROWS, STRANGERS = 500, 200
SECTIONS = """
[crypto]
profile = "unsafe-plaintext"
[bin]
prebins = 4
min_prebin_rows = 20
min_goods = 5
min_bads = 5
max_bins = 3
[scorecard]
min_iv = 0.0
[boost]
trees = 2
depth = 2
min_bin_rows = 20
[privacy]
enforce = false
noise_rows = 0.0
"""

Change = Callable[[Any], Any]
Ints = NDArray[np.int64]


@pytest.fixture(scope="module")
def scorecard(tmp_path_factory: pytest.TempPathFactory) -> LoadedSpec:
    return _loaded(tmp_path_factory.mktemp("scorecard"))


@pytest.fixture(scope="module")
def boost(tmp_path_factory: pytest.TempPathFactory) -> LoadedSpec:
    return _loaded(tmp_path_factory.mktemp("boost"), "boost")


def _loaded(folder: Path, model: str = "scorecard") -> LoadedSpec:
    columns = {"bank": 1, "tax": 2, "utility": 2}
    sample = Sample(ROWS, columns, sections=SECTIONS, model=model, align=BY_REGISTER, strangers=STRANGERS)
    return write_sample(folder, sample)


def _failure(
    loaded: LoadedSpec, cheater: PartyId, kind: str, change: Change, *, to: str = "", which: int = 0
) -> FedCreditError:
    """Plays a run in which one message is changed by its own sender; returns the error that ends it."""
    rehearsal, seen = Rehearsal(loaded), 0

    def rewrite(_sender: PartyId, recipient: PartyId, found: str, body: bytes) -> bytes | None:
        nonlocal seen
        if found != kind or (to and recipient != to):
            return None
        seen += 1
        return None if seen - 1 != which else msgspec.msgpack.encode(change(decode_struct(TYPES[kind], body, kind)))

    hand = Reseal({cheater: rehearsal.keys()[cheater]}, rewrite)
    error = _ended(replace(rehearsal, tamper=hand))
    assert seen > which
    return error


def _ended(rehearsal: Rehearsal) -> FedCreditError:
    network = replace(rehearsal, timeout_s=2.0).network()
    started = time.perf_counter()
    with pytest.raises(FedCreditError) as caught:
        rehearsal.play(network)
    assert time.perf_counter() - started < 60  # the first run on a machine compiles
    assert {party for party, error in network.failures.items() if not isinstance(error, FedCreditError)} == set()
    return caught.value


def _with(**fields: Any) -> Change:
    return lambda message: msgspec.structs.replace(message, **fields)


def _bytes(field: str, change: Callable[[bytes], bytes]) -> Change:
    """Changes a field of bytes, or the first of a list of them."""

    def changed(message: Any) -> Any:
        value = getattr(message, field)
        new = change(value) if isinstance(value, bytes) else [change(value[0]), *value[1:]]
        return msgspec.structs.replace(message, **{field: new})

    return changed


def _list(field: str, change: Callable[[list[Any]], list[Any]]) -> Change:
    return lambda message: msgspec.structs.replace(message, **{field: change(getattr(message, field))})


def _flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _nothing(_data: bytes) -> bytes:
    return b""


OTHER = SlotsSecret()
"""A key of nobody in the run."""
EVERYONE = np.ones(ROWS + STRANGERS, np.int64)

_ALIGN = [
    (_with(digest=bytes(32)), "align.register"),
    (_with(rows=ROWS), "align.register"),
    (_with(digest=register_digest([f"r{row:05d}" for row in range(ROWS + STRANGERS)])), "align.register"),
    (_with(digest=bytes(31)), "wire.malformed"),
    (_with(rows=0), "wire.malformed"),
    (_with(rows=1 << 30), "wire.malformed"),
]


@pytest.mark.parametrize(("change", "code"), _ALIGN)
def test_another_register(scorecard: LoadedSpec, change: Change, code: str) -> None:
    error = _failure(scorecard, BANK, "align.register", change, to=TAX)
    assert error.code == code
    assert "bank" in error.public


def test_a_party_with_another_file_finds_out_before_anything_is_told(tmp_path: Path) -> None:
    """One id more at the label holder: the register is not the holders', and no id is in the error."""
    loaded = _loaded(tmp_path)
    rehearsal = Rehearsal(loaded)
    with recording() as notes, pytest.MonkeyPatch.context() as patch:

        async def other(channel: Any, leader: PartyId, own: Any, register: Any, seed: int) -> RowIndex:
            return await registry_holder(channel, leader, own, [*register[:-1], "another"], seed)

        patch.setattr(roles, "registry_holder", other)
        error = _ended(rehearsal)
    assert error.code == "align.register"
    assert "another" not in error.public
    assert not [message for to, _, message in notes.received if to == BANK and "bin" in type(message).__module__]


def test_no_customer_in_the_register_is_the_label_holders_error(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path)
    pl.DataFrame({"id": ["x1", "x2"]}).write_csv(tmp_path / REGISTER)
    assert _ended(Rehearsal(loaded)).code == "align.empty"


_CHOICE: list[tuple[Change, str]] = [
    (_bytes("public", _cut), "bfv.length"),
    (_bytes("public", _flipped), "bfv.checksum"),
    (_bytes("public", _nothing), "bfv.length"),
    (_bytes("train", _cut), "bfv.checksum"),
    (_bytes("train", _flipped), "bfv.checksum"),
    (_bytes("test", _nothing), "bfv.length"),
    (_bytes("test", lambda body: bytes(len(body))), "bfv.kind"),
    (_with(public=OTHER.public_bytes()), "slots.key"),
    (_with(train=OTHER.encrypt(EVERYONE)), "slots.key"),
    (lambda m: msgspec.structs.replace(m, train=m.public), "bfv.kind"),
    (_with(train_commitment=bytes(31)), "wire.malformed"),
]


@pytest.mark.parametrize(("change", "code"), _CHOICE)
def test_a_choice_that_is_none(scorecard: LoadedSpec, change: Change, code: str) -> None:
    error = _failure(scorecard, BANK, "select.rows", change, to=UTILITY)
    assert error.code == code
    assert "bank" in error.public


@pytest.mark.parametrize("rows", [1, ROWS, ROWS + STRANGERS + 1, 8192])
def test_a_choice_among_another_number_of_rows(scorecard: LoadedSpec, rows: int) -> None:
    body = OTHER.encrypt(np.ones(rows, np.int64))
    change = _with(public=OTHER.public_bytes(), train=body, test=body)
    error = _failure(scorecard, BANK, "select.rows", change, to=TAX)
    assert error.code == "select.rows"
    assert f"{rows} rows, of {ROWS + STRANGERS}" in error.public


_PRODUCTS: list[tuple[PartyId, str, Change, str]] = [
    (TAX, "columns", _list("bodies", lambda bodies: bodies[:-1]), "select.columns"),
    (TAX, "columns", _list("bodies", lambda bodies: bodies * 2), "select.columns"),
    (TAX, "columns", _with(bodies=[]), "wire.malformed"),
    (TAX, "columns", _bytes("bodies", _cut), "bfv.length"),
    (TAX, "columns", _bytes("bodies", _flipped), "bfv.checksum"),
    (TAX, "shades", _list("bodies", lambda bodies: bodies[:-1]), "select.columns"),
    (TAX, "shades", _bytes("bodies", _flipped), "bfv.checksum"),
    (TAX, "shades", _bytes("public", _cut), "bfv.length"),
    (TAX, "shades", _with(public=OTHER.public_bytes()), "slots.key"),
    (BANK, "shared", _with(of="utility"), "select.columns"),
    (BANK, "shared", _list("bodies", lambda bodies: bodies[:-1]), "select.columns"),
    (BANK, "shared", _bytes("bodies", _cut), "bfv.checksum"),
    (UTILITY, "sums", _with(of="bank"), "select.sums"),
    (UTILITY, "sums", _bytes("body", _cut), "bfv.length"),
    (UTILITY, "sums", _bytes("body", _flipped), "bfv.checksum"),
    (UTILITY, "shade_sums", _bytes("body", _cut), "bfv.length"),
    (UTILITY, "shade_sums", _bytes("body", _flipped), "bfv.checksum"),
    (TAX, "opened_sums", _with(other="bank"), "select.sums"),
    (TAX, "opened_sums", _list("sums", lambda sums: sums[:-1]), "select.sums"),
    (TAX, "opened_sums", _list("sums", lambda sums: [row[:-1] for row in sums]), "select.sums"),
    (TAX, "opened_sums", _list("sums", lambda sums: [[0] * len(row) for row in sums]), "slots.range"),
    (TAX, "opened_sums", _list("sums", lambda sums: [[MODULUS] * len(row) for row in sums]), "slots.shares"),
    (TAX, "opened_sums", _list("sums", lambda sums: [[-1] * len(row) for row in sums]), "wire.malformed"),
    (
        TAX,
        "opened_sums",
        _list("sums", lambda sums: [[(one + (1 << 30)) % MODULUS for one in row] for row in sums]),
        "slots.range",
    ),
]


@pytest.mark.parametrize(("cheater", "kind", "change", "code"), _PRODUCTS)
def test_products_of_two_holders(scorecard: LoadedSpec, cheater: PartyId, kind: str, change: Change, code: str) -> None:
    error = _failure(scorecard, cheater, f"select.{kind}", change)
    assert error.code == code
    assert cheater in error.public


_TOTALS: list[tuple[PartyId, str, Change, str]] = [
    (BANK, "totals_key", _with(public=OTHER.public_bytes()), "scorecard.key"),
    (BANK, "totals_key", _bytes("public", _flipped), "scorecard.key"),
    (TAX, "partial", _bytes("body", _cut), "bfv.checksum"),
    (TAX, "partial", _bytes("body", _flipped), "bfv.checksum"),
    (TAX, "partial", _with(round=1), "scorecard.round"),
    (TAX, "mask_key", _with(key=b"\x05" * 32), "slots.range"),
    (RELAY, "total", _bytes("body", _cut), "bfv.length"),
    (RELAY, "total", _bytes("body", _flipped), "bfv.checksum"),
    (RELAY, "total", _with(rows="test"), "scorecard.round"),
]


@pytest.mark.parametrize(("cheater", "kind", "change", "code"), _TOTALS)
def test_totals(scorecard: LoadedSpec, cheater: PartyId, kind: str, change: Change, code: str) -> None:
    to = TAX if kind == "totals_key" else ""
    assert _failure(scorecard, cheater, f"scorecard.{kind}", change, to=to).code == code


def test_a_partial_to_an_earlier_choice_is_refused_where_it_is_added(scorecard: LoadedSpec) -> None:
    """An answer to the held-out rows in place of one to the training rows: of the same key, to another request."""
    given: dict[str, bytes] = {}

    def rewrite(_sender: PartyId, _to: PartyId, kind: str, body: bytes) -> bytes | None:
        if kind != "scorecard.partial" or "choice" not in given:
            return None
        message = decode_struct(TYPES[kind], body, kind)
        answer = Selection(given["public"], given["choice"]).select(EVERYONE, None)
        return msgspec.msgpack.encode(msgspec.structs.replace(message, body=answer))

    rehearsal = Rehearsal(scorecard)
    hand = Reseal({TAX: rehearsal.keys()[TAX]}, rewrite)

    def overheard(sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        if kind == "select.rows" and recipient == TAX:
            given.update(public=OTHER.public_bytes(), choice=OTHER.encrypt(EVERYONE))
        return hand(sender, recipient, kind, data)

    assert _ended(replace(rehearsal, tamper=overheard)).code == "slots.parts"


class _Adds:
    """A coordinator that adds something of its own to each row of some total."""

    def __init__(self, what: Callable[[int], Ints], which: int = 0) -> None:
        self._what, self._which, self._seen = what, which, 0
        self._choice: dict[str, bytes] = {}

    def __call__(self, parts: list[bytes], public: bytes) -> bytes:
        self._seen += 1
        if self._seen - 1 != self._which:
            return add(parts, public)
        # Any answer to the same request can be added; with a holder it sees the request as holders do.
        values = self._what(ROWS + STRANGERS)
        return add(
            [*parts, Selection(public, self._choice["train"]).select(values * 0, values.astype(np.uint64))], public
        )

    def watch(self, _sender: PartyId, _recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        if kind == "select.rows":
            message = decode_struct(TYPES[kind], decode_struct(Envelope, data, "envelope").body, kind)
            self._choice["train"] = message.train  # type: ignore[attr-defined]
        return (data,)


def test_a_coordinator_that_adds_to_rows_nobody_asked_for_is_named(
    scorecard: LoadedSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheat = _Adds(lambda rows: np.full(rows, 5))
    monkeypatch.setattr(coordinator, "add_selected", cheat)
    error = _ended(Rehearsal(scorecard, tamper=cheat.watch))
    assert (error.code, "coordinator" in error.public) == ("select.total", True)
    assert not [word for word in error.public.split() if word.startswith("r0")]


def test_a_coordinator_that_adds_more_than_any_total_is_named(
    scorecard: LoadedSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheat = _Adds(lambda rows: np.full(rows, MODULUS // 3))
    monkeypatch.setattr(coordinator, "add_selected", cheat)
    error = _ended(Rehearsal(scorecard, tamper=cheat.watch))
    assert (error.code, "coordinator" in error.public) == ("slots.range", True)


def test_a_coordinator_that_leaves_a_holder_out_is_named(
    scorecard: LoadedSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "add_selected", lambda parts, public: add(parts[:1], public))
    error = _ended(Rehearsal(scorecard))
    assert (error.code, "coordinator" in error.public) == ("slots.range", True)


def test_a_coordinator_that_sends_the_total_of_another_round_is_named(
    scorecard: LoadedSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same request, so that its bytes are in order: the totals do not fit what was asked this time."""
    kept: list[bytes] = []

    def first_again(parts: list[bytes], public: bytes) -> bytes:
        kept.append(add(parts, public))
        return kept[0]

    monkeypatch.setattr(coordinator, "add_selected", first_again)
    error = _ended(Rehearsal(scorecard))
    assert error.code in {"slots.tag", "scorecard.totals"}
    assert "coordinator" in error.public


_TREES: list[tuple[str, Change, str]] = [
    ("bitmaps", _list("bitmaps", lambda bodies: bodies[:-1]), "boost.bitmaps"),
    ("bitmaps", _bytes("bitmaps", _cut), "bfv.length"),
    ("bitmaps", _bytes("bitmaps", _flipped), "bfv.checksum"),
    ("bitmaps", _with(tree=7), "boost.bitmaps"),
    ("chosen_paths", _list("bodies", lambda bodies: bodies[:-1]), "boost.paths"),
    ("chosen_paths", _bytes("bodies", _cut), "bfv.length"),
    ("chosen_paths", _bytes("bodies", _flipped), "bfv.checksum"),
]


@pytest.mark.parametrize(("kind", "change", "code"), _TREES)
def test_bits_of_rows(boost: LoadedSpec, kind: str, change: Change, code: str) -> None:
    error = _failure(boost, TAX, f"boost.{kind}", change)
    assert error.code == code
    assert "tax" in error.public


@pytest.mark.parametrize(("code", "answer"), [("slots.range", 2), ("select.bits", -1)])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_holder_that_answers_something_else_than_a_bit_is_named(
    boost: LoadedSpec, part: str, code: str, answer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Selection.select
    requests: list[Any] = []

    async def taken(*args: Any, **kwargs: Any) -> Any:
        found = await take(*args, **kwargs)
        requests.append(getattr(found, part))
        return found

    def lying(self: Selection, values: Ints, masks: Any) -> bytes:
        return honest(self, values * answer if any(self is one for one in requests) else values, masks)

    take = take_rows
    monkeypatch.setattr(trees, "take_rows", taken)
    monkeypatch.setattr(Selection, "select", lying)
    error = _ended(Rehearsal(boost))
    assert error.code == code
    assert isinstance(error, PeerError)
    assert "tax" in error.public or "utility" in error.public


def test_a_holder_that_adds_bits_to_rows_that_do_not_count_is_named(
    boost: LoadedSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Selection.select
    everywhere = np.ones(ROWS + STRANGERS, np.uint64)
    monkeypatch.setattr(Selection, "select", lambda self, values, _masks: honest(self, values * 0, everywhere))
    error = _ended(Rehearsal(boost))
    assert error.code == "select.bits"
    assert "tax" in error.public or "utility" in error.public


def test_a_choice_is_bound_for_the_run(scorecard: LoadedSpec) -> None:
    """What a label holder may not do after a restart: choose other rows of the same run."""

    class Binds:
        def __init__(self) -> None:
            self.bound: dict[tuple[str, str], str] = {}

        def record(self, what: str, entry: Any) -> None:
            del what, entry

        def bind(self, what: str, name: str, content: str) -> None:
            if self.bound.setdefault((what, name), content) != content:
                raise IntegrityError("escrow.bound", f"{what} {name}: other content than before")

    class Sends:
        def __init__(self, message: RowChoice) -> None:
            self.message = message

        async def receive(self, *_: Any) -> RowChoice:
            return self.message

    body = OTHER.encrypt(EVERYONE)
    message = RowChoice(
        public=OTHER.public_bytes(), train=body, test=body, train_commitment=bytes(32), test_commitment=bytes(32)
    )
    keep = KeptSecrets(RunSecret.fresh(), SystemEntropy(), Binds())
    assert scorecard.spec.align.hidden
    for _ in range(2):
        asyncio.run(take_rows(Sends(message), BANK, len(EVERYONE), keep))  # type: ignore[arg-type]
    other = msgspec.structs.replace(message, train_commitment=bytes(31) + b"\x01")
    with pytest.raises(IntegrityError):
        asyncio.run(take_rows(Sends(other), BANK, len(EVERYONE), keep))  # type: ignore[arg-type]


def test_products_name_both_holders_where_either_may_have_lied(scorecard: LoadedSpec) -> None:
    change = _list("sums", lambda sums: [[0] * len(row) for row in sums])
    error = _failure(scorecard, TAX, "select.opened_sums", change)
    assert "tax and utility" in error.public
