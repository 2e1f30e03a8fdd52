"""Strangers and members that break the rules while a model is trained: nothing of it changes, and each is named.

One exchange in a process of its own; 24 nodes of the consortium are connected to it in 8 runs at once. In one of these
three houses train, as processes of their own. Meanwhile strangers dial by the thousand, and members send noise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from fedcredit.runtime.exchange.frames import (
    METHOD,
    SERVICE,
    VERSION,
    Alive,
    Beat,
    Join,
    Refused,
    Welcome,
    encode_frame,
    read_from_exchange,
)
from fedcredit.runtime.exchange.tls import client_credentials, client_options
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.simulate import simulate
from fedcredit.types import COORDINATOR, PartyId, RunId

RUN = RunId("ab" * 16)
IDLE = [RunId(f"{number:02x}" * 16) for number in range(1, 8)]
BAD = PartyId("node04")
MEBIBYTE = 1 << 20


@dataclass
class Fire:
    """All that is thrown at one exchange, from a thread of its own."""

    host: str
    port: int
    homes: dict[PartyId, Home]
    others: list[PartyId]
    connections: int
    streams: int
    dialled: int = 0
    seated: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def through(self) -> None:
        asyncio.run(self._through())

    async def _through(self) -> None:
        self._all_sit = asyncio.Event()
        seats = [asyncio.create_task(self._sit(party, run)) for run in IDLE for party in self.others]
        await self._all_sit.wait()
        await asyncio.gather(self._strangers(), self._noise(), self._unwanted())
        self.done.set()
        for one in seats:
            one.cancel()
        await asyncio.gather(*seats, return_exceptions=True)

    def _line(self, party: PartyId) -> tuple[grpc.aio.Channel, Any]:
        options = client_options(self.homes[COORDINATOR].roster.exchange.rpartition(":")[0])
        address = f"{self.host}:{self.port}"
        channel = grpc.aio.secure_channel(address, client_credentials(self.homes[party].tls), options)
        return channel, channel.stream_stream(f"/{SERVICE}/{METHOD}")()

    async def _sit(self, party: PartyId, run: RunId) -> None:
        """A node that is in a run and waits."""
        channel, call = self._line(party)
        async with channel:
            await call.write(encode_frame(Join(run=run, party=party, attempt=1, version=VERSION)))
            beating: asyncio.Task[None] | None = None
            while isinstance(data := await call.read(), bytes):
                frame = read_from_exchange(data)[0]
                if isinstance(frame, Welcome):
                    await call.write(encode_frame(Alive(token=frame.token)))
                    beating = asyncio.create_task(self._beat(call))
                    self.seated += 1
                    if self.seated == len(IDLE) * len(self.others):
                        self._all_sit.set()
                elif isinstance(frame, Refused):
                    break
            self.lost.append(f"{party} in {run[:2]}")
            if beating is not None:
                beating.cancel()

    async def _beat(self, call: Any) -> None:
        while True:
            await asyncio.sleep(2)
            await call.write(encode_frame(Beat()))

    async def _strangers(self) -> None:
        hello = bytes.fromhex("16030100c8010000c40303") + os.urandom(40)
        kinds = [os.urandom(300), hello, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""]
        gate = asyncio.Semaphore(50)

        async def one(number: int) -> None:
            async with gate:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(self.host, self.port)
                    writer.write(kinds[number % len(kinds)])
                    await writer.drain()
                    writer.transport.abort()
                    self.dialled += 1

        await asyncio.gather(*(one(number) for number in range(self.connections)))

    async def _noise(self) -> None:
        """Streams of a member of the run's consortium that hold no frame."""
        for _ in range(self.streams):
            await self._said(BAD, os.urandom(50))

    async def _unwanted(self) -> None:
        """A key that nobody lists, an operator, a node of other runs, a node that says it is another."""
        attempts: list[tuple[str, RunId, str]] = [
            ("stranger", RUN, "stranger"),
            ("operations", RUN, "operations"),
            ("node05", RUN, "node05"),
            ("node05", IDLE[0], "node06"),
        ]
        for party, run, said in attempts:
            await self._said(PartyId(party), encode_frame(Join(run=run, party=said, attempt=1, version=VERSION)))

    async def _said(self, party: PartyId, frame: bytes) -> None:
        """Hears why a stream is refused; tries again where gRPC ends the call before its last word is read."""
        for _ in range(10):
            channel, call = self._line(party)
            async with channel, asyncio.timeout(120):
                writing = asyncio.create_task(call.write(frame))  # may fail: who is no member is not listened to
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    while isinstance(data := await call.read(), bytes):
                        found = read_from_exchange(data)[0]
                        if isinstance(found, Refused):
                            self.refused[found.code] += 1
                            await asyncio.gather(writing, return_exceptions=True)
                            return
                await asyncio.gather(writing, return_exceptions=True)
        self.refused["nothing said"] += 1


