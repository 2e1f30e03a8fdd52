"""One bank's part as a machine of sums: what it brings, what it makes of totals, what it goes back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from fedcredit.attack.averaging import AveragingRehearsal, averaging_spec, made_up_bank
from fedcredit.data.table import HolderTable
from fedcredit.errors import BoundError, DataError, IntegrityError, PeerError, SpecError
from fedcredit.kernels.metrics import auc
from fedcredit.kernels.nn import logits, row_losses
from fedcredit.protocol.fedavg.learner import Learned, Learner
from fedcredit.protocol.fedavg.model import AveragedModel
from fedcredit.protocol.fedavg.oracle import average_in_the_clear, train_on_pooled
from fedcredit.protocol.fedavg.plan import FULL, plan_averaging
from fedcredit.protocol.fedavg.rounds import open_round, unusual
from fedcredit.types import PartyId

Keys = Mapping[str, Any]


def rehearsal(fedavg: Keys | None = None, banks: int = 3, **more: Any) -> AveragingRehearsal:
    spec = averaging_spec(banks, fedavg, more.pop("monotone", None))
    sizes = (260, 340, 180, 300, 220)
    shifts = (0.0, 0.5, -0.5, 0.2, -0.2)
    tables = {party.name: made_up_bank(party.name, sizes[at], shift=shifts[at]) for at, party in enumerate(spec.party)}
    return AveragingRehearsal(spec, tables, **more)


def learners(played: AveragingRehearsal) -> dict[PartyId, Learner]:
    return {party: one.learner() for party, one in played.inputs().items()}


def in_the_clear(fedavg: Keys | None = None, **more: Any) -> dict[PartyId, Learned]:
    return average_in_the_clear(learners(rehearsal(fedavg, **more)))


def test_all_banks_have_one_model_and_their_own_scores() -> None:
    found = in_the_clear({"fine_tune_epochs": 1})
    assert len({one.model.digest() for one in found.values()}) == 1
    assert len({one.personal.digest() for one in found.values() if one.personal}) == 3
    rows = sum(one.own.rows for one in found.values())
    pooled = found[PartyId("bank_1")].pooled
    assert pooled is not None
    assert pooled.rows == rows
    for name in ("auc", "loss", "personal_auc", "personal_loss"):
        mean = sum(getattr(one.own, name) * one.own.rows for one in found.values()) / rows
        assert getattr(pooled, name) == pytest.approx(mean, abs=1e-4)


def test_what_is_learned_is_worth_something() -> None:
    found = in_the_clear({"rounds": 8, "learning_rate": 0.3})
    one = found[PartyId("bank_2")]
    assert one.own.auc is not None
    assert one.own.auc > 0.65
    assert one.best_round == len(one.history) == 8
    assert one.rows == sum(len(inputs.rows().train) for inputs in rehearsal().inputs().values())


def test_one_bank_alone_is_ordinary_training() -> None:
    """A pool of one: weights of 1, averages that are the update, to 2^-24."""
    played = rehearsal({"network": "logistic"})
    inputs = played.inputs()[PartyId("bank_1")]
    one = average_in_the_clear({inputs.party: inputs.learner()})[inputs.party]
    again = train_on_pooled([inputs.rows()], plan_averaging(played.spec))
    assert one.model.shape == again.model.shape
    assert one.own.auc == pytest.approx(again.own.auc, abs=0.03)
    assert one.history[0].agreement == 0.0
    assert one.history[0].norm == pytest.approx(one.history[0].own_norm)


@pytest.mark.parametrize(
    "fedavg",
    [
        {"algorithm": "fedprox", "proximal": 0.5},
        {"algorithm": "fedadam", "server_rate": 0.03},
        {"algorithm": "fedyogi", "server_rate": 0.03},
        {"algorithm": "scaffold"},
        {"momentum": 0.5},
        {"weight_decay": 0.05},
        {"server_rate": 0.5},
        {"clip_update": 0.05},
        {"local_epochs": 2},
    ],
)
def test_every_key_that_says_how_to_learn_changes_the_model(fedavg: Keys) -> None:
    usual, other = in_the_clear(), in_the_clear(fedavg)
    first = PartyId("bank_1")
    assert other[first].model.digest() != usual[first].model.digest()
    assert other[first].own.auc is not None
    assert len({one.model.digest() for one in other.values()}) == 1


def test_shared_control_variates_are_the_weighted_mean_of_the_banks_own() -> None:
    played = learners(rehearsal({"algorithm": "scaffold", "rounds": 4}))
    average_in_the_clear(played)
    memories = [one._memory for one in played.values()]
    weights = np.array([len(one._own._train) for one in played.values()], dtype=np.float64)
    controls = [one.standing.controls for one in memories if one.standing is not None and one.standing.controls]
    own = np.average([one.own for one in controls], axis=0, weights=weights)
    assert np.allclose(controls[0].shared, own, atol=1e-6)
    assert np.abs(own).max() > 1e-3


def test_an_update_is_shrunk_to_its_norm() -> None:
    found = in_the_clear({"clip_update": 0.01})
    for one in found.values():
        assert all(record.own_norm <= 0.01 + 1e-6 and record.norm <= 0.01 + 1e-6 for record in one.history)


def test_patience_ends_a_run_and_keeps_its_best_round() -> None:
    keys = {"rounds": 40, "early_stopping": 2, "learning_rate": 1.0, "local_epochs": 5, "validation_fraction": 0.3}
    played = learners(rehearsal(keys))
    found = average_in_the_clear(played)
    one = found[PartyId("bank_1")]
    losses = {record.number - 1: record.validation_loss for record in one.history if record.validation_loss is not None}
    assert 3 <= len(one.history) < 40
    assert one.best_round == min(losses, key=lambda number: losses[number] or 0.0)
    assert len(one.history) - 1 - one.best_round == 2
    total = rows = 0.0
    for learner in played.values():
        judge = learner._own._judge
        margin = logits(one.model.shape, one.model.parameters, one.model.inputs(judge))
        total, rows = total + row_losses(margin, judge.bad.astype(np.float32)).sum(), rows + len(judge)
    assert losses[one.best_round] == pytest.approx(total / rows, abs=1e-4)


def test_without_patience_all_rows_train() -> None:
    played = rehearsal()
    for one in played.inputs().values():
        assert len(one.learner()._own._train) == len(one.rows().train)
    patient = rehearsal({"early_stopping": 3})
    for one in patient.inputs().values():
        learner = one.learner()
        assert 0 < len(learner._own._judge) < 0.3 * len(one.rows().train)
        assert len(learner._own._train) + len(learner._own._judge) == len(one.rows().train)


def test_a_learner_goes_on_from_its_state_to_the_bit() -> None:
    keys = {"algorithm": "scaffold", "early_stopping": 2, "fine_tune_epochs": 1}
    straight = in_the_clear(keys)
    played, steps = learners(rehearsal(keys)), 0
    members = tuple(sorted(played))
    inputs = rehearsal(keys).inputs()
    while not all(one.finished for one in played.values()):
        asked = [one.ask(3) for one in played.values()]
        played = {party: inputs[party].learner(one.state()) for party, one in played.items()}
        for before, one in zip(asked, played.values(), strict=True):
            assert np.array_equal(one.ask(3).values, before.values)
        total = np.stack([one.values for one in asked]).sum(axis=0)
        for one in played.values():
            one.take(total, members)
        steps += 1
    assert steps == 2 + len(straight[members[0]].history) + 2
    for party, one in played.items():
        found, whole = one.result(), straight[party]
        assert found.model.digest() == whole.model.digest()
        assert found.personal is not None
        assert whole.personal is not None
        assert found.personal.digest() == whole.personal.digest()
        assert found.history == whole.history


def test_a_state_of_something_else_is_refused() -> None:
    one = rehearsal().inputs()[PartyId("bank_1")]
    state = one.learner().state()
    with pytest.raises(IntegrityError, match="another spec"):
        rehearsal({"rounds": 4}).inputs()[PartyId("bank_1")].learner(state)
    for damaged in (state[:-3], b"", state[:40] + b"\xff" + state[41:]):
        with pytest.raises(IntegrityError):
            one.learner(damaged)


def harmful(played: AveragingRehearsal, number: int) -> dict[PartyId, Learned]:
    """All banks' totals, with one bank bringing the opposite of what it learned, as large as allowed, in one round."""
    machines = learners(played)
    members = tuple(sorted(machines))
    while not all(one.finished for one in machines.values()):
        asked = {party: one.ask(3) for party, one in machines.items()}
        values = {party: one.values.copy() for party, one in asked.items()}
        liar = values[PartyId("bank_2")]
        if asked[PartyId("bank_2")].what.startswith(f"fedavg.round/{number}."):
            size = len(machines[PartyId("bank_2")]._standing.server.parameters)
            update = liar[:size].astype(np.float64)
            liar[:size] = np.rint(-update / np.linalg.norm(update) * 9.9 * liar[size]).astype(np.int64)
        total = np.stack(list(values.values())).sum(axis=0)
        for one in machines.values():
            one.take(total, members)
    return {party: one.result() for party, one in machines.items()}


