"""The exchange: forwards sealed frames between the parties of open runs.

It holds no key, writes nothing to disk, and forgets a frame once it is written. What it may hold in memory follows
from `ServerLimits`, whatever a peer does: a sender whose run holds all it may is not read from; a reader that does not
read is put out; and a stream keeps its slot until gRPC itself has let it go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from fedcredit.errors import PeerError, SpecError, TransportError
from fedcredit.runtime.exchange.frames import METHOD, SERVICE, Seen
from fedcredit.runtime.exchange.limits import ServerLimits
from fedcredit.runtime.exchange.room import Room, Stream
from fedcredit.runtime.exchange.serve import Context, join, refuse, serve
from fedcredit.runtime.exchange.tls import KnownKey, known_peer, renewable_credentials, server_options
from fedcredit.runtime.exchange.types import TlsPem
from fedcredit.types import PartyId, RunId

__all__ = ["ExchangeServer", "ExchangeSnapshot", "RunSnapshot", "ServerSettings"]

_LOG = logging.getLogger("fedcredit.exchange")
_KINDS = frozenset({"node", "coordinator"})
_LOOKS = 4
"""How often in each heartbeat or time-out the exchange looks for silent and stalled streams."""


@dataclass(frozen=True)
class ServerSettings:
    """What an exchange needs.

    Args:
        address: "host:port" to listen on; port 0 takes a free one.
        tls: PEM of the exchange's own certificate.
        known: Members by the digest of their TLS keys (`exchange_tls.key_digest`).
        limits: Sizes, counts and times.
    """

    address: str
    tls: TlsPem = field(repr=False)
    known: Mapping[str, KnownKey]
    limits: ServerLimits = field(default_factory=ServerLimits)


@dataclass(frozen=True)
class RunSnapshot:
    """One open run; bytes and frames since it was opened.

    Args:
        members: Its parties.
        connected: Those connected, with their attempts.
        stopped: Why it was stopped, or "".
        stored: Bytes held for recipients now; most_stored: at most so far.
        frames: Heads, chunks and receipts that came in.
        bytes_in: Their bytes; bytes_out: bytes of all frames written.
        undelivered: Frames for a recipient that was not there (its peer sends them again).
    """

    members: tuple[PartyId, ...]
    connected: Mapping[PartyId, int]
    stopped: str
    stored: int
    most_stored: int
    frames: int
    bytes_in: int
    bytes_out: int
    undelivered: int


@dataclass(frozen=True)
class ExchangeSnapshot:
    """State of the exchange, for metrics and status.

    Args:
        runs: Open runs.
        calls: Calls that gRPC has not let go, joined or not.
        refused: How many streams were refused or ended, by code.
    """

    runs: Mapping[RunId, RunSnapshot]
    calls: int
    refused: Mapping[str, int]


class ExchangeServer:
    """The exchange of one coordinator; all methods belong to the event loop that starts it.

    Args:
        settings: Where, as whom, for whom.
        clock: Seconds that never go back.
        handlers: Further services of the same port; they have to look at their callers with `caller`.
        note: Hears of every refusal: its code, public text and the caller's address, if there was a call.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        handlers: Sequence[grpc.GenericRpcHandler] = (),
        note: Callable[[str, str, str], None] | None = None,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._handlers = tuple(handlers)
        self._known = dict(settings.known)
        self._rooms: dict[RunId, Room] = {}
        self._server: grpc.aio.Server | None = None
        self._looking: asyncio.Task[None] | None = None
        self._refused: Counter[str] = Counter()
        self._note = note
        self._fresh_tls: TlsPem | None = None
        self._calls = 0
        self._calls_of: Counter[PartyId] = Counter()
        self._numbers = 0

    async def start(self) -> int:
        """Listens.

        Returns:
            The port.

        Raises:
            TransportError: the address cannot be listened on, or the certificate cannot be used.
        """
        server = grpc.aio.server(options=server_options(self.settings.limits))
        link: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._link)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: link}),))
        if self._handlers:
            server.add_generic_rpc_handlers(self._handlers)
        try:
            credentials = renewable_credentials(self.settings.tls, self._fetch_tls)
            port = server.add_secure_port(self.settings.address, credentials)
        except RuntimeError:
            raise TransportError(
                "exchange.listen", f"cannot listen on {self.settings.address}: in use, or an unusable certificate"
            ) from None
        await server.start()
        self._server = server
        self._looking = asyncio.create_task(self._look())
        return port

    async def stop(self, grace_s: float = 0.5) -> None:
        """Ends all streams; their parties try to come back until their patience ends."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        if self._server is not None:
            await self._server.stop(grace_s)
        self._server = self._looking = None

    def open_run(self, run: RunId, members: Iterable[PartyId]) -> None:
        """Lets the members of a run join; once more with the same members is no change.

        Raises:
            SpecError: too many runs or members, or the run is open with other members.
        """
        parties, limits = frozenset(members), self.settings.limits
        room = self._rooms.get(run)
        if room is not None:
            if room.members != parties:
                raise SpecError("exchange.members", f"run {run} is open for {sorted(room.members)} already")
            return
        if not 2 <= len(parties) <= limits.max_members:
            raise SpecError(
                "exchange.members", f"run {run} has {len(parties)} members, 2 to {limits.max_members} are taken"
            )
        if len(self._rooms) >= limits.max_runs:
            raise SpecError("exchange.runs", f"{limits.max_runs} runs are open; one has to end before run {run}")
        self._rooms[run] = Room(run, parties, limits, self._clock, self._count)

    def close_run(self, run: RunId) -> None:
        """Ends a run's streams and forgets it; nothing happens if it is not open."""
        room = self._rooms.pop(run, None)
        if room is not None:
            room.end("exchange.run-closed", f"run {run} is over")

    def stop_run(self, run: RunId, reason: str) -> None:
        """Ends a run's streams for good: its parties stop at once. It stays known, as stopped, until `close_run`.

        Raises:
            SpecError: it is not open.
        """
        room = self._rooms.get(run)
        if room is None:
            raise SpecError("exchange.run-not-open", f"run {run} is not open at the exchange")
        room.stopped = room.stopped or (reason[:1024] or "stopped by the operator")
        room.end("run.stopped", room.stopped)

    def renew_tls(self, tls: TlsPem) -> None:
        """Shows another certificate, and asks for one of its authority, from the next handshake on."""
        self._fresh_tls = tls

    def _fetch_tls(self) -> TlsPem | None:
        """Called by gRPC before each handshake, from a thread of its own."""
        fresh, self._fresh_tls = self._fresh_tls, None
        return fresh

    def replace_known(self, known: Mapping[str, KnownKey], revoked: Collection[PartyId] = ()) -> None:
        """Takes a new roster; streams of members that left it end, and those of members revoked in between.

        Args:
            known: Members by the digest of their TLS keys.
            revoked: Members whose streams under earlier keys end, also where they came back with other keys.
        """
        self._known = dict(known)
        parties = {member.party for member in known.values() if member.kind in _KINDS}
        for stream in self._streams():
            if stream.party not in parties or stream.party in revoked:
                stream.end("exchange.unknown-key", f"{stream.party} is no member of this consortium any more")

    def caller(self, context: Context) -> KnownKey:
        """Who calls, by its certificate; for the further services of this port.

        Raises:
            TransportError: nobody this consortium knows, or not over TLS 1.3.
        """
        return known_peer(context.auth_context(), self._known)

    def snapshot(self) -> ExchangeSnapshot:
        """What goes on now."""
        return ExchangeSnapshot(
            runs={
                run: RunSnapshot(
                    members=tuple(sorted(room.members)),
                    connected={party: stream.attempt for party, stream in sorted(room.streams.items())},
                    stopped=room.stopped,
                    stored=room.stored,
                    most_stored=room.most_stored,
                    frames=room.frames,
                    bytes_in=room.bytes_in,
                    bytes_out=room.bytes_out,
                    undelivered=room.undelivered,
                )
                for run, room in self._rooms.items()
            },
            calls=self._calls,
            refused=dict(self._refused),
        )

    def look(self, run: RunId) -> tuple[int, list[Seen]]:
        """Bytes that came in for an open run, and what is known of its parties; 0 and nothing where it is not open.

        Reads only, so that any thread may ask.
        """
        room = self._rooms.get(run)
        return (0, []) if room is None else (room.bytes_in, [room.seen(party) for party in sorted(room.members)])

    async def _link(self, _requests: object, context: Context) -> None:
        """Handles one stream."""
        self._calls += 1
        _when_done(context, self._let_go)
        stream: Stream | None = None
        party = PartyId("")
        try:
            party = self._admit(context)
            room, attempt = await join(context, party, self._rooms, self.settings.limits)
            self._numbers += 1
            stream = Stream(room, party, attempt, self._numbers, self._clock())
            room.enter(stream)
            await serve(context, stream, self.settings.limits, self._clock)
        except (TransportError, PeerError) as error:
            who = f"{party}: " if party and party not in error.public else ""
            self._count(error.code, who + error.public, str(context.peer()))
            await refuse(context, error.code, error.public)
        finally:
            if stream is not None:
                stream.room.leave(stream)

    def _admit(self, context: Context) -> PartyId:
        """Who opens a stream, if there is a slot for it."""
        limits = self.settings.limits
        if self._calls > limits.max_streams:
            raise TransportError("exchange.busy", f"all {limits.max_streams} streams of the exchange are taken")
        member = self.caller(context)
        if member.kind not in _KINDS:
            raise TransportError("exchange.kind", f"{member.party} is of kind {member.kind}, which joins no run")
        if self._calls_of[member.party] >= limits.max_streams_party:
            raise TransportError(
                "exchange.busy", f"all {limits.max_streams_party} streams that {member.party} may have are taken"
            )
        self._calls_of[member.party] += 1
        _when_done(context, lambda: self._let_go_of(member.party))
        return member.party

    def _let_go(self) -> None:
        self._calls -= 1

    def _let_go_of(self, party: PartyId) -> None:
        self._calls_of[party] -= 1
        if self._calls_of[party] <= 0:
            del self._calls_of[party]

    def _count(self, code: str, text: str, caller: str = "") -> None:
        """Counts a refusal; the log gets the first, second, fourth, … of each code, so that nobody can fill it."""
        self._refused[code] += 1
        count = self._refused[code]
        if count & (count - 1) == 0:
            _LOG.warning("%s [%s], %d in all", text, code, count)
        if self._note is not None:
            self._note(code, text, caller)

    def _streams(self) -> list[Stream]:
        return [stream for room in self._rooms.values() for stream in room.streams.values()]

    async def _look(self) -> None:
        """Heartbeats, and the end of streams that are silent or do not read."""
        limits = self.settings.limits
        pause = min(limits.heartbeat_s, limits.silence_s, limits.stall_s) / _LOOKS
        while True:
            await asyncio.sleep(pause)
            now = self._clock()
            for stream in self._streams():
                if now - stream.heard > limits.silence_s:
                    stream.end("exchange.silent", f"{stream.party} was silent for {limits.silence_s:g} s")
                elif stream.writing and now - stream.written > limits.stall_s:
                    stream.end("exchange.stalled", f"{stream.party} has read nothing for {limits.stall_s:g} s")
                elif now - stream.written >= limits.heartbeat_s:
                    stream.beat_due = True
                    stream.wake.set()


def _when_done(context: Context, callback: Callable[[], None]) -> None:
    """Calls back when gRPC lets a call go, which may be long after its handler has returned."""
    add: Any = context.add_done_callback  # its stub asks for a class that does not exist
    add(lambda _: callback())
