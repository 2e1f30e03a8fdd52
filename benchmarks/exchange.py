"""What a sealed payload costs through the exchange, beside a bare gRPC stream over the same TLS.

usage: python benchmarks/exchange.py [--runs N] [--count N] [--megabytes N]

The exchange, every party and the bare echo are processes of their own on loopback, all over mutual TLS 1.3. Round trips
carry 100 bytes and are sealed, forwarded, opened, answered and forwarded back. Throughput is of payloads of 16 MB, one
after the other without waiting, from the first `send` to the last receiver's answer. The bare stream pushes the same
bytes in the same pieces over one hop, in the clear under TLS. Each figure is the best of several runs, because other
programs may be using the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID
from rich.console import Console
from rich.table import Table

from fedcredit.crypto.sealed import LinkKeys, OwnKeys, PeerKeys
from fedcredit.runtime.exchange.client import ExchangeLink, LinkSettings, Parcel
from fedcredit.runtime.exchange.limits import ServerLimits
from fedcredit.runtime.exchange.server import ExchangeServer, ServerSettings
from fedcredit.runtime.exchange.tls import (
    KnownKey,
    client_credentials,
    client_options,
    key_digest,
    server_credentials,
    server_options,
)
from fedcredit.types import PartyId, RunId

RUN = RunId("benchmark")
PARTIES = tuple(PartyId(name) for name in ("bank", "tax_office", "customs", "utility"))
EXCHANGE = "coordinator"
SMALL = 100
PIECE = 1 << 20


@dataclass(frozen=True)
class Pem:
    """PEM files of one end."""

    ca: bytes
    certificate: bytes
    key: bytes


def make_consortium(folder: Path) -> None:
    """Certificates and X25519 keys of all parties and the exchange."""
    now = dt.datetime.now(dt.UTC)
    authority = ec.generate_private_key(ec.SECP256R1())

    def certificate(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name.replace("_", "-"))]), False)
        return builder.sign(authority, hashes.SHA256())

    (folder / "ca.pem").write_bytes(certificate("authority", authority).public_bytes(serialization.Encoding.PEM))
    for name in (EXCHANGE, *PARTIES):
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.pem").write_bytes(certificate(name, key).public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(key.private_bytes(*form))
        (folder / f"{name}.x25519").write_bytes(os.urandom(64))


def pem(folder: Path, name: str) -> Pem:
    """Files of one end."""
    return Pem(*((folder / file).read_bytes() for file in ("ca.pem", f"{name}.pem", f"{name}.key")))


def own_keys(folder: Path, name: str) -> OwnKeys:
    raw = (folder / f"{name}.x25519").read_bytes()
    return OwnKeys(raw[:32], raw[32:])


def link_of(folder: Path, party: PartyId, port: int, attempt: int) -> ExchangeLink:
    """A party's link."""
    peers = tuple(one for one in PARTIES if one != party)
    publics = {}
    for peer in peers:
        raw = own_keys(folder, peer)
        pair = [X25519PrivateKey.from_private_bytes(key).public_key() for key in (raw.ephemeral, raw.static)]
        publics[peer] = PeerKeys(*(key.public_bytes_raw() for key in pair))
    keys = LinkKeys(RUN, party, own_keys(folder, party), publics)
    address = f"127.0.0.1:{port}"
    return ExchangeLink(LinkSettings(address, EXCHANGE, pem(folder, party), RUN, party, peers, keys, attempt))


async def serve_exchange(folder: Path) -> None:
    """Process of the exchange."""
    known = {key_digest(pem(folder, party).certificate): KnownKey(party, "node") for party in PARTIES}
    server = ExchangeServer(ServerSettings("127.0.0.1:0", pem(folder, EXCHANGE), known))
    print(await server.start(), flush=True)
    server.open_run(RUN, PARTIES)
    await asyncio.Event().wait()


async def serve_bare(folder: Path) -> None:
    """Process of the bare stream: a small message is echoed, a large one is only read."""

    async def echo(_: object, context: Any) -> None:
        while isinstance(data := await context.read(), bytes):
            if len(data) <= SMALL:
                await context.write(data)

    server = grpc.aio.server(options=server_options(ServerLimits()))
    method: Any = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"Echo": method}),))
    print(server.add_secure_port("127.0.0.1:0", server_credentials(pem(folder, EXCHANGE))), flush=True)
    await server.start()
    await asyncio.Event().wait()


async def serve_party(folder: Path, party: PartyId, port: int) -> None:
    """Process of a party that answers whatever asks for an answer."""
    link = link_of(folder, party, port, 1)
    await link.open()
    print(0, flush=True)
    while True:
        delivery = await link.receive()
        if delivery.head == b"answer":
            await link.send([Parcel(delivery.sender, b"")], delivery.body[:SMALL])


