"""Small made-up consortia on disk, and one finished run of each kind that many tests look at."""

from __future__ import annotations

import asyncio
import copy
import selectors
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import tomli_w

from fedcredit.runtime import metering
from fedcredit.runtime.simulate import Simulation, simulate
from fedcredit.spec.load import load_spec

Sections = Mapping[str, Mapping[str, Any]]

HOLDERS = ("tax_office", "customs", "utility")  # not in alphabetical order on purpose
ENTROPY = b"\x11" * 32


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell that starts tests in the background has them ignore interrupts, which some of them send to themselves."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _Waits(selectors.SelectSelector):
    """Where a loop would sleep, its clock goes on instead; only what other threads do is waited for."""

    _LOOK = 1e-6  # seconds; so that time passes in a loop that only ever asks again

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(None if timeout is None else 0)
        self.now += self._LOOK if found else max(timeout or 0.0, self._LOOK)
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, waits: _Waits) -> None:
        super().__init__(waits)
        self._waits = waits

    def time(self) -> float:
        return self._waits.now


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time-outs of networks of one process pass at once and mean the same on a machine that is busy with other things.

    Steps of roles take no time at all, however long they compute; calling the fixture lets some seconds pass in one.
    Whatever happens, all that is awaited is over within half a minute of this time.
    """
    waits: list[_Waits] = []

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        waits.append(_Waits())
        try:
            with asyncio.Runner(loop_factory=lambda: _Loop(waits[-1])) as runner:
                return runner.run(main)
        finally:
            assert waits[-1].now < 30, f"it waited for {waits[-1].now:g} s"

    def pass_by(seconds: float) -> None:
        waits[-1].now += seconds

    clocks = SimpleNamespace(process_time=time.process_time, perf_counter=lambda: waits[-1].now if waits else 0.0)
    monkeypatch.setattr(asyncio, "run", run)
    monkeypatch.setattr(metering, "time", clocks)
    return pass_by


def _columns(rng: np.random.Generator, latent: np.ndarray[Any, Any], holder: int) -> dict[str, pl.Series]:
    """Numeric, categorical, partly missing, and coded columns that say something of the latent risk."""
    n = len(latent)
    turnover = 0.6 * latent + rng.normal(size=n)
    sector = np.digitize(0.5 * latent + rng.normal(size=n), [-0.8, 0.0, 0.8])
    delay = np.round(5 * (0.8 * latent + rng.normal(size=n)))
    delay[rng.random(n) < 0.10] = -77.0
    absent = rng.random(n) < np.where(latent > 0.5, 0.25, 0.10)
    arrears = pl.Series([None if gone else float(value) for gone, value in zip(absent, np.exp(turnover), strict=True)])
    return {
        f"turnover_{holder}": pl.Series(turnover.round(4)),
        f"sector_{holder}": pl.Series([f"s{code}" for code in sector]),
        f"delay_{holder}": pl.Series(delay),
        f"arrears_{holder}": arrears,
    }


def write_consortium(
    folder: Path,
    *,
    holders: Sequence[str] = HOLDERS[:2],
    rows: int = 1200,
    seed: int = 0,
    sections: Sections | None = None,
    parties: Sections | None = None,
    shuffle: int = 0,
) -> Path:
    """Writes each party's CSV and the configuration of a run over them.

    Args:
        folder: Where.
        holders: Names of the feature holders, in the order of the file.
        rows: Number of enterprises; each party lacks a few of them.
        seed: Of the made-up records.
        sections: Keys that replace those of the configuration.
        parties: Keys that replace those of a party.
        shuffle: Seed of the order of rows in each file; the records are the same.
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=rows)
    bad = (rng.random(rows) < 1 / (1 + np.exp(0.8 - 1.3 * latent))).astype(int)
    ids = [f"E{number:05d}" for number in rng.permutation(rows)]
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for place, party in enumerate(["bank", *holders]):
        columns = _columns(rng, latent, place)
        luck = rng.normal(size=rows).round(4)  # says nothing; used where a test lists it
        frame = pl.DataFrame({"id": ids, **({"bad": bad} if party == "bank" else {}), **columns, "luck": luck})
        frame = frame.filter(pl.Series(rng.random(rows) < 0.98))
        frame.sample(fraction=1.0, shuffle=True, seed=shuffle + place).write_csv(folder / f"{party}.csv")
        role = {"role": "label_holder", "label": "bad"} if party == "bank" else {"role": "feature_holder"}
        keys: dict[str, Any] = {"name": party, **role, "source": f"{party}.csv", "columns": list(columns)}
        keys["special"] = {f"delay_{place}": [-77]}
        if place == 1:
            keys["monotone"] = {f"turnover_{place}": "increasing", f"delay_{place}": "auto"}
        listed.append({**keys, **(parties or {}).get(party, {})})
    content: dict[str, Any] = {
        "run": {"name": "made-up", "mode": "simulation", "seed": 3},
        "split": {"test_fraction": 0.3, "seed": 1},
        "align": {"mode": "plain"},
        "party": listed,
        "bin": {"prebins": 8, "max_bins": 4, "min_goods": 10, "min_bads": 10, "min_prebin_rows": 40},
        "scorecard": {"min_iv": 0.0, "max_stability": 9.0},
        "privacy": {"enforce": False},
    }
    for section, replaced in copy.deepcopy(dict(sections or {})).items():
        content.setdefault(section, {}).update(replaced)
    config = folder / "run.toml"
    config.write_text(tomli_w.dumps(content), encoding="utf-8")
    return config


@pytest.fixture(scope="session")
def consortium() -> Callable[..., Path]:
    """`write_consortium`."""
    return write_consortium


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    """A finished, seeded run of a bank and two feature holders."""
    folder = tmp_path_factory.mktemp("small")
    config = write_consortium(folder, sections={"privacy": {"enforce": False}})
    return simulate(load_spec(config), folder / "out", entropy_seed=ENTROPY)
