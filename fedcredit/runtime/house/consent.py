"""What a house says to a proposed run, and what its people have decided: files under ``state`` of its home.

``policy.toml`` sets the bounds; inside them a run needs its digest in ``policy.runs``, or the word of its people
(`approve`), or, where the policy is one for trials with ``any_run``, nothing more. Nothing here is remembered anywhere
but in the house.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from fedcredit.errors import IntegrityError, PolicyDenied, SpecError
from fedcredit.governance.policy import CapSection, Policy, load_policy
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.house.needs import alignment_short, check_records
from fedcredit.runtime.house.people import Person, this_person
from fedcredit.runtime.house.word import Word, give_word, read_word
from fedcredit.runtime.model_schemas import MODEL_SCHEMAS, schemas_of
from fedcredit.runtime.runs.proposal import Checked
from fedcredit.runtime.session.session import ATTEMPT_FILE, COMPLETE_FILE
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.model import RunSpec
from fedcredit.spec.rules import nearest
from fedcredit.spec.travel import read_travelling, without
from fedcredit.types import COORDINATOR, PartyId, RunId

__all__ = [
    "FAILED_FILE",
    "MOST_PROPOSALS",
    "Known",
    "ProposalView",
    "approve",
    "check_bounds",
    "consented",
    "deny",
    "find_proposal",
    "known_runs",
    "note_proposal",
    "run_folder",
    "run_policy",
    "view_of",
]

_PROPOSALS, _APPROVALS = "proposals", "approvals"
MOST_PROPOSALS = 512
"""Proposals that a house keeps, of at most 1 MiB each: the coordinator is not to fill its disk."""
FAILED_FILE = "failed"
"""In the folder of a run whose last session failed: code and text."""
State = Literal["pending", "approved", "denied", "running", "failed", "finished"]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was proposed to this house.

    Attributes:
        run: Its name.
        spec_digest: Digest of its spec.
        name: Name in the spec.
        model: Of the spec.
        mode: Of the spec.
        parties: Everyone in it.
        data: Name of this house's records it uses.
        columns: Columns of this house that the spec names; empty = all of the source.
        align: How rows are found, in a word or two.
        as_of: Day up to which this house derives features; "" = it derives none.
        made: When it was proposed.
        expires: When the proposal expires.
        continues: The run it goes on from without some parties.
        missing: Those parties.
    """

    run: str
    spec_digest: str
    name: str
    model: str
    mode: str
    parties: list[str]
    data: str
    columns: list[str]
    made: str
    expires: str
    continues: str = ""
    missing: list[str] = msgspec.field(default_factory=list)
    align: str = ""
    as_of: str = ""


@dataclass(frozen=True)
class _Asked:
    """What consent is about: what is computed, on which records of the house, and from which run it goes on."""

    spec_digest: str
    data: str
    continues: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class ProposalView:
    """A proposed run and how far it is in this house.

    Args:
        known: The run.
        state: What was decided, or how far it is.
        people: System users who approved it so far.
        needed: How many different ones the policy asks for.
    """

    known: Known
    state: State
    people: tuple[str, ...] = ()
    needed: int = 1


def check_bounds(home: Home, checked: Checked, policy: Policy, now: datetime) -> None:
    """Holds a run against settings and policy of the house; whether its people want it is not asked here.

    Raises:
        SpecError: the run is none for this house: another role, unknown records, a model without nodes.
        PolicyDenied: the policy does not let it happen.
    """
    spec, node = checked.spec, home.node
    mine = {party.name: party for party in spec.party}.get(home.party)
    if mine is None:
        raise SpecError("proposal.party", f"{home.party} is not in the proposed run")
    if node.role is not None and mine.role is not node.role:
        raise SpecError("proposal.role", f"the run wants {home.party} as {mine.role}, its node.toml says {node.role}")
    if checked.data not in node.data:
        text = f"{home.party} has no records [data.{checked.data}] in node.toml"
        raise SpecError("proposal.data", text, nearest(checked.data, node.data))
    if spec.run.model not in MODEL_SCHEMAS:
        raise SpecError("proposal.model", f"model {spec.run.model} does not run between houses")
    _check_policy(checked, policy, now, home.party)
    check_records(spec, mine, checked.data, node.data[PartyId(checked.data)])


def _check_policy(checked: Checked, policy: Policy, now: datetime, party: PartyId) -> None:
    spec = checked.spec
    if policy.expires is None or now >= policy.expires:
        policy.check_run(checked.proposal.spec_digest, now)
    if spec.simulation and policy.mode != "simulation":
        raise PolicyDenied(
            "policy.mode",
            f'the run has mode = "simulation", which shows ids and repeats its draws; the policy of {party} is for '
            f"production",
        )
    if policy.mode == "simulation" and not spec.simulation:
        right = "a policy for trials says nothing about it"
        raise PolicyDenied(
            "policy.mode", f'the run has mode = "production"; the policy of {party} is for trials; {right}'
        )
    if not spec.privacy.enforce and policy.enforce:
        raise PolicyDenied("policy.enforce", f"the run counts disclosures without caps; the policy of {party} does not")
    policy.check_alignment(spec.align.mode, spec.align.decoys)
    for other in (*spec.parties, COORDINATOR):
        if other != party:
            policy.check_recipient(other)
    for schema in schemas_of(spec, party):
        policy.check_protocol(schema.name)


