"""The coordinator's daemon as a process: ``python -m coordinator.daemon HOME [--quiet]``."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from fedcredit.runtime.daemon.logs import Log
from fedcredit.runtime.daemon.main import WatchedDaemon, daemon_main
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.runs.registry import Registry

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM; returns the exit code."""
    return daemon_main(sys.argv[1:] if arguments is None else arguments, MemberKind.COORDINATOR, _build)


def _build(home: Home, log: Log, stack: ExitStack) -> WatchedDaemon:
    from fedcredit.runtime.daemon.coordinator import CoordinatorDaemon  # noqa: PLC0415 -- loads gRPC, see daemon_main
    from fedcredit.runtime.daemon.parts import bind_coordinator  # noqa: PLC0415 -- as above

    registry = Registry(home.state / "registry.sqlite")
    stack.callback(registry.close)
    return CoordinatorDaemon(bind_coordinator(home, registry, log))


if __name__ == "__main__":
    sys.exit(main())
