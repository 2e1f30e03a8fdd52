"""A whole run of averaging on one machine: houses, rounds, comparison, run directory; with or without Flower.

The rounds are the same either way, driven here and down to the last envelope: with ``local`` the banks are opened once
and visited in this process, with ``flower`` each visit is a message of Flower's to a virtual node on Ray.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from fedcredit.data.load import SourceCache, load_tables
from fedcredit.data.table import HolderTable
from fedcredit.errors import SpecError
from fedcredit.governance.privacy_accounting import plan
from fedcredit.runtime import houses
from fedcredit.runtime.averaging.compare import Compared, compare
from fedcredit.runtime.averaging.run import FEDAVG_RUN
from fedcredit.runtime.flower_office import FlowerJob, FlowerOffice
from fedcredit.runtime.leftovers import close_books, earlier_messages
from fedcredit.runtime.progress import Listener, Progress
from fedcredit.runtime.provenance import versions
from fedcredit.runtime.rounds.bank import RoundHouse
from fedcredit.runtime.rounds.driver import FileSteps, RoundDriver, RoundLimits, Taken, Visit
from fedcredit.runtime.rounds.model import BankSeat
from fedcredit.runtime.rounds.simulated import SimulatedRun, records_folder
from fedcredit.runtime.rounds.summary import Carried, averaging_leakage, averaging_summary
from fedcredit.runtime.rounds.tables import BankTables, bank_tables, keep_tables
from fedcredit.runtime.run_directory import RunFiles, run_directory
from fedcredit.runtime.unfinished import Identity, check_unchanged, read_identity, to_resume, write_identity
from fedcredit.spec.digest import spec_digest
from fedcredit.spec.load import LoadedSpec
from fedcredit.spec.model import FedavgSection
from fedcredit.spec.write import spec_toml
from fedcredit.types import COORDINATOR, PartyId, RunId

__all__ = ["Engine", "How", "simulate_averaging"]

Engine = Literal["local", "flower"]

_VISIT = "fedcredit.runtime.rounds.simulated:visit"
_SETUP_STEPS, _SUM_STEPS, _OTHER_SUMS = 3, 2, 3  # keys, boxes, roster; vectors, shares; columns twice and scores


@dataclass(frozen=True)
class How:
    """How a simulation is begun.

    Args:
        resume: Go on with the unfinished run of the run directory.
        engine: What carries the rounds; None = Flower where ``fedavg.ray_address`` is given, else this process.
        entropy_seed: For tests only: secrets from this seed.
    """

    resume: bool = False
    engine: Engine | None = None
    entropy_seed: bytes | None = field(default=None, repr=False)


def simulate_averaging(
    loaded: LoadedSpec,
    out: Path,
    *,
    progress: Listener | None = None,
    finish: Callable[[Path], None] | None = None,
    how: How = How(),
) -> Path:
    """Runs a simulation of averaging and writes its run directory.

    Args:
        loaded: The spec and the folder its paths are relative to.
        out: Run directory to create.
        progress: Told each stage as it begins, and each step of the rounds.
        finish: Called with the folder when all files are in it, before it gets its name.
        how: How it is begun.

    Returns:
        The run directory.

    Raises:
        FedCreditError: as `fedcredit.runtime.simulate.simulate`.
    """
    tell, spec = progress or (lambda _: None), loaded.spec
    if not spec.simulation:
        raise SpecError("spec.simulate", 'run.mode: simulate runs mode = "simulation"')
    engine = how.engine
    if engine is None:
        engine = "flower" if (spec.fedavg or FedavgSection()).ray_address is not None else "local"
    left = to_resume(out, spec_digest(spec)) if how.resume else None
    run = RunId(os.urandom(16).hex()) if left is None or left.run is None else left.run
    with run_directory(out, run, None if left is None else left.folder) as files:
        if left is not None and left.finished is not None:
            _close(loaded, run, files)
        else:
            _Averaging(loaded, files, tell, engine).through(run, how.entropy_seed)
        if finish is not None:
            finish(files.folder)
    return out


class _Averaging:
    """One run on its way."""

    def __init__(self, loaded: LoadedSpec, files: RunFiles, tell: Listener, engine: Engine) -> None:
        self._loaded, self._files, self._tell, self._engine = loaded, files, tell, engine
        self._spec, self._section = loaded.spec, loaded.spec.fedavg or FedavgSection()

    def through(self, run: RunId, seed: bytes | None) -> None:
        self._tell(Progress("load"))
        started = time.perf_counter()
        own = load_tables(self._loaded)
        tables = self._all_tables(own)
        for one in tables.values():
            plan(self._spec, one.rows_train, len(self._spec.banks))  # what would cost too much is refused at once
        identity, simulated = self._begin(run, seed, own)
        seconds = {"load": time.perf_counter() - started}
        with ExitStack() as stack:
            banks = _Opened(simulated, tables, stack)
            self._tell(Progress("rounds"))
            began = time.perf_counter()
            driver = asyncio.run(self._rounds(simulated, banks, tables))
            seconds["rounds"] = time.perf_counter() - began
            self._tell(Progress("compare"))
            began = time.perf_counter()
            seats = {party: banks.bank(party) for party in simulated.spec.parties if party in driver.done}
            own_files = simulated.model.own
            figures = {party: own_files(self._files, seat, rounds.bank) for party, (rounds, seat) in seats.items()}
            whole = not driver.lost
            compared = compare({party: seat for party, (_, seat) in seats.items()}, whole=whole)
            seconds["compare"] = time.perf_counter() - began
            seconds["total"] = time.perf_counter() - started
            carried = Carried(simulated, identity, self._engine, tuple(driver.lost), seconds)
        self._write(carried, figures, compared)
        _close(self._loaded, run, self._files)

    def _all_tables(self, own: Mapping[PartyId, HolderTable]) -> dict[PartyId, BankTables]:
        cache = SourceCache()
        return {party: bank_tables(self._spec, party, self._loaded.base, one, cache) for party, one in own.items()}

    def _begin(
        self, run: RunId, seed: bytes | None, own: Mapping[PartyId, HolderTable]
    ) -> tuple[Identity, SimulatedRun]:
        """Writes down what the run is; for one that goes on, checks that it is the same."""
        spec, files = self._spec, self._files
        everyone = (*spec.parties, COORDINATOR)
        ledgers = houses.ledger_folder(self._loaded, files).resolve()
        identity = Identity(
            run=run,
            spec_digest=spec_digest(spec),
            seeded=seed is not None,
            restarts=0,
            data={party: table.digest for party, table in own.items()},
            ledgers=str(ledgers) if spec.privacy.ledger_dir is not None else "",
            versions=versions(),
        )
        if files.resumed:
            then = read_identity(files.folder)
            check_unchanged(then, identity, files.folder)
            identity = msgspec.structs.replace(then, restarts=then.restarts + 1)
            secrets = houses.read_run_secrets(files.secrets, everyone)
        else:
            secrets = houses.fresh_secrets(everyone, seed)
            houses.keep_run_secrets(files.secrets, secrets)
        files.text("spec.toml", spec_toml(spec, base=self._loaded.base))
        name = "seeded" if identity.seeded else run
        run_digest = hashlib.sha256(f"{identity.spec_digest}/{name}".encode()).hexdigest()
        keys = {party: key.public for party, key in houses.signing_keys(secrets, run_digest).items()}
        ledgers.mkdir(parents=True, exist_ok=True)
        records = {party: table.digest for party, table in own.items()}
        about = identity.spec_digest, run_digest, keys, records
        simulated = SimulatedRun(files.folder, spec, run, *about, ledgers)
        simulated.keep()
        write_identity(files.folder, identity)
        return identity, simulated

    async def _rounds(
        self, simulated: SimulatedRun, banks: _Opened, tables: Mapping[PartyId, BankTables]
    ) -> RoundDriver:
        """All rounds; whoever carries them is gone when this returns."""
        steps = FileSteps(self._files.checkpoints / "steps")
        limits = RoundLimits(round_s=self._section.round_timeout_s)
        async with AsyncExitStack() as stack:
            visit: Visit = banks.visit
            if self._engine == "flower":
                office = await stack.enter_async_context(self._office(simulated, tables))
                visit = office.visit
            with simulated.house(COORDINATOR) as house:
                relay = simulated.model.relay(simulated.spec, simulated.run)
                driver = RoundDriver(simulated.context, house, relay, visit, limits)
                await driver.through(steps, self._listen)
        return driver

    def _office(self, simulated: SimulatedRun, tables: Mapping[PartyId, BankTables]) -> FlowerOffice:
        """Flower, and the copies of records that its nodes read."""
        for party, one in tables.items():
            keep_tables(records_folder(simulated.folder, party), one)
        job = FlowerJob(
            run=simulated.run,
            folder=str(simulated.folder.resolve()),
            parties=list(simulated.spec.parties),
            visit=_VISIT,
            timeout_s=self._section.round_timeout_s,
            ray_address=self._section.ray_address or "",
            cpus=len(os.sched_getaffinity(0)),
        )
        return FlowerOffice(job, simulated.folder / "logs" / "flower.log")

    def _listen(self, taken: Taken) -> None:
        most = _SETUP_STEPS + _SUM_STEPS * (_OTHER_SUMS + self._section.rounds) + 1
        lost = "".join(f"; without {one}" for one in taken.lost)
        self._tell(Progress("rounds", min(taken.number, most), most, f"{len(taken.answered)} banks{lost}"))

    def _write(self, carried: Carried, figures: Mapping[PartyId, Mapping[str, Any]], compared: Compared) -> None:
        files, spec = self._files, self._spec
        transcript = earlier_messages(files.audit)
        files.transcript(transcript)
        run, rules = carried.simulated.run, houses.policies(spec, carried.simulated.model.schemas)
        with ExitStack() as stack:
            ledgers = houses.open_ledgers(houses.ledger_folder(self._loaded, files), rules, stack)
            reports = {party: ledger.report(run) for party, ledger in ledgers.items()}
        files.json("leakage.json", averaging_leakage(carried.simulated.model.schemas, reports, transcript))
        # From the summary on all is written: a process that is killed now is resumed without a message.
        files.json("summary.json", averaging_summary(carried, figures, compared, reports, transcript))


class _Opened:
    """Banks that this process has opened, each once.

    Args:
        simulated: The run.
        tables: Their records.
        stack: Closes them.
    """

    def __init__(self, simulated: SimulatedRun, tables: Mapping[PartyId, BankTables], stack: ExitStack) -> None:
        self._simulated, self._tables, self._stack = simulated, tables, stack
        self._banks: dict[PartyId, tuple[RoundHouse, BankSeat]] = {}

    def bank(self, party: PartyId) -> tuple[RoundHouse, BankSeat]:
        """A bank, as its last visit left it."""
        if party not in self._banks:
            opened = self._simulated.bank(party, self._tables[party])
            self._banks[party] = self._stack.enter_context(opened)
        return self._banks[party]

    async def visit(self, party: PartyId, question: bytes) -> bytes:
        """A visit in this process; see `fedcredit.runtime.rounds.driver.Visit`."""
        await asyncio.sleep(0)  # lets a stop through between two visits
        return self.bank(party)[0].visit(question)


def _close(loaded: LoadedSpec, run: RunId, files: RunFiles) -> None:
    """What is left to do when everything is written: the books of all who were in the run."""
    rules = houses.policies(loaded.spec, FEDAVG_RUN.schemas)
    begun = [party for party in rules if (files.audit / f"{party}.jsonl").exists()]
    with ExitStack() as stack:
        ledgers = houses.open_ledgers(houses.ledger_folder(loaded, files), rules, stack)
        close_books(files.audit, begun, run, ledgers.values(), lambda: datetime.now(UTC))