def consented(home: Home, checked: Checked, policy: Policy) -> bool:
    """Whether the house's people want the run; False = they have not said.

    Raises:
        PolicyDenied: they do not want it.
    """
    proposal = checked.proposal
    asked = _Asked(proposal.spec_digest, checked.data, proposal.continues, tuple(proposal.missing))
    return _wanted(home, asked, policy)


def _wanted(home: Home, asked: _Asked, policy: Policy) -> bool:
    word = read_word(_folder(home, _APPROVALS), asked.spec_digest, asked.data)
    if word is not None and not word.approved:
        raise PolicyDenied("consent.denied", f"{home.party} has denied this run")
    # A digest does not say which of several sets of records the run is to use; people do. Nor is it several people.
    listed = asked.spec_digest in policy.runs and len(home.node.data) == 1 and policy.approvals == 1
    if policy.any_run or listed or (word is not None and len(word.users) >= policy.approvals):
        return True
    return bool(asked.continues) and _goes_on(home, asked, policy)


def _goes_on(home: Home, asked: _Asked, policy: Policy) -> bool:
    """Whether the run is one that this house wanted, without some parties, as that one's spec foresaw.

    Raises:
        PolicyDenied: its people have denied the run before.
    """
    known = _proposed(home, RunId(asked.continues))
    if known is None:
        return False
    try:
        spec, data = read_travelling((_folder(home, _PROPOSALS) / f"{asked.continues}.spec.json").read_bytes())
        left = without(spec, [PartyId(party) for party in asked.missing])
    except (OSError, SpecError):
        return False
    if data != asked.data or spec_digest(left) != asked.spec_digest:
        return False
    return _wanted(home, _Asked(spec_digest(spec), data, known.continues, tuple(known.missing)), policy)


def run_policy(policy: Policy, spec: RunSpec, digest: str) -> Policy:
    """The house's policy for a run its people want: its caps, or the spec's where those are stricter."""

    def stricter(own: float | None, asked: float | Literal["auto"]) -> float | None:
        found = [float(one) for one in (own, asked) if one is not None and one != "auto"]
        return min(found, default=None)

    caps = CapSection(
        equations=stricter(policy.caps.equations, spec.privacy.max_equations),
        row_bits=policy.caps.row_bits,
        bins_returned=stricter(policy.caps.bins_returned, spec.privacy.max_bins_returned),
        ids_asked=policy.caps.ids_asked,
    )
    enforce = policy.enforce or spec.privacy.enforce
    return policy.model_copy(update={"caps": caps, "runs": (*policy.runs, digest), "enforce": enforce})


def note_proposal(home: Home, checked: Checked) -> None:
    """Keeps a proposal for the house's people to look at.

    Raises:
        SpecError: a run of this name was proposed before and was another one: what people saw is what they decide on.
    """
    proposal, spec = checked.proposal, checked.spec
    mine = next(party for party in spec.party if party.name == home.party)
    known = Known(
        run=checked.run,
        spec_digest=proposal.spec_digest,
        name=spec.run.name,
        model=spec.run.model,
        mode=spec.run.mode,
        parties=[f"{party.name} ({party.role})" for party in spec.party],
        data=checked.data,
        columns=list(mine.columns or ()),
        made=proposal.made,
        expires=proposal.expires,
        continues=proposal.continues,
        missing=list(proposal.missing),
        align=alignment_short(spec.align),
        as_of=mine.as_of or "",
    )
    before = _proposed(home, checked.run)
    if before is not None and _asked(before) != _asked(known):
        raise SpecError("proposal.changed", f"run {checked.run} was proposed before as another one; submit it anew")
    folder = _folder(home, _PROPOSALS)
    if before is None:
        _make_room(home, folder)
    replace_file(folder / f"{checked.run}.spec.json", proposal.spec)
    replace_file(folder / f"{checked.run}.json", msgspec.json.encode(known))


