"""By a register nobody learns who is a customer: not a feature holder from all that it receives in real runs, and not
the label holder anything of enterprises that are none of its customers.

Each customer has a twin in the register with the same records at every feature holder. Which of the two is the customer
decides nothing else, so that whatever tells the two apart at a feature holder is a leak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fedcredit.attack.recorder import Recording, recording
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import BY_REGISTER, REGISTER, Sample, write_sample
from fedcredit.crypto import slots_products
from fedcredit.crypto.masks import MaskKey
from fedcredit.crypto.slots import SlotsSecret
from fedcredit.crypto.slots_arithmetic import centred, from_slots, residues_of
from fedcredit.crypto.slots_messages import in_blocks
from fedcredit.crypto.slots_parameters import MODULUS, VALUE_BOUND
from fedcredit.errors import PeerError
from fedcredit.protocol.align.index import RowIndex
from fedcredit.protocol.boost.messages import Bitmaps, ChosenPaths
from fedcredit.protocol.group_sum.messages import Request
from fedcredit.protocol.scorecard.messages import EncryptedPartial, EncryptedTotal
from fedcredit.protocol.select.messages import OpenedSums, RowChoice, ShadedColumns, SharedColumns, SumShares
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.message import Message, encode, kind_of

BANK, TAX, UTILITY = PartyId("bank"), PartyId("tax"), PartyId("utility")
HOLDERS = (TAX, UTILITY)
PAIRS = 600
SECTIONS = """
[split]
time = "when"
test_from = 7
[bin]
prebins = 4
min_prebin_rows = 20
min_goods = 5
min_bads = 5
max_bins = 3
[scorecard]
min_iv = 0.0
max_totals = 1
total_noise = 0.0
total_step = 1e-7
[boost]
trees = 2
depth = 2
min_bin_rows = 20
[privacy]
enforce = false
noise_rows = 0.0
"""
"""No noise and no rounding, whose draws follow ids: then the models of two customer sets are the same to the digit."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def _sides(seed: int) -> Bools:
    """Which of each pair of twins is the customer."""
    sides: Bools = np.random.default_rng(seed).random(PAIRS) < 0.5
    return sides


def _loaded(folder: Path, sides: Bools, model: str = "scorecard") -> LoadedSpec:
    """Everyone's files; the bank's customer in row i is r(i) or its twin r(PAIRS + i)."""
    columns = {"bank": 1, "tax": 2, "utility": 2}
    sample = Sample(PAIRS, columns, 0.4, sections=SECTIONS, model=model, align=BY_REGISTER, strangers=PAIRS)
    write_sample(folder, sample)
    numbers = pl.Series(np.arange(PAIRS) + PAIRS * sides)
    ids = ("r" + numbers.cast(pl.String).str.zfill(5)).alias("id")
    when = pl.Series("when", np.arange(PAIRS) % 10)
    pl.read_csv(folder / "bank.csv").with_columns(ids, when).write_csv(folder / "bank.csv")
    for party in HOLDERS:
        table = pl.read_csv(folder / f"{party}.csv")
        twins = pl.concat([table[:PAIRS].drop("id")] * 2)
        pl.concat([table.select("id"), twins], how="horizontal").write_csv(folder / f"{party}.csv")
    return load_spec(folder / "run.toml")


@dataclass(frozen=True)
class Played:
    """A run, and who was a customer in the order of its rows."""

    notes: Recording
    results: dict[PartyId, Any]
    index: RowIndex

    @property
    def members(self) -> Bools:
        assert self.index.members is not None
        return self.index.members


