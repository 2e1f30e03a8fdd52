"""One party's end of a run at the exchange: sealed payloads to its peers and back, across any number of connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fedcredit.errors import SpecError, TransportError
from fedcredit.runtime.exchange.desk import Desk
from fedcredit.runtime.exchange.dial import Dialer
from fedcredit.runtime.exchange.types import Delivery, LinkSettings, Parcel, PeerRestarted, Presence, TlsPem
from fedcredit.types import PartyId

__all__ = ["Delivery", "ExchangeLink", "LinkSettings", "Parcel", "PeerRestarted", "Presence", "TlsPem"]

_END_SECONDS = 5.0
"""Longest wait for the connection's thread at the end; it is a daemon and dies with the process anyway."""

_LAST_SECONDS = 0.02
"""What gRPC still has to say of a call that has ended should not find its loop closed."""

_AT_ONCE = frozenset({"run.stopped", "exchange.closed"})
"""Ends of a link after which payloads that came in before are not handed out any more."""


class ExchangeLink:
    """A party's link; its connection lives in a thread of its own, so that a computing role does not silence it.

    All methods but `note` and `presence` belong to the event loop that called `open`. An error ends the link for good.

    Args:
        settings: The link.

    Raises:
        SpecError: the keys are not those of this run, party and peers.
        BoundError: this attempt was sealed before with these keys.
    """

    def __init__(self, settings: LinkSettings) -> None:
        keys = settings.keys
        if keys.run != settings.run or keys.party != settings.party or keys.peers != set(settings.peers):
            raise SpecError(
                "exchange.keys",
                f"{keys!r} towards {sorted(keys.peers)} are not those of {settings.party} in run {settings.run} "
                f"towards {sorted(settings.peers)}",
            )
        self.settings = settings
        self._desk = Desk(settings, self._news)
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._opened = asyncio.Event()
        self._there: tuple[asyncio.AbstractEventLoop, Dialer] | None = None
        self._thread = threading.Thread(target=self._live, name=f"exchange-{settings.party}", daemon=True)

    async def open(self) -> None:
        """Connects and joins the run, and tells every peer (Begin) that this attempt has started.

        Raises:
            TransportError: ``exchange.unreachable`` after ``reconnect_s`` (also where the run was not opened by then),
                ``run.stopped``, or the exchange refused for good (``exchange.unknown-key``, ``exchange.not-member``,
                ``exchange.superseded``, …).
        """
        if self._loop is not None:
            raise TransportError("exchange.closed", f"the link of {self.settings.party} was opened before")
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        while not self._opened.is_set():
            self._check()
            await self._news_or(self.settings.reconnect_s + self.settings.connect_timeout_s)

    async def close(self, *, flush: bool) -> None:
        """Ends the link.

        Args:
            flush: Wait, at most ``limits.flush_s``, until the recipients have acknowledged all that was sent.

        Raises:
            TransportError: ``exchange.unacknowledged``, naming who did not; the link is closed all the same.
        """
        missing = await self._flushed() if flush and self._failure is None else []
        if self._failure is None:
            self._failure = self._closed()
        if self._there is not None:
            loop, dialer = self._there
            with contextlib.suppress(RuntimeError):  # its loop may have ended by itself
                loop.call_soon_threadsafe(dialer.leave)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _END_SECONDS)
        self._changed.set()
        if missing:
            raise TransportError(
                "exchange.unacknowledged",
                f"{', '.join(missing)} did not acknowledge all that {self.settings.party} sent within "
                f"{self.settings.limits.flush_s:g} s",
            )

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
        until = time.monotonic() + self.settings.limits.window_wait_s
        while True:
            self._check()
            if self._desk.put(parcels, body):
                break
            left = until - time.monotonic()
            if left <= 0:
                raise TransportError(
                    "exchange.window",
                    f"one of {', '.join(parcel.recipient for parcel in parcels)} has taken nothing for "
                    f"{self.settings.limits.window_wait_s:g} s",
                )
            await self._news_or(left)
        self._wake()

    async def receive(self) -> Delivery:
        """The next payload of any peer; in order for each peer, each exactly once. Safe to cancel.

        Raises:
            PeerRestarted: a peer began again.
            TransportError: as `open`; ``exchange.closed``.
            PeerError: ``sealed.*``: bytes do not authenticate; the text names the sender they claimed.
        """
        while True:
            self._check(patient=True)
            delivery, owed = self._desk.take()
            if owed:
                self._wake()
            if delivery is not None:
                return delivery
            self._check()
            await self._changed.wait()
            self._changed.clear()

    def note(self, waiting_for: PartyId | None) -> None:
        """Says whom the role waits for; goes out once it has been so for a moment, and with heartbeats."""
        self._desk.note(waiting_for)

    def presence(self) -> Mapping[PartyId, Presence]:
        """Presence of all parties of the run, this one included, as last told by the exchange."""
        return self._desk.presence()

    @property
    def dropped(self) -> int:
        """Frames that came late, twice, or from an older life of a peer."""
        return self._desk.dropped

    async def _flushed(self) -> list[PartyId]:
        """Waits for acknowledgements, and until the peers have theirs; who is missing at the end."""
        until = time.monotonic() + self.settings.limits.flush_s
        self._desk.hurry()
        self._wake()
        while (missing := self._desk.unacknowledged()) or self._desk.indebted:
            left = until - time.monotonic()
            if left <= 0 or self._failure is not None:
                return missing
            await self._news_or(min(left, 0.1))
        return []

    async def _news_or(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
                self._changed.clear()

    def _check(self, *, patient: bool = False) -> None:
        """Raises what ended the link; with ``patient`` only what makes worthless what came in before."""
        failure = self._failure
        lasting = isinstance(failure, TransportError) and failure.code not in _AT_ONCE
        if failure is not None and not (patient and lasting):
            raise failure
        if self._loop is None:
            raise self._closed()

    def _closed(self) -> TransportError:
        return TransportError("exchange.closed", f"the link of {self.settings.party} is closed")

    # The connection's thread.

    def _live(self) -> None:
        """The thread: an event loop that does nothing but this link's connection."""
        try:
            asyncio.run(self._connection())
        except Exception as error:  # noqa: BLE001 - handed to the role, who raises it
            self._fail(error)

    async def _connection(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_quiet)
        dialer = Dialer(self.settings, self._desk)
        self._there = (loop, dialer)
        if self._failure is not None:
            dialer.leave()  # closed before it began
        opening = asyncio.create_task(self._tell_open(dialer))
        try:
            await dialer.run()
        finally:
            opening.cancel()
            await asyncio.sleep(_LAST_SECONDS)

    async def _tell_open(self, dialer: Dialer) -> None:
        await dialer.joined.wait()
        self._call(self._opened.set)
        self._news()

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self._news()

    def _news(self) -> None:
        self._call(self._changed.set)

    def _call(self, function: Any) -> None:
        """Runs something in the role's loop, which may have ended already."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function)

    def _wake(self) -> None:
        if self._there is not None:
            loop, dialer = self._there
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(dialer.wake)


def _quiet(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Leaves out that gRPC wakes all its loops for each event, and all but one find an empty pipe."""
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
