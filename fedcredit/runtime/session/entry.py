"""The way into a session, the same for nodes and coordinator: the order is checked, the folder locked, the end told.

A session may be asked for again at any time. One that has ended is not played again but told again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedcredit.errors import FedCreditError, IntegrityError, SpecError
from fedcredit.runtime.house.consent import FAILED_FILE, run_folder
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.needs import check_registers
from fedcredit.runtime.refusals import note_refusal, public_error
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.runs.proposal import (
    Approval,
    Checked,
    approvals_of,
    check_proposal,
    read_order,
)
from fedcredit.runtime.session.files import (
    EPHEMERAL,
    check_bound,
    ended_badly,
    kept_secret,
    public_of,
    settled,
)
from fedcredit.runtime.unfinished import FolderLock
from fedcredit.types import PartyId

__all__ = ["Entry", "in_session"]


@dataclass(frozen=True)
class Entry:
    """A session that may begin.

    Args:
        home: Whose.
        checked: The run.
        approvals: Everyone's.
        files: The folder of the run, locked.
        ended: The coordinator says that another party has ended the run.
    """

    home: Home
    checked: Checked
    approvals: Mapping[PartyId, Approval]
    files: RunFiles
    ended: bool


def in_session(home: Home, raw: bytes, play: Callable[[Entry], bytes]) -> bytes:
    """Plays a party's role under a session order.

    Args:
        home: The party's.
        raw: A session order.
        play: The role to its end; gives the signed `Finished`. What it raises becomes one too.

    Returns:
        Bytes of a signed `Finished`.

    Raises:
        PeerError: the order is malformed, not the coordinator's, or lacks an approval.
        SpecError: it is of another roster, version or run, past its time, or another process is at work on it.
        IntegrityError: it holds an approval that is not of this house's keys, or these are damaged; or the house cannot
            read or write its own files.
    """
    try:
        return _entered(home, raw, play)
    except OSError as error:
        note_refusal(home, "session refused", raw, error)
        code, text, _ = public_error(error)
        raise IntegrityError(code, text) from None
    except FedCreditError as error:
        note_refusal(home, "session refused", raw, error)
        raise


def _entered(home: Home, raw: bytes, play: Callable[[Entry], bytes]) -> bytes:
    order = read_order(raw)
    checked = check_proposal(order.proposal, home.roster, datetime.now(UTC))
    approvals = approvals_of(order, checked, home.roster)
    folder = run_folder(home, checked.run)
    if not folder.exists() and (told := settled(home, checked.run)) is not None:
        return told
    with _locked(home, folder):
        if (told := settled(home, checked.run)) is not None:
            return told
        files = RunFiles(folder, resumed=True)
        check_bound(folder, checked)
        if approvals[home.party].ephemeral != public_of(kept_secret(files, EPHEMERAL)):
            raise _not_ours(home)
        (folder / FAILED_FILE).unlink(missing_ok=True)
        try:
            check_registers(approvals, checked)
            return play(Entry(home, checked, approvals, files, order.ended))
        except Exception as error:  # noqa: BLE001 - whatever it is, the others have to hear a name for it
            note_refusal(home, "session failed", raw, error)
            return ended_badly(home, checked, files, error)


@contextmanager
def _locked(home: Home, folder: Path) -> Iterator[None]:
    """The right to work in a run's folder."""
    if not folder.exists():
        raise _not_ours(home)
    try:
        lock = FolderLock(folder)
    except SpecError as error:  # whose text names the folder
        text = f"another process of {home.party} is at work on this run"
        raise SpecError("run.running", text, error.public) from None
    try:
        yield
    finally:
        lock.close()


def _not_ours(home: Home) -> IntegrityError:
    return IntegrityError("order.approval", f"{home.party}: the approval in the order is not of this house's keys")
