"""An auditor's replay of what the label holder asked: done at its house, after the run, never by a feature holder.

Every vector is derived again from the label holder's own records, encrypted again with the seed that it escrowed, and
compared with the digest of the message that a feature holder logged. Labels and rows of the label holder are seen, so
the auditor has to be one that may see them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.crypto.packing import pack
from fedcredit.crypto.profiles import BFV_8192
from fedcredit.crypto.secret import RunSecret
from fedcredit.data.load import load_table, load_tables
from fedcredit.data.register import register_of
from fedcredit.data.split import held_out_rows
from fedcredit.data.table import HolderTable
from fedcredit.errors import BoundError, DataError, IntegrityError, SpecError
from fedcredit.protocol.align.index import UNKNOWN, RowIndex, common_order, in_order, locate, rows_of
from fedcredit.protocol.align.messages import CommonIndex, Register
from fedcredit.protocol.align.registry import register_digest
from fedcredit.protocol.bin.conversation import bin_conversation
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.bin.messages import RunBasis
from fedcredit.protocol.boost.archive import read_archive
from fedcredit.protocol.boost.draws import LabelDraws
from fedcredit.protocol.boost.messages import (
    Bitmaps,
    BoostBasis,
    KeptSplits,
    Offer,
    TreeShapes,
    TreeStart,
    WantedSplits,
)
from fedcredit.protocol.boost.plan import BoostPlan, plan_boost
from fedcredit.protocol.boost.retrace import Asked, Growth, Retraced, retrace
from fedcredit.protocol.boost.roles import own_features
from fedcredit.protocol.group_sum.session import Conversation, KeptSecrets
from fedcredit.protocol.holding import Holding
from fedcredit.runtime.boost.read import boosted_trees
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.runtime.replay_evidence import Evidence, Rebuilt, Seen, gather_evidence
from fedcredit.types import PartyId
from fedcredit.wire.message import Message

__all__ = ["Picked", "Replay", "replay"]

Bools = NDArray[np.bool_]
M = TypeVar("M", bound=Message)

_AGREED = 3  # two nonces and the common rows


@dataclass(frozen=True)
class Picked:
    """Which vectors to check; all, where nothing is said.

    Args:
        vectors: Their numbers; the whole message of each is checked.
        sample: How many to draw at random.
    """

    vectors: tuple[int, ...] = ()
    sample: int | None = None

    def of(self, numbers: Sequence[int]) -> frozenset[int]:
        """The chosen ones of some vectors.

        Raises:
            SpecError: a number that no vector has, or a sample of none.
        """
        for one in self.vectors:
            if one not in numbers:
                text = f"--vector {one}: this run asked vectors {min(numbers, default=0)} to {max(numbers, default=0)}"
                raise SpecError("replay.vector-number", text)
        if self.sample is None:
            return frozenset(self.vectors or numbers)
        if self.sample < 1:
            raise SpecError("replay.sample", f"--sample {self.sample}: at least 1 is needed")
        drawn = secrets.SystemRandom().sample(numbers, min(self.sample, len(numbers)))
        return frozenset((*drawn, *self.vectors))


@dataclass(frozen=True)
class Replay:
    """What was checked and found equal; any difference raises instead.

    Args:
        holder: Whose log the requests were compared with.
        conversation: Name of the conversation.
        checked: Numbers of the vectors checked.
        vectors: How many were asked in the conversation.
        zeros: Those checked that were padded zeros.
        requests: Requests rebuilt, byte for byte.
        messages: Other messages that were compared with a log: rows, sizes, splits, bitmaps.
        trees: Trees grown again; 0 for a scorecard.
        unchecked: What cannot be checked, or the empty text.
        seconds: How long it took.
    """

    holder: PartyId
    conversation: str
    checked: tuple[int, ...]
    vectors: int
    zeros: tuple[int, ...]
    requests: int
    messages: int
    trees: int
    unchecked: str
    seconds: float


@dataclass
class _Count:
    """What has been checked so far."""

    checked: list[int]
    zeros: list[int]
    requests: int = 0
    messages: int = 0


def replay(folder: Path, holder: PartyId, picked: Picked) -> Replay:
    """Checks vectors of a finished run against a feature holder's log.

    Args:
        folder: Run directory, with the label holder's escrow and the records that ``spec.toml`` names at hand.
        holder: A feature holder.
        picked: Which vectors.

    Raises:
        SpecError: no run directory, no such holder or vector.
        BoundError: a profile whose requests cannot be rebuilt.
        IntegrityError: naming the vector or message, and the check that failed.
    """
    started = time.perf_counter()
    evidence = gather_evidence(folder, holder)
    if evidence.loaded.spec.crypto.profile == BFV_8192:
        text = f"{BFV_8192}: the cipher library draws its own randomness, so that no request can be rebuilt from a seed"
        raise BoundError("replay.profile", f"{text}; run with rlwe-8192 to have runs that can be replayed")
    boost = evidence.loaded.spec.run.model == "boost"
    check = _boost if boost else _bin
    conversation, count, (vectors, trees, unchecked) = check(evidence, folder, picked)
    return Replay(
        holder=holder,
        conversation=conversation.purpose,
        checked=tuple(count.checked),
        vectors=vectors,
        zeros=tuple(count.zeros),
        requests=count.requests,
        messages=count.messages,
        trees=trees,
        unchecked=unchecked,
        seconds=round(time.perf_counter() - started, 3),
    )


def _boost(evidence: Evidence, folder: Path, picked: Picked) -> tuple[Conversation, _Count, tuple[int, int, str]]:
    """Grows the trees again and checks their requests."""
    spec, archive = evidence.loaded.spec, read_archive(evidence.escrow)
    table = _own_table(evidence)
    ids = table.ids.to_list()
    common = [one for one, inside in zip(ids, archive.rows, strict=False) if inside]
    index = _index(evidence, table, lambda: [common])
    plan = plan_boost(spec)
    conversation = plan.conversation(evidence.session, int(index.train.sum()))
    growth = Growth(
        label_holder=evidence.leader,
        own=_own_features(evidence, table, index),
        bad=_bad(table, index),
        index=index,
        holders=[party.name for party in spec.feature_holders],
        plan=plan,
        draws=LabelDraws(evidence.draws),
        archive=archive,
    )
    batches = _batches(plan, len(archive.trees))
    numbers = [number for batch in batches for number in _numbers(conversation, batch)]
    chosen, count = picked.of(numbers), _Count([], [])
    place = 0
    ended: Retraced | None = None
    for step in retrace(growth):
        if isinstance(step, Retraced):
            ended = step
        else:
            place = _check_asked(evidence, (conversation, plan), (step, place), (chosen, count))
    if ended is None:
        raise IntegrityError("replay.archive", "the label holder kept no tree")
    finished = bool(evidence.digests(evidence.received(KeptSplits)))
    unfinished = _check_end(evidence, ended, place, finished=finished)
    count.messages += _AGREED + _check_context(evidence, growth, ended, finished=finished)
    _check_model(folder, evidence.leader, ended, finished=finished)
    return conversation, count, (len(numbers), ended.grown, unfinished)


def _check_asked(
    evidence: Evidence,
    agreed: tuple[Conversation, BoostPlan],
    step: tuple[Asked, int],
    picked: tuple[frozenset[int], _Count],
) -> int:
    """Checks the chosen messages of one round; returns the place of the next one."""
    (conversation, plan), (asked, place), (chosen, count) = agreed, step, picked
    batch = plan.batch(asked.tree, asked.round)
    parts = conversation.requests(batch)
    if chosen.isdisjoint(_numbers(conversation, batch)):
        return place + len(parts)
    vectors = pack(conversation.plans[batch], asked.columns)
    for part in parts:
        first = conversation.starts[batch] + part.start
        numbers = range(first, first + len(part))
        if not chosen.isdisjoint(numbers):
            name = f"tree {asked.tree + 1}, round {asked.round + 1}"
            mine = [vectors[at] for at in part]
            evidence.check_request(Rebuilt(conversation, first, mine, place, name))
            count.requests += 1
            count.checked += numbers
            count.zeros += [number for number, vector in zip(numbers, mine, strict=True) if not vector.any()]
        place += 1
    return place


def _batches(plan: BoostPlan, trees: int) -> list[int]:
    asked = range(plan.boost.first_trees_local, trees)
    return [plan.batch(tree, number) for tree in asked for number in range(len(plan.slots))]


def _numbers(conversation: Conversation, batch: int) -> range:
    start = conversation.starts[batch]
    return range(start, start + len(conversation.plans[batch].vectors))


def _check_end(evidence: Evidence, ended: Retraced, requests: int, *, finished: bool) -> str:
    """No more was asked than what was checked; says what was, where the run broke off within a tree."""
    more = len(evidence.requests) - requests
    if more < 0:
        text = f"the log of {evidence.holder} has {len(evidence.requests)} requests, honest training sends {requests}"
        raise IntegrityError("replay.missing", text)
    if finished and not ended.finished:
        raise IntegrityError("replay.archive", "the label holder's record ends before growth does; trees are missing")
    if more and ended.finished:
        text = f"the log of {evidence.holder} has {more} more requests than honest training sends"
        raise IntegrityError("replay.extra", text)
    return f"{more} requests of a tree that was not finished: its splits are not on record" if more else ""


def _check_context(evidence: Evidence, growth: Growth, ended: Retraced, *, finished: bool) -> int:
    """Holds all that the trees were derived from against the logs; returns how many messages were compared."""
    holder, leader, archive = evidence.holder, evidence.leader, growth.archive
    asked = range(growth.plan.boost.first_trees_local, ended.grown)
    starts = [TreeStart(tree=tree, more=True) for tree in asked]
    if finished:
        starts.append(TreeStart(tree=ended.grown, more=False))
    basis = BoostBasis(n_eff=int(ended.train.sum()), n_bad=int(growth.bad[ended.train].sum()))
    wanted = _of(archive.wanted, holder, ended.grown)
    got = evidence.received
    count = evidence.check_messages(got(BoostBasis), [basis])
    count += evidence.check_messages(got(TreeStart), starts, complete=finished)
    count += evidence.check_messages(got(WantedSplits), wanted, complete=finished)
    for party in growth.holders:
        # What another holder sent, the label holder's own log has to confirm; name that holder to have its word.
        where = (holder, "sent", leader) if party == holder else (leader, "received", party)
        count += evidence.check_messages(Seen(*where, TreeShapes), [archive.shapes[party]])
        count += evidence.check_messages(
            Seen(*where, Offer), _of(archive.offers, party, ended.grown), complete=finished
        )
        count += evidence.check_messages(
            Seen(*where, Bitmaps), _of(archive.bitmaps, party, ended.grown), complete=finished
        )
    return count


def _of(kept: Mapping[Any, M], party: PartyId, trees: int) -> Iterator[M]:
    """A party's messages about finished trees, in the order of trees and rounds; keys begin with party and tree."""
    for key in sorted(kept):
        if key[0] == party and key[1] < trees:
            yield kept[key]


