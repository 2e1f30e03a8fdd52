"""Runs of a sweep, several at a time, each ``fedcredit simulate`` in a process and a run directory of its own.

A run that fails is told of and does not stop the others. What is finished stays when the sweep is interrupted or
killed; a later sweep into the same folder leaves finished runs alone and goes on with one that was under way.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from fedcredit.crypto.cores import cores
from fedcredit.errors import FedCreditError, SpecError
from fedcredit.runtime.daemon.leash import leashed
from fedcredit.runtime.sweep.plan import Point, SweepPlan, identity_of
from fedcredit.runtime.unfinished import LOCK_FILE, FolderLock, find_unfinished
from fedcredit.spec.load import load_spec

__all__ = ["LOGS", "RUNS", "Ended", "Listener", "News", "Status", "default_jobs", "run_sweep", "simulate_command"]

RUNS, LOGS = "runs", "logs"
"""Folders of the run directories, and of what processes of failed runs wrote."""

Status = Literal["done", "kept", "failed", "refused", "stopped"]

_PAUSE_S = 0.05
_PATIENCE_S = 20.0  # for a run that was interrupted to write down where it stands
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
_ERROR = "error: "
_NOT_RESUMED = "[resume."


@dataclass(frozen=True)
class Ended:
    """How a run of a sweep ended.

    Args:
        point: The run.
        status: ``done`` now; ``kept`` from an earlier sweep; ``failed``, ``refused`` by the rules of a configuration,
            or ``stopped`` because the sweep was interrupted before it ended.
        folder: Its run directory; None where there is none.
        error: Why it has none, in one line.
        seconds: From the start of its process to its end; 0 where none was started.
    """

    point: Point
    status: Status
    folder: Path | None = None
    error: str = ""
    seconds: float = 0.0

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """Content of ``summary.json``; empty where there is none."""
        if self.folder is None:
            return {}
        content: dict[str, Any] = json.loads((self.folder / "summary.json").read_text("utf-8"))
        return content


@dataclass(frozen=True)
class News:
    """A moment of a sweep.

    Args:
        ended: The run that has ended just now; None at the start of others.
        running: The runs that go on, each with the seconds since its start.
        done: Runs that have ended, kept and refused ones included.
        total: All runs.
    """

    ended: Ended | None
    running: Sequence[tuple[str, float]]
    done: int
    total: int


Listener = Callable[[News], None]
Command = Callable[[Point, Path, bool], Sequence[str]]


def default_jobs() -> int:
    """Runs at a time, one for each processor."""
    return cores()


def simulate_command(point: Point, target: Path, resume: bool) -> tuple[str, ...]:  # noqa: FBT001 -- a callback
    """The command line of one run."""
    config = "" if point.loaded is None else str(point.loaded.path.resolve())
    settings = tuple(word for one in point.overrides for word in ("--set", one))
    last = ("--resume",) if resume else ()
    # -P: a folder of the working directory must not stand in for a package
    return (sys.executable, "-P", "-m", "fedcredit.cli", "simulate", config, "--out", str(target), *settings, *last)


def run_sweep(
    plan: SweepPlan,
    out: Path,
    *,
    jobs: int,
    resume: bool = False,
    tell: Listener | None = None,
    command: Command = simulate_command,
) -> list[Ended]:
    """Runs what is not finished yet.

    Args:
        plan: The runs.
        out: Folder of the sweep; must not exist, unless ``resume``.
        jobs: Runs at a time, at least 1.
        resume: Leave the finished runs in ``out`` alone, and do the others.
        tell: Told when a run ends, and some times a second in between.
        command: The command line of one run.

    Returns:
        How each run ended, in the order of the plan. An interrupt is not raised: the runs it left are ``stopped``.

    Raises:
        SpecError: ``out`` exists or cannot be written, another sweep works in it, or it holds runs of another
            configuration under the names of these.
    """
    _prepare(out, resume=resume)
    lock = _locked(out)
    try:
        kept = _kept(plan, out) if resume else {}
        crew = _Crew(plan, out, command, tell or (lambda _: None), jobs)
        return crew.work(kept)
    finally:
        lock.close()
        (out / LOCK_FILE).unlink(missing_ok=True)


def _prepare(out: Path, *, resume: bool) -> None:
    if out.is_dir() and not resume:
        right = "name a new folder, or go on with the sweep in it by --resume"
        raise SpecError("out.exists", f"--out {out}: exists already; {right}")
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise SpecError("out.exists", f"--out {out}: is a file; name a new folder")
    try:
        (out / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError("out.unwritable", f"--out {out}: {error.strerror or 'cannot be created'}") from None


def _locked(out: Path) -> FolderLock:
    try:
        return FolderLock(out)
    except SpecError:
        text = f"--out {out}: another sweep works in it; wait for it, or stop its process"
        raise SpecError("sweep.running", text) from None


def _kept(plan: SweepPlan, out: Path) -> dict[str, Path]:
    """Run directories of this plan's runs by their identity, whatever their names.

    Raises:
        SpecError: a run of the plan would go where another one is.
    """
    found: dict[str, Path] = {}
    for folder in sorted(one for one in (out / RUNS).iterdir() if (one / "summary.json").is_file()):
        identity = _identity(folder)
        if identity:
            found.setdefault(identity, folder)
    for point in plan.points:
        if point.loaded is None:
            continue
        place, wanted = out / RUNS / point.name, identity_of(point.loaded.spec, point.loaded.base)
        if place.exists() and wanted not in found:
            right = "it is of another configuration or other sources; name a new --out, or remove it"
            raise SpecError("sweep.other", f"{place}: {right}")
    return found


def _identity(folder: Path) -> str:
    """That of a finished run, whose summary and specification must agree; empty where they do not."""
    try:
        digest = msgspec.json.decode((folder / "summary.json").read_bytes(), type=dict)["spec_digest"]
        kept = load_spec(folder / "spec.toml")
    except (OSError, KeyError, msgspec.MsgspecError, FedCreditError):
        return ""
    point = Point(folder.name, (), None, (), kept)
    return identity_of(kept.spec, kept.base) if digest == point.digest else ""


@dataclass
class _Job:
    """A run that goes on."""

    point: Point
    process: subprocess.Popen[bytes]
    log: Path
    resumed: bool
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since


class _Crew:
    """Keeps so many processes at work until every run has ended."""

    def __init__(self, plan: SweepPlan, out: Path, command: Command, tell: Listener, jobs: int) -> None:
        self._plan, self._out, self._command, self._tell = plan, out, command, tell
        self._jobs = max(1, min(jobs, len(plan.points)))
        self._ended: dict[str, Ended] = {}
        self._running: list[_Job] = []
        share = str(max(1, cores() // self._jobs))
        self._environment = {**{name: share for name in _THREADS if name not in os.environ}, **os.environ}

    def work(self, kept: Mapping[str, Path]) -> list[Ended]:
        """All runs, those left out that are finished."""
        todo = []
        for point in self._plan.points:
            if point.loaded is None:
                self._end(Ended(point, "refused", error=point.refusal))
            elif folder := kept.get(identity_of(point.loaded.spec, point.loaded.base)):
                self._end(Ended(point, "kept", folder))
            else:
                todo.append(point)
        todo.reverse()
        try:
            while todo or self._running:
                while todo and len(self._running) < self._jobs:
                    self._start(todo.pop())
                self._look()
                self._news(None)
                time.sleep(_PAUSE_S)
        except KeyboardInterrupt:
            self._interrupt()
        except BaseException:
            self._kill()
            raise
        stopped = (Ended(point, "stopped", error="not run: the sweep was interrupted") for point in self._plan.points)
        return [self._ended.get(one.point.name, one) for one in stopped]

    def _start(self, point: Point, *, afresh: bool = False) -> None:
        target = self._out / RUNS / point.name
        resume = not afresh and _resumable(target, point.digest)
        log = self._out / LOGS / f"{point.name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 -- our own command, no shell
                leashed(tuple(self._command(point, target, resume))),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=self._environment,
                start_new_session=True,  # an interrupt of the terminal reaches it through `_interrupt` alone, once
            )
        self._running.append(_Job(point, process, log, resume))

    def _look(self) -> None:
        """Takes in the runs that have ended."""
        for job in [one for one in self._running if one.process.poll() is not None]:
            self._running.remove(job)
            folder, status = self._out / RUNS / job.point.name, job.process.returncode
            error = _reason(job.log, status)
            if status == 0 and (folder / "summary.json").is_file():
                job.log.unlink(missing_ok=True)
                self._end(Ended(job.point, "done", folder, seconds=job.seconds))
            elif job.resumed and _NOT_RESUMED in error:
                _clear(folder)
                self._start(job.point, afresh=True)
            else:
                self._end(Ended(job.point, "failed", error=error, seconds=job.seconds))
        if not self._running and (self._out / LOGS).is_dir() and not any((self._out / LOGS).iterdir()):
            (self._out / LOGS).rmdir()

    def _end(self, ended: Ended) -> None:
        self._ended[ended.point.name] = ended
        self._news(ended)

    def _news(self, ended: Ended | None) -> None:
        running = tuple((job.point.name, job.seconds) for job in self._running)
        self._tell(News(ended, running, len(self._ended), len(self._plan.points)))

    def _interrupt(self) -> None:
        """Has every run write down where it stands; those that end in that time are taken in."""
        for job in self._running:
            job.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _PATIENCE_S
        try:
            while time.monotonic() < deadline and any(job.process.poll() is None for job in self._running):
                time.sleep(_PAUSE_S)
        except KeyboardInterrupt:
            pass  # asked twice: nothing is waited for, and what they wrote so far can be resumed all the same
        self._kill()
        for job in self._running:
            job.log.unlink(missing_ok=True)
            folder = self._out / RUNS / job.point.name
            if job.process.returncode == 0 and (folder / "summary.json").is_file():
                self._ended[job.point.name] = Ended(job.point, "done", folder, seconds=job.seconds)
            else:
                self._ended[job.point.name] = Ended(job.point, "stopped", error="interrupted while it was under way")
        if (self._out / LOGS).is_dir() and not any((self._out / LOGS).iterdir()):
            (self._out / LOGS).rmdir()

    def _kill(self) -> None:
        for job in self._running:
            if job.process.poll() is None:
                job.process.kill()
            job.process.wait()


def _resumable(target: Path, digest: str) -> bool:
    """Whether a killed run of the same specification can be gone on with; what else a process left is removed."""
    left = find_unfinished(target)
    if any(one.running for one in left):
        raise SpecError("sweep.running", f"{target}: a run of it is still going on; wait for it, or stop its process")
    if len(left) == 1 and left[0].run is not None and left[0].spec_digest == digest:
        return True
    _clear(target)
    return False


def _clear(target: Path) -> None:
    """Removes unfinished runs, with their secrets."""
    for one in find_unfinished(target):
        if not one.running:
            shutil.rmtree(one.folder, ignore_errors=True)


def _reason(log: Path, status: int) -> str:
    """Why a process failed, in one line."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith(_ERROR)), None)
    if said is not None:
        return said.removeprefix(_ERROR)
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        why = "; the machine may be out of memory, try fewer --jobs" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{why}"
    last = f": {lines[-1].strip()}" if lines else ""
    return f"its process ended with code {status}{last}; all it wrote is in {LOGS}/"
