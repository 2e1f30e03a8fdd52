"""A hand on the wire of a boosting run: messages lost, doubled, damaged or played again end in a named error."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import BY_REGISTER, Sample, write_sample
from fedcredit.errors import FedCreditError, TransportError
from fedcredit.protocol.boost.messages import SCHEMA, ChosenPaths
from fedcredit.protocol.group_sum.messages import SCHEMA as GROUP_SUM
from fedcredit.types import PartyId

pytestmark = pytest.mark.usefixtures("virtual_time")

BANK, TAX, UTILITY = (PartyId(name) for name in ("bank", "tax", "utility"))
KINDS = [one.kind for schema in (SCHEMA, GROUP_SUM) for one in schema.messages if one.message is not ChosenPaths]
HIDDEN_KINDS = ["align.register", "select.rows", "boost.bitmaps", "boost.chosen_paths"]
"""Kinds that a run by a register has in place of others, or with other content."""
SECTIONS = """
[crypto]
profile = "unsafe-plaintext"
[privacy]
enforce = false
noise_rows = 0.0
[boost]
trees = 3
depth = 2
bins = 6
holder_bins = 5
min_bin_rows = 20
min_child_rows = 10
column_sampling = 0.5
"""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    sample = Sample(500, {BANK: 1, TAX: 2, UTILITY: 2}, sections=SECTIONS, model="boost")
    return Rehearsal(write_sample(tmp_path_factory.mktemp("boost-wire"), sample), timeout_s=0.5)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """The same by a register: rows that do not count are mixed in."""
    columns = {"bank": 1, "tax": 2, "utility": 2}
    sample = Sample(500, columns, sections=SECTIONS, model="boost", align=BY_REGISTER, strangers=100)
    return Rehearsal(write_sample(tmp_path_factory.mktemp("boost-hidden"), sample), timeout_s=2.0)


def ended(rehearsal: Rehearsal, happened: Callable[[], bool]) -> FedCreditError:
    network = rehearsal.network()
    started = time.perf_counter()
    with pytest.raises(FedCreditError) as caught:
        rehearsal.play(network)
    assert time.perf_counter() - started < 60  # the first run on a machine compiles
    assert happened()
    strange = {party: error for party, error in network.failures.items() if not isinstance(error, FedCreditError)}
    assert strange == {}
    return caught.value


class Hand:
    """Damages the first message of one kind; remembers whose it was."""

    def __init__(self, kind: str, how: str) -> None:
        self._kind, self._how = kind, how
        self.sender = ""

    def __call__(self, sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        del recipient
        if kind != self._kind or self.sender:
            return (data,)
        self.sender = sender
        at = len(data) // 2
        return {
            "drop": (),
            "twice": (data, data),
            "flip": (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],),
            "cut": (data[:at],),
        }[self._how]


@pytest.mark.parametrize("how", ["drop", "twice", "flip", "cut"])
@pytest.mark.parametrize(
    ("run", "kind"), [("honest", kind) for kind in KINDS] + [("hidden", kind) for kind in HIDDEN_KINDS]
)
def test_a_hand_on_the_wire(run: str, kind: str, how: str, request: pytest.FixtureRequest) -> None:
    honest: Rehearsal = request.getfixturevalue(run)
    hand = Hand(kind, how)
    error = ended(replace(honest, tamper=hand), lambda: bool(hand.sender))
    assert error.exit_code == 3
    # Where nothing comes, it is a matter of who gets tired first which of two waiting parties is named.
    assert hand.sender in error.public or (how == "drop" and isinstance(error, TransportError))


def test_a_message_of_an_earlier_tree_played_again(honest: Rehearsal) -> None:
    kept: list[bytes] = []

    def replays(sender: PartyId, recipient: PartyId, kind: str, data: bytes) -> tuple[bytes, ...]:
        if (sender, recipient, kind) != (BANK, TAX, "boost.splits"):
            return (data,)
        kept.append(data)
        return (kept[0],) if len(kept) == 3 else (data,)

    error = ended(replace(honest, tamper=replays), lambda: len(kept) > 2)
    assert "bank" in error.public


@pytest.mark.parametrize("run", ["honest", "hidden"])
def test_without_a_hand_it_ends_well(run: str, request: pytest.FixtureRequest) -> None:
    results = request.getfixturevalue(run).play()
    assert len(results[BANK].trees.model.trees) == 3
    assert sum(results[BANK].trees.counts.values()) > 0
