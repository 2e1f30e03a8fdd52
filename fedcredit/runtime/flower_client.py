"""What a node does with a Flower message: hands it to its worker and says what came of it. Holds no protocol code.

The handlers' process keeps answering Flower's heartbeats while it waits, because all work is done in other processes: a
SuperNode gives a handler up that is silent for a minute.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedcredit.errors import FedCreditError, IntegrityError, SpecError
from fedcredit.runtime.daemon.spare import handed_over
from fedcredit.runtime.daemon.worker_process import WorkerJob, run_worker
from fedcredit.runtime.flower_words import Answer, AnswerState, Question, failure
from fedcredit.runtime.session.keeper import SessionBook

__all__ = ["HOME_VARIABLE", "SUPERVISOR_VARIABLE", "NodeSide", "node_side", "sessions_folder"]

HOME_VARIABLE = "FEDCREDIT_HOME"
"""Environment variable of all processes that Flower starts here: the member's home. No message names it."""

SUPERVISOR_VARIABLE = "FEDCREDIT_SUPERVISOR"
"""Environment variable: process id of the supervisor, with which all sessions end."""

_CONSIDER_S = 120.0  # opening a home and reading a policy take seconds

Commands = Callable[[str], tuple[str, ...]]


def sessions_folder(home: Path) -> Path:
    """Where the node keeps its sessions."""
    return home / "state" / "flower" / "sessions"


@dataclass(frozen=True)
class NodeSide:
    """A node's end of the Flower line.

    Args:
        home: Folder of the member.
        party: Its name by its own settings.
        command: The worker's command by what it is to do: ``consider``, ``run`` or ``visit``.
        supervisor: Process with which all sessions end.
    """

    home: Path
    party: str
    command: Commands
    supervisor: int = field(default_factory=os.getppid)

    def consider(self, question: Question) -> Answer:
        """Asks this house's gate about a proposal."""
        job = self._job("consider", _CONSIDER_S)
        return Answer(self.party, AnswerState.DONE, asyncio.run(run_worker(job, question.payload)))

    def session(self, question: Question) -> Answer:
        """Starts a session, or says how it goes."""
        book = SessionBook(sessions_folder(self.home), self._job("run"), self.supervisor)
        answer = book.attend(question.run, question.payload, question.hold_s)
        if answer is None:
            return Answer(self.party, AnswerState.RUNNING)
        return Answer(self.party, AnswerState.DONE, answer)

    def visit(self, question: Question) -> Answer:
        """Has a worker answer one visit; the coordinator asks again where it waited in vain."""
        return Answer(self.party, AnswerState.DONE, asyncio.run(run_worker(self._job("visit"), question.payload)))

    def answer(self, action: str, words: Mapping[str, object], declared: object) -> Answer:
        """Does what a message asks; every failure becomes an answer with its code and public text.

        Args:
            action: ``propose``, ``session`` or ``visit``.
            words: The message.
            declared: The party's name in the SuperNode's own configuration.
        """
        try:
            if declared != self.party:
                raise IntegrityError(
                    "node.party", f"the SuperNode runs as {str(declared)[:64]!r}, but the home belongs to {self.party}"
                )
            question = Question.read(words)
            act = {"propose": self.consider, "session": self.session, "visit": self.visit}[action]
            return act(question)
        except FedCreditError as error:
            return failure(self.party, error)
        except OSError as error:
            return failure(self.party, IntegrityError("node.system", f"the house's machine says: {error.strerror}"))

    def _job(self, what: str, timeout_s: float | None = None) -> WorkerJob:
        return WorkerJob(self.command(what), self.home / "logs" / "worker.log", timeout_s)


def node_side(environment: Mapping[str, str]) -> NodeSide:
    """The node to which this process belongs.

    Args:
        environment: Of this process.

    Raises:
        SpecError: the home is not named, or has no readable settings.
    """
    named = environment.get(HOME_VARIABLE)
    if not named:
        raise SpecError("node.home", f"{HOME_VARIABLE} is not set; start the node with fedcredit-node start")
    home = Path(named)
    try:
        party = tomllib.loads((home / "node.toml").read_text("utf-8"))["party"]
    except (OSError, ValueError, KeyError):
        raise SpecError("node.home", "node.toml of this house cannot be read or names no party") from None
    supervisor = environment.get(SUPERVISOR_VARIABLE, "")
    return NodeSide(
        home,
        str(party),
        lambda what: handed_over(home, (sys.executable, "-P", "-m", "nodes.worker", str(home), what)),
        int(supervisor) if supervisor.isdecimal() else os.getppid(),
    )
