"""The node's daemon as a process: ``python -m nodes.daemon HOME [--quiet]``; see ``fedcredit-node serve``."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from fedcredit.runtime.daemon.logs import Log
from fedcredit.runtime.daemon.main import WatchedDaemon, daemon_main
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import MemberKind

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM; returns the exit code."""
    return daemon_main(sys.argv[1:] if arguments is None else arguments, MemberKind.NODE, _build)


def _build(home: Home, log: Log, _: ExitStack) -> WatchedDaemon:
    from fedcredit.runtime.daemon.node import NodeDaemon, bind_node  # noqa: PLC0415 -- loads gRPC, see daemon_main

    return NodeDaemon(bind_node(home, log))


if __name__ == "__main__":
    sys.exit(main())
