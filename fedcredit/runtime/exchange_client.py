"""One party's end of a run at the exchange: sealed payloads to its peers and back, across any number of connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedcredit.errors import TransportError
from fedcredit.runtime.exchange_types import Delivery, LinkSettings, Parcel, PeerRestarted, Presence, TlsPem
from fedcredit.types import PartyId

__all__ = ["Delivery", "ExchangeLink", "LinkSettings", "Parcel", "PeerRestarted", "Presence", "TlsPem"]


class ExchangeLink:
    """A party's link; its connection lives in a thread of its own, so that a computing role does not silence it.

    All methods but `note` and `presence` belong to the event loop that called `open`. An error ends the link for good.

    Args:
        settings: The link.
    """

    def __init__(self, settings: LinkSettings) -> None:
        self.settings = settings

    async def open(self) -> None:
        """Connects and joins the run, and tells every peer (Begin) that this attempt has started.

        Raises:
            TransportError: ``exchange.unreachable`` after ``reconnect_s`` (also where the run was not opened by then),
                ``run.stopped``, or the exchange refused for good (``exchange.unknown-key``, ``exchange.not-member``,
                ``exchange.superseded``, …).
        """
        raise self._closed()

    async def close(self, *, flush: bool) -> None:
        """Ends the link.

        Args:
            flush: Wait, at most ``limits.flush_s``, until the recipients have acknowledged all that was sent.

        Raises:
            TransportError: ``exchange.unacknowledged``, naming who did not; the link is closed all the same.
        """
        raise self._closed()

    async def send(self, parcels: Sequence[Parcel], body: bytes) -> None:
        """Takes a payload for one or several recipients; waits while their windows are full.

        Cancelled while it waits, nothing was taken. Once it returns, the link keeps the payload until the recipients
        have acknowledged it, and sends it again after any loss.

        Raises:
            PeerRestarted: a peer began again.
            TransportError: as `open`; ``exchange.window`` after ``limits.window_wait_s``; ``exchange.closed``.
            PeerError: bytes came in that do not authenticate.
            BoundError: too large.
        """
        raise self._closed()

    async def receive(self) -> Delivery:
        """The next payload of any peer; in order for each peer, each exactly once. Safe to cancel.

        Raises:
            PeerRestarted: a peer began again.
            TransportError: as `open`; ``exchange.closed``.
            PeerError: ``sealed.*``: bytes do not authenticate; the text names the sender they claimed.
        """
        raise self._closed()

    def note(self, waiting_for: PartyId | None) -> None:
        """Says whom the role waits for; goes out at once where it changed, and with heartbeats."""
        raise self._closed()

    def presence(self) -> Mapping[PartyId, Presence]:
        """Presence of all parties of the run, this one included, as last told by the exchange."""
        raise self._closed()

    def _closed(self) -> TransportError:
        return TransportError("exchange.closed", f"the link of {self.settings.party} is closed")
