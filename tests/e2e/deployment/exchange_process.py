"""The exchange of a coordinator's home in a process of its own, for tests that kill it.

Arguments: HOME, then RUN=PARTY,PARTY… for runs that are open from the start. Further ones are opened by lines
``open RUN=PARTY,PARTY…`` on standard input; ``stop RUN REASON`` ends one, ``close RUN`` one that is over. Every line is
answered by one.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fedcredit.runtime.exchange.server import ExchangeServer, ServerSettings
from fedcredit.runtime.exchange.tls import KnownKey, pin_tls13
from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.refusals import CallerNotes
from fedcredit.types import PartyId, RunId

STRANGER = "stranger"
"""A member with a certificate of the consortium's authority whose key this exchange does not know."""


def _open(server: ExchangeServer, entry: str) -> None:
    run, _, members = entry.partition("=")
    server.open_run(RunId(run), [PartyId(name) for name in members.split(",")])


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def serve(arguments: list[str]) -> None:
    home = open_home(Path(arguments[0]))
    known = {
        one.tls_key_sha256: KnownKey(one.name, str(one.kind))
        for one in home.roster.members.values()
        if one.name != STRANGER
    }
    settings = ServerSettings(home.coordinator.exchange.listen, home.tls, known)
    server = ExchangeServer(settings, note=CallerNotes(home, "exchange refused"))
    await server.start()
    for entry in arguments[1:]:
        _open(server, entry)
    _say("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, _, rest = line.strip().partition(" ")
        if word == "open":
            _open(server, rest)
            _say(f"opened {rest.partition('=')[0]}")
        elif word == "stop":
            run, _, reason = rest.partition(" ")
            server.stop_run(RunId(run), reason)
            _say(f"stopped {run}")
        elif word == "close":
            server.close_run(RunId(rest))
            _say(f"closed {rest}")
    await asyncio.Event().wait()


def main(arguments: list[str]) -> int:
    pin_tls13()
    asyncio.run(serve(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
