"""A consortium with certificates and keys, its exchange on a free port of loopback, and a wire in between to cut."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from fedcredit.crypto.sealed import LinkKeys, OwnKeys, PeerKeys
from fedcredit.runtime.exchange.client import Delivery, ExchangeLink, LinkSettings, Parcel
from fedcredit.runtime.exchange.desk import Desk
from fedcredit.runtime.exchange.dial import Dialer
from fedcredit.runtime.exchange.frames import Alive, Join, Welcome, encode_frame, read_from_exchange
from fedcredit.runtime.exchange.limits import LinkLimits, ServerLimits
from fedcredit.runtime.exchange.server import ExchangeServer, ServerSettings
from fedcredit.runtime.exchange.tls import KnownKey, client_credentials, client_options, key_digest
from fedcredit.types import PartyId, RunId

T = TypeVar("T")
EXCHANGE = "exchange"
LOOPBACK = "127.0.0.1"
QUICK = LinkLimits(silence_s=1.0, heartbeat_s=0.1, backoff_s=0.2, flush_s=5.0)


@dataclass(frozen=True)
class Pem:
    ca: bytes
    certificate: bytes
    key: bytes


class Authority:
    """A consortium's certificate authority."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._certificate("authority", self.key).public_bytes(serialization.Encoding.PEM)

    def _certificate(self, name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, "authority"))
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
        names = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(f"fedcredit://c/{name}"), x509.DNSName(name)]
        )
        return builder.add_extension(names, critical=False).sign(self.key, hashes.SHA256())

    def issue(self, name: str) -> Pem:
        key = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        certificate = self._certificate(name, key).public_bytes(serialization.Encoding.PEM)
        return Pem(self.pem, certificate, key.private_bytes(*form))