def _check_model(folder: Path, leader: PartyId, ended: Retraced, *, finished: bool) -> None:
    """The label holder's model is the one that was grown; a run that failed has none."""
    path = folder / "model" / leader / "trees.json"
    if not path.is_file():
        if finished and (folder / "summary.json").is_file():
            raise IntegrityError("replay.model", f"{path}: the label holder's model is missing")
        return
    try:
        kept = boosted_trees(msgspec.json.decode(path.read_bytes()))
    except msgspec.MsgspecError:
        raise IntegrityError("replay.model", f"{path}: not JSON") from None
    grown = ended.model
    own = [split.left if not grown.features[split.feature].foreign else () for split in grown.splits]
    same = (kept.base, kept.features, kept.trees) == (grown.base, grown.features, grown.trees)
    if not same or [split.left for split in kept.splits] != own:
        raise IntegrityError("replay.model", f"{path}: not the model that honest training gives")


def _bin(evidence: Evidence, folder: Path, picked: Picked) -> tuple[Conversation, _Count, tuple[int, int, str]]:
    """Checks the first conversation of a scorecard."""
    del folder
    table = _own_table(evidence)
    index = _index(evidence, table, lambda: [one.ids.to_list() for one in load_tables(evidence.loaded).values()])
    bad = _bad(table, index)
    conversation = bin_conversation(evidence.session, len(bad))
    columns = [column.astype(np.int64) for column in (bad & index.train, index.train, index.test)]
    vectors = pack(conversation.plans[0], columns)
    chosen, count = picked.of(range(len(vectors))), _Count([], [])
    for place, part in enumerate(conversation.requests(0)):
        if not chosen.isdisjoint(part):
            mine = [vectors[at] for at in part]
            evidence.check_request(Rebuilt(conversation, part.start, mine, place, "bads, rows and held-out rows"))
            count.requests += 1
            count.checked += part
    basis = RunBasis(n_eff=int(index.train.sum()), n_bad=int((bad & index.train).sum()))
    count.messages += _AGREED + evidence.check_messages(evidence.received(RunBasis), [basis])
    rest = len(evidence.requests) - len(conversation.requests(0))
    unchecked = f"{rest} requests of selection and fit: their vectors follow from totals that are not kept"
    return conversation, count, (len(vectors), 0, unchecked if rest else "")


