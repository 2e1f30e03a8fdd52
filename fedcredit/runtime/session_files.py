"""A party's folder of a run between houses: the secrets in it, and how it is closed when the run has ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedcredit.crypto.prg import SEED_BYTES, SystemEntropy
from fedcredit.errors import FedCreditError, IntegrityError
from fedcredit.governance.audit import AuditLog, write_heads
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.consent import FAILED_FILE, public_error, run_folder
from fedcredit.runtime.home import Home
from fedcredit.runtime.leftovers import earlier_messages, mend_lines
from fedcredit.runtime.proposal import Checked, Finished, signed_finished
from fedcredit.runtime.run_directory import RunFiles
from fedcredit.runtime.session import ATTEMPT_FILE, COMPLETE_FILE, STOP_FILE, Part
from fedcredit.runtime.unfinished import LOCK_FILE
from fedcredit.types import PartyId, RunId

__all__ = [
    "EPHEMERAL",
    "FINISHED_FILE",
    "PROGRESS_FILE",
    "ended_badly",
    "ended_well",
    "kept_secret",
    "public_of",
    "unfinished_files",
]

FINISHED_FILE, PROGRESS_FILE = "finished.bin", "progress.json"
EPHEMERAL = "ephemeral"
_LEFT_BEHIND = (ATTEMPT_FILE, COMPLETE_FILE, STOP_FILE, PROGRESS_FILE, FAILED_FILE)


def unfinished_files(home: Home, run: RunId) -> RunFiles:
    """The folder of a run that has not ended in this house, made if it is not there."""
    folder = run_folder(home, run)
    resumed = folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return RunFiles(folder, resumed=resumed)


def kept_secret(files: RunFiles, name: str) -> bytes:
    """A secret of this run, 32 bytes, made the first time it is asked for.

    Raises:
        IntegrityError: it is damaged.
    """
    path = files.secrets / name
    if not path.exists():
        files.secrets.mkdir(mode=0o700, exist_ok=True)
        replace_file(path, SystemEntropy().take(SEED_BYTES))
    secret = path.read_bytes()
    if len(secret) != SEED_BYTES:
        raise IntegrityError("run.secret", f"{path}: damaged; this run cannot go on")
    return secret


def public_of(private: bytes) -> bytes:
    """The X25519 public key of a private one, both 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


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
    write_heads(files.audit, {part.party: head})
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
        attempts=part.attempts,
        shared=shared,
        **_sent(files),
    )
    data = signed_finished(part.home, finished)
    replace_file(files.folder / FINISHED_FILE, data)
    files.end()
    for name in _LEFT_BEHIND:
        (files.folder / name).unlink(missing_ok=True)
    target = part.home.runs / run
    files.folder.rename(target)
    (target / LOCK_FILE).unlink(missing_ok=True)
    return data


def ended_badly(home: Home, checked: Checked, files: RunFiles, error: BaseException) -> bytes:
    """Notes that a session has failed; the folder stays, and the run can be resumed.

    Returns:
        Bytes of the signed `Finished`.
    """
    code, text, culprit = public_error(error)
    replace_file(files.folder / FAILED_FILE, f"{code}\n{text}\n".encode())
    attempt = files.folder / ATTEMPT_FILE
    finished = Finished(
        party=home.party,
        run=checked.run,
        ok=False,
        code=code,
        text=text,
        culprit=culprit,
        attempts=int(attempt.read_text("ascii")) if attempt.exists() else 0,
        **_sent(files),
    )
    return signed_finished(home, finished)


def _sent(files: RunFiles) -> dict[str, Any]:
    sent = earlier_messages(files.audit) if files.audit.exists() else []
    return {"messages": len(sent), "bytes_sent": sum(one.bytes for one in sent)}


def _close_audit(part: Part) -> str:
    """Closes the log, unless a process before this one has."""
    mend_lines(part.audit_file)
    try:
        return AuditLog(part.audit_file, part.party, part.checked.run, lambda: datetime.now(UTC)).close().head
    except IntegrityError as error:
        if error.code != "audit.closed":
            raise
        return str(json.loads(part.audit_file.read_text("utf-8").splitlines()[-1])["hash"])