async def becomes(true: Callable[[], bool]) -> None:
    """Waits for what no event tells, in bounded time."""
    for _ in range(6000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not become true in a minute")


class World:
    """Everyone's keys, and ways to start exchange and links."""

    RUN = RunId("run-1")

    def __init__(self, names: Sequence[str] = ("bank", "tax", "customs", "utility")) -> None:
        self.authority = Authority()
        self.names = tuple(PartyId(name) for name in names)
        self.pem = {name: self.authority.issue(name) for name in (*self.names, PartyId(EXCHANGE))}
        self.own = {name: OwnKeys(os.urandom(32), os.urandom(32)) for name in self.names}
        self.public = {
            name: PeerKeys(
                *(
                    X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
                    for raw in (keys.ephemeral, keys.static)
                )
            )
            for name, keys in self.own.items()
        }
        self.known = {key_digest(self.pem[name].certificate): KnownKey(name, "node") for name in self.names}

    def keys(self, party: str, members: Iterable[str] | None = None, run: RunId = RUN) -> LinkKeys:
        name = PartyId(party)
        others = {PartyId(one) for one in members or self.names} - {name}
        return LinkKeys(run, name, self.own[name], {one: self.public[one] for one in others})

    def settings(self, party: str, port: int, attempt: int = 1, **changed: Any) -> LinkSettings:
        """Of a link; keywords replace fields, ``members`` and ``run`` the parties and the run."""
        members = tuple(PartyId(one) for one in changed.pop("members", self.names))
        run = changed.pop("run", self.RUN)
        base = LinkSettings(
            address=f"{LOOPBACK}:{port}",
            server_name=EXCHANGE,
            tls=self.pem[PartyId(party)],
            run=run,
            party=PartyId(party),
            peers=tuple(one for one in members if one != party),
            keys=changed.pop("keys", None) or self.keys(party, members, run),
            attempt=attempt,
            limits=QUICK,
            connect_timeout_s=2.0,
            reconnect_s=10.0,
        )
        return replace(base, **changed)

    def link(self, party: str, port: int, attempt: int = 1, **changed: Any) -> ExchangeLink:
        return ExchangeLink(self.settings(party, port, attempt, **changed))

    def server(self, *, port: int = 0, limits: ServerLimits | None = None) -> ExchangeServer:
        quick = limits or ServerLimits(heartbeat_s=0.1)
        return ExchangeServer(ServerSettings(f"{LOOPBACK}:{port}", self.pem[PartyId(EXCHANGE)], self.known, quick))

    @asynccontextmanager
    async def exchange(
        self, *, port: int = 0, limits: ServerLimits | None = None, open_run: bool = True
    ) -> AsyncIterator[tuple[ExchangeServer, int]]:
        """A running exchange, with the run open."""
        server = self.server(port=port, limits=limits)
        found = await server.start()
        if open_run:
            server.open_run(self.RUN, self.names)
        try:
            yield server, found
        finally:
            await server.stop(0)

    def write(self, folder: Path) -> None:
        """What an exchange as a process of its own needs."""
        for name in self.names:
            (folder / f"{name}.party").write_bytes(self.pem[name].certificate)
        pem = self.pem[PartyId(EXCHANGE)]
        for file, content in (("ca.pem", pem.ca), ("certificate.pem", pem.certificate), ("key.pem", pem.key)):
            (folder / file).write_bytes(content)

    @asynccontextmanager
    async def links(self, port: int, *names: str, **changed: Any) -> AsyncIterator[list[ExchangeLink]]:
        """Open links of some parties."""
        made = [self.link(name, port, **changed) for name in names or self.names]
        try:
            await asyncio.gather(*(one.open() for one in made))
            yield made
        finally:
            await asyncio.gather(*(one.close(flush=False) for one in made))

    def loop_link(self, party: str, port: int, **changed: Any) -> LoopLink:
        return LoopLink(self.settings(party, port, **changed))

    @asynccontextmanager
    async def raw(self, party: str, port: int, pem: Pem | None = None) -> AsyncIterator[Any]:
        """A bare stream with a party's certificate, that says what a test wants."""
        credentials = client_credentials(pem or self.pem[PartyId(party)])
        async with grpc.aio.secure_channel(f"{LOOPBACK}:{port}", credentials, client_options(EXCHANGE)) as channel:
            call: Any = channel.stream_stream("/fedcredit.Exchange/Link")()
            try:
                yield call
            finally:
                call.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await call.code()

    async def join(self, call: Any, party: str, attempt: int = 1, **changed: Any) -> None:
        """Joins on a bare stream."""
        fields: dict[str, Any] = {"run": self.RUN, "party": party, "attempt": attempt, "version": 1, **changed}
        await call.write(encode_frame(Join(**fields)))
        frame, _ = read_from_exchange(await call.read())
        assert isinstance(frame, Welcome), frame
        await call.write(encode_frame(Alive(token=frame.token)))


class LoopLink:
    """A link without a thread of its own, for tests with hundreds of them: gRPC wakes every loop for each event."""

    def __init__(self, settings: LinkSettings) -> None:
        self.settings = settings
        self.changed = asyncio.Event()
        self.desk = Desk(settings, self.changed.set)
        self.dialer = Dialer(settings, self.desk)

    async def open(self) -> None:
        self.running = asyncio.create_task(self.dialer.run())
        await self.dialer.joined.wait()

    async def send(self, parcels: Sequence[Parcel], body: bytes) -> None:
        while not self.desk.put(parcels, body):
            await self._news()
        self.dialer.wake()

    async def receive(self) -> Delivery:
        while (found := self.desk.take()[0]) is None:
            await self._news()
        return found

    async def close(self) -> None:
        self.desk.hurry()
        self.dialer.wake()
        await becomes(lambda: not self.desk.unacknowledged() and not self.desk.indebted)
        self.dialer.leave()
        await self.running

    async def _news(self) -> None:
        waiting = asyncio.create_task(self.changed.wait())
        await asyncio.wait({waiting, self.running}, return_when=asyncio.FIRST_COMPLETED)
        if self.running.done():
            self.running.result()
        waiting.cancel()
        self.changed.clear()


class Wire:
    """A TCP line to the exchange that can be slow, silent, or cut."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.delay = 0.0
        self.passing = asyncio.Event()
        self.passing.set()
        self.cut_every = 0
        self.most_cuts = 0
        self.cuts = 0
        self.passed = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tasks.add(asyncio.create_task(self._connect(reader, writer)))

        self._server = await asyncio.start_server(connected, LOOPBACK, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, here = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            writer.close()
            self._writers.discard(writer)
            return
        self._writers.add(here)
        await asyncio.gather(self._pump(reader, here), self._pump(there, writer), return_exceptions=True)
        for one in (writer, here):
            self._writers.discard(one)
            one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]](64)

        async def take() -> None:
            while data := await reader.read(65536):
                await ready.put((loop.time() + self.delay, data))
            await ready.put((0.0, b""))

        async def give() -> None:
            while True:
                due, data = await ready.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self.passing.wait()
                self.passed += len(data)
                if self.cuts < self.most_cuts and self.passed >= self.cut_every * (self.cuts + 1):
                    self.cut()
                if not data or writer.is_closing():
                    return
                writer.write(data)
                await writer.drain()

        taking = asyncio.create_task(take())
        try:
            await give()
        finally:
            taking.cancel()
            writer.close()

    def cut(self) -> None:
        """Ends all connections hard."""
        self.cuts += 1
        for writer in list(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        self.cut()
        self.passing.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def make_wire() -> type[Wire]:
    return Wire


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]:
    return becomes


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a test's coroutine, in bounded time."""

    def bounded(coroutine: Coroutine[Any, Any, T]) -> T:
        async def within() -> T:
            asyncio.get_running_loop().set_exception_handler(_quiet)
            async with asyncio.timeout(280):
                return await coroutine

        return asyncio.run(within())

    return bounded


def _quiet(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
