"""From ``consortium.toml`` and the members' requests to one bundle per member; no private key travels.

Every run compares what is asked for with what was signed last and signs only what is different: a second run with the
same input changes nothing. Requests are checked, revocations applied, certificates issued or renewed and one new roster
signed before anything is written; then the authority's state is replaced at once and the bundles are written from it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedcredit.errors import IntegrityError, SpecError
from fedcredit.runtime.house.roster import Member, RevokedKeys, Roster
from fedcredit.runtime.provision.authority import Authority, Issued, open_authority
from fedcredit.runtime.provision.bundle import LocalPlan, remove_bundle, write_bundle
from fedcredit.runtime.provision.certificates import issue_certificate, load_certificate
from fedcredit.runtime.provision.keys import fingerprint
from fedcredit.runtime.provision.pin import pin
from fedcredit.runtime.provision.request import Request, home_keys, parse_request, request_bytes
from fedcredit.runtime.provision.spec import AUTHORITY_FOLDER, ConsortiumSpec
from fedcredit.spec.rules import nearest
from fedcredit.types import COORDINATOR, PartyId

__all__ = ["Order", "Provisioned", "provision", "provision_local", "requests_in"]

_EARLY = timedelta(hours=24)  # further ahead than this a member's clock is wrong, and its later requests would be "old"


@dataclass(frozen=True)
class Order:
    """What one run of ``fedcredit provision`` shall do.

    Args:
        requests: Files of requests.
        revoke: Members whose keys count no more.
        renew: Renews every certificate, not only those that end soon.
        now: Time of the run; None = this machine's clock.
    """

    requests: Sequence[Path] = ()
    revoke: Collection[str] = ()
    renew: bool = False
    now: datetime | None = None

    @property
    def time(self) -> datetime:
        """Time of the run, in UTC."""
        return self.now or datetime.now(UTC)


@dataclass(frozen=True)
class Provisioned:
    """What a run did.

    Args:
        roster: The roster in force.
        consortium_key: Public key that signed it, 32 bytes.
        bundles: Folder of each member.
        changes: One line per change, in order; empty = nothing was different.
        waiting: Members of ``consortium.toml`` that have sent no request yet.
    """

    roster: Roster
    consortium_key: bytes
    bundles: dict[PartyId, Path]
    changes: tuple[str, ...]
    waiting: tuple[PartyId, ...]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the consortium's key, which every member compares when it pins."""
        return fingerprint(self.consortium_key)

    @property
    def fingerprints(self) -> dict[PartyId, str]:
        """Fingerprint of every member's identity key."""
        return {name: fingerprint(member.identity.raw) for name, member in self.roster.members.items()}


def requests_in(folder: Path) -> list[Path]:
    """The requests in a folder: ``*.request.json``.

    Raises:
        SpecError: no such folder, or none in it.
    """
    if not folder.is_dir():
        raise SpecError("provision.requests", f"{folder}: no such folder; give the one with the members' requests")
    found = sorted(folder.glob("*.request.json"))
    if not found:
        raise SpecError("provision.requests", f"{folder}: no *.request.json in it; collect the members' requests there")
    return found


def provision(consortium: ConsortiumSpec, out: Path, order: Order) -> Provisioned:
    """Checks requests, signs what changed, and writes ``out/<member>/`` for every member.

    Args:
        consortium: Who shall take part.
        out: Folder of the bundles; ``out/authority`` holds the consortium's own keys.
        order: What to do.

    Raises:
        SpecError: a name that is not in the consortium, a member that is no longer in it, a folder of another one.
        IntegrityError: a request that does not prove possession, is older than the accepted one, or has keys of
            another member or revoked ones.
    """
    for name in consortium.kinds:
        if (out / name / "keys").is_dir():
            right = "give another --out; bundles for others are never made where private keys are"
            raise SpecError("provision.out", f"{out / name}: the home of a member, with its keys; {right}")
    requests = [_read_request(path) for path in order.requests]
    return _provision(consortium, out, requests, order, None)


def provision_local(consortium: ConsortiumSpec, out: Path) -> dict[PartyId, Path]:
    """Makes a whole trial consortium on this machine: a ready home per member under ``out``.

    All private keys are made in one place, so it is for trials only. Called again, it keeps keys and state and writes
    the settings again.

    Raises:
        SpecError: the consortium is not marked as a trial, or ``out`` cannot be written.
        IntegrityError: keys that are there are damaged.
    """
    if not consortium.trial:
        right = "set trial = true for a trial, or collect requests for anything else (--requests)"
        raise SpecError("provision.local", f"--local makes everyone's private keys in one place; {right}")
    requests = []
    for name, kind in consortium.kinds.items():
        requests.append(parse_request(request_bytes(name, kind, home_keys(out / name, kind)), name))
    plan = LocalPlan.of(consortium)
    done = _provision(consortium, out, requests, Order(), plan)
    for folder in done.bundles.values():
        pin(folder, folder, done.fingerprint)
    return done.bundles


