"""The coordinator's part in a hybrid run between houses: its role in every bank's part, and the relay of the sums.

It adds what it cannot read. In the sums of a hybrid run every bank has to stay to the end, since totals of fewer would
not fit the totals before them: one that is gone ends the run, by name.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

from fedcredit.errors import PeerError, TransportError
from fedcredit.governance.ledger import Ledger
from fedcredit.protocol.channel import Channel
from fedcredit.runtime.hybrid.attempt import Joined, through_networks
from fedcredit.runtime.hybrid.books import close_networks, networks_closed
from fedcredit.runtime.hybrid.networks import SUMS, check_hybrid, network_run, networks_of, roles_of
from fedcredit.runtime.hybrid.side_by_side import all_of
from fedcredit.runtime.hybrid.sums import SUM_SCHEMAS, relay, sum_rules
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.party_end import PEER_ENDED, TIMEOUT, PartyChannel
from fedcredit.runtime.session.coordinator import coordinator_policy
from fedcredit.runtime.session.entry import Entry
from fedcredit.runtime.session.files import EPHEMERAL, ended_well, kept_secret
from fedcredit.runtime.session.session import Part, Timing, repeat
from fedcredit.types import PartyId
from fedcredit.wire.message import Message

__all__ = ["EveryBankStays", "play_relay"]

M = TypeVar("M", bound=Message)


class _LineOver(Exception):  # noqa: N818 -- carries an error past a relay that takes each for a bank that is gone
    """The coordinator's own line has ended.

    Args:
        error: How.
    """

    def __init__(self, error: TransportError) -> None:
        super().__init__(error)
        self.error = error


class EveryBankStays(PartyChannel):
    """The coordinator's channel in the sums: a bank that does not answer ends the run, the others do not go on."""

    async def receive(self, sender: PartyId, kind: type[M]) -> M:
        """See `fedcredit.protocol.channel.Channel.receive`.

        Raises:
            PeerError: also where the sender is gone.
        """
        try:
            return await super().receive(sender, kind)
        except TransportError as error:
            if error.code not in {TIMEOUT, PEER_ENDED}:
                raise _LineOver(error) from None
            text = f"{error.public}; every bank of a run with several has to stay to the end"
            raise PeerError("hybrid.bank-gone", text, culprit=error.culprit or sender) from None


def play_relay(entry: Entry) -> bytes:
    """Plays all roles of the coordinator to their end.

    Returns:
        Bytes of a signed `Finished`.

    Raises:
        FedCreditError: a party failed, or the protocol was broken.
    """
    spec = entry.checked.spec
    check_hybrid(spec)
    model = MODEL_RUNS[spec.run.model]
    networks = networks_of(entry.checked.run, roles_of(spec))
    joined = [
        Joined(one, SUM_SCHEMAS, EveryBankStays) if name == SUMS else Joined(one, model.schemas)
        for name, one in networks.items()
    ]
    with Ledger(":memory:") as ledger:  # it has no records: nothing of its own can be disclosed
        part = Part(
            home=entry.home,
            checked=entry.checked,
            approvals=entry.approvals,
            ephemeral=kept_secret(entry.files, EPHEMERAL),
            schemas=(*model.schemas, *SUM_SCHEMAS),
            policy=coordinator_policy(entry.checked, (*model.schemas, *SUM_SCHEMAS)),
            ledger=ledger,
            files=entry.files,
            timing=Timing(timeout_s=spec.network.timeout_s),
        )

        def once(attempt: int) -> Coroutine[Any, Any, None]:
            return through_networks(part, joined, attempt, partial(_roles, entry), lambda _: None)

        if not networks_closed(entry.files, part.party):
            repeat(part, once, ended=entry.ended)
        close_networks(part, list(networks.values()))
        return ended_well(part, b"")


async def _roles(entry: Entry, channels: Mapping[PartyId, Channel]) -> None:
    spec = entry.checked.spec
    model = MODEL_RUNS[spec.run.model]
    roles = {bank.name: model.coordinate(channels[bank.name], spec.for_bank(bank.name)) for bank in spec.banks}
    await all_of({**roles, SUMS: _sums(entry, channels[SUMS])})


async def _sums(entry: Entry, channel: Channel) -> None:
    try:
        await relay(channel, sum_rules(entry.checked.spec, network_run(entry.checked.run, SUMS)))
    except _LineOver as over:
        raise over.error from None
