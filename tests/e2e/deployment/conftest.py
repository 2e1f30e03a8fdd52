"""Trial consortia whose houses are processes, and the table of faults that they are put to."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from fedcredit.runtime.house.home import open_home
from fedcredit.runtime.provision.consortium import provision_local
from fedcredit.runtime.provision.spec import load_consortium
from fedcredit.spec.load import LoadedSpec, load_spec
from fedcredit.spec.model import PartySection

if TYPE_CHECKING:
    from tests.e2e.deployment import fault_bench, house_bench
else:
    sys.path.append(str(Path(__file__).parent))
    import fault_bench
    import house_bench

TABLE_FILE = "FEDCREDIT_FAULT_TABLE"
"""Environment variable: file for the table of faults, in Markdown."""


@pytest.fixture(scope="session")
def nursery() -> Iterator[house_bench.Nursery]:
    """Starts processes fast."""
    made = house_bench.Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def found_houses(consortium: Callable[..., Path], nursery: house_bench.Nursery) -> Callable[..., house_bench.Houses]:
    """Makes a trial consortium in a folder, over made-up records or over those of a configuration."""

    def make(
        folder: Path,
        config: Path | None = None,
        *,
        exchange: str = "",
        node: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        others: Sequence[str] = (),
        **options: Any,
    ) -> house_bench.Houses:
        loaded = load_spec(config or consortium(folder / "records", **{"rows": 400, **options}))
        members = [
            {"name": party.name, "role": str(party.role), "data": {"records": _records(party, loaded)}}
            for party in loaded.spec.party
        ]
        content = {
            "name": "made-up",
            "trial": True,
            "local": {"mode": loaded.spec.run.mode},
            "coordinator": {
                "exchange": exchange or f"127.0.0.1:{house_bench.free_port()}",
                "fleet": "127.0.0.1:9",
            },
            "member": [
                *members,
                *({"name": name, "role": "feature_holder"} for name in others),
                {"name": "operations", "kind": "operator"},
            ],
        }
        (folder / "consortium.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
        folders = provision_local(load_consortium(folder / "consortium.toml"), folder / "homes")
        for party in loaded.spec.parties:
            _change(folders[party] / "policy.toml", {"enforce": loaded.spec.privacy.enforce, **(policy or {})})
            _change(folders[party] / "node.toml", dict(node or {}))
        homes = {name: open_home(home) for name, home in folders.items()}
        return house_bench.Houses(folder, homes, loaded, nursery)

    return make


@pytest.fixture
def houses(
    tmp_path: Path, found_houses: Callable[..., house_bench.Houses]
) -> Iterator[Callable[..., house_bench.Houses]]:
    """Makes a trial consortium for one test."""
    made: list[house_bench.Houses] = []

    def make(config: Path | None = None, **options: Any) -> house_bench.Houses:
        made.append(found_houses(tmp_path, config, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture(scope="session")
def benches(
    tmp_path_factory: pytest.TempPathFactory, found_houses: Callable[..., house_bench.Houses]
) -> Iterator[Callable[..., fault_bench.Bench]]:
    """Makes benches: a consortium each, whose exchange runs, with a simulation and an undisturbed run to compare to."""
    made: dict[str, fault_bench.Bench] = {}

    def make(name: str, **options: Any) -> fault_bench.Bench:
        if name not in made:
            made[name] = fault_bench.Bench(found_houses(tmp_path_factory.mktemp(name), **options))
        return made[name]

    yield make
    for one in made.values():
        one.houses.end()


@pytest.fixture
def row(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Writes a row of the table: fault, stage, what happened, seconds, whether the model is identical."""

    def write(fault: str, stage: str, happened: str, seconds: float | None, identical: str) -> None:
        shown = "–" if seconds is None else f"{seconds:.1f}"
        record_property("fault", (fault, stage, happened, shown, identical))

    return write


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Shows the table, and writes it where the environment says."""
    found = [
        (report.location[:2], value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "fault"
    ]
    rows = [value for _, value in sorted(found, key=lambda one: one[0])]  # several processes may have run them
    if not rows:
        return
    lines = fault_bench.markdown(rows)
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
    if TABLE_FILE in os.environ:
        Path(os.environ[TABLE_FILE]).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _source(source: str, loaded: LoadedSpec) -> str:
    return source if source.startswith(("known:", "$")) or "://" in source else str(loaded.base / source)


def _records(party: PartySection, loaded: LoadedSpec) -> dict[str, str]:
    """A house's records as the configuration has them, with its catalogue and the run's register."""
    places = {"source": party.source, "catalog": party.catalog, "registry": loaded.spec.align.registry}
    return {key: _source(place, loaded) for key, place in places.items() if place is not None}


def _change(path: Path, changes: Mapping[str, Any]) -> None:
    content = tomllib.loads(path.read_text("utf-8"))
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
