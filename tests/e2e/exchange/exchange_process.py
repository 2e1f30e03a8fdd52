"""An exchange as a process of its own, for tests that kill it: certificates in a folder, port on the command line."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcredit.runtime.exchange.environment import pin_tls13
from fedcredit.types import PartyId, RunId


@dataclass(frozen=True)
class Pem:
    ca: bytes
    certificate: bytes
    key: bytes


def prepare(folder: Path, port: int) -> tuple[Any, list[PartyId]]:
    from fedcredit.runtime.exchange.limits import ServerLimits
    from fedcredit.runtime.exchange.server import ExchangeServer, ServerSettings
    from fedcredit.runtime.exchange.tls import KnownKey, key_digest

    names = [PartyId(path.stem) for path in sorted(folder.glob("*.party"))]
    known = {key_digest((folder / f"{name}.party").read_bytes()): KnownKey(name, "node") for name in names}
    pem = Pem(*((folder / name).read_bytes() for name in ("ca.pem", "certificate.pem", "key.pem")))
    address, limits = f"127.0.0.1:{port}", ServerLimits(heartbeat_s=0.1)
    return ExchangeServer(ServerSettings(address, pem, known, limits)), names


async def main(server: Any, members: list[PartyId], run: str) -> None:
    found = await server.start()
    server.open_run(RunId(run), members)
    sys.stdout.write(f"{found}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    pin_tls13()
    asyncio.run(main(*prepare(Path(sys.argv[1]), int(sys.argv[2])), sys.argv[3]))
