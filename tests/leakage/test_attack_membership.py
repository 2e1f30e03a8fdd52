"""The regression that the caps stand for: what a label holder receives does not give a defaulter's bins back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.attack.evidence import LabelHolderView
from fedcredit.attack.membership import Equations, Recovery, class_prior, least_squares, measure, one_hot
from fedcredit.attack.recorder import recording
from fedcredit.attack.rehearsal import Cheat, Held, Rehearsal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.attack.totals import bin_posterior, noisy_posterior
from fedcredit.crypto.totals import TotalsSecret
from fedcredit.errors import BoundError, DisclosureRefused, FedCreditError
from fedcredit.governance.ledger import Ledger
from fedcredit.protocol.align.label_holder import align_plain
from fedcredit.protocol.bin.label_holder import BinInputs, BinnedRun, bin_all
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.asker import Expected, GroupSumAsker
from fedcredit.protocol.group_sum.session import Session, agree
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.scorecard.messages import (
    Choice,
    EncryptedTotal,
    FitStep,
    Kept,
    PartialPoints,
    Selection,
    TotalsKey,
)
from fedcredit.protocol.scorecard.plan import TOTAL_BOUND, plan_fit
from fedcredit.protocol.scorecard.roles import prebin_rules
from fedcredit.spec.load import LoadedSpec
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.disclosure import Spend

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BANK, TAX, UTILITY = PartyId("bank"), PartyId("tax"), PartyId("utility")
LIMIT = 3.5
"""Multiples of blind guessing that the product owner allows over defaulters."""

DEFAULTERS_A_VECTOR = 7

BINS = """
[crypto]
profile = "unsafe-plaintext"
[bin]
prebins = {}
min_prebin_rows = 50
max_bins = 6
min_goods = 5
min_bads = 5
[privacy]
enforce = {}
"""


def _loaded(folder: Path, columns: int, prebins: int, *, enforce: bool = True) -> LoadedSpec:
    sections = BINS.format(prebins, str(enforce).lower())
    return write_sample(folder, Sample(2000, {BANK: 2, TAX: columns, UTILITY: columns}, sections=sections))


@dataclass(frozen=True)
class Result:
    """A run, what its label holder can compute with, and the truth at the holders.

    Args:
        noise: Variance of the holders' noise and rounding in a total of the fit.
    """

    view: LabelHolderView
    train: Bools
    bad: Bools
    truth: dict[tuple[PartyId, str], NDArray[np.integer[Any]]]
    noise: float

    def priors(self) -> dict[tuple[PartyId, str], NDArray[np.float64]]:
        """What class counts and totals say of each kept feature's bins, for every row."""
        classes = np.where(self.train, 1 + self.bad, 0)
        counts = {}
        for feature in self.view.kept:
            bads, train, test = self.view.equations(feature).sums[:3]
            counts[feature] = np.stack([test, train - bads, bads])
        priors = {feature: class_prior(classes, counts[feature]) for feature in self.view.kept}
        for part, rows in (("train", self.train), ("test", ~self.train)):
            rounds = [one for one in self.view.rounds() if one.rows == part]
            tables = [np.stack([one.tables[feature] for one in rounds]) for feature in self.view.kept]
            totals = np.stack([one.totals for one in rounds])
            for number in (0,) if part == "test" else (1, 2):
                shares = [counts[f][number] / counts[f][number].sum() for f in self.view.kept]
                among = classes[rows] == number
                if part == "test" or not self.noise:
                    found = bin_posterior(tables, totals[:, among], shares)
                else:
                    found = noisy_posterior(tables, totals[:, among], shares, self.noise)
                for feature, posterior in zip(self.view.kept, found, strict=True):
                    priors[feature][np.flatnonzero(rows)[among]] = posterior
        return priors

    def attack(self, feature: tuple[PartyId, str], prior: NDArray[np.float64] | None) -> tuple[Recovery, Recovery]:
        """Both attacks on one feature."""
        known = self.view.equations(feature)
        guesses = (least_squares(known, prior), one_hot(known, prior, steps=60))
        first, second = (
            measure(guess, self.truth[feature], self.bad, self.train, len(known.vectors)) for guess in guesses
        )
        return first, second


def _played(rehearsal: Rehearsal) -> Result:
    with recording() as notes:
        results = rehearsal.play()
    view = LabelHolderView(notes, BANK)
    led = results[BANK]
    index, bad = led if isinstance(led, tuple) else (led.index, led.bad)
    truth = {
        (party, feature.own.shape.code): feature.group[feature.own.codes]
        for party in (TAX, UTILITY)
        for feature in results[party][1]
    }
    plan = plan_fit(rehearsal.loaded.spec.scorecard)
    each = plan.noise_units**2 + (plan.step_units**2 / 6 if plan.step_units > 1 else 0.0)
    return Result(view, index.train, bad, truth, 2 * each)


