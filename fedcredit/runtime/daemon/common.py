"""What both daemons say in the same way: times, the certificate's end, supervised processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from fedcredit.runtime.daemon.status import ProcessView
from fedcredit.runtime.daemon.supervisor import ChildView
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.provision.certificates import load_certificate

__all__ = ["certificate_seconds", "process_views", "rfc3339", "waits_for"]


def rfc3339(moment: datetime) -> str:
    """A moment in UTC to the second, such as ``2026-03-01T08:00:00Z``."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def certificate_seconds(home: Home) -> float:
    """Seconds until the certificate of a home expires; negative when it has."""
    certificate = load_certificate(home.tls.certificate, "the certificate")
    return (certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds()


def process_views(children: Iterable[ChildView]) -> list[ProcessView]:
    """Supervised processes as they are told."""
    now = datetime.now(UTC)
    return [
        ProcessView(
            name=one.name,
            running=one.process is not None,
            since=rfc3339(now - timedelta(seconds=one.seconds)),
            restarts=one.restarts,
        )
        for one in children
    ]


def waits_for(processes: Sequence[ProcessView]) -> str:
    """Which processes do not run; "" = all do."""
    down = [one.name for one in processes if not one.running]
    return f"{', '.join(down)} {'does' if len(down) == 1 else 'do'} not run" if down else ""
