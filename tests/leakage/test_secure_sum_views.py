"""A relay that tells banks different totals: what they bring next does not add up to one bank's vector.

In averaging a total is the model that banks train next. A relay that has all but one of them train one for which their
updates are known reads that one's update off the next total, unless sums are bound to what was opened before. The
attack is run a second time with that taken away, where it has to find the vector.

Source: D. Pasquini, D. Francati, G. Ateniese, Eluding secure aggregation in federated learning via model inconsistency,
CCS 2022.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from fedcredit.crypto.noise_plan import noise_sources
from fedcredit.crypto.secure_sum import CipherAdder, GroupCipher, add_words, read_total, read_words, write_words
from fedcredit.crypto.shares import combine
from fedcredit.errors import FedCreditError, PeerError
from fedcredit.protocol.secure_sum import member as member_module
from fedcredit.protocol.secure_sum.member import SumMember
from fedcredit.protocol.secure_sum.messages import Contribution, Fresh, Opening, Shares, Survivors
from fedcredit.protocol.secure_sum.opening import Masked, read_shares
from fedcredit.protocol.secure_sum.rules import history_digest, mask_roster
from fedcredit.protocol.secure_sum.state import MemberState
from fedcredit.spec.horizontal import SecureSumSection
from fedcredit.types import PartyId
from fedcredit.wire.message import decode_struct

if TYPE_CHECKING:
    from tests.adversarial.secure_sum_town import Profile, Town, crossed, vectors
else:
    sys.path.append(str(Path(__file__).parents[1] / "adversarial"))
    from secure_sum_town import Profile, Town, crossed, vectors

LENGTH, BOUND = 16, 1 << 10
SPY, VICTIM = PartyId("bank_01"), PartyId("bank_02")
PROFILES: list[Profile] = ["masked+he", "masked"]
Ints = NDArray[np.int64]


def state_of(member: SumMember) -> MemberState:
    return decode_struct(MemberState, member.state(), "state")


def shifted(town: Town, opening: Opening, by: Ints) -> Opening:
    """The opening with a total that is off by a vector of the relay's choice; under masked+he the spy helps it."""
    spy = state_of(town.members[SPY])
    shape = town.rules.shape(LENGTH, BOUND, len(spy.roster))
    words = by.astype(np.uint64) & shape.mask
    if town.rules.encrypted:
        bodies = [town.contribution(bank).body for bank in town.banks]
        extra = GroupCipher(spy.group).encrypt(words, shape)
        return msgspec.structs.replace(opening, total=CipherAdder().add([*bodies, extra], shape))
    total = read_words(opening.total, shape)
    return msgspec.structs.replace(opening, total=write_words((total + words) & shape.mask, shape.bits))


