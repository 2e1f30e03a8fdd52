"""What a visit to a bank in its own house is asked with and answered by: signed orders around plain visits."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fedcredit.runtime.rounds.bank import MAX_VISIT
from fedcredit.wire.message import Part, Text

__all__ = ["NodeVisit", "NodeVisited"]

_Body = Annotated[bytes, msgspec.Meta(max_length=MAX_VISIT)]
_Signed = Annotated[bytes, msgspec.Meta(max_length=1 << 22)]  # as `fedcredit.runtime.runs.proposal` reads


class NodeVisit(Part, frozen=True, kw_only=True):
    """A visit to a node.

    Attributes:
        order: The run's session order: proposal and everyone's approval.
        question: Bytes of a `fedcredit.runtime.rounds.bank.VisitQuestion`; empty where nothing more is asked.
        stopped: Why the run goes on without this bank, or has ended; empty where it ended well or goes on.
    """

    order: _Signed
    question: _Body = b""
    stopped: Text = ""


class NodeVisited(Part, frozen=True, kw_only=True):
    """A node's answer to a visit; one of both is empty.

    Attributes:
        answer: Bytes of a `fedcredit.runtime.rounds.bank.VisitAnswer`.
        finished: Bytes of a signed `fedcredit.runtime.runs.proposal.Finished`: the run has ended here, or failed.
    """

    answer: _Body = b""
    finished: _Signed = b""