def test_a_round_that_harms_public_rows_is_taken_back_by_all() -> None:
    keys = {"rounds": 6, "learning_rate": 0.2, "reference": "public.csv"}
    played = rehearsal(keys, reference=made_up_bank(PartyId("public"), 400))
    found = harmful(played, 4)
    one = found[PartyId("bank_1")]
    assert [record.discarded for record in one.history] == [False, False, False, False, True, False]
    assert one.history[4].votes == 3
    assert one.best_round == 4
    assert len({each.model.digest() for each in found.values()}) == 1
    left = harmful(rehearsal({"rounds": 6, "learning_rate": 0.2}), 4)[PartyId("bank_1")]
    assert left.own.loss is not None
    assert one.own.loss is not None
    assert left.own.loss > one.own.loss + 0.05


def test_a_harmful_last_round_is_judged_too() -> None:
    keys = {"rounds": 4, "learning_rate": 0.2, "reference": "public.csv"}
    played = rehearsal(keys, reference=made_up_bank(PartyId("public"), 400))
    assert harmful(played, 4)[PartyId("bank_1")].best_round == 3


def test_a_bank_sees_that_its_update_points_elsewhere() -> None:
    found = harmful(rehearsal({"rounds": 4, "learning_rate": 0.2}), 3)
    honest = found[PartyId("bank_1")].history
    assert honest[0].agreement > 0.5
    assert honest[2].agreement < -0.3
    assert honest[2].norm > 2 * honest[1].norm


