"""What the coordinator computes in one run, in a process of its own.

    python -m coordinator.worker HOME run   < session order  > end of the session

Standard output carries the answer and nothing else. An error that leaves no answer ends with code 3; the last line on
standard error is then what others may hear of it, and the line before it what the house's own people need.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fedcredit.cli.console import write_error
from fedcredit.errors import FedCreditError
from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.ready_loops import SUMS, load_loops
from fedcredit.runtime.refusals import HOME_UNUSABLE, inside_text
from fedcredit.runtime.session.coordinator import run_session

__all__ = ["load", "main"]

_MOST_BYTES = 1 << 24


def load() -> None:
    """Loads what a session needs, before there is one; see `fedcredit.runtime.daemon.spare`."""
    load_loops(SUMS)


def main(arguments: list[str] | None = None) -> int:
    """Answers one session order.

    Returns:
        0 with an answer on standard output, else 2 or 3.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 2 or given[1] != "run":
        write_error("usage: python -m coordinator.worker HOME run")
        return 2
    try:
        home = open_home(Path(given[0]))
    except (FedCreditError, OSError) as error:  # whose texts name files of the house
        write_error(inside_text(error))
        write_error(HOME_UNUSABLE)
        return 3
    try:
        answer = run_session(home, sys.stdin.buffer.read(_MOST_BYTES))
    except FedCreditError as error:
        write_error(str(error))
        return 3
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
