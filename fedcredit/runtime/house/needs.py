"""What a run asks of a house beside its columns: the places its ``node.toml`` has to name, and how rows are found.

Light on purpose: consent is asked without reading a record.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedcredit.errors import SpecError
from fedcredit.governance.policy import SAFE_DECOYS
from fedcredit.runtime.house.settings import DataSource
from fedcredit.runtime.hybrid.networks import check_hybrid
from fedcredit.runtime.runs.proposal import Approval, Checked
from fedcredit.spec.model import AlignSection, PartySection, RunSpec
from fedcredit.types import PartyId, Role

__all__ = [
    "alignment_short",
    "alignment_warning",
    "alignment_words",
    "check_records",
    "check_registers",
    "needs_register",
]


def check_records(spec: RunSpec, mine: PartySection, name: str, records: DataSource) -> None:
    """Holds what a run needs of a house against what its ``node.toml`` names.

    Args:
        spec: The run.
        mine: The house's section of it.
        name: Of the house's records.
        records: The house's section about them.

    Raises:
        SpecError: a key is missing there, or given against the run; or the run has several banks and cannot.
    """
    check_hybrid(spec)
    at = f"data.{name}"
    if mine.label is not None and spec.split.test_ids is not None and records.test_ids is None:
        text = f"{at}.test_ids: missing in node.toml; the run holds out ids from a file"
        raise SpecError("proposal.test-ids", text)
    for key, given in (
        ("split.test_source", spec.split.test_source),
        ("fedavg.reference", None if spec.fedavg is None else spec.fedavg.reference),
    ):
        if given is not None:
            text = f"{key}: node.toml has no place for this file in this version; leave it out between houses"
            raise SpecError("proposal.file", text)
    if (mine.as_of is None) != (records.catalog is None):
        found = "missing in" if records.catalog is None else "given in"
        derived = "derived" if mine.as_of else "not derived"
        text = f"{at}.catalog: {found} node.toml, against the run, whose columns are {derived}"
        raise SpecError("proposal.catalog", text)
    if needs_register(spec, mine.role) and records.registry is None:
        use = "every house indexes one" if spec.align.mode == "registry" else "decoys are drawn from one"
        text = f"{at}.registry: missing in node.toml; name the file of public ids, as {use} in this run"
        raise SpecError("proposal.registry", text)


def check_registers(approvals: Mapping[PartyId, Approval], checked: Checked) -> None:
    """Refuses a run whose houses do not all index the same register.

    Raises:
        SpecError: a house approved with another register than the label holder, or with none.
    """
    spec = checked.spec
    if spec.align.mode != "registry":
        return
    leader = spec.label_holder.name
    wanted = approvals[leader].register
    for party in spec.parties:
        found = approvals[party].register
        if not found or found != wanted:
            what = f"another register ({found[:16]}…) than {leader} ({wanted[:16]}…)" if found else "no register"
            text = f"{party} has approved this run with {what}; give every house the same file and submit it anew"
            raise SpecError("run.register", text)


def needs_register(spec: RunSpec, role: Role) -> bool:
    """Whether a party in some role needs the register itself: everyone who indexes it, and who draws decoys from it."""
    if spec.align.mode == "registry":
        return True
    return spec.align.mode == "blind" and spec.align.hidden and role is Role.LABEL_HOLDER


def alignment_short(align: AlignSection) -> str:
    """How rows are found, in a word or two for a table; capitals where other houses learn who is a customer."""
    if align.mode == "blind" and align.decoys <= 0:
        return "NO DECOYS"
    return "PLAIN" if align.mode == "plain" else align.mode


def alignment_words(align: AlignSection) -> str:
    """How rows are found and what that tells whom, in one line for people who decide on it."""
    if align.mode == "registry":
        return "registry: nobody learns who is whose customer"
    if align.mode == "plain":
        return "plain: every party sees the ids of the others"
    if align.decoys <= 0:
        return "blind without decoys: every feature holder learns who is a customer"
    return f"blind with decoys {align.decoys:.1f}: of the common rows, {_share(align.decoys)} are no customers"


def alignment_warning(align: AlignSection) -> bool:
    """Whether how rows are found has to be shown loudly: other houses learn who is a customer, or nearly so."""
    return align.mode == "plain" or (align.mode == "blind" and align.decoys < SAFE_DECOYS)


def _share(decoys: float) -> str:
    return f"{100 * decoys / (1 + decoys):.0f} %"