def _make_room(home: Home, folder: Path) -> None:
    """Forgets proposals past their time that nothing is under way for, where there are many; then takes no more.

    Raises:
        SpecError: so many are kept that no further one is.
    """
    if sum(1 for _ in folder.glob("*.spec.json")) < MOST_PROPOSALS:
        return
    now = datetime.now(UTC)
    for known in list(_known(home)):
        if datetime.fromisoformat(known.expires) <= now and not run_folder(home, RunId(known.run)).exists():
            for name in (f"{known.run}.json", f"{known.run}.spec.json"):
                (folder / name).unlink(missing_ok=True)
    if sum(1 for _ in folder.glob("*.spec.json")) >= MOST_PROPOSALS:
        text = f"{home.party} keeps {MOST_PROPOSALS} proposals and takes no further one until some have expired"
        raise SpecError("proposal.many", text)


def _asked(known: Known) -> _Asked:
    return _Asked(known.spec_digest, known.data, known.continues, tuple(known.missing))


def _proposed(home: Home, run: RunId) -> Known | None:
    """A run as it was proposed; None = it was not, or what was kept of it is damaged."""
    try:
        return msgspec.json.decode((_folder(home, _PROPOSALS) / f"{run}.json").read_bytes(), type=Known)
    except (OSError, ValueError):
        return None  # a proposal is kept for people; the coordinator proposes again


def known_runs(home: Home) -> list[ProposalView]:
    """All runs that were proposed to this house, the newest first."""
    policy = load_policy(home.policy)
    found = [_view(home, known, policy) for known in _known(home)]
    return sorted(found, key=lambda one: one.known.made, reverse=True)


def view_of(home: Home, known: Known) -> ProposalView:
    """How far one proposed run is in this house."""
    return _view(home, known, load_policy(home.policy))


def _view(home: Home, known: Known, policy: Policy) -> ProposalView:
    try:
        word = read_word(_folder(home, _APPROVALS), known.spec_digest, known.data)
    except IntegrityError:
        word = None
    return ProposalView(known, _state(home, known, policy), word.users if word else (), policy.approvals)


def approve(home: Home, run_or_digest: str, person: Person | None = None) -> Known:
    """One of the house's people wants a run; it starts when as many different ones do as ``policy.approvals`` says.

    Args:
        home: The house.
        run_or_digest: As `find_proposal`.
        person: Who; None = whoever runs this.

    Raises:
        SpecError: no such run was proposed here.
    """
    return _decide(home, run_or_digest, person or this_person(), approved=True)


def deny(home: Home, run_or_digest: str, person: Person | None = None) -> Known:
    """One of the house's people does not want a run, which suffices; what has started is not stopped by this.

    Args:
        home: The house.
        run_or_digest: As `find_proposal`.
        person: Who; None = whoever runs this.

    Raises:
        SpecError: no such run was proposed here.
    """
    return _decide(home, run_or_digest, person or this_person(), approved=False)


def _decide(home: Home, run_or_digest: str, person: Person, *, approved: bool) -> Known:
    known = find_proposal(home, run_or_digest)
    word = Word(spec_digest=known.spec_digest, data=known.data, approved=approved, when=person.when, people=(person,))
    give_word(_folder(home, _APPROVALS), home.logs, known.run, word)
    return known


def find_proposal(home: Home, run_or_digest: str) -> Known:
    """The newest proposed run of that name or digest; a beginning of eight characters will do.

    Raises:
        SpecError: none, or several that differ.
    """
    wanted = run_or_digest.strip().lower()
    found = [one for one in _known(home) if wanted in (one.run, one.spec_digest)]
    if not found and len(wanted) >= 8:
        found = [one for one in _known(home) if one.run.startswith(wanted) or one.spec_digest.startswith(wanted)]
    if len({(one.spec_digest, one.data) for one in found}) != 1:
        what = "several proposed runs begin so" if found else "no such run was proposed to this house"
        what += "" if len(wanted) >= 8 else ", where 8 digits or more are needed"
        raise SpecError("consent.run", f"{run_or_digest[:80]}: {what}; see the list of `fedcredit-node status`")
    return max(found, key=lambda one: one.made)


def _state(home: Home, known: Known, policy: Policy) -> State:
    if (home.runs / known.run).exists():
        return "finished"
    folder = home.state / "runs" / known.run
    if (folder / FAILED_FILE).exists() and not (folder / COMPLETE_FILE).exists():
        return "failed"
    if (folder / ATTEMPT_FILE).exists():
        return "running"
    try:
        return "approved" if _wanted(home, _asked(known), policy) else "pending"
    except PolicyDenied:
        return "denied"
    except IntegrityError:
        return "pending"  # their word is damaged: they are to give it again


def _known(home: Home) -> Iterator[Known]:
    for path in _folder(home, _PROPOSALS).glob("*.json"):
        if not path.name.endswith(".spec.json"):
            known = _proposed(home, RunId(path.name.removesuffix(".json")))
            if known is not None:
                yield known


def _folder(home: Home, name: str) -> Path:
    folder = home.state / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def run_folder(home: Home, run: RunId) -> Path:
    """Where a run of this house is while it is not finished."""
    return home.state / "runs" / run