def test_norms_that_stand_out_are_marked_after_a_few_rounds() -> None:
    before = [1.0, 0.9, 0.85, 0.8, 0.78]
    assert unusual(3.0, before)
    assert not unusual(0.75, before)
    assert not unusual(3.0, before[:4])
    assert not unusual(1.0, [1.0] * 6)


def one_round() -> tuple[Learner, Learner]:
    """Two banks before the total of their first round."""
    first, second = list(learners(rehearsal({"early_stopping": 1})).values())[:2]
    for _ in range(2):
        total = first.ask(2).values + second.ask(2).values
        for one in (first, second):
            one.take(total, (PartyId("bank_1"), PartyId("bank_2")))
    return first, second


@pytest.mark.parametrize(
    ("place", "change", "text"),
    [(0, FULL * 40, "norm"), (None, FULL * 3, "weights"), (None, -FULL, "weights")],
)
def test_totals_that_honest_banks_cannot_make_end_the_run(place: int | None, change: int, text: str) -> None:
    first, second = one_round()
    total = first.ask(2).values + second.ask(2).values
    size = len(first._standing.server.parameters)
    total[size if place is None else place] += change
    with pytest.raises(PeerError, match=text):
        first.take(total, (PartyId("bank_1"), PartyId("bank_2")))


