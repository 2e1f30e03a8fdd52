"""A whole consortium on this machine, by the commands its people would type; compared with simulation.

Provisions a trial, starts the coordinator and each house as processes of their own over mutual TLS, submits runs,
watches them, fetches what each house keeps, and holds models and metrics against `fedcredit simulate` of the same
configuration. Ends every process it has started.

Exit code 1 where anything differs, or where a scorecard's session takes more than 1.5 times its simulation. Both are
taken with loops compiled, from the first look at the records to what is written. A session is one process a party over
the network; the simulation is one process that also trains on the pooled records, to compare (the column "of it
compared"; a session has nothing of the kind).

    python benchmarks/consortium.py [--out DIR] [--runs credit-scorecard credit-boost taiwan-scorecard taiwan-boost]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
RUNS = {
    "credit-scorecard": ("credit_data_scorecard.toml", "credit"),
    "credit-boost": ("credit_data_boost.toml", "credit"),
    "taiwan-scorecard": ("taiwan_scorecard.toml", "taiwan"),
    "taiwan-boost": ("taiwan_boost.toml", "taiwan"),
}
TAIWAN = {"bank": "known:taiwan-default-guest", "tax_office": "known:taiwan-default-host"}
LIMIT = 1.5  # a scorecard's session in times of its simulation
METRICS = ("spec_digest", "rows_train", "rows_test", "auc_test", "ks_test", "brier_test", "auc_label_holder_alone")


@dataclass
class Compared:
    """One run between houses, beside its simulation."""

    name: str
    auc: float
    identical: bool
    differences: list[str]
    session: float
    simulated: float
    compared: float
    submitted: float
    session_cpu: float
    simulated_cpu: float
    bytes_sent: dict[str, int]
    messages: dict[str, int]

    @property
    def ratio(self) -> float:
        """Session in times of the simulation."""
        return self.session / self.simulated

    @property
    def late(self) -> bool:
        """Whether it is a scorecard that took too long."""
        return self.name.endswith("scorecard") and self.ratio > LIMIT


def command(*words: str | Path, quiet: bool = True) -> str:
    """Runs one of the product's commands; its output."""
    done = subprocess.run([str(BIN / str(words[0])), *map(str, words[1:])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    if not quiet:
        print(done.stdout, end="", flush=True)
    return done.stdout


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def consortium_file(out: Path, *, with_taiwan: bool) -> tuple[Path, list[str]]:
    """The shipped trial, on ports that are free here; and its nodes."""
    content: dict[str, Any] = tomllib.loads((ROOT / "configs/consortium/credit_data.toml").read_text("utf-8"))
    content["coordinator"]["address"] = f"127.0.0.1:{free_ports(1)[0]}"
    content["local"] = {"first_port": free_block(24)}
    for member in content["member"]:
        if with_taiwan and member["name"] in TAIWAN:
            member["data"]["taiwan"] = {"source": TAIWAN[member["name"]]}
    path = out / "consortium.toml"
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    return path, [member["name"] for member in content["member"] if member.get("kind", "node") == "node"]


def free_block(size: int) -> int:
    """First of some ports in a row that are free now."""
    for first in range(20_000, 30_000, size):
        with ExitStack() as stack:
            try:
                for port in range(first, first + size):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise SystemExit("no ports are free")


def compare(name: str, config: Path, homes: Path, run: str, submitted: float) -> Compared:
    """Fetches every house's part and holds it against the simulation's."""
    out = homes.parent / f"simulated-{name}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command("fedcredit", "simulate", config, "--out", out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    simulated = json.loads((out / "summary.json").read_text("utf-8"))
    differences, houses = [], {}
    for party in simulated["parties"]:
        fetched = homes.parent / f"fetched-{name}" / party
        command("fedcredit", "run", "fetch", run, "--home", homes / party, "--out", fetched)
        (own,) = (fetched / "model" / party).glob("*.json")
        if json.loads(own.read_text("utf-8")) != json.loads((out / "model" / party / own.name).read_text("utf-8")):
            differences.append(f"model of {party}")
        houses[party] = json.loads((fetched / "summary.json").read_text("utf-8"))
    bank = homes.parent / f"fetched-{name}" / simulated["bank"]
    summary = json.loads((bank / "summary.json").read_text("utf-8"))
    differences += [key for key in METRICS if summary[key] != simulated[key]]
    if (bank / "predictions.parquet").read_bytes() != (out / "predictions.parquet").read_bytes():
        differences.append("predictions")
    seconds = simulated["seconds"]
    return Compared(
        name=name,
        auc=summary["auc_test"],
        identical=not differences,
        differences=differences,
        session=max(one["seconds"]["total"] for one in houses.values()),
        simulated=seconds["total"],
        compared=2 * seconds["total"] - sum(seconds.values()),
        submitted=submitted,
        session_cpu=sum(sum(one["cpu_seconds"].values()) for one in houses.values()),
        simulated_cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        bytes_sent={party: sum(one["bytes_sent"].values()) for party, one in houses.items()},
        messages={party: one["messages"] for party, one in houses.items()},
    )


def show(compared: Sequence[Compared]) -> None:
    """The tables: times of each run, then what each party sent."""
    console = Console(width=132)
    times = Table(title="Between houses and simulated", title_justify="left")
    for name in ("run", "AUC", "as simulated"):
        times.add_column(name, justify="right" if name == "AUC" else "left")
    numbers = (
        "session s",
        "simulated s",
        "of it compared",
        "ratio",
        "CPU s houses",
        "CPU s simulated",
        "submit to end s",
    )
    for name in numbers:
        times.add_column(name, justify="right")
    sent = Table(title="Sent by each party, and messages it sent or received", title_justify="left")
    for name in ("run", "party", "MB", "messages"):
        sent.add_column(name, justify="right" if name in {"MB", "messages"} else "left")
    for one in compared:
        same = "[green]identical[/]" if one.identical else "[bold red]DIFFERENT[/]"
        ratio = f"[bold red]{one.ratio:.2f}[/]" if one.late else f"{one.ratio:.2f}"
        session, simulated, rest = (f"{seconds:.1f}" for seconds in (one.session, one.simulated, one.compared))
        costs = (f"{seconds:.1f}" for seconds in (one.session_cpu, one.simulated_cpu, one.submitted))
        times.add_row(one.name, f"{one.auc:.4f}", same, session, simulated, rest, ratio, *costs)
        for number, (party, amount) in enumerate(one.bytes_sent.items()):
            sent.add_row("" if number else one.name, party, f"{amount / 1e6:.2f}", str(one.messages[party]))
    console.print(times)
    console.print(sent)
    for one in compared:
        for difference in one.differences:
            console.print(f"[bold red]{one.name} differs: {difference}[/]")
        if one.late:
            text = f"{one.name}: a session of {one.session:.1f} s is {one.ratio:.2f} times its simulation"
            console.print(f"[bold red]{text}, at most {LIMIT:g} is right[/]")


def submit_and_wait(config: Path, data: str, operator: Path) -> tuple[str, float]:
    """One run from its submission to its end; its name and the seconds it took."""
    started = time.perf_counter()
    answer = json.loads(command("fedcredit", "run", "submit", config, "--data", data, "--home", operator, "--json"))
    run = str(answer["run"])
    command("fedcredit", "run", "watch", run, "--home", operator, quiet=False)
    return run, time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for homes and results; by default one that is removed")
    parser.add_argument("--runs", nargs="+", choices=RUNS, help="by default those whose data are here")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then, too
    taiwan = bool(os.environ.get("FEDCREDIT_DATA"))
    names = given.runs or [name for name in RUNS if taiwan or not name.startswith("taiwan")]
    out = given.out or Path(tempfile.mkdtemp(prefix="fedcredit-consortium-"))
    out.mkdir(parents=True, exist_ok=True)
    file, nodes = consortium_file(out, with_taiwan=taiwan)
    homes = out / "homes"
    print(command("fedcredit", "provision", file, "--out", homes, "--local"), end="")
    compared = []
    try:
        command("fedcredit-coordinator", "start", "--home", homes / "coordinator", quiet=False)
        for node in nodes:
            command("fedcredit-node", "start", "--home", homes / node, quiet=False)
        for name in names:
            config = ROOT / "configs/simulations" / RUNS[name][0]
            run, seconds = submit_and_wait(config, RUNS[name][1], homes / "operations")
            compared.append(compare(name, config, homes, run, seconds))
    finally:
        for node in nodes:
            subprocess.run([BIN / "fedcredit-node", "stop", "--home", homes / node], check=False)
        subprocess.run([BIN / "fedcredit-coordinator", "stop", "--home", homes / "coordinator"], check=False)
    show(compared)
    good = bool(compared) and all(one.identical and not one.late for one in compared)
    if given.out is None and good:
        shutil.rmtree(out)
    else:
        print(f"everything is in {out}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
