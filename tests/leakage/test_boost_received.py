"""A feature holder's received messages do not depend on labels or nodes, and hold nothing that it could read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2

from fedcredit.attack.recorder import Recording, recording
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.protocol.boost.messages import WantedSplits
from fedcredit.protocol.group_sum.messages import Request
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.types import PartyId
from fedcredit.wire.message import encode, kind_of

TAX, UTILITY = PartyId("tax"), PartyId("utility")
PLAIN = '[crypto]\nprofile = "unsafe-plaintext"\n'
BY_LEAF = '[boost]\ngrowth = "leaf"\nmax_leaves = 5\n'
SAMPLED = "[boost]\ncolumn_sampling = 0.5\nfirst_trees_local = 3\n"
FEW = "[boost]\ntrees = 2\n"
OTHER_LABELS = ("permuted", "flipped", "by one column of the bank", "at random")


def _loaded(folder: Path, labels: str, sections: str) -> LoadedSpec:
    """The same spec and the same records, with other labels."""
    sample = Sample(1900, {"bank": 3, "tax": 2, "utility": 2}, bad_rate=0.4, sections=sections, model="boost")
    write_sample(folder, sample)
    table = pl.read_csv(folder / "bank.csv")
    bad, column = table["bad"].to_numpy(), table["bank_0"].to_numpy()
    source = np.random.default_rng(7)
    changed = {
        "": bad,
        "permuted": source.permutation(bad),
        "flipped": 1 - bad,
        "by one column of the bank": (column < np.quantile(column, 0.4)).astype(np.int64),
        "at random": source.integers(0, 2, len(bad)),
    }[labels]
    table.with_columns(pl.Series("bad", changed)).write_csv(folder / "bank.csv")
    return load_spec(folder / "run.toml")


def _played(folder: Path, labels: str = "", sections: str = "") -> Recording:
    with recording() as notes:
        Rehearsal(_loaded(folder, labels, sections)).play()
    return notes


def _received(notes: Recording, party: PartyId) -> list[tuple[str, str, int]]:
    """Sender, kind and length of all that a party receives, in order of each sender."""
    found = [
        (str(sender), kind_of(message), len(encode(message))) for to, sender, message in notes.received if to == party
    ]
    return sorted(found, key=lambda one: one[0])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A default run of 20 trees; without encryption, which changes no kind, number or order."""
    return _played(tmp_path_factory.mktemp("plain"), sections=PLAIN)


@pytest.mark.parametrize("labels", OTHER_LABELS)
def test_kinds_counts_and_lengths_are_the_same_whatever_the_labels(
    plain: Recording, tmp_path: Path, labels: str
) -> None:
    other = _played(tmp_path, labels, PLAIN)
    for party in (TAX, UTILITY):
        assert _received(other, party) == _received(plain, party)
    assert _named(other) != _named(plain)  # the trees themselves are others: what is named in a slot tells


@pytest.mark.parametrize("labels", ["permuted", "flipped"])
@pytest.mark.slow
def test_so_they_are_in_the_default_profile(tmp_path: Path, labels: str) -> None:
    before, after = _played(tmp_path / "one"), _played(tmp_path / "two", labels)
    for party in (TAX, UTILITY):
        assert _received(before, party) == _received(after, party)


@pytest.mark.parametrize("sections", [BY_LEAF, SAMPLED])
def test_so_they_are_in_other_ways_to_grow_trees(tmp_path: Path, sections: str) -> None:
    before, after = (_played(tmp_path / (name or "own"), name, PLAIN + sections) for name in ("", "permuted"))
    for party in (TAX, UTILITY):
        assert _received(before, party) == _received(after, party)


def test_the_check_sees_a_vector_less(plain: Recording) -> None:
    """It is able to fail: one request of one slot less is seen."""
    shorter = Recording(received=list(plain.received))
    at = next(place for place, (to, _, one) in enumerate(shorter.received) if to == TAX and isinstance(one, Request))
    to, sender, request = shorter.received[at]
    assert isinstance(request, Request)
    less = Request(purpose=request.purpose, index=request.index, vectors=request.vectors[:-1] or request.vectors * 2)
    shorter.received[at] = (to, sender, less)
    assert _received(shorter, TAX) != _received(plain, TAX)


def _named(notes: Recording) -> list[bytes]:
    return [message.slots for to, _, message in notes.received if to == TAX and isinstance(message, WantedSplits)]


def _bodies(notes: Recording) -> list[bytes]:
    """Encrypted vectors as one feature holder receives them, in order."""
    return [
        sealed.body
        for to, _, message in notes.received
        if to == TAX and isinstance(message, Request)
        for sealed in message.vectors
    ]


def _same_source(one: bytes, other: bytes) -> float:
    """Chance that two strings of bytes from one source differ as much as these in how often each byte stands there."""
    counts = np.stack([np.bincount(np.frombuffer(text, np.uint8), minlength=256) for text in (one, other)])
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=0) * counts.sum(axis=1, keepdims=True) / counts.sum()
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.shape[1] - 1))


def _bits_apart(one: bytes, other: bytes) -> float:
    """Share of bits in which two strings of one length differ."""
    apart = np.frombuffer(one, np.uint8) ^ np.frombuffer(other, np.uint8)
    return float(np.unpackbits(apart).mean())


def test_requests_about_different_labels_and_about_nothing_look_alike(tmp_path: Path) -> None:
    """Statistics of bytes: of requests under two label vectors, and of real nodes against padding."""
    before, after = _played(tmp_path / "one", "", FEW), _played(tmp_path / "two", "flipped", FEW)
    first, second = _bodies(before), _bodies(after)
    assert len(first) == len(second) > 6
    assert len({len(body) for body in [*first, *second]}) == 1
    assert len({*first, *second}) == len(first) + len(second)
    assert _same_source(b"".join(first), b"".join(second)) > 1e-4
    chances = [_same_source(first[0], one) for one in [*first[1:], *second]]
    assert min(chances) > 1e-4 / len(chances)
    # as far apart as two random strings are, and no further: nothing of one body is in another
    for one in [*first[1:], *second]:
        assert 0.48 < _bits_apart(first[0], one) < 0.52


def test_the_statistics_see_what_is_not_encrypted(tmp_path: Path) -> None:
    before, after = _played(tmp_path / "one", "", PLAIN + FEW), _played(tmp_path / "two", "permuted", PLAIN + FEW)
    first, second = _bodies(before), _bodies(after)
    assert min(_same_source(first[0], one) for one in [*first[1:], *second]) < 1e-12
    assert _bits_apart(first[0], second[0]) < 0.4
