"""Handshakes of TLS that fail at this process's port: gRPC writes them to standard error and tells them nowhere else.

A caller whose certificate is another authority's, out of its time or missing never reaches code of ours. What can be
known of it is the reason, in the words of the library; it has no name, since it has proven none.

Source: gRPC, doc/environment_variables.md (``GRPC_VERBOSITY``); RFC 8446 section 6.2: what the caller itself is told.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from fedcredit.runtime.exchange.environment import VERBOSITY

__all__ = ["FailedHandshakes", "failed_handshake"]

_STANDARD_ERROR = 2
_LONGEST = 4096  # bytes of a line; what is longer is no line of gRPC's
_FAILED = re.compile(
    rb"Handshake failed with error [A-Z_]+: error:[0-9a-f]+:[^:]*:[^:]*:([A-Z0-9_]{1,64})(?:: ([a-z ]{1,64}))?"
)
_OWN = re.compile(rb"[IWEF]\d{4} [\d:.]+ +\d+ [\w./]+:\d+\] ")


def failed_handshake(line: bytes) -> str | None:
    """Why a handshake has failed, by a line of gRPC's log; None where the line says something else.

    The words are BoringSSL's own constants: nothing that a caller has sent is among them.
    """
    found = _FAILED.search(line)
    if found is None:
        return None
    reason, detail = found[1].decode("ascii"), (found[2] or b"").decode("ascii").strip()
    return f"TLS handshake failed: {reason}" + (f" ({detail})" if detail else "")


class FailedHandshakes:
    """While it is open, failed handshakes are noted; other lines of gRPC's log are dropped, and all else is passed on.

    For a process that has not loaded gRPC yet: gRPC reads its environment once. Processes started from this one are
    told to keep silent, as before.

    Args:
        note: Gets the code, the reason, and what is known of the caller.

    Raises:
        OSError: the process has no standard error.
    """

    def __init__(self, note: Callable[[str, str, str], None]) -> None:
        self._note = note
        self._thread = threading.Thread(target=self._read, name="handshakes", daemon=True)

    def __enter__(self) -> Self:
        """Puts a pipe in place of standard error."""
        self._saved = os.dup(_STANDARD_ERROR)
        self._end, written = os.pipe()
        os.dup2(written, _STANDARD_ERROR)
        os.close(written)
        self._thread.start()
        silent = os.environ.get(VERBOSITY)
        os.environ[VERBOSITY] = "INFO"
        try:
            import grpc  # noqa: PLC0415 -- reads its environment here

            grpc.ssl_channel_credentials()  # sets its log up
        finally:
            if silent is None:
                del os.environ[VERBOSITY]
            else:
                os.environ[VERBOSITY] = silent
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts standard error back, when all that was written has been read."""
        os.dup2(self._saved, _STANDARD_ERROR)  # closes the pipe's last writing end here; children may hold others
        self._thread.join(timeout=1.0)
        os.close(self._saved)

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self._end, 65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line(line)
            if len(rest) > _LONGEST:
                self._pass_on(rest)
                rest = b""
        if rest:
            self._line(rest)
        os.close(self._end)

    def _line(self, line: bytes) -> None:
        reason = failed_handshake(line)
        if reason is not None:
            self._note("exchange.handshake", reason, "no name: none was proven")
        elif _OWN.match(line) is None:
            self._pass_on(line + b"\n")

    def _pass_on(self, data: bytes) -> None:
        try:
            os.write(self._saved, data)
        except OSError:  # nobody reads it any more: as with standard error itself
            return
