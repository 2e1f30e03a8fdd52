"""Doors that attacks found open, each as it should be; see docs/attacks.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from fedcredit.attack.recorder import recording
from fedcredit.attack.rehearsal import Cheat, Held, Rehearsal, Reseal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.crypto.totals import add, encrypt_partial
from fedcredit.errors import DisclosureRefused, FedCreditError, IntegrityError, PeerError
from fedcredit.governance.caps import CapRules
from fedcredit.governance.ledger import Ledger
from fedcredit.protocol.align.label_holder import align_plain
from fedcredit.protocol.bin.messages import FeatureShapes, RunBasis
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.session import agree
from fedcredit.protocol.holding import Holding
from fedcredit.protocol.scorecard.messages import (
    EncryptedPartial,
    EncryptedTotal,
    FitStep,
    PartialPoints,
    TotalsKey,
)
from fedcredit.protocol.scorecard.plan import TOTAL_BOUND
from fedcredit.spec.load import load_spec
from fedcredit.types import COORDINATOR, PartyId
from fedcredit.wire.message import decode_struct, encode

pytestmark = pytest.mark.usefixtures("virtual_time")

BANK, TAX, UTILITY = PartyId("bank"), PartyId("tax"), PartyId("utility")
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


_EDGE = 39  # with one more ordinary value there are forty: two bins of twenty, and no refusal


def _rehearsal(folder: Path, **changes: Any) -> Rehearsal:
    loaded = write_sample(folder, Sample(500, {BANK: 1, TAX: 2, UTILITY: 2}, sections=SECTIONS))
    return replace(Rehearsal(loaded, timeout_s=0.5), **changes)


def _holes(folder: Path, rows: Sequence[int]) -> None:
    """Makes cells of the tax office's first column missing."""
    table = pl.read_csv(folder / "tax.csv").with_row_index("row")
    cell = pl.when(pl.col("row").is_in(list(rows))).then(None).otherwise(pl.col("tax_0")).alias("tax_0")
    table.with_columns(cell).drop("row").write_csv(folder / "tax.csv")


