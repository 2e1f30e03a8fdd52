"""Which SuperNodes the SuperLink has let in, read from its own database: no process of Flower's is started for it.

The control interface would need one for every look. The tables are Flower's own and may change with its version (a
test holds the columns against the installed one); where they are not as expected, nothing is said.

Source: flwr 1.41, ``server/superlink/linkstate/sql_linkstate.py``: a node is online while ``online_until`` is ahead.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcredit.errors import TransportError

__all__ = ["LINK_DATABASE", "NodeSeat", "node_seats"]

LINK_DATABASE = "superlink.db"
"""In the coordinator's folder of Flower."""

_BUSY_S = 2.0
_QUERY = (
    "SELECT name, status, last_activated_at, last_deactivated_at, online_until FROM node WHERE status != 'unregistered'"
)


@dataclass(frozen=True)
class NodeSeat:
    """A registered SuperNode.

    Args:
        connected: The SuperLink has let it in and heard of it lately.
        since: When that changed last, RFC 3339; "" = it was never there.
    """

    connected: bool
    since: str


def node_seats(database: Path, now: float | None = None) -> Mapping[str, NodeSeat]:
    """Registered nodes by name.

    Args:
        database: The SuperLink's.
        now: Seconds since 1970; None = this machine's clock.

    Raises:
        TransportError: it cannot be read, or not as this version of Flower writes it.
    """
    moment = time.time() if now is None else now
    try:
        connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
        try:
            rows = connection.execute(_QUERY).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise TransportError("flower.nodes", "the SuperLink's list of nodes cannot be read", str(error)) from None
    return {str(name): _seat(status, begun, ended, until, moment) for name, status, begun, ended, until in rows}


def _seat(status: str, begun: str | None, ended: str | None, until: float | None, now: float) -> NodeSeat:
    connected = status == "online" and until is not None and until > now
    return NodeSeat(connected, _short(begun if connected else ended or begun))


def _short(moment: str | None) -> str:
    """Flower's time to the second, in UTC as this program writes it."""
    return f"{moment[:19]}Z" if moment else ""