def _provision(
    consortium: ConsortiumSpec, out: Path, requests: Sequence[Request], order: Order, plan: LocalPlan | None
) -> Provisioned:
    with open_authority(out / AUTHORITY_FOLDER, consortium.name) as authority:
        work = _Work(consortium, authority, order.time)
        work.revoke(order.revoke)
        work.accept(requests)
        work.issue(renew=order.renew)
        roster = work.publish()
        authority.save()
        bundles = {
            name: write_bundle(out / name, consortium, authority, roster.members[name], plan)
            for name in consortium.kinds
            if name in roster.members
        }
        for name in {one.name for one in roster.revoked} - set(roster.members):
            remove_bundle(out / name)
    return Provisioned(
        roster=roster,
        consortium_key=authority.signing.public.raw,
        bundles=bundles,
        changes=tuple(work.changes),
        waiting=tuple(name for name in consortium.kinds if name not in roster.members),
    )


def _read_request(path: Path) -> Request:
    try:
        return parse_request(path.read_bytes(), path.name)
    except OSError as error:
        raise SpecError("provision.requests", f"{path}: cannot be read ({error.strerror})") from None


class _Work:
    """One run: members and revoked keys as they change from the last roster to the next."""

    def __init__(self, consortium: ConsortiumSpec, authority: Authority, now: datetime) -> None:
        self._spec, self._authority, self._now = consortium, authority, now
        old = authority.roster
        # roles are the file's word, not the requests'; they are put on in `publish`
        self._members: dict[PartyId, Member] = {
            name: replace(one, admin=False) for name, one in (old.members if old else {}).items()
        }
        self._revoked: list[RevokedKeys] = list(old.revoked) if old else []
        self.changes: list[str] = []
        if authority.prepare(consortium, now):
            self.changes.append(f"authority of {consortium.name}: certificate made")

    def revoke(self, names: Collection[str]) -> None:
        """Takes members out; their keys never count again."""
        for name in names:
            member = self._members.pop(PartyId(name), None)
            if member is None:
                if any(one.name == name and one.left for one in self._revoked):
                    continue  # a second run with the same arguments
                right = nearest(name, self._members)
                raise SpecError("provision.revoke", f"--revoke {name}: not in the roster; {right}")
            self._retire(member, member.public_keys, left=True)
            self._authority.issued.pop(name, None)
            self.changes.append(f"{name}: revoked")

    def accept(self, requests: Sequence[Request]) -> None:
        """Takes requests in, oldest first; those known from earlier runs are passed over."""
        for request in sorted(requests, key=lambda one: one.made):
            if request.digest not in self._authority.known:
                self._accept(request)
                self._authority.known.add(request.digest)
        gone = [name for name in self._members if name not in self._spec.kinds]
        if gone:
            right = f"revoke it with --revoke {gone[0]}, or put it back"
            raise SpecError("provision.member", f"{gone[0]} is in the roster but not in the consortium's file; {right}")
        for name, member in self._members.items():
            if member.kind is not self._spec.kinds[name]:
                why = f"{name} is in the roster as {member.kind}, in the consortium's file as {self._spec.kinds[name]}"
                raise SpecError("provision.member", f"{why}; correct the file, or revoke it first")

    def _accept(self, request: Request) -> None:
        name, wanted = request.name, request.member
        if name not in self._spec.kinds:
            hint = nearest(name, self._spec.kinds)
            raise SpecError("provision.request", f"a request of {name}, which is not in the consortium's file; {hint}")
        if wanted.kind is not self._spec.kinds[name]:
            why = f"asks as {wanted.kind}, the consortium's file says {self._spec.kinds[name]}"
            raise SpecError(
                "provision.request", f"the request of {name} {why}; have it made again, or correct the file"
            )
        if request.made > self._now + _EARLY:
            why = f"says it was made at {request.made:%Y-%m-%d %H:%M}, which is yet to come; its clock is wrong"
            raise IntegrityError("provision.request", f"the request of {name} {why}; have it made again")
        self._check_owner(request)
        present = self._members.get(name)
        if present is not None and present != wanted:
            self._check_succession(request, present)
            kept = set(wanted.public_keys)
            self._retire(present, tuple(key for key in present.public_keys if key not in kept), left=False)
        if present != wanted:
            self.changes.append(f"{name}: {'keys changed' if present else 'added'}, {request.fingerprint}")
            self._members[name] = wanted
        certificate = ""  # issued below
        issued = self._authority.issued.get(name)
        if issued is not None and present is not None and present.tls_key_sha256 == wanted.tls_key_sha256:
            certificate = issued.certificate
        self._authority.issued[name] = Issued(
            request=request.data.decode("utf-8"),
            made=request.made.isoformat(),
            certificate=certificate,
            hosts=issued.hosts if issued and certificate else (),
        )

    def _check_owner(self, request: Request) -> None:
        """No key is in the roster twice, or comes back after it was revoked."""
        own = set(request.member.public_keys)
        for one in self._revoked:
            if own & set(one.keys):
                why = f"has keys of {one.name} that were revoked on {one.since}"
                raise IntegrityError("provision.revoked", f"the request of {request.name} {why}; have new keys made")
        for other in self._members.values():
            if other.name != request.name and own & set(other.public_keys):
                why = f"has a key of {other.name}; every key is one member's alone"
                raise IntegrityError("provision.key", f"the request of {request.name} {why}; have new keys made")

    def _check_succession(self, request: Request, present: Member) -> None:
        """Only who held the old identity may change a member's keys, and nobody may bring older ones back."""
        same = request.member.identity.raw == present.identity.raw
        if not same and (request.previous is None or request.previous.raw != present.identity.raw):
            why = f"is not signed by the identity key of {request.name} in the roster"
            right = f"have it rotated at its home, or --revoke {request.name} first if its old keys are lost"
            raise IntegrityError("provision.succession", f"the request of {request.name} {why}; {right}")
        last = self._authority.issued.get(request.name)
        if last is not None and request.made <= datetime.fromisoformat(last.made):
            why = f"is older than the one accepted, of {last.made}"
            raise IntegrityError("provision.replay", f"the request of {request.name} {why}; remove it from the folder")

    def _retire(self, member: Member, keys: Sequence[str], *, left: bool) -> None:
        since = self._now.replace(microsecond=0).isoformat()
        self._revoked.append(RevokedKeys(member.name, since, tuple(keys), left))

    def issue(self, *, renew: bool) -> None:
        """Issues the certificates that are missing, end soon, or serve at other hosts."""
        rules = self._spec.certificates
        issuer = self._authority.issuer(self._now, rules.days)
        for name in self._members:
            issued = self._authority.issued[name]
            hosts = tuple(sorted(self._spec.coordinator.hosts)) if name == COORDINATOR else ()
            reason = "certificate issued"
            if issued.certificate:
                end = load_certificate(issued.certificate.encode("ascii"), name).not_valid_after_utc
                if not renew and end - self._now > timedelta(days=rules.renew_days) and hosts == issued.hosts:
                    continue
                reason = "certificate renewed"
            key = parse_request(issued.request.encode("utf-8"), name).tls_key
            serving = hosts if name == COORDINATOR else None
            certificate = issue_certificate(issuer, name, key, serving).decode("ascii")
            self._authority.issued[name] = Issued(
                request=issued.request, made=issued.made, certificate=certificate, hosts=hosts
            )
            self.changes.append(f"{name}: {reason}, {rules.days} days")

    def publish(self) -> Roster:
        """The next roster, or the last one if nothing is different."""
        if COORDINATOR not in self._members:
            right = "make it with kind coordinator at the coordinator's machine"
            raise SpecError("provision.coordinator", f"there is no request of the coordinator yet; {right}")
        old = self._authority.roster
        roster = Roster(
            consortium=self._spec.name,
            version=old.version if old else 1,
            members={name: replace(one, admin=name in self._spec.admins) for name, one in self._members.items()},
            exchange=self._spec.coordinator.exchange,
            fleet=self._spec.coordinator.fleet,
            ca_sha256=self._authority.ca_sha256,
            trial=self._spec.trial,
            history=old.history if old else (),
            revoked=tuple(self._revoked),
        )
        if old is not None:
            if not self.changes and _same(roster, old):
                return old
            for name, one in roster.members.items():
                was = old.members.get(name)
                if was is not None and was.admin is not one.admin:
                    self.changes.append(f"{name}: {'admin' if one.admin else 'no longer admin'}")
            roster = replace(roster, version=old.version + 1, history=(*old.history, old.digest))
            self.changes.append(f"roster {roster.version}")
        return self._authority.publish(roster)


def _same(one: Roster, other: Roster) -> bool:
    return replace(one, members=dict(one.members)) == replace(other, members=dict(other.members))
