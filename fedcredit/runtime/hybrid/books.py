"""The end of a hybrid run in one house: the audit logs of its networks are closed, and bound to its own log of the run.

Only the head of the house's own log is published. It holds the heads of all others, so that none of these can be
changed any more either.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from fedcredit.governance.audit import AuditLog, read_entries, write_heads
from fedcredit.runtime.hybrid.networks import Network
from fedcredit.runtime.leftovers import mend_lines
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.session.attempts import books_closed
from fedcredit.runtime.session.session import Part
from fedcredit.types import PartyId

__all__ = ["close_networks", "networks_closed"]


def networks_closed(files: RunFiles, party: PartyId) -> bool:
    """Whether a process before this one has begun to close the books of this run, which it does after all were done."""
    logs = sorted(files.audit.glob(f"*/{party}.jsonl"))
    return any(mend_lines(path) and read_entries(path)[-1]["event"] == "closed" for path in logs)


def close_networks(part: Part, networks: Sequence[Network]) -> None:
    """Closes a party's logs of its networks; their heads go into its own log of the run, whose head is published."""
    if books_closed(part):
        return
    heads = {}
    for network in networks:
        path = part.files.audit / network.name / f"{part.party}.jsonl"
        mend_lines(path)
        last = read_entries(path)[-1]
        if last["event"] == "closed":
            heads[network.name] = str(last["hash"])
        else:
            log = AuditLog(path, part.party, network.run, _now)
            try:
                heads[network.name] = log.close().head
            finally:
                log.suspend()
        write_heads(path.parent, {part.party: heads[network.name]})
    log = AuditLog(part.audit_file, part.party, part.checked.run, _now)
    try:
        log.append("networks", {"heads": dict(heads)})
    finally:
        log.suspend()


def _now() -> datetime:
    return datetime.now(UTC)
