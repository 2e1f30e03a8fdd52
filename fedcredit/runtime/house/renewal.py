"""A home that is pinned anew while its daemon and its sessions run: noticed, verified as at the start, taken.

``pin`` writes ``pins.json`` last, so a look at that file alone tells that a whole bundle is there. What it brought is
opened as at a start (signatures, certificate, keys, modes) and has to follow from the roster in force: the same
consortium's key, no lower version, the same history. Until then, and where it does not, everything goes on as it was.

Not covered: settings (``node.toml``, ``coordinator.toml``) are those of the start; a session keeps the roster under
which it began.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from fedcredit.errors import FedCreditError, IntegrityError
from fedcredit.runtime.house.home import Home, open_home, read_pins
from fedcredit.runtime.house.roster import Roster
from fedcredit.runtime.provision.certificates import TlsFiles
from fedcredit.types import PartyId

__all__ = ["HomeWatch", "RenewedTls", "check_follows", "revoked_since"]


def check_follows(roster: Roster, old: Roster) -> None:
    """Refuses a roster that is not a newer version of the one in force, or that one itself.

    Raises:
        IntegrityError: an older one, or one of another history.
    """
    if roster.version < old.version:
        why = f"roster {roster.version} was put into the home, older than version {old.version} in force"
        raise IntegrityError("renewal.downgrade", f"{why}; pin the newest bundle")
    earlier = roster.digest if roster.version == old.version else roster.history[old.version - 1]
    if earlier != old.digest or roster.consortium != old.consortium:
        why = f"roster {roster.version} was put into the home and does not follow from version {old.version} in force"
        raise IntegrityError("renewal.fork", f"{why}; call the operator and the other members")


def revoked_since(roster: Roster, old: Roster) -> frozenset[PartyId]:
    """Members that were revoked between two versions, also those that came back since with other keys."""
    before = {(one.name, one.since, one.keys) for one in old.revoked}
    return frozenset(one.name for one in roster.revoked if one.left and (one.name, one.since, one.keys) not in before)


def _stamp(folder: Path) -> tuple[int, int, int]:
    """Changes with every pin."""
    try:
        status = (folder / "pins.json").stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_size)


class HomeWatch:
    """Looks whether a home was pinned anew.

    Args:
        home: As it was opened.
    """

    def __init__(self, home: Home) -> None:
        self._home, self._stamp = home, _stamp(home.folder)
        self._key = read_pins(home.folder).consortium_key
        self.refused: FedCreditError | None = None
        """Why what was pinned last is not taken; None = it is in force."""

    @property
    def home(self) -> Home:
        """The home in force."""
        return self._home

    def look(self) -> Home | None:
        """The home as it is from now on; None where nothing new can be taken.

        Tried again at every call while it is refused, as a pin consists of several files.
        """
        stamp = _stamp(self._home.folder)
        if stamp == self._stamp:
            return None
        try:
            new = self._opened()
        except FedCreditError as error:
            self.refused = error
            return None
        self._home, self._stamp, self.refused = new, stamp, None
        return new

    def _opened(self) -> Home:
        old = self._home
        if read_pins(old.folder).consortium_key != self._key:
            why = f"{old.folder / 'pins.json'}: pins another consortium's key than the one this process began with"
            raise IntegrityError("renewal.consortium", f"{why}; call the operator")
        new = open_home(old.folder)
        check_follows(new.roster, old.roster)
        if new.party != old.party:
            raise IntegrityError("renewal.party", f"{old.folder}: the home of {new.party}, was that of {old.party}")
        return replace(new, settings=old.settings)


class RenewedTls:
    """Certificate and key of a home as they are now, for connections that a long session makes again.

    Args:
        home: As it was opened; its own are used where what was pinned since is not right.
    """

    def __init__(self, home: Home) -> None:
        self._watch, self._lock = HomeWatch(home), threading.Lock()

    @property
    def ca(self) -> bytes:
        """The consortium's authority, PEM."""
        return self._now().ca

    @property
    def certificate(self) -> bytes:
        """The member's certificate, PEM."""
        return self._now().certificate

    @property
    def key(self) -> bytes:
        """Its private key, PEM."""
        return self._now().key

    def _now(self) -> TlsFiles:
        with self._lock:
            self._watch.look()
            return self._watch.home.tls