def _random_vectors(columns: int, bad: Bools) -> list[Ints]:
    source = np.random.default_rng(0)
    return [source.integers(-100, 101, len(bad)) for _ in range(columns)]


def _one_bit_a_defaulter(columns: int, bad: Bools) -> list[Ints]:
    """Seven defaulters a vector, each its own power of two: within the honest bound of 100 for a column."""
    vectors = []
    for rows in np.split(np.flatnonzero(bad)[: columns * DEFAULTERS_A_VECTOR], columns):
        vector = np.zeros(len(bad), np.int64)
        vector[rows] = 1 << np.arange(len(rows))
        vectors.append(vector)
    return vectors


def greedy(columns: int, vectors: Callable[[int, Bools], list[Ints]] = _random_vectors) -> Cheat:
    """A label holder that keeps all fine bins apart and says that it brings many columns."""

    async def role(channel: Channel, holding: Holding, held_out: Held) -> tuple[Any, Bools]:
        spec, keep = holding.spec, holding.keep
        holders = [party.name for party in spec.feature_holders]
        session = await agree(channel, spec.parties, holding.run_digest, spec.crypto.profile, keep)
        index = await align_plain(channel, holders, holding.table.ids.to_list(), held_out, spec.split.seed)
        assert holding.table.label is not None
        bad = holding.table.label[index.rows] == 1
        binned = await bin_all(
            channel,
            session,
            BinInputs(holding.prebinned(index, prebin_rules(spec.bin)), bad, index, holders, spec.bin, keep),
        )
        channel.stage("scorecard")
        shapes = await _choose_one_each(channel, binned, holders, columns)
        await _ask(channel, session, holding, shapes, vectors(columns, bad))
        await _end_quietly(channel, shapes)
        return index, bad

    return role


async def _choose_one_each(
    channel: Channel, binned: BinnedRun, holders: list[PartyId], columns: int
) -> dict[PartyId, Expected]:
    shapes = {}
    for number, holder in enumerate(holders):
        shape = next(feature.shape for feature in binned.features if feature.owner == holder)
        shapes[holder] = Expected(((shape.code, shape.bins),))
        choice = Choice(code=shape.code, group=list(range(shape.bins)), woe=[0] * shape.bins)
        message = Selection(choices=[choice], own_columns=columns, others=[])
        await channel.send(holder, message, spend=Spend(f"{number:064x}", ()))
    return shapes


async def _ask(
    channel: Channel, session: Session, holding: Holding, shapes: dict[PartyId, Expected], vectors: list[Ints]
) -> None:
    conversation = plan_fit(holding.spec.scorecard).bins(session, len(vectors[0]), len(vectors))
    asker = await GroupSumAsker.open(channel, conversation, shapes, holding.keep)
    await asker.ask(vectors, holding.keep)


async def _end_quietly(channel: Channel, shapes: dict[PartyId, Expected]) -> None:
    """Goes on to an empty model, so that no party notices anything."""
    key = TotalsSecret(TOTAL_BOUND)
    for holder, shape in shapes.items():
        await channel.send(holder, Kept(codes=[code for code, _ in shape.features]))
    everyone = [*shapes, COORDINATOR]
    await channel.broadcast(everyone, TotalsKey(public=key.public_bytes()))
    await channel.broadcast(everyone, FitStep(more=False))
    channel.stage("score")
    for holder, shape in shapes.items():
        tables = [[0] * bins for _, bins in shape.features]
        await channel.send(holder, PartialPoints(round=0, rows="test", tables=tables))
    await channel.receive(COORDINATOR, EncryptedTotal)


def test_behind_the_caps_a_defaulters_bins_are_not_recovered(tmp_path: Path) -> None:
    """Everything received counts: vectors, sums of all conversations, and the totals of rows with their tables."""
    result = _played(Rehearsal(_loaded(tmp_path, columns=4, prebins=8)))
    priors = result.priors()
    assert len(result.view.kept) == 8
    found = {feature: result.attack(feature, priors[feature]) for feature in result.view.kept}
    sums_alone = [result.attack(feature, None) for feature in result.view.kept]
    assert max(one.times_chance for pair in found.values() for one in pair) <= LIMIT
    # a smaller net for what the sums alone say: it stays near what the class counts say anyway
    assert max(one.defaulters - one.modal for pair in sums_alone for one in pair) < 0.2


def test_without_caps_the_same_attacks_recover_them(tmp_path: Path) -> None:
    """The caps are what protects: the same roles answer 600 vectors where no cap is enforced."""
    loaded = _loaded(tmp_path, columns=2, prebins=16, enforce=False)
    result = _played(Rehearsal(loaded, cheats={BANK: greedy(600)}))
    for feature in result.truth:
        straight, split = result.attack(feature, None)
        assert straight.uniform < 0.07
        assert straight.times_chance > LIMIT
        assert split.defaulters > 0.99


