"""A party's folder of a run between houses: what it is bound to, the secrets in it, and how it is closed.

While the run has not ended the folder is ``state/runs/RUN``; then it moves to ``runs/RUN``, secrets removed first. A
process that is stopped anywhere in between leaves what the next one finishes (`settled`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedcredit.crypto.prg import SEED_BYTES, SystemEntropy
from fedcredit.errors import FedCreditError, IntegrityError, SpecError
from fedcredit.governance.audit import AuditLog, read_entries, write_heads
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.house.consent import FAILED_FILE, run_folder
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.leftovers import earlier_messages, mend_lines
from fedcredit.runtime.refusals import inside_text, public_error
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.runs.proposal import Checked, Finished, read_approval, signed_approval, signed_finished
from fedcredit.runtime.session.session import ATTEMPT_FILE, COMPLETE_FILE, STOP_FILE, Part, books_closed
from fedcredit.runtime.unfinished import LOCK_FILE
from fedcredit.types import PartyId, RunId

__all__ = [
    "CATALOG_FILE",
    "EPHEMERAL",
    "FINISHED_FILE",
    "PROGRESS_FILE",
    "RECORDS_FILE",
    "REGISTER_FILE",
    "Brought",
    "check_bound",
    "check_brought",
    "decoy_key",
    "ended_badly",
    "ended_well",
    "kept_secret",
    "own_approval",
    "pin",
    "public_of",
    "settled",
    "unfinished_files",
]

FINISHED_FILE, PROGRESS_FILE = "finished.bin", "progress.json"
EPHEMERAL = "ephemeral"
RECORDS_FILE = "records"
"""In the folder of a run: digest of the party's records, written when its role first begins."""
CATALOG_FILE, REGISTER_FILE = "catalog", "register"
"""In the folder of a run: digests of the party's catalogue and register, written when it approves."""
_BOUND_FILE, _APPROVAL_FILE = "bound", "approval.bin"
_LEFT_BEHIND = (
    ATTEMPT_FILE,
    COMPLETE_FILE,
    STOP_FILE,
    PROGRESS_FILE,
    FAILED_FILE,
    RECORDS_FILE,
    CATALOG_FILE,
    REGISTER_FILE,
)
_MOST_COUNT = 2**53  # as wire.message.Count has it


def unfinished_files(home: Home, run: RunId) -> RunFiles:
    """The folder of a run that has not ended in this house, made if it is not there."""
    folder = run_folder(home, run)
    resumed = folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return RunFiles(folder, resumed=resumed)


def check_bound(folder: Path, checked: Checked) -> None:
    """Ties a run's folder, and so its secrets, to what is computed in it: one spec, records and past for good.

    Raises:
        SpecError: the folder is that of another run of the same name.
    """
    proposal = checked.proposal
    bound = f"{proposal.spec_digest} {checked.data} {proposal.continues or '-'} {' '.join(proposal.missing)}"
    if pin(folder, _BOUND_FILE, bound) != bound:
        raise SpecError("proposal.changed", f"run {checked.run} was proposed before as another one; submit it anew")


def pin(folder: Path, name: str, value: str) -> str:
    """What a file of a run's folder was first given, which is the value where the file is not there yet."""
    path = folder / name
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        replace_file(path, value.encode())
        return value


def kept_secret(files: RunFiles, name: str) -> bytes:
    """A secret of this run, 32 bytes, made the first time it is asked for and never after the run has begun.

    Raises:
        IntegrityError: it is damaged, or gone.
    """
    path = files.secrets / name
    if not path.exists():
        if (files.folder / ATTEMPT_FILE).exists():
            raise IntegrityError("run.secret", f"secrets/{name} of this run is gone; the run cannot go on")
        _new_secret(path)
    secret = path.read_bytes()
    if len(secret) != SEED_BYTES:
        raise IntegrityError("run.secret", f"secrets/{name} of this run is damaged; the run cannot go on")
    return secret


def decoy_key(state: Path) -> bytes:
    """The house's key of decoys, 32 bytes: made once and used in all its runs.

    Raises:
        IntegrityError: it is damaged.
    """
    path = state / "secrets" / "decoys"
    if not path.exists():
        _new_secret(path)
    secret = path.read_bytes()
    if len(secret) != SEED_BYTES:
        # other houses hear this: not where the home is
        text = "state/secrets/decoys of this house is damaged; restore it from the backup"
        raise IntegrityError("house.decoys", text)
    return secret


def _new_secret(path: Path) -> None:
    """Writes a secret; of two processes that do so at once the first one counts."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            replace_file(path, SystemEntropy().take(SEED_BYTES))
    finally:
        os.close(lock)


def public_of(private: bytes) -> bytes:
    """The X25519 public key of a private one, both 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


@dataclass(frozen=True)
class Brought:
    """Digests of what a party brings to a run.

    Args:
        records: Of its table, where the approval says it.
        register: Of its register of public ids.
        catalog: Of its catalogue, which no approval says.
    """

    records: str = ""
    register: str = ""
    catalog: str = ""