def _played(folder: Path, sides: Bools, model: str = "scorecard") -> Played:
    with recording() as notes:
        results = Rehearsal(_loaded(folder, sides, model)).play()
    return Played(notes, results, results[BANK].index)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return _played(tmp_path_factory.mktemp("first"), _sides(1))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The same run, in which about half of the customers are the twins of those of the first."""
    return _played(tmp_path_factory.mktemp("second"), _sides(2))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return _played(tmp_path_factory.mktemp("trees"), _sides(1), "boost")


@pytest.fixture(scope="module")
def other_trees(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return _played(tmp_path_factory.mktemp("other_trees"), _sides(2), "boost")


both_models = pytest.mark.parametrize("name", ["first", "trees"])

CIPHERTEXT = {
    "select.rows": {"public", "train", "test", "train_commitment", "test_commitment"},
    "select.shades": {"public", "bodies"},
    "select.shared": {"bodies"},
    "select.shade_sums": {"body"},
    "group_sum.request": {"commitment", "body"},
    "group_sum.nonce_commitment": {"commitment"},
    "group_sum.nonce_reveal": {"nonce"},
    "scorecard.totals_key": {"public"},
    "scorecard.mask_key": {"key"},
}
"""Fields that differ from run to run, whatever the customers: ciphertexts, fresh keys and salted hashes."""

OF_THE_MODEL = {"boost.splits": {"slots"}, "boost.kept": {"kept"}}
"""Rounding is drawn in the order of the rows, so that trees differ by chance where other twins are customers."""


def _in_the_open(message: Message, hidden: dict[str, set[str]]) -> Any:
    """A message as plain values, with the length alone of what is ciphertext."""
    kind = kind_of(message)

    def plain(value: Any, name: str = "") -> Any:
        if isinstance(value, msgspec.Struct):
            return {field: plain(getattr(value, field), field) for field in value.__struct_fields__}
        if isinstance(value, list):
            return [plain(one, name) for one in value]
        return len(value) if isinstance(value, bytes) and name in hidden.get(kind, set()) else value

    return kind, plain(message)


def _received(run: Played, party: PartyId) -> list[tuple[PartyId, Message]]:
    found = [(sender, message) for to, sender, message in run.notes.received if to == party]
    return sorted(found, key=lambda one: str(one[0]))  # in order of each sender


def _seen(run: Played, party: PartyId, hidden: dict[str, set[str]]) -> list[Any]:
    return [(sender, _in_the_open(message, hidden)) for sender, message in _received(run, party)]


def test_the_two_runs_have_other_customers_and_the_same_model(first: Played, second: Played) -> None:
    assert first.index.ids == second.index.ids
    assert 0.3 < (first.members & second.members).sum() / PAIRS < 0.7
    coefficients = [run.results[BANK].fitted.coefficients for run in (first, second)]
    assert coefficients[0] == pytest.approx(coefficients[1], rel=1e-12)


@pytest.mark.parametrize("party", HOLDERS)
def test_all_that_a_holder_reads_is_the_same_whoever_the_customers_are(
    first: Played, second: Played, party: PartyId
) -> None:
    assert _seen(first, party, CIPHERTEXT) == _seen(second, party, CIPHERTEXT)
    kinds = {kind for _, (kind, _) in _seen(first, party, CIPHERTEXT)}
    assert {"align.register", "select.rows", "scorecard.selection", "scorecard.points"} <= kinds


@pytest.mark.parametrize("party", HOLDERS)
def test_so_it_is_with_trees(trees: Played, other_trees: Played, party: PartyId) -> None:
    hidden = CIPHERTEXT | OF_THE_MODEL
    assert _seen(trees, party, hidden) == _seen(other_trees, party, hidden)
    sizes = [[(kind_of(m), len(encode(m))) for _, m in _received(run, party)] for run in (trees, other_trees)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("party", HOLDERS)
def test_what_a_holder_opens_with_its_own_key_is_uniform(first: Played, party: PartyId) -> None:
    """Shares of products are under offsets of the holder that sent them; it hands them on and learns nothing."""
    opened = [m.sums for _, sender, m in first.notes.received if sender == party and isinstance(m, OpenedSums)]
    values = np.array([one for sums in opened for row in sums for one in row], np.int64)
    assert len(values) == (4 if party == TAX else 0)
    assert (np.abs(centred(values.astype(np.uint64))) > 1 << 20).all()


# What an attacker could make of the bytes, row by row.


def _per_row(data: bytes, rows: int) -> Iterator[Floats]:
    """Bits, bytes and words of some bytes as a feature of each row, where there are enough of them."""
    raw = np.frombuffer(data, np.uint8)
    if len(raw) * 8 >= rows:
        yield np.unpackbits(raw)[:rows].astype(np.float64)
    if len(raw) >= rows:
        yield raw[:rows].astype(np.float64)
        yield raw[(np.arange(rows) * len(raw)) // rows].astype(np.float64)
        yield raw[-rows:].astype(np.float64)
    if len(raw) >= 8 * rows:
        yield np.frombuffer(raw[: 8 * rows].tobytes(), "<u8").astype(np.float64)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _leaves(getattr(value, field))
    elif isinstance(value, list):
        yield value
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _features(run: Played, party: PartyId, index: RowIndex) -> Floats:
    """Everything that a holder could hold against its rows: whatever it received that is long enough, and its index."""
    rows = len(run.index.ids)
    known = set(index.ids)
    columns = [np.array([one in known for one in run.index.ids], np.float64)]
    for to, _, message in run.notes.received:
        for leaf in _leaves(message) if to == party else ():
            if isinstance(leaf, bytes):
                columns += _per_row(leaf, rows)
            elif isinstance(leaf, list) and len(leaf) == rows and all(isinstance(one, int) for one in leaf):
                columns.append(np.array(leaf, np.float64))
    return np.column_stack(columns)


def _guess(features: Floats, members: Bools) -> float:
    """AUC of the best guess on half of the rows, learned from the other half, for which the truth is given away."""
    source = np.random.default_rng(5)
    learn = source.random(len(members)) < 0.5
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    one_by_one = np.array([abs(roc_auc_score(members[learn], column[learn]) - 0.5) for column in scaled.T])
    best = np.argsort(-one_by_one)[:20]
    model = LogisticRegression(C=0.1).fit(scaled[learn][:, best], members[learn])
    return float(roc_auc_score(members[~learn], model.decision_function(scaled[~learn][:, best])))


_BY_CHANCE = 4 * (1 / (12 * PAIRS / 2)) ** 0.5
"""Four standard deviations of an AUC of 0.5 with half of the rows, of both kinds as many."""


@both_models
@pytest.mark.parametrize("party", HOLDERS)
def test_a_holders_best_guess_who_is_a_customer_is_a_guess(
    name: str, party: PartyId, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    features = _features(run, party, run.results[party][0])
    assert features.shape[1] > 10  # there is something to guess from
    assert abs(_guess(features, run.members) - 0.5) < _BY_CHANCE


def _with_choice(run: Played, told: Callable[[Ints], bytes]) -> Played:
    """The same messages, with the choice of rows told in another way."""
    vector = (run.index.train | run.index.test).astype(np.int64)
    received = [
        (to, sender, msgspec.structs.replace(m, train=told(vector)) if isinstance(m, RowChoice) else m)
        for to, sender, m in run.notes.received
    ]
    return replace(run, notes=Recording(received=received))


@pytest.mark.parametrize(
    "told",
    [
        lambda vector: np.packbits(vector.astype(bool)).tobytes(),
        lambda vector: vector.astype(np.uint8).tobytes(),
        lambda vector: vector.astype("<i8").tobytes(),
        lambda vector: bytes(7) + (vector + 3).astype(np.uint8).tobytes(),
    ],
    ids=["bits", "bytes", "words", "at the end"],
)
def test_the_guess_sees_a_choice_in_the_clear(first: Played, told: Callable[[Ints], bytes]) -> None:
    leaky = _with_choice(first, told)
    assert _guess(_features(leaky, TAX, first.results[TAX][0]), first.members) > 0.99


def test_the_guess_sees_an_index_of_customers_only(first: Played) -> None:
    (kept,) = np.nonzero(first.members)
    index = first.results[TAX][0]
    less = replace(index, ids=tuple(index.ids[row] for row in kept), rows=index.rows[kept], test=index.test[kept])
    assert _guess(_features(first, TAX, less), first.members) == 1.0
    assert index.ids == first.index.ids  # the real one has the whole register
    assert (index.members, index.hidden, bool(index.test.any())) == (None, True, False)


def test_a_register_of_customers_only_would_show(tmp_path: Path, first: Played) -> None:
    """A real run in which the parties were given such a register: every row of the index is a customer."""
    loaded = _loaded(tmp_path, _sides(1))
    pl.read_csv(tmp_path / "bank.csv").select("id").write_csv(tmp_path / REGISTER)
    with recording() as notes:
        results = Rehearsal(loaded).play()
    run = Played(notes, results, first.index)
    assert _guess(_features(run, TAX, results[TAX][0]), first.members) == 1.0


# Ciphertexts of two customer sets.


def _same_source(one: bytes, other: bytes) -> float:
    """Chance that two strings from one source differ as much in how often each byte stands there."""
    counts = np.stack([np.bincount(np.frombuffer(text, np.uint8), minlength=256) for text in (one, other)])
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=0) * counts.sum(axis=1, keepdims=True) / counts.sum()
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.shape[1] - 1))


def _bodies(run: Played, party: PartyId) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {"choice": [], "request": [], "shared": []}
    for to, _, message in run.notes.received:
        if to == party and isinstance(message, RowChoice):
            found["choice"] += [message.train, message.test]
        elif to == party and isinstance(message, Request):
            found["request"] += [one.body for one in message.vectors]
        elif to == party and isinstance(message, SharedColumns):
            found["shared"] += message.bodies
    return found


def test_ciphertexts_of_two_customer_sets_look_alike(first: Played, second: Played) -> None:
    one, other = _bodies(first, UTILITY), _bodies(second, UTILITY)
    for kind in one:
        assert len(one[kind]) == len(other[kind]) > 0
        assert [len(body) for body in one[kind]] == [len(body) for body in other[kind]]
        assert not set(one[kind]) & set(other[kind])
        assert _same_source(b"".join(one[kind]), b"".join(other[kind])) > 1e-4


def _told_apart(encrypted: Callable[[Ints], bytes]) -> float:
    """AUC of a distinguisher of two customer sets, learned from half of the ciphertexts under fresh keys."""
    source = np.random.default_rng(9)
    vectors = [(source.random(2 * PAIRS) < share).astype(np.int64) for share in (0.1, 0.9)]
    rows, truth = [], []
    for number in range(100):
        raw = np.frombuffer(encrypted(vectors[number % 2]), np.uint8)
        rows.append(np.concatenate([np.bincount(raw, minlength=256) / len(raw) * 16, raw[200:328] / 255]))
        truth.append(number % 2)
    features, label = np.array(rows), np.array(truth)
    model = LogisticRegression(C=1.0).fit(features[:50], label[:50])
    return float(roc_auc_score(label[50:], model.decision_function(features[50:])))


def test_a_trained_distinguisher_of_choices_is_at_chance_and_sees_what_is_not_encrypted() -> None:
    key = SlotsSecret()
    assert abs(_told_apart(key.encrypt) - 0.5) < 4 * (1 / (6 * 50)) ** 0.5
    assert _told_apart(lambda vector: from_slots(in_blocks(residues_of(vector))).tobytes()[: 8 * 4096]) > 0.9


# What the label holder opens of rows that are no customers.


def _opened(run: Played) -> dict[str, list[Ints]]:
    """All that the label holder, helped by the coordinator, opens row by row with its key; int64, least values."""
    (chosen,) = run.notes.keys
    found: dict[str, list[Ints]] = {"total": [], "bits": [], "partial": [], "column": []}
    for to, _, message in run.notes.received:
        if to not in {BANK, COORDINATOR}:
            continue
        if isinstance(message, EncryptedTotal):
            found["total"].append(chosen.secret.open_total(chosen.requests[message.rows], message.body, VALUE_BOUND))
        elif isinstance(message, (Bitmaps, ChosenPaths)):
            asked = chosen.requests["train" if isinstance(message, Bitmaps) else "test"]
            bodies = message.bitmaps if isinstance(message, Bitmaps) else message.bodies
            found["bits"] += [chosen.secret.open(asked, body, VALUE_BOUND) for body in bodies]
        elif isinstance(message, EncryptedPartial):
            body = chosen.secret.open_masked(chosen.requests[message.rows], message.body)
            found["partial"].append(centred(body))
        elif isinstance(message, ShadedColumns):
            opened = [chosen.secret.open_masked(chosen.requests["train"], body) for body in message.bodies]
            found["column"] += [centred(one) for one in opened]
    return found


def _uniform(values: Ints) -> float:
    """Chance that values modulo t are as unevenly spread as these."""
    counts = np.bincount((values % MODULUS) * 16 // MODULUS, minlength=16)
    expected = len(values) / 16
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), 15))


def _check_strangers(run: Played) -> None:
    """What is told of rows that do not count: nothing."""
    opened = _opened(run)
    for values in [*opened["total"], *opened["bits"]]:
        assert not values[~run.members].any(), "a total or bit of a row that does not count"
    for values in [*opened["partial"], *opened["column"]]:
        for rows in (run.members, ~run.members):
            assert _uniform(values[rows]) > 1e-6, "a value that is not uniform"


def test_the_label_holder_opens_nothing_of_enterprises_that_are_no_customers(first: Played) -> None:
    opened = _opened(first)
    assert {kind: len(values) for kind, values in opened.items()} == {"total": 2, "bits": 0, "partial": 4, "column": 2}
    _check_strangers(first)
    train, test = first.index.train, first.index.test
    for values, rows in zip(opened["total"], (train, test), strict=True):
        assert values[rows].any()
        assert not values[~rows].any()


def test_nor_with_trees(trees: Played) -> None:
    opened = _opened(trees)
    assert len(opened["bits"]) > 1
    assert {kind for kind, values in opened.items() if values} == {"bits"}
    _check_strangers(trees)
    assert all(set(np.unique(values)) <= {0, 1} for values in opened["bits"])


def test_products_are_those_of_the_customers_alone(first: Played) -> None:
    """From the label holder's bytes and key: sums over training rows that count, and not over their twins."""
    (chosen,) = first.notes.keys
    messages = [m for to, _, m in first.notes.received if to == BANK]
    (shares,) = [m for m in messages if isinstance(m, SumShares)]
    (rest,) = [m for m in messages if isinstance(m, OpenedSums)]
    (shared,) = [m for to, _, m in first.notes.received if to == UTILITY and isinstance(m, SharedColumns)]
    own = chosen.secret.open_sums(shared.bodies, shares.body, 2)
    found = centred((own + np.array(rest.sums, np.uint64)) % np.uint64(MODULUS))
    columns = {p: np.column_stack([f.woe_units[f.group[f.own.codes]] for f in first.results[p][1]]) for p in HOLDERS}
    train = first.index.train
    assert np.array_equal(found, columns[TAX][train].T @ columns[UTILITY][train])
    everyone = columns[TAX].T @ columns[UTILITY]
    assert not np.array_equal(found, everyone)
    assert _uniform(np.array(own, np.int64).reshape(-1)) > 1e-9


