"""Rules of a specification that span several keys.

Each raises a ``PydanticCustomError`` of type ``fedcredit`` whose context holds ``key`` (dotted path) and ``right``
(what was found and what would be right), which ``fedcredit.spec.explain`` prints as they are.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fedcredit.spec.horizontal import LEAST_BANKS
from fedcredit.spec.rules_banks import check_banks
from fedcredit.spec.section import refuse
from fedcredit.types import COORDINATOR, Role

if TYPE_CHECKING:
    from fedcredit.spec.model import PartySection, RunSpec

__all__ = ["HOUSE_DATA", "check_rules", "nearest"]

HOUSE_DATA = "data:"
"""Begins a source that each party looks up in its own house, under the name that follows."""

_URL_PASSWORD = re.compile(r"^[A-Za-z0-9_+]+://[^/@]*?:(?P<password>[^@]*)@")
_QUERY_PASSWORD = re.compile(r"[?&](?:password|passwd|pwd)=(?P<password>[^&]*)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Text that helps with a wrong name: ``did you mean "x"?``, else the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"known are {shown}" if names else "there is none"


def check_rules(spec: RunSpec) -> None:
    """Check everything that no single key can tell.

    Raises:
        PydanticCustomError: with ``key`` and ``right`` in its context.
    """
    _check_roster(spec)
    for party in spec.party:
        _check_party(party)
        _check_source(party)
    _check_shared_sources(spec.party)
    _check_split(spec)
    _check_align(spec)
    _check_bins(spec)
    _check_boost(spec)
    check_banks(spec)
    if not spec.simulation:
        _check_production(spec)


def _check_roster(spec: RunSpec) -> None:
    for name, count in Counter(spec.parties).items():
        if count > 1:
            refuse("party.name", f'"{name}" names {count} parties; give each party a name of its own')
    if COORDINATOR in spec.parties:
        refuse("party.name", f'"{COORDINATOR}" is reserved for the relay that is in every run; choose another name')
    banks = len(spec.banks)
    if not banks:
        refuse("party.role", 'no party is "label_holder"; one must be, or at least 3 for a run of several banks')
    if banks == 2 or (spec.run.model == "fedavg" and banks < LEAST_BANKS):
        names = ", ".join(bank.name for bank in spec.banks)
        few = f'{banks} parties are "label_holder" ({names}); below {LEAST_BANKS}, a sum shows the others\' parts'
        refuse("party.role", f"{few}; use {'' if spec.run.model == 'fedavg' else 'one, or '}at least {LEAST_BANKS}")
    if spec.run.model == "fedavg" and spec.feature_holders:
        right = "averaging is between banks with the same columns; use scorecard or boost with feature holders"
        refuse("party.role", f'"{spec.feature_holders[0].name}" is "feature_holder"; {right}')
    if spec.run.model != "fedavg" and not spec.feature_holders:
        refuse("party.role", 'no party is "feature_holder"; at least one must be')


def _check_party(party: PartySection) -> None:
    at = f"party.{party.name}"
    if party.role is Role.LABEL_HOLDER and party.label is None:
        refuse(f"{at}.label", "missing at the label holder; name the column that is 1 for a default")
    if party.role is Role.FEATURE_HOLDER and party.label is not None:
        refuse(f"{at}.label", "given at a feature holder, which has none; remove it, or change the role")
    if party.label == party.id:
        refuse(f"{at}.label", f'"{party.id}" is the id column too; name the column that is 1 for a default')
    for key, names in (("columns", party.columns or ()), ("categorical", party.categorical)):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            refuse(f"{at}.{key}", f'lists "{twice[0]}" more than once; list it once')
        for kind, name in (("id", party.id), ("label", party.label)):
            if name in names:
                refuse(f"{at}.{key}", f'lists the {kind} column "{name}"; the {kind} is never a feature')
    for key in ("categorical", "special", "monotone"):
        for name in getattr(party, key):
            if party.columns is not None and name not in party.columns:
                hint = nearest(name, party.columns)
                refuse(f"{at}.{key}", f'names "{name}", which is not among the columns of this party; {hint}')
    for key in ("special", "monotone"):
        for name in getattr(party, key):
            if name in party.categorical:
                refuse(f"{at}.{key}", f'names "{name}", which is categorical; this key is for numbers')


def _check_source(party: PartySection) -> None:
    at = f"party.{party.name}"
    source = party.source
    url = "://" in source
    if source == "known:":
        refuse(f"{at}.source", 'names no known set; write "known:NAME" (`fedcredit data list` shows the names)')
    if (party.catalog is None) != (party.as_of is None):
        missing, given = ("as_of", "catalog") if party.as_of is None else ("catalog", "as_of")
        refuse(f"{at}.{missing}", f"missing while {given} is given; derived features need both")
    if party.as_of is not None:
        try:
            dt.date.fromisoformat(party.as_of)
        except ValueError:
            refuse(f"{at}.as_of", f'found "{party.as_of}", which is no day; write YYYY-MM-DD')
    if party.catalog is not None and party.query is not None:
        refuse(f"{at}.query", "given together with catalog, which says what is read; remove one of them")
    if party.catalog is not None and source.startswith("known:"):
        refuse(f"{at}.catalog", "given for a known set, which has no raw tables; remove it")
    if url and party.query is None and party.catalog is None:
        refuse(f"{at}.query", 'missing for a database source; add query = "select …"')
    # "${NAME}" alone may turn out to be a URL when it is expanded.
    if party.query is not None and not url and _VARIABLE.fullmatch(source) is None:
        refuse(f"{at}.query", "given for a source that is no database URL; remove it, or give a URL as source")
    if url:
        for pattern in (_URL_PASSWORD, _QUERY_PASSWORD):
            found = pattern.search(source)
            if found and found["password"] and _VARIABLE.fullmatch(found["password"]) is None:
                right = "holds a password in the clear; write ${NAME} in its place and set that environment variable"
                refuse(f"{at}.source", right)


def _check_shared_sources(parties: Sequence[PartySection]) -> None:
    """A feature holder that is simulated from the label holder's file must not get the label as a feature."""
    for owner in parties:
        for other in parties:
            if (
                owner.label is None
                or other.label is not None
                or (other.source, other.query) != (owner.source, owner.query)
            ):
                continue
            if owner.source.startswith(HOUSE_DATA):  # each house has its own records under that name
                continue
            at = f"party.{other.name}.columns"
            if other.columns is None:
                refuse(at, f'missing, and the source is also that of "{owner.name}"; list the columns of this party')
            if owner.label in other.columns:
                refuse(at, f'lists "{owner.label}", the label of "{owner.name}"; remove it')


