"""Dashboard and alerting rules speak of metrics and labels that the daemons really have, and of all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fedcredit.runtime.daemon.health import coordinator_metrics, node_metrics
from fedcredit.runtime.daemon.status import (
    CoordinatorStatus,
    ExchangeCounts,
    ExchangeView,
    LedgerView,
    NodeStatus,
    PeerView,
    ProcessView,
    TrafficView,
)

FOLDER = Path(__file__).parents[2] / "configs/consortium/monitoring"
OPERATORS = Path(__file__).parents[2] / "docs/operators.md"
yaml: Any = import_module("yaml")  # it has no types of its own

TARGET = {"member", "job", "instance"}
"""Labels that Prometheus puts on what it scrapes; `member` is given in prometheus.yaml."""
COMMON: dict[str, Any] = {
    "consortium": "north",
    "roster_version": 1,
    "roster_digest": "",
    "version": "1",
    "pid": 1,
    "started": "",
    "written": "",
    "missing": "",
    "certificate_seconds": 1.0,
    "processes": [ProcessView(name="proxy", running=True)],
}
COORDINATOR = CoordinatorStatus(
    party="coordinator",
    address="",
    nodes=["bank"],
    parties=[PeerView(party="bank", run="0" * 32, connected=True, since="")],
    exchange=ExchangeCounts(runs=1, queue_bytes=1),
    operators_refused=0,
    runs={},
    **COMMON,
)
NODE = NodeStatus(
    party="bank",
    exchange=ExchangeView(address="", reachable=True, since=""),
    runs={"proposed": 1},
    ledger=[LedgerView(counterparty="tax_office", account="equations", used=1, cap=2)],
    traffic=[TrafficView(protocol="bin", party="tax_office", messages=1, bytes=1)],
    stage_seconds={"bin": 1.0},
    **COMMON,
)


def metrics() -> dict[str, set[str]]:
    """Names as they are scraped, and their labels."""
    found: dict[str, set[str]] = {}
    for family in (*coordinator_metrics(COORDINATOR), *node_metrics(NODE)):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
    return loaded


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text("utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expressions() -> Iterator[tuple[str, str, str]]:
    """Where, what is asked, and the text that names labels of the answer."""
    for rule in rules():
        yield rule["alert"], rule["expr"], " ".join(rule["annotations"].values()).replace("$labels.", "")
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "asked", "text"), EXPRESSIONS, ids=[one[0] for one in EXPRESSIONS])
def test_what_is_asked_for_is_there(where: str, asked: str, text: str) -> None:
    known = metrics() | {"up": set()}
    names = set(re.findall(r"\b(?:fedcredit_\w+|up)\b", re.sub(r'"[^"]*"', "", asked)))
    assert names, where
    assert names <= set(known), where
    labels = TARGET.union(*(known[name] for name in names))
    wanted = set(re.findall(r"(\w+)\s*=~?\s*\"", asked)) | set(re.findall(r"\{\{ ?(\w+) ?\}\}", text))
    wanted |= {one.strip() for group in re.findall(r"by \(([^)]*)\)", asked) for one in group.split(",")}
    assert wanted <= labels, where


def test_every_metric_is_on_the_dashboard_and_in_the_operators_guide() -> None:
    asked = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", []))
    shown = set(re.findall(r"\bfedcredit_\w+", asked))
    assert set(metrics()) - shown == set()
    listed = set(re.findall(r"`(fedcredit_\w+|…_\w+)`", OPERATORS.read_text("utf-8")))
    named = {one.replace("…_", "fedcredit_exchange_") for one in listed}
    assert set(metrics()) - named == {"fedcredit_build_info"}


def test_counters_are_asked_for_their_growth_and_gauges_are_not() -> None:
    for where, asked, _ in EXPRESSIONS:
        for function in re.findall(r"(?:rate|increase)\((\w+)", asked):
            assert function.endswith("_total"), where
    grown = [where for where, asked, _ in EXPRESSIONS if re.search(r"_total", asked) and "(" not in asked]
    assert grown == []


def test_panels_have_room_of_their_own() -> None:
    board = dashboard()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_says_what_to_do_and_has_a_test() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text("utf-8"))
    fired = {
        case["alertname"] for test in tests["tests"] for case in test["alert_rule_test"] if case["exp_alerts"] != []
    }
    quiet = {
        case["alertname"] for test in tests["tests"] for case in test["alert_rule_test"] if case["exp_alerts"] == []
    }
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    assert fired == quiet == set(names)
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "action"}
