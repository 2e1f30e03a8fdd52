"""Orders of one kind of run under the words of another: refused by name before anything of the run is made."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from fedcredit.errors import PeerError
from fedcredit.runtime.rounds.bank import VisitQuestion
from fedcredit.runtime.rounds.node import run_visit
from fedcredit.runtime.rounds.words import NodeVisit, NodeVisited
from fedcredit.runtime.runs.proposal import check_finished
from fedcredit.runtime.session import node as node_session
from fedcredit.types import PartyId, RunId
from fedcredit.wire.message import decode_struct, encode_struct

BANK, RUN = PartyId("bank"), RunId("ab" * 16)
QUESTION = encode_struct(VisitQuestion(run=RUN, number=1, letters=[]))


@pytest.fixture
def made(trial: Callable[..., Any]) -> Any:
    return trial(rows=200)


def untouched(made: Any) -> bool:
    """Neither an attempt nor a line of an audit log of the run was made."""
    folder = made.home(BANK).folder / "state" / "runs" / RUN
    return not (folder / "attempt").exists() and not list(folder.glob("audit/*.jsonl"))


def test_a_run_of_sessions_is_not_visited(made: Any) -> None:
    order = made.order(made.proposal())
    raw = run_visit(made.home(BANK), encode_struct(NodeVisit(order=order, question=QUESTION)))
    visited = decode_struct(NodeVisited, raw, "visited")
    assert visited.answer == b""
    ended = check_finished(visited.finished, BANK, RUN, made.home(BANK).roster)
    assert (ended.ok, ended.code) == (False, "proposal.model")
    assert untouched(made)


def test_a_run_of_visits_is_no_session(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order = made.order(made.proposal())
    monkeypatch.setattr(node_session, "MODEL_RUNS", MappingProxyType({}))
    ended = check_finished(node_session.run_session(made.home(BANK), order), BANK, RUN, made.home(BANK).roster)
    assert (ended.ok, ended.code) == (False, "proposal.model")
    assert untouched(made)


def test_an_order_beyond_any_order_is_not_taken_apart(made: Any) -> None:
    with pytest.raises(PeerError) as refused:
        run_visit(made.home(BANK), b"\x83\xa5order\xc6" + (1 << 23).to_bytes(4, "big") + bytes(1 << 23))
    assert refused.value.code == "wire.malformed"
