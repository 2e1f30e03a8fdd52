"""Workers as child processes, sessions that outlive their message, and the node's handlers; workers are made up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedcredit.errors import FedCreditError, PeerError, SpecError, TransportError
from fedcredit.runtime.daemon.spare import handed_over
from fedcredit.runtime.daemon.worker_process import WorkerJob, run_worker
from fedcredit.runtime.flower_client import HOME_VARIABLE, NodeSide, node_side, sessions_folder
from fedcredit.runtime.flower_words import AnswerState, Question
from fedcredit.runtime.session.keeper import SessionBook, end_sessions
from fedcredit.types import RunId

RUN = RunId("ab" * 16)
ECHO = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"
SAYS_WHY = "import sys; sys.stderr.write('noise\\nerror: no column debt [data.column]\\n'); sys.exit(2)"


def job(tmp_path: Path, code: str, timeout_s: float | None = None, max_answer: int = 100) -> WorkerJob:
    return WorkerJob((sys.executable, "-I", "-S", "-c", code), tmp_path / "logs" / "worker.log", timeout_s, max_answer)


def work(one: WorkerJob, payload: bytes = b"abc") -> bytes:
    return asyncio.run(run_worker(one, payload))


def alive(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def until(what: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_bytes_in_and_bytes_out(tmp_path: Path) -> None:
    assert work(job(tmp_path, ECHO)) == b"cba"


def test_a_worker_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(PeerError) as error:
        work(job(tmp_path, SAYS_WHY))
    assert (error.value.code, error.value.public) == ("data.column", "no column debt")
    assert (tmp_path / "logs" / "worker.log").read_text().startswith("noise\n")


@pytest.mark.parametrize(
    ("code", "code_of", "text"),
    [
        ("import os; os.kill(os.getpid(), 9)", "node.worker-died", "ended by signal 9"),
        ("import sys; sys.exit(2)", "node.worker-died", "ended by status 2"),
        ("import sys; sys.stderr.write('error: x [y.z]\\n'); sys.exit(1)", "node.worker-died", "ended by status 1"),
        ("print('x' * 101)", "node.worker-oversize", "longer than 100 bytes"),
        ("import time; time.sleep(60)", "node.worker-late", "did not end within 0.5 s"),
    ],
)
def test_a_worker_that_does_not(tmp_path: Path, code: str, code_of: str, text: str) -> None:
    with pytest.raises(FedCreditError, match=text) as error:
        work(job(tmp_path, code, 0.5 if "sleep" in code else 20))
    assert error.value.code == code_of


def test_a_worker_that_reads_nothing_does_not_block(tmp_path: Path) -> None:
    assert work(job(tmp_path, "print(1)"), b"x" * (1 << 20)) == b"1\n"


def test_a_cancelled_worker_is_gone_with_its_children(tmp_path: Path) -> None:
    child = "import subprocess, sys; one = subprocess.Popen(['sleep', '60']); "
    code = child + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(one.pid)); one.wait()"

    async def cancelled() -> None:
        working = asyncio.create_task(run_worker(job(tmp_path, code), b""))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110 -- a file
            await asyncio.sleep(0.02)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(cancelled())
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_worker_dies_with_its_handler(tmp_path: Path) -> None:
    sleeps = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    handler = (
        "import asyncio, sys; from pathlib import Path;"
        "from fedcredit.runtime.daemon.worker_process import WorkerJob, run_worker;"
        f"asyncio.run(run_worker(WorkerJob((sys.executable, '-c', {sleeps!r}), Path({str(tmp_path)!r}) / 'log'), b''))"
    )
    process = subprocess.Popen([sys.executable, "-c", handler])
    until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
    process.kill()
    process.wait()
    until(lambda: not alive(int((tmp_path / "pid").read_text())), 5)


class Keeping:
    """Sessions of a node whose supervisor is a process that sleeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.supervisor = subprocess.Popen(["sleep", "300"])

    def book(self, code: str) -> SessionBook:
        return SessionBook(self.folder / "sessions", job(self.folder, code, max_answer=10_000), self.supervisor.pid)

    @property
    def pids(self) -> list[int]:
        path = self.folder / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def code(self, then: str) -> str:
        append = f"open({str(self.folder / 'pids')!r}, 'a').write(f'{{os.getpid()}} ')"
        wait = f"while not Path({str(self.folder / 'go')!r}).exists(): time.sleep(0.02)"
        return f"import os, sys, time\nfrom pathlib import Path\n{append}\n{wait}\n{then}"


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    one = Keeping(tmp_path)
    yield one
    end_sessions(tmp_path / "sessions")
    one.supervisor.kill()
    one.supervisor.wait()


def test_a_session_outlives_its_message_and_is_told_twice(keeping: Keeping) -> None:
    book = keeping.book(keeping.code(ECHO))
    assert book.attend(RUN, b"order", 0.0) is None
    assert book.attend(RUN, b"order", 0.2) is None
    (keeping.folder / "go").touch()
    assert book.attend(RUN, b"order", 20.0) == b"redro"
    assert book.attend(RUN, b"order", 0.0) == b"redro"
    assert len(keeping.pids) == 1, "it was played once"