@contextmanager
def process(*arguments: str) -> Iterator[tuple[int, int]]:
    """A process of this program: its id and the number it prints when it is ready."""
    child = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield child.pid, int(child.stdout.readline()) if child.stdout else 0
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def peak_megabytes(pid: int) -> float:
    """Most memory a process has had."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


async def round_trips(link: ExchangeLink, count: int) -> list[float]:
    """Milliseconds of each."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        await link.send([Parcel(PARTIES[1], b"answer")], b"x" * SMALL)
        await link.receive()
        found.append(1e3 * (time.perf_counter() - start))
    return sorted(found)


async def push(link: ExchangeLink, to: Sequence[PartyId], body: bytes, count: int) -> float:
    """Megabytes a second to each recipient."""
    start = time.perf_counter()
    for number in range(count):
        head = b"answer" if number == count - 1 else b""
        await link.send([Parcel(peer, head) for peer in to], body)
    for _ in to:
        await link.receive()
    return len(body) * count / (time.perf_counter() - start) / 1e6


async def bare(folder: Path, port: int, count: int, body: bytes, pushes: int) -> tuple[list[float], float]:
    """Round trips and megabytes a second of the bare stream."""
    credentials, options = client_credentials(pem(folder, PARTIES[0])), client_options(EXCHANGE)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        call: Any = channel.stream_stream("/bare/Echo")()
        times = []
        for _ in range(count):
            start = time.perf_counter()
            await call.write(b"x" * SMALL)
            await call.read()
            times.append(1e3 * (time.perf_counter() - start))
        pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
        start = time.perf_counter()
        for _ in range(pushes):
            for piece in pieces:
                await call.write(piece)
        await call.write(b"x")
        await call.read()
        rate = len(body) * pushes / (time.perf_counter() - start) / 1e6
        call.cancel()
    return sorted(times), rate


async def measure(folder: Path, count: int, body: bytes, pushes: int) -> dict[str, float]:
    """One run of everything."""
    with process("--bare", str(folder)) as (_, port):
        bare_times, bare_rate = await bare(folder, port, count, body, pushes)
    with process("--exchange", str(folder)) as (pid, port):
        others = [process("--party", str(folder), party, str(port)) for party in PARTIES[1:]]
        for other in others:
            other.__enter__()
        try:
            link = link_of(folder, PARTIES[0], port, 1)
            await link.open()
            await round_trips(link, 50)
            times = await round_trips(link, count)
            idle = peak_megabytes(pid)
            one = await push(link, PARTIES[1:2], body, pushes)
            three = await push(link, PARTIES[1:], body, pushes)
            peak = peak_megabytes(pid)
            await link.close(flush=True)
        finally:
            for other in others:
                other.__exit__(None, None, None)
    return {
        "round trip, p50 ms": statistics.median(times),
        "round trip, p95 ms": times[int(0.95 * len(times))],
        "bare stream round trip, p50 ms": statistics.median(bare_times),
        "one recipient, MB/s": one,
        "three recipients, MB/s to each": three,
        "bare stream one way, MB/s": bare_rate,
        "exchange idle, MB": idle,
        "exchange peak, MB": peak,
    }


def main() -> None:
    """Runs and prints the table."""
    parser = argparse.ArgumentParser(description="Round trips and throughput through the exchange.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--count", type=int, default=1000, help="round trips of a run")
    parser.add_argument("--megabytes", type=int, default=16, help="size of a payload")
    parser.add_argument("--pushes", type=int, default=30, help="payloads of a run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    body = os.urandom(options.megabytes * 1_000_000)
    with tempfile.TemporaryDirectory() as name:
        make_consortium(Path(name))
        runs = [
            asyncio.run(measure(Path(name), options.count, body, options.pushes)) for _ in range(max(1, options.runs))
        ]
    if options.json:
        print(json.dumps(runs))
    table = Table("", "best", "all runs", title=f"{os.cpu_count()} cores, grpcio {grpc.__version__}")
    for what in runs[0]:
        values = [run[what] for run in runs]
        best = max(values) if what.endswith(("MB/s", "to each")) else min(values)
        table.add_row(what, f"{best:.2f}", ", ".join(f"{value:.2f}" for value in values))
    Console(width=120).print(table)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--exchange":
        asyncio.run(serve_exchange(Path(sys.argv[2])))
    elif len(sys.argv) > 1 and sys.argv[1] == "--bare":
        asyncio.run(serve_bare(Path(sys.argv[2])))
    elif len(sys.argv) > 1 and sys.argv[1] == "--party":
        asyncio.run(serve_party(Path(sys.argv[2]), PartyId(sys.argv[3]), int(sys.argv[4])))
    else:
        main()
