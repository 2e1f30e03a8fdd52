"""The coordinator's part in a session: it adds ciphertexts that it cannot read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fedcredit.errors import SpecError
from fedcredit.governance.ledger import Ledger
from fedcredit.governance.policy import Policy
from fedcredit.runtime.house.home import Home
from fedcredit.runtime.hybrid.networks import is_hybrid, roles_of
from fedcredit.runtime.models import MODEL_RUNS
from fedcredit.runtime.runs.proposal import Checked
from fedcredit.runtime.session.entry import Entry, in_session
from fedcredit.runtime.session.files import EPHEMERAL, ended_well, kept_secret
from fedcredit.runtime.session.session import Part, Timing, play
from fedcredit.wire.schema import ProtocolSchema

__all__ = ["coordinator_policy", "run_session"]


def run_session(home: Home, raw: bytes) -> bytes:
    """Plays the coordinator's role; again for the same order, goes on, or says how it ended.

    Returns:
        Bytes of a signed `Finished`.

    Raises:
        FedCreditError: the order does not verify; see `fedcredit.runtime.session.entry.in_session`.
    """
    return in_session(home, raw, _play)


def _play(entry: Entry) -> bytes:
    spec = entry.checked.spec
    if is_hybrid(roles_of(spec)):
        from fedcredit.runtime.hybrid.relay import play_relay  # noqa: PLC0415 -- loads what other runs do not need

        return play_relay(entry)
    model = MODEL_RUNS.get(spec.run.model)
    if model is None:
        raise SpecError("proposal.model", f"model {spec.run.model} does not run between houses")
    with Ledger(":memory:") as ledger:  # it has no records: nothing of its own can be disclosed
        part = Part(
            home=entry.home,
            checked=entry.checked,
            approvals=entry.approvals,
            ephemeral=kept_secret(entry.files, EPHEMERAL),
            schemas=model.schemas,
            policy=coordinator_policy(entry.checked, model.schemas),
            ledger=ledger,
            files=entry.files,
            timing=Timing(timeout_s=spec.network.timeout_s),
        )
        play(part, lambda channel: model.coordinate(channel, spec), lambda _: None, ended=entry.ended)
        return ended_well(part, b"")


def coordinator_policy(checked: Checked, schemas: Sequence[ProtocolSchema]) -> Policy:
    """What may leave the coordinator: messages of this run to its parties, until the proposal expires.

    Args:
        checked: The run.
        schemas: Its messages.
    """
    return Policy(
        counterparties=tuple(checked.spec.parties),
        protocols=tuple(schema.name for schema in schemas),
        messages=("*",),
        runs=(checked.proposal.spec_digest,),
        expires=datetime.fromisoformat(checked.proposal.expires),
        max_message_bytes=1 << 31,
        max_run_bytes=1 << 50,
        max_run_messages=1 << 40,
    )