def _prober(rows: Sequence[int], seen: list[Any]) -> Cheat:
    """A label holder that has rows of its choice in common and stops once the shapes have been announced."""
    chosen = [f"r{row:05d}" for row in rows]

    async def role(channel: Channel, holding: Holding, _held: Held) -> None:
        spec, keep = holding.spec, holding.keep
        holders = [party.name for party in spec.feature_holders]

        def held_out(ids: Sequence[str]) -> NDArray[np.bool_]:
            return np.array([one == chosen[-1] for one in ids])

        await agree(channel, spec.parties, holding.run_digest, spec.crypto.profile, keep)
        await align_plain(channel, holders, chosen, held_out, 0)
        channel.stage("bin")
        await channel.broadcast(holders, RunBasis(n_eff=len(chosen) - 1, n_bad=len(chosen) // 2))
        seen.append((await channel.receive(TAX, FeatureShapes)).features)

    return role


def _probe(folder: Path, rows: Sequence[int]) -> tuple[str, Any, float]:
    """What the bank is told in words, the shapes announced, and the equations and bits the tax office booked."""
    seen: list[Any] = []
    with Ledger(":memory:", CapRules(enforce=False, simulation=True)) as ledger:
        loaded = load_spec(folder / "run.toml")
        rehearsal = Rehearsal(loaded, cheats={BANK: _prober(rows, seen)}, ledgers={TAX: ledger}, timeout_s=0.5)
        network = rehearsal.network()
        with pytest.raises(FedCreditError):
            rehearsal.play(network)
        booked = sum(line.equations + line.row_bits for line in ledger.report(rehearsal.run))
    told = str(network.failures.get(BANK, ""))
    return told, sorted((one.bins, one.ordered) for one in seen[0]) if seen else None, booked


def test_a_refusal_counts_and_names_nothing(tmp_path: Path) -> None:
    _rehearsal(tmp_path)
    _holes(tmp_path, [7])
    (missing, _, _), (ordinary, _, _) = _probe(tmp_path, [7, 8, 10]), _probe(tmp_path, [9, 8, 10])
    assert "tax" in missing
    assert missing == ordinary
    assert "tax_0" not in missing
    assert "tax_1" not in missing


def test_announced_shapes_are_paid_for(tmp_path: Path) -> None:
    """Twenty missing cells make a bin of their own, nineteen do not: a cell is read from the shape, at a price."""
    _rehearsal(tmp_path)
    _holes(tmp_path, range(20))
    rest = range(30, 230)
    _, first, paid = _probe(tmp_path, [*range(20), *rest])
    _, second, again = _probe(tmp_path, [*range(19), 25, *rest])
    assert first != second
    assert min(paid, again) >= 3


def test_a_refusal_is_paid_for_where_it_depends_on_a_row(tmp_path: Path) -> None:
    """With few rows in common, one missing cell more decides between a refusal and an announcement."""
    _rehearsal(tmp_path)
    _holes(tmp_path, [3, 4, 5])
    booked = []
    for row in (5, 6):
        told, shapes, paid = _probe(tmp_path, [3, 4, row, *range(100, 100 + _EDGE)])
        booked.append((told != "", shapes is None, paid))
    refused, announced = booked
    assert refused[:2] == announced[:2] or min(refused[2], announced[2]) > 0


def test_a_refusal_of_the_ledger_names_no_column(tmp_path: Path) -> None:
    sections = SECTIONS.replace("enforce = false", "max_equations = 2")  # binning takes three
    loaded = write_sample(tmp_path, Sample(500, {BANK: 1, TAX: 2, UTILITY: 2}, sections=sections))
    rehearsal = Rehearsal(loaded, timeout_s=0.5)
    network = rehearsal.network()
    with pytest.raises(FedCreditError):
        rehearsal.play(network)
    assert isinstance(network.failures[TAX], DisclosureRefused)
    assert "tax_" not in str(network.failures[BANK])


def _relay(values: int, which: int) -> Any:
    """A coordinator that puts totals of its own in the place of one round's; it has the public key it needs."""
    public: list[bytes] = []
    rounds: list[bytes] = []

    def rewrite(_sender: PartyId, _recipient: PartyId, kind: str, body: bytes) -> bytes | None:
        if kind == "scorecard.totals_key":
            public[:] = [decode_struct(TotalsKey, body, kind).public]
        if kind != "scorecard.total":
            return None
        rounds.append(body)
        if len(rounds) - 1 != which:
            return None
        total = decode_struct(EncryptedTotal, body, kind)
        count = 359 if total.rows == "train" else 141
        own = encrypt_partial(public[0], np.full(count, values), None, bound=TOTAL_BOUND)
        return encode(msgspec.structs.replace(total, body=add([own], public[0], bound=TOTAL_BOUND)))

    return rewrite


@pytest.mark.parametrize(("values", "which"), [(0, 0), (0, 1), (-40, 2), (TOTAL_BOUND, 2)])
def test_a_coordinator_that_invents_totals_is_noticed(tmp_path: Path, values: int, which: int) -> None:
    rehearsal = _rehearsal(tmp_path)
    rehearsal = replace(rehearsal, tamper=Reseal(rehearsal.keys(), _relay(values, which)))
    with pytest.raises((IntegrityError, PeerError), match="coordinator"):
        rehearsal.play()


def test_totals_that_no_table_gives_end_in_a_named_error(tmp_path: Path) -> None:
    rehearsal = _rehearsal(tmp_path)
    rehearsal = replace(rehearsal, tamper=Reseal(rehearsal.keys(), _relay(TOTAL_BOUND, 0)))
    with pytest.raises(FedCreditError):
        rehearsal.play()


def test_a_coordinator_that_adds_a_partial_twice_is_noticed(tmp_path: Path) -> None:
    """With two holders the masks no longer cancel."""

    async def doubling(channel: Channel, _holding: Holding, _held: Held) -> None:
        channel.stage("scorecard")
        key = await channel.receive(BANK, TotalsKey)
        await channel.receive(BANK, FitStep)
        bodies = [(await channel.receive(party, EncryptedPartial)).body for party in (TAX, UTILITY)]
        body = add([bodies[0], *bodies], key.public, bound=TOTAL_BOUND)
        await channel.send(BANK, EncryptedTotal(round=0, rows="train", body=body))

    with pytest.raises(PeerError, match="a mask does not cancel"):
        _rehearsal(tmp_path, cheats={COORDINATOR: doubling}).play()


def _too_many_rounds() -> Cheat:
    """A label holder that chooses nothing of the utility and asks one round more than the plan has."""

    async def role(channel: Channel, holding: Holding, held_out: Held) -> None:
        from fedcredit.protocol.scorecard import roles
        from fedcredit.protocol.scorecard.label_holder import _EncryptedSums

        async def more(self: Any, tables: Any) -> Any:  # in place of the scoring: a third round of the fit
            await self.totals([np.zeros_like(table) for table in tables])
            return await original(self, tables)

        original = _EncryptedSums.score
        _EncryptedSums.score = more  # type: ignore[method-assign]
        try:
            await roles.lead(channel, holding, held_out)
        finally:
            _EncryptedSums.score = original  # type: ignore[method-assign]

    return role


def test_a_round_beyond_the_plan_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="bank"):
        _rehearsal(tmp_path, cheats={BANK: _too_many_rounds()}).play()


def test_a_run_in_which_no_holder_is_chosen_ends_well(tmp_path: Path) -> None:
    loaded = write_sample(tmp_path, Sample(500, {BANK: 1, TAX: 2}, sections=SECTIONS))
    spec = loaded.spec.model_copy(update={"privacy": loaded.spec.privacy.model_copy(update={"max_bins_returned": 1})})
    Rehearsal(replace(loaded, spec=spec), timeout_s=0.5).play()


def _positional(_sender: PartyId, recipient: PartyId, kind: str, body: bytes) -> bytes | None:
    """Tables in which every combination of the tax office's bins has a total of its own, far above the noise."""
    if kind != "scorecard.points":
        return None
    message = decode_struct(PartialPoints, body, kind)
    if message.rows == "test":
        return None
    unit, tables = 1 << 23, []
    for table in message.tables:
        tables.append([unit * place if recipient == TAX else 0 for place in range(len(table))])
        unit *= len(table)
    return encode(msgspec.structs.replace(message, tables=tables))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the honest half of the bank's role cannot fit such totals
def test_tables_that_no_scorecard_has_are_refused(tmp_path: Path) -> None:
    rehearsal = _rehearsal(tmp_path)
    rehearsal = replace(rehearsal, tamper=Reseal({BANK: rehearsal.keys()[BANK]}, _positional))
    with recording() as notes, pytest.raises(PeerError, match="bank"):
        rehearsal.play()
    assert notes.totals == []