def test_behind_the_caps_the_greedy_label_holder_is_refused(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, columns=2, prebins=16)
    with pytest.raises(DisclosureRefused, match=r"asked 604, spent 3, cap 28, still possible 25"):
        Rehearsal(loaded, cheats={BANK: greedy(600)}).play()


def test_what_the_caps_leave_to_a_greedy_label_holder_does_not_suffice(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, columns=2, prebins=16)
    result = _played(Rehearsal(loaded, cheats={BANK: greedy(21)}))
    for feature in result.truth:
        assert max(one.times_chance for one in result.attack(feature, None)) <= LIMIT


def test_a_label_holder_that_crafts_its_vectors_reads_rows_within_the_caps(tmp_path: Path) -> None:
    """What the pages say of a malicious label holder, in figures: caps bound it, they do not stop it."""
    loaded = _loaded(tmp_path, columns=2, prebins=16)
    result = _played(Rehearsal(loaded, cheats={BANK: greedy(21, _one_bit_a_defaulter)}))
    for feature, truth in result.truth.items():
        known = result.view.equations(feature)
        read = 0
        for vector, sums in zip(known.vectors[3:], known.sums[3:], strict=True):
            for row in np.flatnonzero(vector):
                (found,) = np.flatnonzero(sums & vector[row])
                read += int(found == truth[row])
        assert read == 21 * DEFAULTERS_A_VECTOR


def test_new_runs_with_other_splits_do_not_refill_the_budget(tmp_path: Path) -> None:
    """Against persistent ledgers the equations of all runs together stay below the cap of one."""
    loaded = _loaded(tmp_path, columns=2, prebins=8)
    refusal = ""
    spent = []
    with ExitStack() as stack:
        ledgers = {p: stack.enter_context(Ledger(tmp_path / f"{p}.sqlite")) for p in (BANK, TAX, UTILITY)}
        for number in range(12):
            spec = loaded.spec.model_copy(update={"split": loaded.spec.split.model_copy(update={"seed": number})})
            run = RunId(f"run-{number}")
            try:
                Rehearsal(replace(loaded, spec=spec), run=run, ledgers=ledgers).play()
            except FedCreditError as error:  # an impatient bank just starts the next run
                refusal = str(error)
            lines = [line for party in (TAX, UTILITY) for line in ledgers[party].report(run)]
            spent += [line.equations for line in lines]
            if "equations" in refusal:
                break
    assert "asked 3" in refusal
    assert 20 <= max(spent) <= 28


def test_exact_recovery_of_a_small_system() -> None:
    source = np.random.default_rng(3)
    truth = source.integers(0, 4, 60)
    vectors = source.integers(-50, 51, (40, 60))
    known = Equations(vectors, vectors @ np.eye(4, dtype=np.int64)[truth])
    bad = np.arange(60) < 10
    found = measure(one_hot(known, steps=200), truth, bad, np.ones(60, np.bool_), 40)
    assert (found.everyone, found.defaulters) == (1.0, 1.0)
    few = Equations(vectors[:2], known.sums[:2])
    assert measure(one_hot(few, steps=50), truth, bad, np.ones(60, np.bool_), 2).everyone < 0.7


def test_a_guess_that_is_right_already_stays_right_and_repeated_vectors_do_no_harm() -> None:
    truth = np.arange(12) % 3
    exact = np.eye(3)[truth]
    vectors = np.stack([np.arange(12), np.arange(12), np.zeros(12, np.int64)])
    known = Equations(vectors, vectors @ np.eye(3, dtype=np.int64)[truth])
    assert np.allclose(least_squares(known, exact), exact)
    assert np.array_equal(one_hot(known, exact, steps=5).argmax(axis=1), truth)


@pytest.mark.parametrize(("vectors", "sums"), [((2, 5), (3, 4)), ((2,), (2, 4)), ((2, 0), (2, 4)), ((2, 5), (2, 0))])
def test_shapes_that_do_not_fit_are_refused(vectors: tuple[int, ...], sums: tuple[int, ...]) -> None:
    with pytest.raises(BoundError):
        Equations(np.zeros(vectors, np.int64), np.zeros(sums, np.int64))


def test_a_prior_of_another_shape_and_a_score_without_defaulters_are_refused() -> None:
    known = Equations(np.ones((1, 4), np.int64), np.array([[2, 2]]))
    with pytest.raises(BoundError, match="prior"):
        least_squares(known, np.ones((4, 3)))
    with pytest.raises(BoundError, match="defaulter"):
        measure(np.ones((4, 2)), np.zeros(4, np.int64), np.zeros(4, np.bool_), np.ones(4, np.bool_), 1)