@pytest.mark.slow
def test_a_training_beside_24_nodes_in_8_runs_under_fire(
    houses: Callable[..., Any], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    others = [PartyId(f"node{number:02d}") for number in range(4, 25)]
    made = houses(others=[*others, "stranger"])
    trainers = list(made.loaded.spec.parties)
    nodes = [*trainers, *others][:24]
    made.start_exchange()
    made.open_run(RUN)
    for run in IDLE:
        made.tell_exchange(f"open {run}={','.join(nodes)}", f"opened {run}")
    exchange = made.exchange
    before, most = exchange.memory(), 0
    host, _, port = made.homes[COORDINATOR].roster.exchange.rpartition(":")
    fire = Fire(host, int(port), made.homes, nodes, connections=10_000, streams=200)
    thread = threading.Thread(target=fire.through)
    thread.start()
    order = made.order(RUN)
    for party in made.parties:
        made.start(party, RUN, order)
    while any(child.running(0.2) for child in made.workers.values()):
        most = max(most, exchange.memory())
    still = not fire.done.is_set()
    ended = made.all_finished(RUN)
    thread.join(240)
    most = max(most, exchange.memory())
    assert still, "the training has ended while the fire went on"
    assert all(one.ok for one in ended.values()), {p: (one.code, one.text) for p, one in ended.items()}
    assert all(one.attempts == 1 for one in ended.values())
    out = simulate(made.loaded, tmp_path / "out").out
    for party in trainers:
        name = f"model/{party}/scorecard.json"
        found = json.loads((made.homes[party].runs / RUN / name).read_text())
        assert found == json.loads((out / name).read_text())
    assert fire.done.is_set()
    assert fire.seated == 24 * 7
    assert fire.lost == []
    assert fire.dialled > 9_000
    assert most - before < 200 * MEBIBYTE, (before // MEBIBYTE, most // MEBIBYTE)
    assert_named(made.homes[COORDINATOR], fire)
    record_property("RSS before and most, MiB", f"{before / MEBIBYTE:.0f} {most / MEBIBYTE:.0f}")


def assert_named(home: Home, fire: Fire) -> None:
    """Each was told why, and stands by name in the coordinator's log of refusals, with its address."""
    told = {"exchange.malformed": 200, "exchange.unknown-key": 1, "exchange.kind": 1}
    told |= {"exchange.not-member": 1, "exchange.wrong-party": 1}
    assert dict(fire.refused) == told
    lines = [json.loads(one) for one in (home.logs / "refusals.jsonl").read_text("utf-8").splitlines()]
    by_code: dict[str, list[Any]] = {}
    for line in lines:
        assert (line["event"], line["caller"].startswith(("ipv4:", "ipv6:"))) == ("exchange refused", True)
        by_code.setdefault(line["code"], []).append(line)
    assert set(by_code) == set(told)
    key = home.roster.member(PartyId("stranger")).tls_key_sha256[:16]
    for code, name in (
        ("exchange.malformed", "node04"),
        ("exchange.unknown-key", key),
        ("exchange.kind", "operations"),
        ("exchange.not-member", "node05"),
        ("exchange.wrong-party", "node05"),
    ):
        assert all(name in line["text"] for line in by_code[code]), by_code[code]
    assert len(lines) < 40, "two hundred refusals are not two hundred lines"