def _planted(folder: Path) -> tuple[Played, str]:
    """A run with a leak built in, as far as it went, and how it failed."""
    code = ""
    with recording() as notes:
        try:
            Rehearsal(_loaded(folder, _sides(1)), timeout_s=20).play()
        except PeerError as error:
            code = error.code
    return Played(notes, {}, notes.keys[0].index), code


def test_a_choice_of_all_rows_is_seen_by_the_product_and_by_these_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1 encrypted for everyone the totals of strangers come out; a label holder that means well stops there."""
    encrypt = SlotsSecret.encrypt
    with monkeypatch.context() as patch:
        patch.setattr(SlotsSecret, "encrypt", lambda self, values: encrypt(self, np.ones_like(values)))
        run, code = _planted(tmp_path)
    assert code == "select.total"
    with pytest.raises(AssertionError, match="a total or bit of a row that does not count"):
        _check_strangers(run)


@pytest.mark.parametrize("what", ["masks of partials", "shades of columns"])
def test_answers_without_masks_are_seen(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cancel all the same, so that the run itself goes well."""
    with monkeypatch.context() as patch:
        if what == "masks of partials":
            patch.setattr(
                MaskKey, "mask_below", lambda _self, _roster, _party, rows, _modulus: np.zeros(rows, np.uint64)
            )
        else:
            patch.setattr(slots_products, "uniform_residues", lambda _entropy, count: np.zeros(count, np.uint64))
        run, code = _planted(tmp_path)
    assert code == ""
    with pytest.raises(AssertionError, match="a value that is not uniform"):
        _check_strangers(run)
