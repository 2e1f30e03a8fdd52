"""The process of a daemon: ``python -m nodes.daemon HOME [--quiet]`` and the same for the coordinator.

Apart from the commands, so that what runs for months holds no more than it needs. One line on standard error and the
exit code of the error where it cannot start.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from fedcredit.errors import FedCreditError, SpecError
from fedcredit.runtime.daemon.logs import Log, Logs, route_libraries
from fedcredit.runtime.daemon.process import Daemon, DaemonLock, run_daemon
from fedcredit.runtime.exchange.environment import pin_tls13
from fedcredit.runtime.exchange.handshakes import FailedHandshakes
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.refusals import CallerNotes

__all__ = ["QUIET", "Build", "WatchedDaemon", "daemon_main"]

QUIET = "--quiet"
"""Argument: the log goes to its file only."""


class WatchedDaemon(Daemon, Protocol):
    """A daemon that is told whether its loop turns."""

    def watched(self, alive: Callable[[], str]) -> None:
        """Takes what tells it."""


Build = Callable[[Home, Log, ExitStack], WatchedDaemon]
"""Makes the daemon of a home; what is put on the stack is closed after it."""


def daemon_main(arguments: list[str], kind: MemberKind, build: Build) -> int:
    """Runs a daemon until it is told to end.

    Nothing that the caller's module imports at its top may import gRPC, which reads its environment then.

    Args:
        arguments: HOME, and `QUIET` or not.
        kind: What kind of home it has to be.
        build: Makes it.

    Returns:
        0 after a clean end, else the exit code of the error.
    """
    quiet = QUIET in arguments
    places = [one for one in arguments if one != QUIET]
    try:
        pin_tls13()  # before `build` imports gRPC
        if len(places) != 1:
            raise SpecError("daemon.usage", f"one home and perhaps {QUIET} is right")
        _serve(Path(places[0]), kind, build, quiet=quiet)
    except FedCreditError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return error.exit_code
    return 0


def _serve(folder: Path, kind: MemberKind, build: Build, *, quiet: bool) -> None:
    os.umask(0o077)
    home = open_home(folder)
    if home.kind is not kind:
        raise SpecError("home.kind", f"{folder}: the home of {home.kind} {home.party}; give that of a {kind}")
    with ExitStack() as stack:
        lock = DaemonLock(home.state)
        stack.callback(lock.close)
        logs = Logs("daemon", home.logs, party=home.party, quiet=quiet)
        stack.callback(logs.close)
        route_libraries(logs.log)
        if kind is MemberKind.COORDINATOR:  # before `build` imports gRPC
            stack.enter_context(FailedHandshakes(CallerNotes(home, "exchange refused")))
        daemon = build(home, logs.log, stack)
        asyncio.run(run_daemon(daemon, logs.log, daemon.watched))