def test_losses_and_votes_that_no_banks_have_end_the_run() -> None:
    plan = plan_averaging(averaging_spec(3, {"early_stopping": 1, "reference": "public.csv"}))
    own = np.array([0, 0, FULL // 3, 0, 0, 0])
    good = np.array([0, 0, FULL, FULL // 20, FULL // 10, 3])
    assert open_round(good, own, plan, 2, 3).judged.loss == pytest.approx(0.5)
    for place, value, text in (
        (3, 17 * FULL, "losses"),
        (3, -5, "losses"),
        (4, 2 * FULL, "losses"),
        (5, 4, "votes"),
        (5, -1, "votes"),
    ):
        bad = good.copy()
        bad[place] = value
        with pytest.raises(PeerError, match=text):
            open_round(bad, own, plan, 2, 3)


def test_totals_out_of_turn_are_refused() -> None:
    one = next(iter(learners(rehearsal()).values()))
    with pytest.raises(BoundError, match="not asked"):
        one.take(np.zeros(3, dtype=np.int64), (PartyId("bank_1"),))
    one.ask(3)
    with pytest.raises(BoundError, match="not asked"):
        one.take(np.zeros(3, dtype=np.int64), (PartyId("bank_1"),))
    with pytest.raises(BoundError, match="no model"):
        one.result()


def test_a_finished_learner_has_nothing_more_to_ask() -> None:
    played = learners(rehearsal({"rounds": 1}))
    average_in_the_clear(played)
    with pytest.raises(BoundError, match="nothing more"):
        played[PartyId("bank_1")].ask(3)


def test_banks_with_other_columns_ask_for_other_sums() -> None:
    played = rehearsal()
    table = played.tables[PartyId("bank_2")]
    fewer = {name: column for name, column in table.columns.items() if name != "age"}
    tables = {**played.tables, PartyId("bank_2"): replace(table, columns=fewer)}
    with pytest.raises(PeerError, match="different sums"):
        average_in_the_clear(learners(AveragingRehearsal(played.spec, tables)))


def test_keys_that_do_not_go_together_are_refused() -> None:
    for fedavg, privacy, text in (
        ({"algorithm": "scaffold", "momentum": 0.9}, "none", "momentum"),
        ({"algorithm": "scaffold"}, "record", "scaffold"),
        ({"early_stopping": 3}, "bank", "early_stopping"),
        ({"reference": "public.csv"}, "record", "reference"),
    ):
        with pytest.raises((SpecError, ValueError), match=text):
            plan_averaging(averaging_spec(3, fedavg, differential_privacy={"unit": privacy}))


def test_a_bank_without_public_rows_cannot_vote() -> None:
    with pytest.raises(BoundError, match="public rows"):
        next(iter(rehearsal({"reference": "public.csv"}).inputs().values())).learner()


def test_a_model_is_one_file() -> None:
    played = rehearsal({"network": "monotone"}, monotone={"delay": "increasing", "age": "decreasing"})
    learned = average_in_the_clear(learners(played))[PartyId("bank_1")]
    data = learned.model.to_bytes()
    again = AveragedModel.from_bytes(data)
    assert again.digest() == learned.model.digest()
    table = played.tables[PartyId("bank_1")]
    chances = again.score(table)
    assert ((chances > 0) & (chances < 1)).all()
    assert table.label is not None
    assert auc(table.label, chances) > 0.5
    riskier = replace(table, columns={**table.columns, "age": table.columns["age"] - 20})
    assert (again.score(riskier) >= chances - 1e-6).all()
    for wrong in (
        b"{}",
        data[:-20],
        data.replace(b'"numbers": 5', b'"numbers": 4', 1),
        data.replace(b"averaged/1", b"averaged/9"),
    ):
        with pytest.raises(IntegrityError):
            AveragedModel.from_bytes(wrong)


def test_a_model_says_which_column_it_misses() -> None:
    played = rehearsal({"rounds": 1})
    model = average_in_the_clear(learners(played))[PartyId("bank_1")].model
    table = played.tables[PartyId("bank_1")]
    for name, column in (("sector", pl.Series([1.0] * table.rows)), ("age", pl.Series(["old"] * table.rows))):
        other = HolderTable(table.party, table.ids, table.label, {**table.columns, name: column}, table.digest)
        with pytest.raises(DataError, match=name):
            model.score(other)


def test_categories_meet_in_the_same_bucket_whatever_a_bank_has() -> None:
    found = {party: one.rows() for party, one in rehearsal().inputs().items()}
    sectors: dict[str, set[int]] = {}
    for party, table in rehearsal().tables.items():
        mask = rehearsal().inputs()[party].held_out
        assert isinstance(mask, np.ndarray)
        texts = table.columns["sector"].filter(pl.Series(~mask)).to_list()
        for text, bucket in zip(texts, found[party].train.buckets[:, 0].tolist(), strict=True):
            sectors.setdefault(str(text), set()).add(bucket)
    assert sectors["None"] == {-1}
    assert all(len(one) == 1 for one in sectors.values())
    assert len({next(iter(one)) for one in sectors.values()}) == 5


def with_table(played: AveragingRehearsal, party: str, table: HolderTable) -> AveragingRehearsal:
    return replace(played, tables={**played.tables, PartyId(party): table})


def some_rows(table: HolderTable, rows: np.ndarray[Any, np.dtype[np.bool_]]) -> HolderTable:
    label = None if table.label is None else table.label[rows]
    columns = {name: column.filter(pl.Series(rows)) for name, column in table.columns.items()}
    return replace(table, ids=table.ids.filter(pl.Series(rows)), label=label, columns=columns)


def test_a_bank_of_few_rows_and_one_whose_customers_all_defaulted_take_part() -> None:
    played = rehearsal({"early_stopping": 1, "fine_tune_epochs": 1}, banks=4)
    few = played.tables[PartyId("bank_1")]
    played = with_table(played, "bank_1", some_rows(few, np.arange(few.rows) < 12))
    bad = played.tables[PartyId("bank_2")]
    played = with_table(played, "bank_2", some_rows(bad, np.asarray(bad.label == 1)))
    found = average_in_the_clear(learners(played))
    assert len({one.model.digest() for one in found.values()}) == 1
    one = found[PartyId("bank_2")]
    assert one.own.auc is None
    assert one.own.loss is not None
    assert one.pooled is not None
    assert one.pooled.auc is not None


@pytest.mark.parametrize("names", [["sector"], ["age"], ["delay", "turnover"]])
def test_columns_of_one_kind_are_enough(names: list[str]) -> None:
    played = rehearsal()
    for party, table in played.tables.items():
        columns = {name: table.columns[name] for name in names}
        played = with_table(played, party, replace(table, columns=columns))
    found = average_in_the_clear(learners(played))
    one = found[PartyId("bank_1")]
    assert one.model.shape.numbers + len(one.model.shape.categories) >= len(names)
    assert one.own.auc is not None
    assert one.own.auc > 0.5
    assert AveragedModel.from_bytes(one.model.to_bytes()).digest() == one.model.digest()


def test_a_bank_without_rows_to_train_on_is_told_so() -> None:
    played = rehearsal()
    table = played.tables[PartyId("bank_1")]
    mask = played.inputs()[PartyId("bank_1")].held_out
    assert isinstance(mask, np.ndarray)
    with pytest.raises(DataError, match="rows to train on"):
        with_table(played, "bank_1", some_rows(table, mask)).inputs()[PartyId("bank_1")].learner()


def test_a_column_that_is_constant_or_missing_at_one_bank_is_none_at_all() -> None:
    played = rehearsal()
    for party, value in (("bank_1", None), ("bank_2", 1.0)):
        table = played.tables[PartyId(party)]
        columns = {**table.columns, "age": pl.Series([value] * table.rows, dtype=pl.Float64)}
        played = with_table(played, party, replace(table, columns=columns))
    found = average_in_the_clear(learners(played))
    assert len({one.model.digest() for one in found.values()}) == 1
