"""What a node counts for its own people from what lies in its home: traffic, seconds, use of the disclosure ledger.

Only files that the node keeps anyway are read: audit logs, summaries, the ledger. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fedcredit.errors import FedCreditError
from fedcredit.governance.ledger import Ledger, LedgerLine
from fedcredit.governance.policy import load_policy
from fedcredit.runtime.daemon.status import LedgerView, TrafficView
from fedcredit.runtime.hybrid.networks import network_run
from fedcredit.types import PartyId, RunId

__all__ = ["Tally", "ledger_use", "run_counts", "run_stage"]

_RUN_NAME = 32  # hex digits
_MOST_RUNS = 200  # the newest, of whose ledger accounts the caps are read


class _Sent(msgspec.Struct):
    """The part of an audit entry that is counted."""

    event: str
    kind: str = ""
    recipient: str = ""
    bytes: int = 0


class _Summary(msgspec.Struct):
    seconds: dict[str, float] = {}


class _Progress(msgspec.Struct):
    stage: str = ""
    done: int | None = None
    total: int | None = None


@dataclass
class _Read:
    offset: int = 0


class Tally:
    """Counts that grow: each log is read on from where it ended, each summary once.

    Args:
        home: Folder of the member.
        party: Its name.
    """

    def __init__(self, home: Path, party: PartyId) -> None:
        self._home, self._party = home, party
        self._read: dict[str, _Read] = {}
        self._summed: set[str] = set()
        self._sent: dict[tuple[str, str], list[int]] = {}
        self.stage_seconds: dict[str, float] = {}

    def look(self) -> list[TrafficView]:
        """Reads what is new; returns all traffic so far."""
        for folder in _run_folders(self._home):
            audit, name = folder / "audit", f"{self._party}.jsonl"
            for log in (audit / name, *(network / name for network in _networks(folder))):
                self._follow(f"{folder.name}/{log.relative_to(audit)}", log)
        for folder in _folders(self._home / "runs"):
            if folder.name not in self._summed:
                self._sum(folder)
        return [
            TrafficView(protocol=protocol, party=party, messages=count, bytes=size)
            for (protocol, party), (count, size) in sorted(self._sent.items())
        ]

    def _follow(self, place: str, log: Path) -> None:
        read = self._read.setdefault(place, _Read())
        try:
            with log.open("rb") as file:
                file.seek(read.offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is being written
                    read.offset += len(line)
                    self._count(line)
        except OSError:
            return

    def _count(self, line: bytes) -> None:
        try:
            entry = msgspec.json.decode(line, type=_Sent)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if entry.event == "sent":
            counts = self._sent.setdefault((entry.kind.partition(".")[0], entry.recipient), [0, 0])
            counts[0] += 1
            counts[1] += entry.bytes

    def _sum(self, folder: Path) -> None:
        try:
            summary = msgspec.json.decode((folder / "summary.json").read_bytes(), type=_Summary)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        self._summed.add(folder.name)
        for stage, seconds in summary.seconds.items():
            if stage != "total":
                self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds


def run_counts(home: Path) -> dict[str, int]:
    """Number of runs by what a house has of them: proposed to it, running, failed, finished."""
    proposals = {path.name.partition(".")[0] for path in _files(home / "state" / "proposals")}
    under_way = _folders(home / "state" / "runs")
    finished = {one.name for one in _folders(home / "runs")}
    failed = {one.name for one in under_way if (one / "failed").exists()}
    running = {one.name for one in under_way} - failed
    return {
        "proposed": len(proposals - running - failed - finished),
        "running": len(running),
        "failed": len(failed),
        "finished": len(finished),
    }


def run_stage(home: Path, run: str) -> str:
    """How far a run is in a house, for people: ``bin``, ``boost 3 of 20``; "" where nothing is known."""
    path = home / "state" / "runs" / run / "progress.json"
    try:
        at = msgspec.json.decode(path.read_bytes(), type=_Progress)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return at.stage if at.done is None or at.total is None else f"{at.stage} {at.done} of {at.total}"


def ledger_use(home: Path) -> list[LedgerView]:
    """What each counterparty was told of this house's records, beside the caps; the worst of each account.

    The caps are those in force for the runs known here. A house that has told nothing has no lines.
    """
    path = home / "state" / "ledger.sqlite"
    if not path.exists():
        return []
    worst: dict[tuple[str, str], LedgerView] = {}
    with suppress(FedCreditError), Ledger(path, load_policy(home / "policy.toml").cap_rules()) as ledger:
        for folder in _run_folders(home)[:_MOST_RUNS]:
            runs = [folder.name, *(network_run(RunId(folder.name), one.name) for one in _networks(folder))]
            for view in (view for run in runs for line in _report(ledger, run) for view in _views(line)):
                key = (view.counterparty, view.account)
                if key not in worst or _rank(view) > _rank(worst[key]):
                    worst[key] = view
    return [worst[key] for key in sorted(worst)]


def _report(ledger: Ledger, run: str) -> tuple[LedgerLine, ...]:
    try:
        return ledger.report(RunId(run))
    except (FedCreditError, LookupError, StopIteration):
        return ()  # a run that has declared nothing


def _views(line: LedgerLine) -> Iterator[LedgerView]:
    accounts = (
        ("equations", line.equations, line.equations_cap),
        ("row_bits", line.row_bits, line.row_bits_cap),
        ("bins_returned", line.bins_returned, line.bins_returned_cap),
        ("ids_asked", line.ids_asked, line.ids_asked_cap),
    )
    for account, used, cap in accounts:
        yield LedgerView(counterparty=line.counterparty, account=account, used=used, cap=cap)


def _rank(view: LedgerView) -> tuple[float, float]:
    return (-1.0 if view.share is None else view.share, view.used)


def _networks(run: Path) -> list[Path]:
    """Folders of a run's logs, one for each network of a run of several banks with feature holders."""
    return [one for one in _files(run / "audit") if one.is_dir()]


def _run_folders(home: Path) -> list[Path]:
    """Folders of all runs of a house, the newest first."""
    found = [*_folders(home / "state" / "runs"), *_folders(home / "runs")]
    return sorted(found, key=_changed, reverse=True)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _folders(parent: Path) -> list[Path]:
    names = set("0123456789abcdef")
    return [one for one in _files(parent) if len(one.name) == _RUN_NAME and not set(one.name) - names]


def _files(parent: Path) -> list[Path]:
    try:
        return sorted(parent.iterdir())
    except OSError:
        return []
