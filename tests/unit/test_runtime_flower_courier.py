"""The courier over a made-up Flower: who is who, one poll for all, and what each fault is called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from fedcredit.errors import FedCreditError, PeerError, PolicyDenied, TransportError
from fedcredit.runtime.daemon.worker_process import MAX_ANSWER
from fedcredit.runtime.flower_server import CourierLimits, FlowerCourier, Letter, MailFault, NodeRow
from fedcredit.runtime.flower_words import Answer, AnswerState, Question, failure
from fedcredit.types import PartyId, RunId

RUN = RunId("ab" * 16)
BANK, TAX = PartyId("bank"), PartyId("tax_office")
LIMITS = CourierLimits(poll_s=0.01, start_s=0.4, again_s=0.05, after_s=0.01, outage_s=0.1)

Result = TypeVar("Result")
Reply = Callable[[str, int, Mapping[str, object]], list[Letter]]


def says(answer: Answer) -> Reply:
    return lambda message, node, _: [Letter(message, node, words=answer.words())]


def faults(fault: int, reason: str = "") -> Reply:
    return lambda message, node, _: [Letter(message, node, fault=fault, reason=reason)]


def done(party: PartyId, payload: bytes = b"decision") -> Reply:
    return says(Answer(party, AnswerState.DONE, payload))


@dataclass
class MadeUpMail:
    """Each message is answered by the next reply of its node's script; the last one is repeated."""

    replies: dict[int, list[Reply]]
    rows: list[NodeRow] = field(default_factory=lambda: [NodeRow(1, "bank", b"kb"), NodeRow(2, "tax_office", b"kt")])
    pushed: list[tuple[int, str, Mapping[str, object], float]] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    pulls: int = 0
    down: int = 0

    def nodes(self) -> Sequence[NodeRow]:
        return self.rows

    def push(self, node: int, kind: str, words: Mapping[str, object], ttl_s: float) -> str:
        message = f"m{len(self.pushed)}"
        self.pushed.append((node, kind, words, ttl_s))
        script = self.replies[node]
        self.letters += (script.pop(0) if len(script) > 1 else script[0])(message, node, words)
        return message

    def pull(self, messages: Sequence[str]) -> Sequence[Letter]:
        self.pulls += 1
        if self.down:
            self.down -= 1
            raise ConnectionError("refused")
        taken, self.letters = self.letters, []
        return taken

    def key_of(self, line: str) -> bytes:
        return line.encode()


def courier(mail: MadeUpMail, hold_s: float = 0.0, limits: CourierLimits = LIMITS) -> FlowerCourier:
    return FlowerCourier(mail, RUN, {BANK: "kb", TAX: "kt"}, lambda: hold_s, limits)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def refusal(mail: MadeUpMail, action: str = "propose") -> FedCreditError:
    with pytest.raises(FedCreditError) as error:
        run(courier(mail).ask(BANK, action, b"payload", 5))
    return error.value


def test_a_question_and_its_answer() -> None:
    mail = MadeUpMail({1: [done(BANK)]})
    assert run(courier(mail).ask(BANK, "propose", b"proposal", 5)) == b"decision"
    node, kind, words, ttl = mail.pushed[0]
    assert (node, kind, ttl) == (1, "query.propose", LIMITS.start_s)
    assert Question.read(words) == Question(RUN, b"proposal", 0.0)


def test_one_poll_serves_all() -> None:
    mail = MadeUpMail({1: [done(BANK, b"1")], 2: [done(TAX, b"2")]})

    async def both() -> list[bytes]:
        carrier = courier(mail)
        return list(await asyncio.gather(*(carrier.ask(one, "propose", b"p", 5) for one in (BANK, TAX))))

    assert run(both()) == [b"1", b"2"]
    assert mail.pulls <= 2


def test_a_session_is_asked_about_until_it_has_ended() -> None:
    goes_on = says(Answer(BANK, AnswerState.RUNNING))
    mail = MadeUpMail({1: [goes_on, goes_on, done(BANK, b"end")]})
    assert run(courier(mail, hold_s=0.2).ask(BANK, "session", b"order", 5)) == b"end"
    assert [kind for _, kind, _, _ in mail.pushed] == ["train.session"] * 3
    assert {words["hold_s"] for _, _, words, _ in mail.pushed} == {0.2}
    assert mail.pushed[0][3] == LIMITS.start_s + 0.2


def test_the_end_of_the_run_is_asked_for_at_once() -> None:
    mail = MadeUpMail({1: [says(Answer(BANK, AnswerState.RUNNING)), done(BANK, b"end")]})

    async def nudged() -> bytes:
        carrier = courier(mail, limits=CourierLimits(poll_s=0.01, again_s=60, after_s=0.01))
        asking = asyncio.create_task(carrier.ask(BANK, "session", b"order", 5))
        await asyncio.sleep(0.2)
        assert not asking.done()
        carrier.nudge()
        return await asking

    assert run(nudged()) == b"end"


def test_only_nodes_under_the_rosters_key_and_name_are_there() -> None:
    rows = [NodeRow(1, "bank", b"other"), NodeRow(2, "bank", b"kt"), NodeRow(3, "stranger", b"ks")]
    mail = MadeUpMail({}, rows=rows)
    assert run(courier(mail).online()) == frozenset()
    assert refusal(mail).code == "node.unavailable"
    assert mail.pushed == []
    assert run(courier(MadeUpMail({})).online()) == {BANK, TAX}


