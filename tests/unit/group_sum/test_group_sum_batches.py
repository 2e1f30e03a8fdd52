"""Batches of vectors: all in one message, some left out, some answerers left out, sums exact."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from fedcredit.crypto.noise import noise_bound
from fedcredit.crypto.packing import Field
from fedcredit.crypto.profiles import PROFILES
from fedcredit.errors import BoundError, FedCreditError, IntegrityError, PeerError
from fedcredit.protocol.group_sum import session
from fedcredit.protocol.group_sum.answerer import price_each
from fedcredit.protocol.group_sum.session import KeptSecrets
from fedcredit.runtime.escrow import NoEscrow
from fedcredit.types import PartyId

BANK, TAX, UTILITY = PartyId("bank"), PartyId("tax"), PartyId("utility")
FREE = price_each([])
PAIR = (Field(1 << 18), Field(1 << 18))  # two fields make a vector with any profile

every_profile = pytest.mark.parametrize("profile", sorted(PROFILES))


def kinds(network: Any) -> Counter[str]:
    return Counter(entry.kind for entry in network.transcript if entry.recipient in {BANK, TAX})


@every_profile
def test_a_batch_is_one_message_and_exact(scene: Any, profile: str) -> None:
    played = scene(profile, batches=(PAIR * 3, PAIR))
    columns = [played.columns(6, 1), played.columns(2, 2)]

    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        return [await asker.ask(batch, keep) for batch in columns]

    async def answer(answerer: Any, _party: PartyId) -> None:
        await answerer.answer(FREE)
        await answerer.answer(FREE)

    found, network = played.play(ask, answer)
    for batch, sums in zip(columns, found, strict=True):
        for party in (TAX, UTILITY):
            for column, one in zip(batch, sums[party], strict=True):
                assert np.array_equal(one, played.sums(party, column))
    assert kinds(network)["group_sum.request"] == 2
    assert kinds(network)["group_sum.answer"] == 4  # of two answerers


def test_batches_and_answerers_may_be_left_out(scene: Any) -> None:
    played = scene(batches=(PAIR, PAIR * 2, PAIR))
    columns = played.columns(2)

    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        first = await asker.ask(columns, keep, batch=0, to=[UTILITY])
        return first, await asker.ask(columns, keep, batch=2)

    async def answer(answerer: Any, party: PartyId) -> None:
        if party == UTILITY:
            await answerer.answer(FREE, batch=0)
        await answerer.answer(FREE, batch=2)

    (first, last), _ = played.play(ask, answer)
    assert list(first) == [UTILITY]
    assert list(last) == [TAX, UTILITY]
    for party in (TAX, UTILITY):
        assert np.array_equal(last[party][1], played.sums(party, columns[1]))


def test_vectors_are_numbered_by_their_place_in_the_plan(scene: Any) -> None:
    indices: list[int] = []

    class Watching(NoEscrow):
        def bind(self, what: str, key: str, digest: str) -> None:
            if what == "asked":
                indices.append(int(key.rsplit("/", 1)[1]))
            super().bind(what, key, digest)

    base = scene()
    keeps = {**base.keeps, BANK: KeptSecrets(base.keeps[BANK].secret, base.keeps[BANK].replayable, Watching())}
    played = scene(batches=(PAIR * 2, PAIR, PAIR), keeps=keeps)

    async def ask(asker: Any, keep: KeptSecrets) -> None:
        await asker.ask(played.columns(4), keep)
        await asker.ask(played.columns(2), keep, batch=2)

    async def answer(answerer: Any, _party: PartyId) -> None:
        await answerer.answer(FREE)
        await answerer.answer(FREE, batch=2)

    played.play(ask, answer)
    assert indices == [0, 1, 3]


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 0), (0, 2), (0, -1)])
def test_batches_only_rise(scene: Any, first: int, second: int) -> None:
    played = scene(batches=(PAIR, PAIR))
    columns = played.columns(2)

    async def ask(asker: Any, keep: KeptSecrets) -> None:
        await asker.ask(columns, keep, batch=first)
        with pytest.raises(BoundError, match="is next"):
            await asker.ask(columns, keep, batch=second)

    async def answer(answerer: Any, _party: PartyId) -> None:
        await answerer.answer(FREE, batch=first)
        with pytest.raises(BoundError, match="is next"):
            await answerer.answer(FREE, batch=second)

    played.play(ask, answer)


def test_parties_without_hints_are_not_asked(scene: Any) -> None:
    played = scene()

    async def ask(asker: Any, keep: KeptSecrets) -> None:
        for options in ({"to": ["stranger"]}, {"withheld": {"stranger": np.zeros(7, np.bool_)}}):
            with pytest.raises(BoundError, match="without hints"):
                await asker.ask(played.columns(1), keep, **options)

    async def answer(_answerer: Any, _party: PartyId) -> None: ...

    played.play(ask, answer)


def test_a_batch_that_is_too_large_for_one_message_comes_in_several(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = scene("unsafe-plaintext", batches=(PAIR * 5,))
    monkeypatch.setattr(session, "_COMFORTABLE", session._ENVELOPE + 2 * (81 + 8 * 60 + session._EACH))
    columns = played.columns(10)

    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        return await asker.ask(columns, keep)

    async def answer(answerer: Any, _party: PartyId) -> None:
        await answerer.answer(FREE)

    found, network = played.play(ask, answer)
    for column, one in zip(columns, found[TAX], strict=True):
        assert np.array_equal(one, played.sums(TAX, column))
    assert kinds(network)["group_sum.request"] == 3
    assert kinds(network)["group_sum.answer"] == 6


def test_a_vector_that_fits_into_no_message_is_refused_before_anything_is_sent(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LARGEST_REQUEST", 2000)
    played = scene()

    async def nothing(*_: Any) -> None: ...

    with pytest.raises(BoundError, match=r"makes a request of 27\d{4} bytes with rlwe-8192, at most 2000"):
        played.play(nothing, nothing)


def test_answers_that_fit_into_no_message_are_refused_before_anything_is_sent(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LARGEST_ANSWER", 1300)
    played = scene(batches=(PAIR, PAIR * 2))

    async def nothing(*_: Any) -> None: ...

    with pytest.raises(BoundError, match=r"7 sums of 2 vectors make an answer of 15\d\d bytes .* at most 1300"):
        played.play(nothing, nothing)


@every_profile
def test_offsets_are_added_exactly(scene: Any, profile: str) -> None:
    fields = tuple(Field(100, noise_bound(40.0)) for _ in range(3))
    played = scene(profile, batches=(fields,))
    columns, generator = played.columns(3), np.random.default_rng(3)
    offsets = [generator.integers(-20, 21, 7) for _ in fields]

    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        return await asker.ask(columns, keep)

    async def answer(answerer: Any, _party: PartyId) -> None:
        await answerer.answer(FREE, offsets=offsets)

    found, _ = played.play(ask, answer)
    for party in (TAX, UTILITY):
        for column, offset, one in zip(columns, offsets, found[party], strict=True):
            assert np.array_equal(one, played.sums(party, column) + offset)


@pytest.mark.parametrize(("slack", "offset"), [(0, 1), (10, 11), (10, -11)])
def test_offsets_beyond_the_slack_do_not_leave(scene: Any, slack: int, offset: int) -> None:
    played = scene("unsafe-plaintext", batches=((Field(100, slack),),))

    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        return await asker.ask(played.columns(1), keep)

    async def answer(answerer: Any, _party: PartyId) -> None:
        await answerer.answer(FREE, offsets=[np.full(7, offset)])

    with pytest.raises(FedCreditError, match="exceeds its bound"):
        played.play(ask, answer)


@every_profile
def test_withheld_outputs_are_nothing_and_the_others_exact(scene: Any, profile: str) -> None:
    played = scene(profile, batches=(PAIR,))
    columns = played.columns(2)
    hidden = {TAX: np.arange(7) < 3, UTILITY: np.ones(7, np.bool_)}

    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        return await asker.ask(columns, keep, withheld=hidden)

    async def answer(answerer: Any, party: PartyId) -> None:
        await answerer.answer(FREE, withheld=hidden[party])

    found, _ = played.play(ask, answer)
    for party in (TAX, UTILITY):
        for column, one in zip(columns, found[party], strict=True):
            assert np.array_equal(one, np.where(hidden[party], 0, played.sums(party, column)))


@pytest.mark.parametrize("profile", ["rlwe-8192", "unsafe-plaintext"])
def test_an_asker_that_is_not_told_what_is_withheld_ends_with_a_named_error(scene: Any, profile: str) -> None:
    played = scene(profile)

    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        return await asker.ask(played.columns(1), keep)

    async def answer(answerer: Any, party: PartyId) -> None:
        await answerer.answer(FREE, withheld=np.full(7, party == TAX))

    with pytest.raises((PeerError, IntegrityError), match="tax"):
        played.play(ask, answer)


@pytest.mark.parametrize(
    ("field", "added", "fits"),
    [
        (Field(100), 0, True),
        (Field(100), 1, False),
        (Field(100, 3000), 3000, True),  # no deviation is agreed: only the bound is known
        (Field(100, 480, 84.0), 480, True),
        (Field(100, 3000, 50.0), 690, True),  # 8 * 50 * sqrt(3) = 692 in the first feature
        (Field(100, 3000, 50.0), 700, False),
        (Field(100, 10, 5.0), 11, True),  # three bins with 10 each
    ],
)
def test_bins_add_up_within_what_the_noise_can_do(scene: Any, field: Field, added: int, fits: bool) -> None:
    played = scene("unsafe-plaintext", batches=((field,),))
    offsets = np.zeros(7, np.int64)
    offsets[0] = min(added, field.slack)

    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        return await asker.ask(played.columns(1), keep)

    def lying(answerer: Any) -> None:
        own = answerer._answerer._sums
        answerer._answerer._sums = lambda *a: own(*a) + np.where(np.arange(7) == 1, added - offsets[0], 0)

    async def answer(answerer: Any, _party: PartyId) -> None:
        lying(answerer)
        await answerer.answer(FREE, offsets=[offsets] if field.slack else None)

    if fits:
        played.play(ask, answer)
        return
    with pytest.raises(IntegrityError, match=r"tax: the bins of feature F0 do not add up"):
        played.play(ask, answer)


def test_withheld_features_are_not_held_against_the_total(scene: Any) -> None:
    played = scene("unsafe-plaintext")
    hidden = np.arange(7) == 1  # one bin of the first feature: the feature has no sum any more

    async def ask(asker: Any, keep: KeptSecrets) -> Any:
        return await asker.ask(played.columns(1), keep, withheld={TAX: hidden, UTILITY: hidden})

    async def answer(answerer: Any, _party: PartyId) -> None:
        await answerer.answer(FREE, withheld=hidden)

    assert played.play(ask, answer)[0][TAX][0][1] == 0
