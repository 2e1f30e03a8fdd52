"""What a house says of an error to others, and what it writes down of it for its own people.

Others (peers and coordinator alike) get a code and a public text. What is wrong with a party's own records, and where
its files are, stays in the house: in ``logs/refusals.jsonl`` and in the folder of the run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fedcredit.errors import FedCreditError
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.party_end import notice_of

__all__ = ["HOME_UNUSABLE", "REFUSALS_FILE", "CallerNotes", "inside_text", "note_refusal", "public_error"]

REFUSALS_FILE = "refusals.jsonl"
"""Below ``logs``: a line for everything that was refused before there was an audit log of a run."""

HOME_UNUSABLE = "the home of this house cannot be opened; its own log says why [home.unusable]"
"""What others hear where not even the home's files are in order."""

_MOST_TEXT = 2048
_MOST_SAID = 1024  # different refusals of callers that are told apart
_MOST_BYTES = 16 << 20  # of one file of refusals


def public_error(error: BaseException) -> tuple[str, str, str]:
    """Code, text and culprit of an error, as they may leave the house."""
    notice = notice_of(error)
    culprit = error.culprit if isinstance(error, FedCreditError) else ""
    return notice.code, notice.text, culprit[:128]


def inside_text(error: BaseException) -> str:
    """One line about an error for the house's own log; no data value, and of unforeseen errors no text at all."""
    text = " ".join(_inside_text(error).split())[:_MOST_TEXT]
    return text.encode("utf-8", "backslashreplace").decode()  # names of files may hold what is no text


def _inside_text(error: BaseException) -> str:
    if isinstance(error, FedCreditError):
        return f"{error} {error.detail}"
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {os.strerror(error.errno or 0)}, {error.filename}"
    at, trace = "", error.__traceback__
    while trace is not None:
        at = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {at}"


def note_refusal(home: Home, event: str, raw: bytes, error: BaseException) -> None:
    """One line about something this house has refused; where the disk does not take it, the refusal stands."""
    line = {
        "time": datetime.now(UTC).isoformat(),
        "event": event,
        "code": error.code if isinstance(error, FedCreditError) else type(error).__name__,
        "text": inside_text(error),
        "bytes": len(raw),
    }
    _write(home, line)


class CallerNotes:
    """Refusals of callers at the coordinator's port, in the house's log of refusals.

    A refusal that says what others have said is noted the first, second, fourth, … time: nobody fills the log, and
    nobody hides behind what another has filled.

    Args:
        home: The coordinator's.
        event: What is refused.
    """

    def __init__(self, home: Home, event: str) -> None:
        self._home, self._event = home, event
        self._said: Counter[tuple[str, str]] = Counter()

    def __call__(self, code: str, text: str, caller: str) -> None:
        """Notes one.

        Args:
            code: Of the refusal.
            text: Public: names the member, or the key that is none's.
            caller: Address and port.
        """
        said = (code, text) if (code, text) in self._said or len(self._said) < _MOST_SAID else (code, "")
        self._said[said] += 1
        count = self._said[said]
        if count & (count - 1) == 0:
            time = datetime.now(UTC).isoformat()
            line = {"time": time, "event": self._event, "code": code, "text": text[:_MOST_TEXT]}
            _write(self._home, {**line, "caller": caller[:128], "times": count})


def _write(home: Home, line: Mapping[str, object]) -> None:
    with suppress(OSError):
        _turn(home.logs / REFUSALS_FILE)
        file = os.open(home.logs / REFUSALS_FILE, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, msgspec.json.encode(line) + b"\n")
        finally:
            os.close(file)


def _turn(path: Path) -> None:
    """Puts a full file aside: the first for good, since it tells how it began, later ones in place of each other."""
    with suppress(FileNotFoundError):
        if path.stat().st_size < _MOST_BYTES:
            return
        first, last = (path.with_name(f"refusals.{name}.jsonl") for name in ("first", "last"))
        path.rename(last if first.exists() else first)
