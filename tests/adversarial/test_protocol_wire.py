"""A hand on the wire of a real run: every kind of message, damaged or gone, ends in a named error within seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import BY_REGISTER, Sample, write_sample
from fedcredit.errors import FedCreditError, PeerError, TransportError
from fedcredit.protocol.scorecard.roles import SCHEMAS
from fedcredit.protocol.select.messages import SCHEMA as SELECT_SCHEMA
from fedcredit.types import PartyId
from fedcredit.wire.envelope import Envelope

pytestmark = pytest.mark.usefixtures("virtual_time")

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
[privacy]
enforce = false
"""
OPEN, BY_THE_REGISTER = {"align.ids", "align.index"}, {"align.register"}
IN_PLAIN = {"scorecard.masked_products", "scorecard.product_masks"}
ALL = {declared.kind for schema in SCHEMAS for declared in schema.messages}
BLIND = {kind for kind in ALL if kind.startswith("align.")} - OPEN - BY_THE_REGISTER
"""Messages of blind alignment, which has its own tests."""
SELECT = {declared.kind for declared in SELECT_SCHEMA.messages}
KINDS = {
    "honest": sorted(ALL - BLIND - BY_THE_REGISTER - SELECT),
    "hidden": sorted(ALL - BLIND - OPEN - IN_PLAIN),
}
"""Kinds of messages of each run."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    sample = Sample(400, {"bank": 1, "tax": 2, "utility": 2}, sections=SECTIONS)
    return Rehearsal(write_sample(tmp_path_factory.mktemp("wire"), sample), timeout_s=0.5)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """The same by a register: rows that do not count are mixed in."""
    sample = Sample(400, {"bank": 1, "tax": 2, "utility": 2}, sections=SECTIONS, align=BY_REGISTER, strangers=100)
    return Rehearsal(write_sample(tmp_path_factory.mktemp("hidden"), sample), timeout_s=2.0)


class Hand:
    """Changes the first message of one kind; remembers whose it was."""

    def __init__(self, kind: str, how: str) -> None:
        self._kind, self._how = kind, how
        self.victim: tuple[PartyId, PartyId] | None = None

    def __call__(self, sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> Sequence[bytes]:
        if kind != self._kind or self.victim is not None:
            return (data,)
        self.victim = (sender, recipient)
        if self._how == "drop":
            return ()
        if self._how == "cut":
            return (data[: len(data) // 2],)
        envelope = msgspec.msgpack.decode(data, type=Envelope)
        body = envelope.body[:-1]
        if self._how == "flip":
            at = len(envelope.body) // 2
            body = envelope.body[:at] + bytes([envelope.body[at] ^ 4]) + envelope.body[at + 1 :]
        return (msgspec.msgpack.encode(msgspec.structs.replace(envelope, body=body)),)


@pytest.mark.parametrize("run", KINDS)
def test_the_honest_run_has_every_kind_of_message(run: str, request: pytest.FixtureRequest) -> None:
    honest = request.getfixturevalue(run)
    network = honest.network()
    honest.play(network)
    assert {entry.kind for entry in network.transcript} == set(KINDS[run])


_DAMAGED = [("honest", kind) for kind in KINDS["honest"]] + [
    ("hidden", kind) for kind in KINDS["hidden"] if kind not in KINDS["honest"] or kind == "scorecard.total"
]


@pytest.mark.parametrize("how", ["flip", "truncate", "cut", pytest.param("drop", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("run", "kind"), _DAMAGED)
def test_a_damaged_message_of_any_kind_ends_in_a_named_error(
    run: str, kind: str, how: str, request: pytest.FixtureRequest
) -> None:
    honest = request.getfixturevalue(run)
    hand = Hand(kind, how)
    network = replace(honest, tamper=hand).network()
    started = time.perf_counter()
    with pytest.raises(PeerError if how != "drop" else (PeerError, TransportError)) as caught:
        replace(honest, tamper=hand).play(network)
    assert time.perf_counter() - started < 60  # the first run on a machine compiles
    assert hand.victim is not None
    sender, recipient = hand.victim
    assert all(isinstance(error, FedCreditError) for error in network.failures.values())
    if how == "drop":  # the next message of the link shows the gap, or the wait ends with the missing sender's name
        assert caught.value.code in {"wire.gap", "run.timeout", "run.peer-ended"}
    else:
        assert caught.value.code == ("wire.malformed" if how == "cut" else "wire.signature")
        assert sender in caught.value.public
        assert network.failures[recipient] is caught.value


@pytest.mark.parametrize("gone", ["tax", "utility", "bank", "coordinator"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_party_that_falls_silent_is_named_and_the_others_end(honest: Rehearsal, gone: str, share: float) -> None:
    network = honest.network()
    honest.play(network)
    last = int(share * sum(entry.sender == gone for entry in network.transcript))
    count = 0

    def silent(sender: PartyId, _recipient: PartyId, _kind: str, data: bytes) -> Sequence[bytes]:
        nonlocal count
        count += sender == gone
        return () if sender == gone and count > last else (data,)

    network = replace(honest, tamper=silent).network()
    started = time.perf_counter()
    with pytest.raises(TransportError) as caught:
        replace(honest, tamper=silent).play(network)
    assert time.perf_counter() - started < 60  # the first run on a machine compiles
    # the silent party itself may be the first to lose patience: it does not know that nobody hears it
    assert gone in caught.value.public or next(iter(network.failures)) == gone
    assert network.failures.keys() - {PartyId(gone)}
    assert all(isinstance(error, FedCreditError) for error in network.failures.values())
