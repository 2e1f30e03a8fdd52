"""The exchange of a coordinator's home in a process of its own, for tests that kill it: HOME, then RUN=PARTY,PARTY…"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fedcredit.runtime.exchange_server import ExchangeServer, ServerSettings
from fedcredit.runtime.exchange_tls import KnownKey, pin_tls13
from fedcredit.runtime.home import open_home
from fedcredit.types import PartyId, RunId


async def main() -> None:
    home = open_home(Path(sys.argv[1]))
    known = {one.tls_key_sha256: KnownKey(one.name, str(one.kind)) for one in home.roster.members.values()}
    server = ExchangeServer(ServerSettings(home.coordinator.exchange.listen, home.tls, known))
    await server.start()
    for entry in sys.argv[2:]:
        run, _, members = entry.partition("=")
        server.open_run(RunId(run), [PartyId(name) for name in members.split(",")])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    pin_tls13()
    asyncio.run(main())
