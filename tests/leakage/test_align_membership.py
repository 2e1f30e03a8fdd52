"""What a feature holder of blind alignments can say of who is a customer: no more than the counts, 1 in 2.

The attacker is a feature holder that kept every byte it received and sent in many real runs, knows its own shuffles,
and was told the truth about half of the runs. It sees nothing of time. A leak that is planted has to be found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from fedcredit.attack.blind_rehearsal import BlindRehearsal
from fedcredit.attack.recorder import Recording, recording
from fedcredit.crypto import blind_reply
from fedcredit.crypto.blind_shuffle import undo
from fedcredit.crypto.secret import RunSecret
from fedcredit.protocol.align import blind_coordinator, blind_label_holder
from fedcredit.protocol.align.blind_pieces import NOWHERE
from fedcredit.protocol.align.blind_shuffler import Shuffler
from fedcredit.protocol.align.messages import Places, Replies, Tokens
from fedcredit.types import PartyId, RunId

BANK, TAX, WATER = (PartyId(name) for name in ("bank", "tax", "water"))
REGISTER = [f"E{number:03d}" for number in range(160)]
CUSTOMERS = 40
RUNS = 12

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Attacked:
    """The common rows of several runs.

    Args:
        features: float64 (runs * rows, features), everything the tax office can attach to a row.
        customers: bool (runs * rows,), the truth.
        rows: Rows of one run.
    """

    features: Floats
    customers: NDArray[np.bool_]
    rows: int

    def auc(self) -> float:
        """How well an attacker that was told the truth of the first half of the runs does on the others."""
        half = len(self.customers) // self.rows // 2 * self.rows
        model = HistGradientBoostingClassifier(max_iter=60, max_depth=3, random_state=0)
        model.fit(self.features[:half], self.customers[:half])
        return float(roc_auc_score(self.customers[half:], model.predict_proba(self.features[half:])[:, 1]))

    def single(self) -> Floats:
        """AUC of each feature by itself."""
        return np.array([roc_auc_score(self.customers, column) for column in self.features.T])

    def tolerance(self, rows: int) -> float:
        """Four standard errors of an AUC of 0.5, half of the rows being customers."""
        return 4 * float(np.sqrt((rows + 1) / (12 * (rows / 2) ** 2)))


@contextmanager
def _orders() -> Iterator[dict[tuple[PartyId, PartyId], Indices]]:
    """Every shuffle of a run, by (party, owner of the list): a party knows its own."""
    found: dict[tuple[PartyId, PartyId], Indices] = {}
    original = Shuffler._order

    def kept(self: Shuffler, owner: PartyId, entries: int, content: bytes) -> Indices:
        found[self.me, owner] = original(self, owner, entries, content)
        return found[self.me, owner]

    Shuffler._order = kept  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Shuffler._order = original  # type: ignore[method-assign]


def _bytes(notes: Recording, kind: type[Any], sender: PartyId, owner: PartyId | None = None) -> bytes:
    """The pieces of one list as the tax office received them."""
    field = {"Tokens": "tokens", "Replies": "pairs", "Places": "places"}[kind.__name__]
    return b"".join(
        getattr(message, field)
        for party, found, message in notes.received
        if (party, found) == (TAX, sender) and isinstance(message, kind) and (owner is None or message.owner == owner)
    )


def _numbers(data: bytes, size: int) -> Floats:
    """The first and the last word of each entry."""
    words = np.frombuffer(data, dtype="<u4").reshape(-1, size // 4)
    return words[:, [0, -1]].astype(np.float64)


def _seen(notes: Recording, orders: dict[tuple[PartyId, PartyId], Indices]) -> Floats:
    """Everything that the tax office can attach to a place of the common order, float64 (rows, features)."""
    of_bank = np.frombuffer(_bytes(notes, Places, BANK, BANK), dtype="<i4")
    of_water = np.frombuffer(_bytes(notes, Places, PartyId("coordinator"), WATER), dtype="<i4")
    of_water = of_water[undo(orders[TAX, WATER])]  # in the order in which the bank handed that list on
    own_sent = np.frombuffer(_bytes(notes, Places, WATER, TAX), dtype="<i4")
    own = own_sent[undo(orders[TAX, TAX])]
    replies = _numbers(_bytes(notes, Replies, WATER), 64)[undo(orders[TAX, BANK])]
    rows = int(of_bank.max()) + 1
    columns: list[Floats] = [np.arange(rows, dtype=np.float64)[:, None]]
    for places, more in (
        (of_bank, [_numbers(_bytes(notes, Tokens, BANK, BANK), 32), replies]),
        (of_water, [_numbers(_bytes(notes, Tokens, BANK, WATER), 32)]),
        (own_sent, []),
        (own, []),
    ):
        (entries,) = (places != NOWHERE).nonzero()
        at = entries[np.argsort(places[entries])]
        columns += [at.astype(np.float64)[:, None], *(values[at] for values in more)]
    return np.hstack(columns)


def _lists(number: int) -> dict[PartyId, list[str]]:
    """Tables in an order that says nothing; the tax office and water know every id of the register."""
    shuffle = np.random.default_rng(number).permutation
    return {
        BANK: [REGISTER[at] for at in shuffle(160)[:CUSTOMERS]],
        TAX: [REGISTER[at] for at in shuffle(160)],
        WATER: [REGISTER[at] for at in shuffle(160)],
    }


def _attacked(runs: int = RUNS) -> Attacked:
    features, customers = [], []
    for number in range(runs):
        lists = _lists(number)
        secrets = {party: RunSecret(hashlib.sha256(f"{party}{number}".encode()).digest()) for party in lists}
        key = hashlib.sha256(b"%d" % number).digest()
        rehearsal = BlindRehearsal(lists, REGISTER, run=RunId(f"run{number}"), decoy_key=key, secrets=secrets)
        with _orders() as orders, recording() as notes:
            index = rehearsal.play()[TAX]
        features.append(_seen(notes, orders))
        customers.append(np.array([one in set(lists[BANK]) for one in index.ids]))
    return Attacked(np.vstack(features), np.concatenate(customers), len(customers[0]))


@pytest.fixture(scope="module")
def honest() -> Attacked:
    return _attacked()


def test_by_counts_a_row_is_a_customers_with_probability_one_half(honest: Attacked) -> None:
    assert honest.rows == 2 * CUSTOMERS
    each_run = honest.customers.reshape(RUNS, honest.rows)
    assert (each_run.sum(axis=1) == CUSTOMERS).all()


def test_nothing_received_tells_customers_from_decoys(honest: Attacked) -> None:
    assert honest.features.shape == (RUNS * 2 * CUSTOMERS, 11)
    assert abs(honest.auc() - 0.5) < honest.tolerance(len(honest.customers) // 2)
    assert (np.abs(honest.single() - 0.5) < honest.tolerance(len(honest.customers))).all()


def _plain_order(self: Shuffler, owner: PartyId, entries: int, content: bytes) -> Indices:
    """The bank forgets to shuffle its own list: customers come first."""
    del content
    order = np.arange(entries) if self.me == owner == BANK else np.random.default_rng(entries).permutation(entries)
    self._orders[owner] = order
    return order


def _customers_first(hands: Shuffler, chosen: Indices, inputs: Any) -> Indices:
    """The bank forgets to draw an order."""
    del hands, inputs
    return chosen


@pytest.mark.parametrize(
    ("place", "name", "planted"),
    [(Shuffler, "_order", _plain_order), (blind_label_holder, "_in_random_order", _customers_first)],
    ids=["list not shuffled", "order not drawn"],
)
def test_a_planted_order_is_found(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, planted: Callable[..., Indices]
) -> None:
    monkeypatch.setattr(place, name, planted)
    attacked = _attacked(6)
    assert attacked.auc() > 0.9
    with pytest.raises(AssertionError):
        test_nothing_received_tells_customers_from_decoys(attacked)


def _blocks(notes: Recording, holder: PartyId) -> list[bytes]:
    """Every point that a feature holder received."""
    data = b"".join(
        message.tokens if isinstance(message, Tokens) else message.pairs
        for party, _, message in notes.received
        if party == holder and isinstance(message, (Tokens, Replies))
    )
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def _recorded(number: int) -> Recording:
    with recording() as notes:
        BlindRehearsal(_lists(number), REGISTER).play()
    return notes


@pytest.mark.parametrize("holder", [TAX, WATER])
def test_no_point_comes_twice_in_a_run_or_in_two(holder: PartyId) -> None:
    first, second = (_blocks(_recorded(0), holder) for _ in range(2))
    assert len(first) == len(set(first)) == len(second) > 500
    assert not set(first) & set(second)


def test_replies_that_are_not_random_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator uses one scalar for all bits: those that are set show to the first on the way, who is honest."""

    def constant(bits: NDArray[np.bool_], public: bytes, entropy: Any) -> NDArray[np.uint8]:
        pairs = blind_reply.tell(bits, public, entropy)
        pairs[bits] = pairs[bits][:1]
        return pairs

    monkeypatch.setattr(blind_coordinator, "tell", constant)
    notes = _recorded(0)
    first, next_one = (_blocks(notes, holder) for holder in (WATER, TAX))
    assert len(first) > len(set(first))
    assert len(next_one) == len(set(next_one))  # the first has made them fresh


def test_two_runs_with_the_same_decoys_say_no_more_than_one() -> None:
    """And with decoys drawn afresh they would: the check sees it."""
    lists = _lists(0)
    runs = [BlindRehearsal(lists, REGISTER, run=RunId(name)) for name in ("first", "second")]
    both = set(runs[0].play()[TAX].ids) & set(runs[1].play()[TAX].ids)
    assert len(set(lists[BANK]) & both) / len(both) == 0.5
    fresh = BlindRehearsal(lists, REGISTER, run=RunId("third"), decoy_key=b"\x07" * 32).play()[TAX].ids
    both &= set(fresh)
    assert len(set(lists[BANK]) & both) / len(both) > 0.6


def test_a_feature_holder_hears_of_its_own_rows_only(honest: Attacked) -> None:
    """No id crosses, in any form: nothing received contains the text of one, and the truth is not in the columns."""
    notes = _recorded(1)
    spoken = [repr(message).encode() for party, _, message in notes.received if party == TAX]
    assert not any(one.encode() in text for text in spoken for one in REGISTER)
    assert honest.features.shape[1] == 11