def after_two_totals(profile: Profile) -> Town:
    """Five banks; the relay tells the victim the total, and everyone else another one."""
    town = Town(5, profile).start()
    town.contribute(vectors(town.banks, LENGTH, BOUND // 8), BOUND)
    town.answer()
    out = {bank: one for bank, one in town.relay.advance().items() if isinstance(one, Opening)}
    off = np.full(LENGTH, 7, dtype=np.int64)
    lie = shifted(town, next(iter(out.values())), off)
    for bank in town.banks:
        told = out[bank] if bank == VICTIM else lie
        town.members[bank].open(crossed(told))
    return town


def second_sum(town: Town) -> tuple[dict[PartyId, Contribution], dict[PartyId, Survivors], Ints]:
    """The victim brings its vector, everyone else, misled, zeros; the relay says that all have arrived."""
    secret = vectors([VICTIM], LENGTH, BOUND, seed=5)[VICTIM]
    came = {
        bank: town.members[bank].contribute("x", secret if bank == VICTIM else np.zeros(LENGTH, dtype=np.int64), BOUND)
        for bank in town.banks
    }
    lists = {}
    for place, reader in enumerate(town.banks):
        fresh = [
            Fresh(party=bank, pair_key=one.pair_key, seed_digest=one.seed_digest, box=one.boxes[place])
            for bank, one in came.items()
        ]
        lists[reader] = Survivors(number=2, fresh=fresh)
    return came, lists, secret


@pytest.mark.parametrize("profile", PROFILES)
def test_banks_that_were_told_different_totals_give_no_shares(profile: Profile) -> None:
    town = after_two_totals(profile)
    came, lists, _ = second_sum(town)
    assert came[VICTIM].context != came[SPY].context, "the honest relay names it at once, by secure_sum.about"
    for bank in town.banks:
        with pytest.raises(PeerError) as refused:
            town.members[bank].unmask(crossed(lists[bank]))
        assert refused.value.code == "boxes.forged"


@pytest.mark.parametrize("profile", PROFILES)
def test_without_the_history_the_vector_is_found(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "history_digest", lambda *_: b"")
    town = after_two_totals(profile)
    came, lists, secret = second_sum(town)
    for bank, message in came.items():
        town.told(bank, message)
    town.relay.advance()
    for bank in town.banks:
        town.told(bank, town.members[bank].unmask(crossed(lists[bank])))
    opened = {bank: one for bank, one in town.relay.advance().items() if isinstance(one, Opening)}
    found = town.members[SPY].open(crossed(opened[SPY]))
    assert np.array_equal(found.values, secret), "the total is the victim's vector: all others brought zeros"


@pytest.mark.parametrize("profile", PROFILES)
def test_the_honest_relay_names_who_was_told_otherwise(profile: Profile) -> None:
    town = after_two_totals(profile)
    came, _, _ = second_sum(town)
    with pytest.raises(FedCreditError) as refused:  # noqa: PT012 - whichever comes first
        for bank, message in came.items():
            town.told(bank, message)
        town.relay.advance()
    assert (refused.value.code, refused.value.culprit) == ("secure_sum.about", VICTIM)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_history_outlives_a_process(profile: Profile) -> None:
    """A bank that goes on in another process stays bound to what it has opened."""
    town = after_two_totals(profile)
    town.forget()
    came, lists, _ = second_sum(town)
    assert len({one.context for one in came.values()}) == 2
    with pytest.raises(PeerError):
        town.members[SPY].unmask(crossed(lists[SPY]))
    assert not [one for _, one in town.wire if isinstance(one, Shares) and one.number == 2]


def test_what_the_relay_sees_of_the_history_tells_no_total(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a sum reaches the relay; who has not the group's key cannot try totals on it."""
    seen: list[bytes] = []

    def keyed(group: bytes, before: bytes, listed: bytes, total: bytes) -> bytes:
        found = history_digest(group, before, listed, total)
        seen.append(found)
        assert found != history_digest(bytes(32), before, listed, total)
        return found

    monkeypatch.setattr(member_module, "history_digest", keyed)
    town = Town(3).start()
    town.sum(vectors(town.banks, 1, 5), 5)
    assert len(set(seen)) == 1
    assert len(seen) == len(town.banks)


def lists_apart(banks: Sequence[PartyId], needed: int, core: int) -> dict[PartyId, set[PartyId]]:
    """For each bank a list of who has answered: a few are on all lists, the others on as few as do."""
    rest = banks[core:]
    lists = {bank: {*banks[:core], bank} for bank in banks}
    times = dict.fromkeys(rest, 1)
    for bank in banks:
        while len(lists[bank]) < needed:
            one = min((other for other in rest if other not in lists[bank]), key=lambda other: times[other])
            lists[bank].add(one)
            times[one] += 1
    assert max(times.values()) <= len(banks) - needed
    return lists


def test_noise_is_counted_on_of_no_more_banks_than_a_lying_relay_opens() -> None:
    """Ten banks, six answers needed: told different lists, they open a total over four."""
    town = Town(10, "masked").start()
    values = vectors(town.banks, LENGTH, BOUND)
    town.contribute(values, BOUND)
    needed, core = town.rules.threshold(10), list(town.banks[:4])
    came = {bank: town.contribution(bank) for bank in town.banks}
    lists = lists_apart(town.banks, needed, len(core))
    answers = {}
    for place, reader in enumerate(town.banks):
        fresh = [
            Fresh(party=bank, pair_key=one.pair_key, seed_digest=one.seed_digest, box=one.boxes[place])
            for bank, one in came.items()
            if bank in lists[reader]
        ]
        answers[reader] = read_shares(town.members[reader].unmask(Survivors(number=1, fresh=fresh)).shares, 10)
    opened: list[int] = []
    for at, bank in enumerate(town.banks):  # the pair secret of those that are on few lists, the seed of the others
        told = {
            town.banks.index(one) + 1: answers[one][at] for one in town.banks if (bank in core) == (bank in lists[one])
        }
        opened.append(combine(dict(list(told.items())[:needed])))
    spied = state_of(town.members[SPY])
    keys = {peer.party: peer.pair_key for peer in spied.peers}
    digests = {peer.party: peer.seed_digest for peer in spied.peers}
    shape = town.rules.shape(LENGTH, BOUND, 10)
    masked = Masked(mask_roster(town.rules, spied.context, keys), digests, core, shape)
    total = read_total(masked.taken_off(add_words([came[bank].body for bank in core], shape), opened), 4, shape)
    assert np.array_equal(total, sum(values[bank] for bank in core)), "it is a total over four of ten banks"
    assert noise_sources(10, SecureSumSection()) <= len(core) - 1, "one of them may collude"
    assert noise_sources(10, SecureSumSection(colluding=2, min_banks=4)) == 2
