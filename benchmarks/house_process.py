"""One house of a star of network namespaces, as a process: ``house_process.py HOME [exchange]``.

A JSON line on standard input is a command, one on standard output its answer; bytes are in base64. What it does is what
``nodes.worker`` and ``coordinator.worker`` do; it stays alive between commands, so that somebody can look at it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fedcredit.report.build import build_report
from fedcredit.runtime.exchange.server import ExchangeServer, ServerSettings
from fedcredit.runtime.exchange.tls import KnownKey
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.party_end import PartyEnd
from fedcredit.runtime.runs.proposal import Decision, SessionOrder, check_proposal, make_proposal, signed_approval
from fedcredit.runtime.session import node as node_session
from fedcredit.runtime.session.coordinator import run_session as coordinate
from fedcredit.runtime.session.files import EPHEMERAL, kept_secret, public_of, unfinished_files
from fedcredit.runtime.wire_proof.needles import Needles, file_pieces
from fedcredit.types import COORDINATOR, PartyId, RunId
from fedcredit.wire.envelope import around_body
from fedcredit.wire.message import decode_struct, encode_struct

SAMPLE = 24
"""Bytes from the middle of a payload; enough to know it again."""


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


class House:
    """What a house does."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.server: ExchangeServer | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def consider(self, proposal: str) -> dict[str, Any]:
        return {"decision": packed(node_session.consider(self.home, base64.b64decode(proposal)))}

    def propose(self, run: str, spec: str) -> dict[str, Any]:
        proposal = make_proposal(self.home, RunId(run), spec, made=datetime.now(UTC).replace(microsecond=0))
        return {"proposal": packed(proposal)}

    def order(self, run: str, proposal: str, decisions: list[str]) -> dict[str, Any]:
        """Everyone's approvals, as the coordinator would have collected them."""
        raw = base64.b64decode(proposal)
        checked = check_proposal(raw, self.home.roster, datetime.now(UTC))
        own = public_of(kept_secret(unfinished_files(self.home, RunId(run)), EPHEMERAL))
        approvals = {COORDINATOR: signed_approval(self.home, checked, own, "")}
        for one in decisions:
            decision = decode_struct(Decision, base64.b64decode(one), "decision")
            if not decision.approval:
                raise RuntimeError(f"{decision.party}: {decision.text} [{decision.code}]")
            approvals[PartyId(decision.party)] = decision.approval
        ordered = [approvals[party] for party in checked.roster]
        return {"order": packed(encode_struct(SessionOrder(proposal=raw, approvals=ordered, ended=False)))}

    def run(self, order: str, *, report: bool) -> dict[str, Any]:
        raw = base64.b64decode(order)
        if self.home.party == COORDINATOR:
            return {"finished": packed(coordinate(self.home, raw))}
        return {"finished": packed(node_session.run_session(self.home, raw, _report if report else None))}

    def sample(self, file: str) -> dict[str, Any]:
        """From now on, some bytes of every payload that leaves go to a file, with the recipient's name."""
        release, notes = PartyEnd.release, Path(file).open("w", encoding="utf-8")  # noqa: SIM115 - until the end

        def releasing(end: PartyEnd, to: PartyId, message: Any, spend: Any = None) -> Any:
            released = release(end, to, message, spend)
            body = bytes(around_body(released.data, released.body_bytes)[1])
            if len(body) >= 3 * SAMPLE:
                middle = len(body) // 2
                notes.write(f"{to} {released.kind} {body[middle : middle + SAMPLE].hex()}\n")
                notes.flush()
            return released

        setattr(PartyEnd, "release", releasing)  # noqa: B010
        return {}

    def connect(self, host: str, port: int, seconds: float) -> dict[str, Any]:
        try:
            with socket.create_connection((host, port), timeout=seconds):
                return {"why": ""}
        except OSError as error:
            return {"why": type(error).__name__ + (f" {error.errno}" if error.errno else "")}

    def listen(self, port: int) -> dict[str, Any]:
        """Takes connections on all addresses of this namespace."""
        listener = socket.create_server(("0.0.0.0", port))

        def accept() -> None:
            while True:
                listener.accept()[0].close()

        threading.Thread(target=accept, daemon=True).start()
        return {}

    def walk(self, folder: str, words: list[str], own: str) -> dict[str, Any]:
        """Which words stand in files under a folder that this user can read; ``own`` is its own folder."""
        needles, found, read = Needles({base64.b64decode(word): "" for word in words}), {}, 0
        for path, folders, files in os.walk(folder, onerror=lambda _: None):
            folders.sort()
            for name in sorted(files):
                file = Path(path) / name
                try:
                    hits = [packed(word) for word in needles.find(file_pieces(file))]
                except OSError:
                    continue
                read += 1
                foreign = not file.is_relative_to(own)
                if hits or foreign:
                    found[str(file)] = hits
        return {"files": read, "found": found}

    def serve(self, runs: dict[str, list[str]]) -> dict[str, Any]:
        """The exchange, in a thread with its own loop; further calls open further runs."""
        if self.server is None or self.loop is None:
            self.loop = asyncio.new_event_loop()
            threading.Thread(target=self.loop.run_forever, daemon=True).start()
            known = {one.tls_key_sha256: KnownKey(one.name, str(one.kind)) for one in self.home.roster.members.values()}
            settings = ServerSettings(self.home.coordinator.exchange.listen, self.home.tls, known)
            self.server = self._there(_server, settings)
            asyncio.run_coroutine_threadsafe(self.server.start(), self.loop).result()
        for run, members in runs.items():
            self._there(self.server.open_run, RunId(run), [PartyId(name) for name in members])
        return {}

    def _there(self, function: Callable[..., Any], *arguments: Any) -> Any:
        async def call() -> Any:
            return function(*arguments)

        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(call(), self.loop).result()


def _report(folder: Path, party: PartyId) -> None:
    build_report(folder, party)


def _server(settings: ServerSettings) -> ExchangeServer:
    return ExchangeServer(settings)


def main(arguments: list[str]) -> int:
    house = House(open_home(Path(arguments[0])))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else writes to standard output does not disturb
    say: Callable[[dict[str, Any]], None] = partial(_say, answers)
    say({"pid": os.getpid(), "uid": os.getuid()})
    for line in sys.stdin:
        order = json.loads(line)
        try:
            say(getattr(house, order.pop("do"))(**order))
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            say({"error": f"{type(error).__name__}: {error}"})
    os._exit(0)


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
