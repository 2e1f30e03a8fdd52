"""What a node does for one message: a process of its own that reads a message, works, and writes its answer.

    python -m nodes.worker HOME consider    < proposal       > decision
    python -m nodes.worker HOME run         < session order  > end of the session
    python -m nodes.worker HOME visit       < visit          > its answer

Long computations would silence the process that speaks with Flower; here they silence nobody. Standard output carries
the answer and nothing else. An error that leaves no answer ends with code 3; the last line on standard error is then
what the coordinator may hear of it, and the line before it what the house's own people need.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fedcredit.errors import FedCreditError
from fedcredit.runtime.house.home import Home, open_home
from fedcredit.runtime.refusals import HOME_UNUSABLE, inside_text
from fedcredit.types import PartyId

__all__ = ["load", "main"]

_MOST_BYTES = 1 << 26
_USAGE = "usage: python -m nodes.worker HOME consider|run|visit"


def load() -> None:
    """Loads what a decision or a session needs, before there is one; see `fedcredit.runtime.daemon.spare`."""
    from fedcredit.report import build  # noqa: F401, PLC0415 -- loaded for later
    from fedcredit.runtime.ready_loops import SUMS, load_loops  # noqa: PLC0415 -- as each action
    from fedcredit.runtime.session import node  # noqa: F401, PLC0415 -- as above

    load_loops(SUMS)


def main(arguments: list[str] | None = None) -> int:
    """Answers one message.

    Returns:
        0 with an answer on standard output, else 2 or 3.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 2 or given[1] not in _ACTIONS:
        _write_error(_USAGE)
        return 2
    try:
        home = open_home(Path(given[0]))
    except (FedCreditError, OSError) as error:  # whose texts name files of the house
        _write_error(inside_text(error))
        _write_error(HOME_UNUSABLE)
        return 3
    try:
        message = sys.stdin.buffer.read(_MOST_BYTES)
        answer = _ACTIONS[given[1]](home, message)
    except FedCreditError as error:
        _write_error(str(error))
        return 3
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0


def _write_error(text: str) -> None:
    """One line on standard error; the command line's own `write_error` would load all commands."""
    sys.stderr.write(f"error: {' '.join(text.split())}\n")  # an error is one line, whatever a peer put into it


def _report(folder: Path, party: PartyId) -> None:
    from fedcredit.report.build import build_report  # noqa: PLC0415 -- loads what draws charts, once a run has ended

    build_report(folder, party)


def _consider(home: Home, message: bytes) -> bytes:
    from fedcredit.runtime.session.node import consider  # noqa: PLC0415 -- each action loads what it needs

    return consider(home, message)


def _run(home: Home, message: bytes) -> bytes:
    from fedcredit.runtime.session.node import run_session  # noqa: PLC0415 -- as above

    return run_session(home, message, _report)


def _visit(home: Home, message: bytes) -> bytes:
    from fedcredit.runtime.rounds.node import run_visit  # noqa: PLC0415 -- as above

    return run_visit(home, message, _report)


_ACTIONS = {"consider": _consider, "run": _run, "visit": _visit}


if __name__ == "__main__":
    sys.exit(main())
