"""What a whole run costs, and what of it encryption costs: seconds, CPU, memory, bytes of each shipped configuration.

Every configuration is run in its own process with each profile, one after the other. Ratios are to the run that
encrypts nothing: the same protocol, messages and checks, without ciphers.

usage: python benchmarks/simulate.py [--configs taiwan_scorecard,…] [--profiles rlwe-8192,bfv-8192]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PLAIN = "unsafe-plaintext"


def run(config: str, profile: str, folder: Path) -> dict[str, Any]:
    """Summary of one run in a fresh process."""
    command = [
        *(sys.executable, "-c", "import sys; from fedcredit.cli import main; sys.exit(main())"),
        *("simulate", str(ROOT / "configs" / "simulations" / f"{config}.toml")),
        *("--out", str(folder / f"{config}-{profile}"), "--set", f"crypto.profile={profile}", "--json"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{config} with {profile}: {done.stderr.strip()}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    local = ["credit_data_scorecard"]
    files = ["taiwan_scorecard", "sba_scorecard", "polish_scorecard"]
    parser.add_argument("--configs", default=",".join(local + (files if os.environ.get("FEDCREDIT_DATA") else [])))
    parser.add_argument("--profiles", default="rlwe-8192,bfv-8192")
    arguments = parser.parse_args()
    table = Table(title="whole runs, oracle and comparison included")
    for name in (
        "configuration",
        "profile",
        "s",
        "× plain",
        "protocol s",
        "× plain",
        "CPU s",
        "MB sent",
        "peak MB",
        "AUC",
    ):
        table.add_column(name, justify="left" if name in {"configuration", "profile"} else "right")
    with tempfile.TemporaryDirectory() as folder:
        for config in arguments.configs.split(","):
            plain = run(config, PLAIN, Path(folder))
            for profile in [PLAIN, *arguments.profiles.split(",")]:
                found = plain if profile == PLAIN else run(config, profile, Path(folder))
                table.add_row(*row(config, profile, found, plain))
    Console(width=max(Console().width, 130)).print(table)


def row(config: str, profile: str, found: dict[str, Any], plain: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""

    def protocol(summary: dict[str, Any]) -> float:
        return float(sum(summary["seconds"][key] for key in ("align", "bin", "train", "score")))

    total = found["seconds"]["total"]
    return (
        config,
        profile,
        f"{total:.1f}",
        f"{total / plain['seconds']['total']:.1f}",
        f"{protocol(found):.2f}",
        f"{protocol(found) / protocol(plain):.1f}",
        f"{sum(found['cpu_seconds'].values()):.1f}",
        f"{sum(found['bytes_sent'].values()) / 1e6:.1f}",
        f"{found['max_rss_mb']:.0f}",
        f"{found['auc_test']:.4f}",
    )


if __name__ == "__main__":
    main()
