"""Specifications on their way between houses: without anyone's places of records, and without a party that is gone."""

from __future__ import annotations

import json
from collections.abc import Collection

from fedcredit.errors import SpecError
from fedcredit.plain_text import is_plain, plain
from fedcredit.spec.load import parse_spec
from fedcredit.spec.model import RunSpec
from fedcredit.spec.rules import HOUSE_DATA
from fedcredit.types import PartyId, Role

__all__ = ["read_travelling", "travelling_json", "without"]

_MOST_BYTES = 1 << 20
_MOST_PARTIES = 1024  # as many banks as a secure sum takes; reading is quadratic in them
_FILES = (("split", "test_ids"), ("split", "test_source"), ("align", "registry"), ("fedavg", "reference"))


def travelling_json(spec: RunSpec, data: str) -> str:
    """The spec as it may leave: every source is a name that each party looks up in its own house; same digest.

    Args:
        spec: The run.
        data: The name, as under ``[data.NAME]`` of the nodes.
    """
    content = spec.model_dump(mode="json", exclude_none=True)
    for party in content["party"]:
        party["source"] = f"{HOUSE_DATA}{data}"
        party.pop("query", None)
        if "catalog" in party:
            party["catalog"] = f"{HOUSE_DATA}{data}"
    content["privacy"].pop("ledger_dir", None)
    content.get("fedavg", {}).pop("ray_address", None)
    for section, key in _FILES:
        if key in content.get(section, {}):
            content[section][key] = f"{HOUSE_DATA}{data}"
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_travelling(text: str | bytes, what: str = "the proposal") -> tuple[RunSpec, str]:
    """A spec that has travelled, checked, and the name of the records it is to use.

    Raises:
        SpecError: it is none, or names places of records.
    """
    if len(text) > _MOST_BYTES:
        raise SpecError("spec.file", f"{what}: larger than 1 MiB; this is no run configuration")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise SpecError("spec.json", f"{what}: not a run configuration in JSON") from None
    if not isinstance(raw, dict):
        raise SpecError("spec.json", f"{what}: not a run configuration in JSON")
    _check_plain(raw, what)
    parties = raw.get("party")
    if isinstance(parties, list) and len(parties) > _MOST_PARTIES:
        text = f"{what}: {len(parties)} parties, at most {_MOST_PARTIES} take part in a run"
        raise SpecError("spec.parties", text)
    spec = parse_spec(raw, what)
    names = {party.source for party in spec.party}
    (name,) = names if len(names) == 1 else ("",)
    places = any(party.query is not None for party in spec.party) or spec.privacy.ledger_dir is not None
    reference = None if spec.fedavg is None else spec.fedavg.reference
    files = {
        spec.split.test_ids,
        spec.split.test_source,
        spec.align.registry,
        reference,
        *(party.catalog for party in spec.party),
    }
    places = places or not files <= {None, name}
    if not name.startswith(HOUSE_DATA) or not name.removeprefix(HOUSE_DATA) or places:
        right = f'one "{HOUSE_DATA}NAME" for all parties is right'
        raise SpecError("spec.places", f"{what}: names places of records, which are each party's own affair; {right}")
    return spec, name.removeprefix(HOUSE_DATA)


def _check_plain(content: object, what: str) -> None:
    """Refuses names that a terminal or a page would obey: people of other houses read them before they decide.

    Raises:
        SpecError: one of them, its harmful characters written out.
    """
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str) and not is_plain(one):
            text = f"{what}: {plain(one)[:80]!r} holds control characters or ones that turn text; use plain letters"
            raise SpecError("spec.characters", text)
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one


def without(spec: RunSpec, missing: Collection[PartyId]) -> RunSpec:
    """The same run for the remaining parties.

    Raises:
        SpecError: the spec does not allow it, a party is in no such run, or too few are left.
    """
    if spec.run.on_missing != "continue":
        raise SpecError("run.on-missing", 'run.on_missing is "stop": the run does not go on without a party')
    named = {party.name: party for party in spec.party}
    for name in missing:
        if name not in named or named[name].role is not Role.FEATURE_HOLDER:
            raise SpecError("run.on-missing", f"a run can go on without a feature holder only, {name} is none of it")
    left = [party for name, party in named.items() if name not in missing]
    if not missing or not any(party.role is Role.FEATURE_HOLDER for party in left):
        raise SpecError(
            "run.on-missing", "no feature holder is left, or none is missing: there is nothing to go on with"
        )
    content = spec.model_dump(mode="json", exclude_none=True)
    content["party"] = [one for one in content["party"] if one["name"] not in missing]
    return parse_spec(content, "the run without the missing")