def _check_split(spec: RunSpec) -> None:
    split = spec.split
    if (split.time is None) != (split.test_from is None):
        missing, given = ("time", "test_from") if split.time is None else ("test_from", "time")
        refuse(f"split.{missing}", f"missing while {given} is given; a split by time needs both")
    if split.time is not None and split.test_ids is not None:
        refuse("split.test_ids", "given together with time; hold out by ids or by time, not both")
    for party in spec.party:
        if party.role is Role.LABEL_HOLDER and split.time is not None and split.time in (party.columns or ()):
            refuse(f"party.{party.name}.columns", f'lists "{split.time}", which splits train from test; remove it')


def _check_align(spec: RunSpec) -> None:
    align = spec.align
    if align.mode == "registry" and align.registry is None:
        refuse("align.registry", 'missing under mode = "registry"; name the file of public ids that every party has')
    if align.mode == "registry" and align.rows == "common":
        refuse("align.rows", '"common" under mode = "registry", where nobody learns what is common; remove it')
    if align.mode == "blind" and align.rows == "label_holder":
        right = '"label_holder" under mode = "blind", which matches common rows; use mode = "registry"'
        refuse("align.rows", right)
    if align.mode == "plain" and align.registry is not None:
        refuse("align.registry", 'given under mode = "plain", which needs none; remove it')


def _check_bins(spec: RunSpec) -> None:
    if spec.bin.max_bins > spec.bin.prebins:
        refuse("bin.max_bins", f"found {spec.bin.max_bins}, above bin.prebins = {spec.bin.prebins}; lower it")


def _check_boost(spec: RunSpec) -> None:
    boost = spec.boost
    if boost is None:
        return
    if boost.max_leaves is not None and boost.growth != "leaf":
        refuse(
            "boost.max_leaves", 'given with growth = "depth", which has 2^depth leaves; remove it, or grow by "leaf"'
        )
    if boost.leaves > 2**boost.depth:
        right = f"found {boost.leaves}, above the {2**boost.depth} leaves of depth {boost.depth}; lower it"
        refuse("boost.max_leaves", right)
    if boost.first_trees_local > boost.trees:
        right = f"found {boost.first_trees_local}, above boost.trees = {boost.trees}; lower it"
        refuse("boost.first_trees_local", right)


def _check_production(spec: RunSpec) -> None:
    tail = 'is for simulation only and run.mode is "production"'
    if spec.crypto.profile == "unsafe-plaintext":
        refuse("crypto.profile", f'"unsafe-plaintext" {tail}; use "rlwe-8192" or "bfv-8192"')
    if not spec.privacy.enforce:
        refuse("privacy.enforce", f"false {tail}; remove it")
    if spec.align.mode == "plain":
        refuse("align.mode", f'"plain" {tail}; use "blind" or "registry"')
    if spec.run.model == "scorecard" and spec.scorecard.fit == "mle" and spec.scorecard.total_noise == 0:
        refuse("scorecard.total_noise", f'0 with fit = "mle" {tail}; use a noise above 0, such as 0.25')
    if spec.boost is not None and spec.boost.holder_thresholds == 0:
        refuse("boost.holder_thresholds", f"0 (no cap) {tail}; use a whole number of at least 1")
    for key in ("bandwidth_mbps", "latency_ms"):
        if getattr(spec.network, key) != 0:
            refuse(f"network.{key}", f"a modelled network {tail}; use 0")