@pytest.mark.parametrize(
    "reply",
    [
        done(TAX),
        lambda message, _node, _words: [Letter(message, 2, words=Answer(BANK, AnswerState.DONE, b"x").words())],
    ],
)
def test_a_node_with_another_partys_home_is_not_believed(reply: Reply) -> None:
    error = refusal(MadeUpMail({1: [reply]}))
    assert (type(error), error.code) == (PeerError, "node.party")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (MailFault.NODE_UNAVAILABLE, "node.unavailable"),
        (MailFault.CLIENT_APP_CRASHED, "node.app-crashed"),
        (MailFault.MESSAGE_UNAVAILABLE, "node.late"),
        (MailFault.REPLY_MESSAGE_UNAVAILABLE, "node.late"),
    ],
)
def test_faults_after_which_asking_again_may_help(fault: MailFault, code: str) -> None:
    error = refusal(MadeUpMail({1: [faults(fault)]}))
    assert (type(error), error.code) == (TransportError, code)


@pytest.mark.parametrize(
    ("fault", "reason", "code", "text"),
    [
        (2, "<class 'x.IntegrityError'>:<'not listed [bundle.unlisted]'>", "bundle.unlisted", "not listed"),
        (2, "<class 'ValueError'>:<'a value of somebody'>", "node.app-failed", "the app at its node failed"),
        (1, "An exception was raised when attempting to load `ClientApp`", "node.app-failed", "the app at its node"),
        (7, "The FAB could not be verified.", "node.app-failed", "the app at its node failed"),
        (99, "", "node.app-failed", "the app at its node failed"),
    ],
)
def test_faults_that_are_final(fault: int, reason: str, code: str, text: str) -> None:
    error = refusal(MadeUpMail({1: [faults(fault, reason)]}))
    assert (type(error), error.code) == (PeerError, code)
    assert error.public.startswith(text)
    assert "somebody" not in error.public


def test_flowers_codes_are_the_ones_we_know() -> None:
    constant = pytest.importorskip("flwr.common.constant")
    for fault in MailFault:
        assert getattr(constant.ErrorCode, fault.name) == fault


@pytest.mark.parametrize(
    ("error", "kind"), [(PolicyDenied("policy.model", "no trees here"), PeerError), (TransportError("x.y", "z"), None)]
)
def test_a_nodes_own_failure_keeps_code_and_text(error: FedCreditError, kind: type[FedCreditError] | None) -> None:
    told = refusal(MadeUpMail({1: [says(failure("bank", error))]}))
    assert (type(told), told.code, told.public) == (kind or TransportError, error.code, error.public)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {**Answer(BANK, AnswerState.DONE).words(), "state": "odd"},
        {**Answer(BANK, AnswerState.DONE).words(), "payload": "text"},
        {**Answer(BANK, AnswerState.DONE).words(), "again": 1},
        {**Answer(BANK, AnswerState.DONE).words(), "payload": bytes(MAX_ANSWER + 1)},
        {key: value for key, value in Answer(BANK, AnswerState.DONE).words().items() if key != "party"},
    ],
)
def test_garbage_is_the_partys_fault(words: Mapping[str, object]) -> None:
    error = refusal(MadeUpMail({1: [lambda message, node, _: [Letter(message, node, words=words)]]}))
    assert (type(error), error.code) == (PeerError, "node.answer")


def test_texts_from_outside_are_made_harmless() -> None:
    nasty = Answer(BANK, AnswerState.FAILED, code="no code;", text="a\nb\x1b[31m" + "x" * 5000)
    error = refusal(MadeUpMail({1: [says(nasty)]}))
    assert error.code == "node.failed"
    assert error.public.isprintable()
    assert len(error.public) <= 1024


def test_duplicates_and_answers_to_nothing_are_dropped() -> None:
    def twice(message: str, node: int, _: Mapping[str, object]) -> list[Letter]:
        letter = Letter(message, node, words=Answer(BANK, AnswerState.DONE, b"once").words())
        return [Letter("other", node, words={}), letter, Letter(message, node, words={})]

    mail = MadeUpMail({1: [twice]})
    assert run(courier(mail).ask(BANK, "propose", b"p", 5)) == b"once"


def test_a_silent_node_is_late() -> None:
    mail = MadeUpMail({1: [lambda *_: []]})
    error = refusal(mail)
    assert (type(error), error.code) == (TransportError, "node.late")


def test_a_session_as_a_whole_is_bounded() -> None:
    mail = MadeUpMail({1: [says(Answer(BANK, AnswerState.RUNNING))]})
    with pytest.raises(TransportError, match=r"no answer within 0\.3 s"):
        run(courier(mail).ask(BANK, "session", b"order", 0.3))


def test_a_short_outage_of_the_superlink_is_waited_out() -> None:
    mail = MadeUpMail({1: [done(BANK)]}, down=3)
    assert run(courier(mail).ask(BANK, "propose", b"p", 5)) == b"decision"


def test_a_long_outage_is_named() -> None:
    error = refusal(MadeUpMail({1: [done(BANK)]}, down=10**9))
    assert (type(error), error.code) == (TransportError, "flower.unreachable")
    assert "refused" not in error.public


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"run": RUN, "payload": "text", "hold_s": 0.0},
        {"run": 5, "payload": b"", "hold_s": 0.0},
        {"run": RUN, "payload": b"", "hold_s": True},
        {"run": RUN, "payload": b"", "hold_s": -1.0},
        {"run": RUN, "payload": b"", "hold_s": 61.0},
        {"run": RUN, "payload": b"", "hold_s": float("nan")},
    ],
)
def test_a_node_refuses_questions_of_another_form(words: Mapping[str, object]) -> None:
    with pytest.raises(PeerError) as error:
        Question.read(words)
    assert error.value.code == "node.question"
