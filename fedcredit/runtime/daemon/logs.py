"""Logs of the daemons: one JSON object a line, in which no data value can stand.

There is no free text. A line has a name of what happened and a few named fields, each with a form of its own that a
column's value or an enterprise's id does not have; whatever else a caller or a library passes is left out, and the line
says that something was (``dropped``). Errors are logged by their code and the places in this program they passed.

    {"code":"exchange.unreachable","event":"link.lost","level":"warning","party":"bank","run":"3f…","time":"2026-…Z"}
"""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import structlog

from fedcredit.errors import FedCreditError

__all__ = ["ALLOWED", "DROPPED", "Log", "Logs", "code_of", "log_failure", "route_libraries"]

Log = structlog.typing.FilteringBoundLogger
"""A logger; call it as ``log.info("run.opened", run=run)``."""

DROPPED = "dropped"
"""Field that counts what was left out; also the event of a line whose own name was."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}(?:\.[a-z][a-z0-9_-]{0,31}){0,4}")

ALLOWED: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "time": re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", re.ASCII),
        "level": re.compile(r"debug|info|warning|error|critical", re.ASCII),
        "event": _NAME,
        "party": re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII),
        "run": re.compile(r"[0-9a-f]{32}", re.ASCII),
        "code": _NAME,  # of an error in the catalogue, or "internal.typename"
        "process": _NAME,  # a supervised process, or the library that logged
        "state": re.compile(r"[a-z][a-z-]{0,31}", re.ASCII),
        "at": re.compile(
            r"(?:[a-z0-9_]{1,64}\.py:\d{1,5}(?: |\Z)){1,8}", re.ASCII
        ),  # places in the program, innermost last
    }
)
"""The fields that a line may have, and the only form each may have."""

_MAX_FILE, _KEPT = 10_000_000, 5  # bytes of a log file, and how many older ones are kept
_PLACES = 8


def _stamp(_: Any, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    line["time"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line["level"] = {"warn": "warning", "exception": "error", "msg": "info"}.get(level, level)
    return line


def _only_allowed(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leaves out every field that is not listed or not in its form, and says how many there were."""
    kept = {
        name: value
        for name, value in line.items()
        if isinstance(value, str) and name in ALLOWED and ALLOWED[name].fullmatch(value)
    }
    missing = len(line) - len(kept)
    kept.setdefault("event", DROPPED)
    return {**kept, **({DROPPED: missing} if missing else {})}


def _render(_: Any, __: str, line: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(dict(line), order="sorted").decode("ascii")


class _Sink:
    """Standard error and a file that is changed for a fresh one in time."""

    def __init__(self, handlers: list[logging.Handler]) -> None:
        self._handlers = handlers

    def msg(self, line: str) -> None:
        record = logging.LogRecord("fedcredit", logging.INFO, "", 0, line, None, None)
        for handler in self._handlers:
            handler.handle(record)

    debug = info = warning = error = critical = msg


class Logs:
    """The logs of one process.

    Args:
        name: Of the file, ``FOLDER/NAME.jsonl``; after 10 MB it is kept as ``NAME.jsonl.1`` and so on, five of them.
        folder: Where; None = no file.
        party: Whose log it is; on every line.
        quiet: Not on standard error.

    Attributes:
        log: The logger.
    """

    def __init__(self, name: str, folder: Path | None, *, party: str = "", quiet: bool = False) -> None:
        self._handlers: list[logging.Handler] = [] if quiet else [logging.StreamHandler(sys.stderr)]
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / f"{name}.jsonl"
            path.touch(mode=0o600)
            self._handlers.append(_rotating(path))
        log: Log = structlog.wrap_logger(
            _Sink(self._handlers),
            processors=[_stamp, _only_allowed, _render],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )
        self.log: Log = log.bind(party=party) if party else log.bind()

    def close(self) -> None:
        """Closes the file."""
        for handler in self._handlers:
            handler.close()
        self._handlers.clear()


def _rotating(path: Path) -> logging.Handler:
    return logging.handlers.RotatingFileHandler(path, maxBytes=_MAX_FILE, backupCount=_KEPT, encoding="ascii")


def code_of(error: BaseException) -> str:
    """An error's code; ``internal.TYPE`` for one that is in no catalogue."""
    if isinstance(error, FedCreditError):
        return error.code
    return f"internal.{type(error).__name__.lower()[:32]}"


def log_failure(log: Log, event: str, error: BaseException, **fields: str) -> None:
    """Logs an error by its code, with the places in this program it passed and none of its text."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(one.filename).name}:{one.lineno}" for one in frames if one.lineno is not None]
    at = {"at": " ".join(places[-_PLACES:])} if places else {}
    log.error(event, code=code_of(error), **at, **fields)


class _Libraries(logging.Handler):
    """Turns a library's record into a line that says which library spoke; not what it said."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        name = re.sub(r"[^a-z0-9_.-]", "", record.name.lower()).strip("._-")[:32] or "library"
        self._log.warning("library.message", process=name)


def route_libraries(log: Log) -> None:
    """Sends what libraries log, from warnings up, through ``log`` without its text; call once at a process's start."""
    logging.getLogger().handlers[:] = [_Libraries(log)]
    logging.captureWarnings(capture=True)
