"""Checks of the house: certificate, folders, records, policy. Of records, only their number and columns are shown."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from fedcredit.data.load import SourceCache
from fedcredit.data.places import expand, read_bytes
from fedcredit.errors import DataError, FedCreditError
from fedcredit.governance.policy import SAFE_DECOYS, Policy, load_policy
from fedcredit.runtime.doctor.checks import Finding, Status, failed
from fedcredit.runtime.doctor.records import check_derived, check_register
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.roster import MemberKind, Roster
from fedcredit.runtime.house.settings import DataSource
from fedcredit.runtime.provision.bundle import PROTOCOLS
from fedcredit.runtime.provision.certificates import load_certificate
from fedcredit.spec.model import PartySection
from fedcredit.spec.rules import nearest
from fedcredit.types import PartyId, Role

__all__ = ["check_certificates", "check_data", "check_folders", "check_policy"]

_FEW_DAYS = 30


def check_certificates(home: Home) -> Iterator[Finding]:
    """Days left of the certificate and of the authority."""
    now = datetime.now(UTC)
    for check, pem in (("certificate", home.tls.certificate), ("authority", home.tls.ca)):
        end = load_certificate(pem, check).not_valid_after_utc
        left = (end - now).days
        found = f"{left} days left, until {end:%Y-%m-%d}"
        if left < _FEW_DAYS:
            remedy = "ask the operator for a renewed bundle (fedcredit provision …) and pin it"
            yield Finding(check, Status.WARN, found, remedy)
        else:
            yield Finding(check, Status.OK, found)


def check_folders(home: Home) -> Finding:
    """Modes of what is not a key; keys were checked when the home was opened."""
    for folder in (home.folder, home.state, home.runs, home.logs):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            return Finding(
                "folders", Status.FAIL, f"{folder}: mode {mode:04o}, others can write", f"chmod 700 {folder}"
            )
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            return Finding("folders", Status.WARN, f"{folder}: mode {mode:04o}, others can read", f"chmod 700 {folder}")
    return Finding("folders", Status.OK, "keys, state and runs are this user's alone")


def check_data(home: Home) -> Iterator[Finding]:
    """Opens every source of a node."""
    if home.kind is not MemberKind.NODE:
        return
    if not home.node.data:
        remedy = "add [data.NAME] with a source to node.toml"
        yield Finding("data", Status.WARN, "no records are named, so no run can start here", remedy)
    for name, source in home.node.data.items():
        if source.catalog is None:
            yield _check_source(f"data {name}", PartyId(name), source, home.folder)
        else:
            yield check_derived(f"data {name}", source, home.folder)
        if source.registry is not None:
            yield check_register(f"register {name}", source.registry, home.folder)


def _check_source(check: str, name: PartyId, source: DataSource, base: Path) -> Finding:
    try:
        # the role makes no difference to what is read
        section = PartySection(name=name, role=Role.FEATURE_HOLDER, source=source.source, query=source.query)
        frame = SourceCache().read(section, base).frame
        held = _held_out(source, base)
    except FedCreditError as error:
        found = failed(check, error)
        return Finding(check, Status.FAIL, found.found.removeprefix(f"party {name}: "), found.remedy)
    shown = f"{frame.height:,} rows, {frame.width} columns{held}"
    if frame.height == 0:
        return Finding(check, Status.FAIL, shown, "give a source with rows, or look at the query")
    return Finding(check, Status.OK, shown)


def _held_out(source: DataSource, base: Path) -> str:
    if source.test_ids is None:
        return ""
    path = base / expand(source.test_ids, "test_ids")
    count = sum(1 for line in read_bytes(path, "test_ids").splitlines() if line.strip())
    if count == 0:
        raise DataError("data.test-ids", f"test_ids: {path} has no ids; write one a line")
    return f", {count:,} held-out ids"


def check_policy(home: Home) -> Iterator[Finding]:
    """What this house's policy would let out, in one line."""
    if home.kind is not MemberKind.NODE:
        return
    policy = load_policy(home.policy)
    now = datetime.now(UTC)
    if policy.expires is not None and now >= policy.expires:
        found = f"expired at {policy.expires:%Y-%m-%d %H:%M} UTC, so nothing leaves"
        yield Finding("policy", Status.FAIL, found, "review it and give it a new date")
        return
    missing = _missing(policy)
    if missing:
        found = f"nothing leaves: without {', '.join(missing)}"
        yield Finding("policy", Status.WARN, found, f"edit {home.policy} after a review")
        return
    yield _allowed(policy, home.roster)
    yield from _alignments(policy)
    yield from _unknown(policy, home.roster)


def _missing(policy: Policy) -> list[str]:
    """Keys without which nothing leaves."""
    needed: Mapping[str, object] = {
        "counterparties": policy.counterparties,
        "protocols": policy.protocols,
        "messages": policy.messages,
        "expires": policy.expires,
        "max_message_bytes": policy.max_message_bytes,
        "max_run_bytes": policy.max_run_bytes,
        "max_run_messages": policy.max_run_messages,
    }
    return [name for name, value in needed.items() if not value]


def _allowed(policy: Policy, roster: Roster) -> Finding:
    runs = "any run" if policy.any_run else f"{len(policy.runs)} runs approved in it"
    until = "" if policy.expires is None else f" until {policy.expires:%Y-%m-%d}"
    kinds = "" if "*" in policy.messages else f", {len(policy.messages)} kinds of message"
    told = f"{', '.join(policy.protocols)}{kinds} to {', '.join(policy.counterparties)}"
    rows = f"rows by {' or '.join(policy.alignments) or 'nothing'}"
    found = f"{policy.mode}: {told}; {rows}; {runs}{until}"
    if policy.mode != "simulation":
        return Finding("policy", Status.OK, found)
    if roster.trial:
        return Finding("policy", Status.WARN, f"TRIAL: {found}", "never use it with real records")
    remedy = 'set mode = "production": this consortium is no trial'
    return Finding("policy", Status.FAIL, found, remedy)


def _alignments(policy: Policy) -> Iterator[Finding]:
    """Says loudly where others may learn who is a customer here."""
    if policy.mode == "production" and "blind" in policy.alignments and policy.least_decoys < SAFE_DECOYS:
        learn = "learn who is a customer" if policy.least_decoys == 0 else "guess better who is a customer"
        found = f"min_decoys = {policy.least_decoys:g}: feature holders may {learn}"
        remedy = f"remove min_decoys, or give {SAFE_DECOYS:g} or more"
        yield Finding("policy", Status.WARN, found, remedy)


def _unknown(policy: Policy, roster: Roster) -> Iterator[Finding]:
    """Names in the policy that nothing has."""
    for what, names, known in (
        ("counterparties", policy.counterparties, [str(name) for name in roster.members]),
        ("protocols", policy.protocols, list(PROTOCOLS)),
    ):
        for name in names:
            if name not in known:
                yield Finding(
                    "policy", Status.WARN, f'{what}: "{name}" is unknown; {nearest(name, known)}', "correct it"
                )
