"""Files of lines that a process left when it was killed, and what the process after it has to know of them."""

from __future__ import annotations

import heapq
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fedcredit.errors import IntegrityError
from fedcredit.governance.audit import AuditLog, read_entries, verify, write_heads
from fedcredit.governance.canonical import canonical_json
from fedcredit.governance.ledger import Ledger
from fedcredit.runtime.settings import TranscriptEntry
from fedcredit.types import PartyId, RunId
from fedcredit.wire.disclosure import Basis, CostKind

__all__ = [
    "HeadroomMemory",
    "HeadroomQuestion",
    "close_books",
    "continue_audit",
    "earlier_messages",
    "mend_lines",
]


def mend_lines(path: Path) -> bool:
    """Cuts a last line off that a kill left unfinished; nothing was done on its word.

    Returns:
        Whether any line is left.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return whole > 0


def earlier_messages(audit_dir: Path) -> list[TranscriptEntry]:
    """All messages that processes before this one let out, from the audit logs, each party's in their order.

    Logs in folders of the directory, one for each network of a run of several, count too.

    Raises:
        IntegrityError: the chain of a log is broken.
    """
    logs = [
        [entry for entry in read_entries(path) if entry["event"] == "sent"]
        for path in sorted(audit_dir.rglob("*.jsonl"))
        if mend_lines(path)
    ]
    return [_message(entry) for entry in heapq.merge(*logs, key=lambda entry: str(entry["time"]))]


def _message(entry: dict[str, Any]) -> TranscriptEntry:
    return TranscriptEntry(
        sender=PartyId(entry["party"]),
        recipient=PartyId(entry["recipient"]),
        kind=entry["kind"],
        bytes=entry["bytes"],
        stage=entry["stage"],
        sequence=entry["sequence"],
        body_sha256=entry["body_sha256"],
    )


def continue_audit(
    path: Path | None, party: PartyId, run: RunId, clock: Callable[[], datetime], *, durable: bool
) -> AuditLog:
    """A party's audit log of a run; where a process before this one was killed, it says so and goes on.

    Args:
        path: The log; None keeps it in memory.
        party: Whose it is.
        run: The run.
        clock: Tells the time.
        durable: Force what leaves to the disk first; production.

    Raises:
        IntegrityError: the log is broken, closed, or that of another party or run.
    """
    resumed = path is not None and mend_lines(path)
    log = AuditLog(path, party, run, clock, durable=durable)
    if resumed:
        log.append("resumed", {})
    return log


def close_books(
    audit_dir: Path, parties: Sequence[PartyId], run: RunId, ledgers: Iterable[Ledger], clock: Callable[[], datetime]
) -> None:
    """Ends a run that a process before this one finished but did not close: audit logs, their heads, ledgers.

    Raises:
        IntegrityError: a log is broken or missing.
    """
    heads = {}
    for party in parties:
        path = audit_dir / f"{party}.jsonl"
        mend_lines(path)
        closed = read_entries(path)[-1]["event"] == "closed"
        heads[party] = (
            verify(path).head if closed else continue_audit(path, party, run, clock, durable=False).close().head
        )
    write_heads(audit_dir, heads)
    for ledger in ledgers:
        ledger.close_run(run)


@dataclass(frozen=True)
class HeadroomQuestion:
    """All that an answer of `fedcredit.protocol.channel.Channel.headroom` depends on besides the ledger."""

    counterparty: PartyId
    data_version: str
    basis: Basis
    kind: CostKind
    features: Sequence[str]

    @property
    def text(self) -> str:
        """Canonical text."""
        basis = [self.basis.n_eff, self.basis.n_bad, float(self.basis.noise_rows)]
        return canonical_json([self.counterparty, self.data_version, basis, self.kind.value, list(self.features)])


class HeadroomMemory:
    """What a party's ledger said it would still allow, so that a run that goes on decides as it did the first time.

    The ledger counts what this run has declared and spent before it was killed as used, as it must; a role that asked
    again would choose fewer features and send other messages. Nothing is loosened by remembering: every declaration and
    every spend still meets the ledger itself.

    Args:
        path: File of one party; None for a run that is never resumed.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._asked: Counter[str] = Counter()
        self._known: dict[tuple[str, int], tuple[float, ...]] = {}
        if path is not None and mend_lines(path):
            for line in path.read_text("utf-8").splitlines():
                self._recall(line, path)

    def _recall(self, line: str, path: Path) -> None:
        try:
            entry = json.loads(line)
            key = (str(entry["question"]), int(entry["turn"]))
            self._known[key] = tuple(float.fromhex(one) for one in entry["answer"])
        except (ValueError, KeyError, TypeError):
            raise IntegrityError("resume.headroom", f"{path.name}: the file of earlier answers is damaged") from None

    def answer(self, ledger: Ledger, run: RunId, question: HeadroomQuestion) -> tuple[float, ...]:
        """The answer of the first time; else that of the ledger, which is kept before it is given."""
        text = question.text
        key = (text, self._asked[text])
        self._asked[text] += 1
        if key not in self._known:
            self._known[key] = ledger.headroom(
                run,
                question.counterparty,
                question.data_version,
                question.basis,
                [(question.kind, name) for name in question.features],
            )
            if self._path is not None:
                self._keep(key)
        return self._known[key]

    def _keep(self, key: tuple[str, int]) -> None:
        if self._path is None:
            return
        entry = {"question": key[0], "turn": key[1], "answer": [one.hex() for one in self._known[key]]}
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