def test_another_order_replaces_a_session(keeping: Keeping) -> None:
    book = keeping.book(keeping.code(ECHO))
    assert book.attend(RUN, b"first", 0.0) is None
    until(lambda: len(keeping.pids) == 1)
    assert book.attend(RUN, b"second", 0.0) is None
    until(lambda: len(keeping.pids) == 2)
    assert not alive(keeping.pids[0])
    (keeping.folder / "go").touch()
    assert book.attend(RUN, b"second", 20.0) == b"dnoces"


def test_a_session_whose_worker_dies_is_played_again_when_asked_for(keeping: Keeping) -> None:
    book = keeping.book(keeping.code(ECHO))
    assert book.attend(RUN, b"order", 0.0) is None
    until(lambda: len(keeping.pids) == 1)
    os.kill(keeping.pids[0], signal.SIGKILL)
    with pytest.raises(TransportError) as error:
        book.attend(RUN, b"order", 20.0)
    assert error.value.code == "node.worker-died"
    (keeping.folder / "go").touch()
    assert book.attend(RUN, b"order", 20.0) == b"redro"


def test_a_refusal_is_kept(keeping: Keeping) -> None:
    (keeping.folder / "go").touch()
    book = keeping.book(keeping.code(SAYS_WHY))
    for _ in range(2):
        with pytest.raises(PeerError) as error:
            book.attend(RUN, b"order", 20.0)
        assert error.value.code == "data.column"
    assert len(keeping.pids) == 1


def test_sessions_end_with_the_supervisor(keeping: Keeping) -> None:
    assert keeping.book(keeping.code(ECHO)).attend(RUN, b"order", 0.0) is None
    until(lambda: len(keeping.pids) == 1)
    keeping.supervisor.kill()
    keeping.supervisor.wait()
    until(lambda: not alive(keeping.pids[0]))


def test_two_runs_go_on_side_by_side(keeping: Keeping) -> None:
    book = keeping.book(keeping.code(ECHO))
    other = RunId("cd" * 16)
    assert book.attend(RUN, b"one", 0.0) is None
    assert book.attend(other, b"two", 0.0) is None
    until(lambda: len(keeping.pids) == 2)
    (keeping.folder / "go").touch()
    assert (book.attend(other, b"two", 20.0), book.attend(RUN, b"one", 20.0)) == (b"owt", b"eno")


@pytest.mark.parametrize("name", ["", "../../etc", "AB" * 16, "ab" * 17])
def test_a_run_names_no_other_folder(keeping: Keeping, name: str) -> None:
    with pytest.raises(PeerError) as error:
        keeping.book(ECHO).attend(RunId(name), b"order", 0.0)
    assert error.value.code == "node.run"
    assert not (keeping.folder / "sessions").exists()


def side(tmp_path: Path, code: str) -> NodeSide:
    return NodeSide(tmp_path, "bank", lambda what: (sys.executable, "-I", "-S", "-c", code, what), os.getpid())


def test_the_handlers_answer(tmp_path: Path) -> None:
    node, question = side(tmp_path, ECHO), Question(RUN, b"abc", 20.0).words()
    assert node.answer("propose", question, "bank").payload == b"cba"
    answer = node.answer("session", question, "bank")
    assert (answer.party, answer.state, answer.payload) == ("bank", AnswerState.DONE, b"cba")
    assert sessions_folder(tmp_path).joinpath(RUN).is_dir()


@pytest.mark.parametrize(
    ("code", "words", "declared", "code_of", "again"),
    [
        (ECHO, Question(RUN, b"abc").words(), "tax_office", "node.party", False),
        (ECHO, {}, "bank", "node.question", False),
        (SAYS_WHY, Question(RUN, b"abc").words(), "bank", "data.column", False),
        ("import os; os.kill(os.getpid(), 9)", Question(RUN, b"abc").words(), "bank", "node.worker-died", True),
    ],
)
def test_failures_become_answers(
    tmp_path: Path, code: str, words: dict[str, object], declared: str, code_of: str, again: bool
) -> None:
    answer = side(tmp_path, code).answer("propose", words, declared)
    assert (answer.state, answer.code, answer.again) == (AnswerState.FAILED, code_of, again)


def test_the_home_comes_from_the_environment_alone(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('party = "bank"\n')
    node = node_side({HOME_VARIABLE: str(tmp_path)})
    worker = (sys.executable, "-P", "-m", "nodes.worker", str(tmp_path), "run")
    assert (node.home, node.party) == (tmp_path, "bank")
    assert node.command("run") == handed_over(tmp_path, worker)
    assert node.command("run")[-7:] == (str(tmp_path / "state" / "spares"), *worker)
    for environment in ({}, {HOME_VARIABLE: str(tmp_path / "other")}):
        with pytest.raises(SpecError) as error:
            node_side(environment)
        assert error.value.code == "node.home"