def own_approval(home: Home, checked: Checked, brings: Callable[[], Brought] = Brought) -> bytes:
    """This party's approval of a run: with the same key whenever it is asked for, also when the run has ended.

    Args:
        home: The party's.
        checked: The proposal.
        brings: Says what the party brings.

    Raises:
        SpecError: the run's name is that of another run in this house.
        IntegrityError: the run has begun, and the catalogue or register has changed since.
    """
    ended = home.runs / checked.run
    if not run_folder(home, checked.run).exists() and (ended / _APPROVAL_FILE).exists():
        check_bound(ended, checked)
        before = read_approval((ended / _APPROVAL_FILE).read_bytes(), home.party, home.roster)
        return signed_approval(home, checked, before.ephemeral, before.records, before.register)
    brought = brings()  # before anything is made for a run that the records may not carry
    files = unfinished_files(home, checked.run)
    check_bound(files.folder, checked)
    if not (files.folder / ATTEMPT_FILE).exists():
        _note_brought(files.folder, brought)
    check_brought(home.party, files.folder, brought)
    ephemeral = public_of(kept_secret(files, EPHEMERAL))
    approval = signed_approval(home, checked, ephemeral, brought.records, brought.register)
    replace_file(files.folder / _APPROVAL_FILE, approval)
    return approval


def _note_brought(folder: Path, brought: Brought) -> None:
    """Writes down the catalogue and register that a party approves a run with."""
    for name, digest in ((CATALOG_FILE, brought.catalog), (REGISTER_FILE, brought.register)):
        replace_file(folder / name, digest.encode())


def check_brought(party: PartyId, folder: Path, brought: Brought) -> None:
    """Holds the catalogue and register that a party has against those it approved the run with.

    Raises:
        IntegrityError: one has changed.
    """
    for name, digest in ((CATALOG_FILE, brought.catalog), (REGISTER_FILE, brought.register)):
        if pin(folder, name, digest) != digest:
            text = f"{party}: its {name} has changed since it approved this run; put it back, or submit the run anew"
            raise IntegrityError(f"run.{name}", text)


def ended_well(part: Part, shared: bytes, finish: Callable[[Path, PartyId], None] | None = None) -> bytes:
    """Closes a party's books of a run and moves its folder to ``runs/RUN``, secrets removed first.

    Args:
        part: The party.
        shared: What it publishes.
        finish: Adds what can be made of the other files; where it fails, the result stands and the text says so.

    Returns:
        Bytes of the signed `Finished`, which stand in the folder too.
    """
    files, run = part.files, part.checked.run
    head = _close_audit(part)
    write_heads(files.audit, {**_network_heads(files), part.party: head})
    text = ""
    if finish is not None:
        try:
            finish(files.folder, part.party)
        except FedCreditError as error:
            text = f"the result is complete, its report is not [{error.code}]"
    finished = Finished(
        text=text,
        party=part.party,
        run=run,
        ok=True,
        audit_head=head,
        attempts=min(part.attempts, _MOST_COUNT),
        shared=shared,
        **_sent(files),
    )
    data = signed_finished(part.home, finished)
    replace_file(files.folder / FINISHED_FILE, data)
    _move(part.home, run, files)
    return data


def _network_heads(files: RunFiles) -> dict[PartyId, str]:
    """Heads of the logs in folders of their own, one for each network of a run of several."""
    logs = {path.relative_to(files.audit).with_suffix(""): path for path in sorted(files.audit.glob("*/*.jsonl"))}
    return {PartyId(name.as_posix()): str(read_entries(path)[-1]["hash"]) for name, path in logs.items()}


def settled(home: Home, run: RunId) -> bytes | None:
    """The `Finished` of a run that has ended in this house, and None of any other.

    Moves what a process before this one had closed and not moved; to be called by the holder of the folder's lock.
    """
    folder = run_folder(home, run)
    if (folder / FINISHED_FILE).exists():
        _move(home, run, RunFiles(folder, resumed=True))
    ended = home.runs / run / FINISHED_FILE
    return ended.read_bytes() if ended.exists() else None


def _move(home: Home, run: RunId, files: RunFiles) -> None:
    files.end()
    for name in _LEFT_BEHIND:
        (files.folder / name).unlink(missing_ok=True)
    target = home.runs / run
    files.folder.rename(target)
    (target / LOCK_FILE).unlink(missing_ok=True)
    for folder in (home.runs, files.folder.parent):
        _sync(folder)


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def ended_badly(home: Home, checked: Checked, files: RunFiles, error: BaseException) -> bytes:
    """Notes that a session has failed; the folder stays, and the run can be resumed.

    The file in the folder says more than the answer: it is for the house's own people.

    Returns:
        Bytes of the signed `Finished`.
    """
    code, text, culprit = public_error(error)
    with suppress(OSError):  # a full disk may be the reason
        replace_file(files.folder / FAILED_FILE, f"{code}\n{inside_text(error)}\n".encode())
    figures: dict[str, Any] = {"attempts": 0}
    with suppress(FedCreditError, OSError, ValueError):  # a damaged log or number may be the reason
        figures = _sent(files)
        figures["attempts"] = min(max(int((files.folder / ATTEMPT_FILE).read_text("ascii")), 0), _MOST_COUNT)
    finished = Finished(
        party=home.party, run=checked.run, ok=False, code=code, text=text, culprit=culprit, **{"attempts": 0, **figures}
    )
    return signed_finished(home, finished)


def _sent(files: RunFiles) -> dict[str, Any]:
    sent = earlier_messages(files.audit) if files.audit.exists() else []
    return {"messages": len(sent), "bytes_sent": sum(one.bytes for one in sent)}


def _close_audit(part: Part) -> str:
    """Closes the log, unless a process before this one has."""
    mend_lines(part.audit_file)
    if books_closed(part):
        return str(read_entries(part.audit_file)[-1]["hash"])
    log = AuditLog(part.audit_file, part.party, part.checked.run, lambda: datetime.now(UTC))
    try:
        return log.close().head
    finally:
        log.suspend()