def _own_table(evidence: Evidence) -> HolderTable:
    spec = evidence.loaded.spec
    codes = spec.align.ids == "uscc"
    table = load_table(spec.label_holder, evidence.loaded.base, time=spec.split.time, codes=codes)
    if table.label is None:
        raise DataError("label.missing", f"{table.party}: has no label")
    return table


def _bad(table: HolderTable, index: RowIndex) -> Bools:
    if table.label is None:
        raise DataError("label.missing", f"{table.party}: has no label")
    return index.bad(table.label)


def _index(evidence: Evidence, table: HolderTable, lists: Callable[[], Sequence[Sequence[str]]]) -> RowIndex:
    """The rows of the run; the holder's log has to confirm them.

    Raises:
        SpecError: rows were found in a way that leaves nothing to repeat.
        IntegrityError: the rows are not those of the records as they are now.
    """
    spec, own = evidence.loaded.spec, table.ids.to_list()
    mask = held_out_rows(table, spec.split, evidence.loaded.base)
    held = {one for one, test in zip(own, mask, strict=True) if test}
    messages: Sequence[Message]
    if spec.align.mode == "registry" and spec.run.model == "scorecard":
        ids = in_order(register_of(spec, evidence.loaded.base) or (), spec.split.seed)
        rows = rows_of(own, ids)
        members, test = rows != UNKNOWN, np.array([one in held for one in ids])
        index = RowIndex(tuple(ids), rows, test & members, members, hidden=True)
        received, messages = evidence.received(Register), [Register(digest=register_digest(ids), rows=len(ids))]
    elif spec.align.mode == "plain":
        ids = (
            in_order(own, spec.split.seed)
            if spec.align.every_row
            else list(common_order([own, *lists()], spec.split.seed))
        )
        test_rows = np.packbits(np.array([one in held for one in ids])).tobytes()
        index = locate(own, ids, test_rows, table.party)
        received, messages = evidence.received(CommonIndex), [CommonIndex(ids=ids, test_rows=test_rows)]
    else:
        raise SpecError(
            "replay.align",
            f'run aligned by "{spec.align.mode}": replayed are runs aligned in the open, and scorecards by a register',
        )
    try:
        evidence.check_messages(received, messages)
    except IntegrityError as error:
        text = f"{table.party}: the rows of the run are not those of its records as they are now"
        raise IntegrityError("replay.rows", text, error.public) from None
    return index


def _own_features(evidence: Evidence, table: HolderTable, index: RowIndex) -> Sequence[OwnFeature]:
    """The label holder's columns in bins; nothing of it is drawn."""
    nothing = RunSecret(bytes(32))
    keep = KeptSecrets(nothing, nothing.entropy("replay"), NoEscrow())
    return own_features(Holding(evidence.loaded.spec, "", table, keep), index)[0]
