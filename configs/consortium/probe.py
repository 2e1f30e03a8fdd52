"""Health check inside a container: asks the daemon of the mounted home, at the address of its settings.

``python probe.py healthz|readyz`` ends with 0 when the daemon says so, else with 1. Needs the standard library only,
so that it costs a twentieth of a second, and no shell.
"""

from __future__ import annotations

import os
import sys
import tomllib
from http.client import HTTPConnection, HTTPException
from pathlib import Path

__all__ = ["address", "answers", "main"]

_DEFAULT = "127.0.0.1:9464"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared with, not listened on
_TIMEOUT_S = 4.0


def address(home: Path) -> tuple[str, int]:
    """Host and port on which the daemon of a home tells its health."""
    listen = _DEFAULT
    for name in ("node.toml", "coordinator.toml"):
        if (home / name).is_file():
            settings = tomllib.loads((home / name).read_text("utf-8"))
            listen = str(settings.get("metrics", {}).get("listen", _DEFAULT))
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    return _ANYWHERE.get(host, host), int(port)


def answers(home: Path, path: str) -> bool:
    """Whether the daemon of a home answers a path with 200."""
    try:
        connection = HTTPConnection(*address(home), timeout=_TIMEOUT_S)
        connection.request("GET", f"/{path}")
        return connection.getresponse().status == 200
    except (OSError, ValueError, HTTPException):
        return False


def main(arguments: list[str]) -> None:
    """The command.

    Raises:
        SystemExit: always, with 0 or 1.
    """
    home = Path(os.environ.get("FEDCREDIT_HOME", "/var/lib/fedcredit"))
    raise SystemExit(0 if answers(home, arguments[0] if arguments else "readyz") else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
