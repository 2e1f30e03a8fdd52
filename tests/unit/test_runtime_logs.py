"""Logs: only named fields in their own forms, whatever is passed."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedcredit.errors import TransportError
from fedcredit.runtime.daemon.logs import Log, Logs, code_of, log_failure, route_libraries

RUN = "0123456789abcdef" * 2
# what a table holds: ids, amounts, dates, names; none may stand in a log however it is passed
VALUES = ("91310000MA1FL8XQ5T", "Acme Trading Ltd", "184230.75", "-77", "1999-01-31", "张三", "٣٤", "a@b.example", "")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    logs = Logs("node", tmp_path, party="bank", quiet=True)
    yield logs.log
    logs.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in (folder / "node.jsonl").read_text().splitlines()]


def test_a_line_has_its_fields(log: Log, tmp_path: Path) -> None:
    log.info("run.opened", run=RUN, state="running", code="policy.run", process="superlink")
    (line,) = lines(tmp_path)
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "run.opened",
        "level": "info",
        "party": "bank",
        "run": RUN,
        "state": "running",
        "code": "policy.run",
        "process": "superlink",
    }


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("field", ["event", "run", "code", "process", "state", "at", "time", "level", "amount", "text"])
def test_no_data_value_passes_in_any_field(log: Log, tmp_path: Path, field: str, value: str) -> None:
    if field == "event":
        log.info(value)
    else:
        log.warning("run.opened", **{field: value})
    text = (tmp_path / "node.jsonl").read_text()
    if value:
        assert value not in text
    (line,) = lines(tmp_path)
    if field not in {"time", "level"}:  # these two are set by the log itself
        assert line["dropped"] == 1
        assert line["event"] == ("dropped" if field == "event" else "run.opened")


@pytest.mark.parametrize("value", [184230.75, 3, True, None, ["x"], {"sales": 3}, b"bytes"])
def test_what_is_no_text_is_dropped(log: Log, tmp_path: Path, value: object) -> None:
    log.info("run.opened", code=value, sales=value)
    (line,) = lines(tmp_path)
    assert set(line) == {"event", "level", "party", "time", "dropped"}
    assert line["dropped"] == 2


def test_a_line_stays_one_line(log: Log, tmp_path: Path) -> None:
    log.info("run.opened\nrun.closed", code="a\nb")
    assert len((tmp_path / "node.jsonl").read_text().splitlines()) == 1


def test_an_error_is_its_code_and_places(log: Log, tmp_path: Path) -> None:
    for error in (TransportError("exchange.unreachable", "no 184230.75"), ValueError("id 91310000MA1FL8XQ5T")):
        try:
            raise error
        except (TransportError, ValueError) as caught:
            log_failure(log, "link.lost", caught, run=RUN)
    first, second = lines(tmp_path)
    assert (first["code"], second["code"]) == ("exchange.unreachable", "internal.valueerror")
    assert first["at"].startswith("test_runtime_logs.py:")
    assert first["level"] == "error"
    text = (tmp_path / "node.jsonl").read_text()
    assert "184230" not in text
    assert "91310000" not in text


def test_codes_of_errors() -> None:
    assert code_of(TransportError("a.b", "x")) == "a.b"
    assert code_of(KeyError("x")) == "internal.keyerror"


@pytest.fixture
def libraries() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = before


@pytest.mark.usefixtures("libraries")
def test_libraries_are_named_without_their_text(log: Log, tmp_path: Path) -> None:
    route_libraries(log)
    logging.getLogger("sqlalchemy.engine").warning("select %s", "91310000MA1FL8XQ5T")
    logging.getLogger("grpc").info("too low to matter")
    (line,) = lines(tmp_path)
    assert (line["event"], line["process"]) == ("library.message", "sqlalchemy.engine")
    assert "91310000" not in json.dumps(line)


def test_files_are_the_owners_and_limited(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.info("run.opened")
    assert stat.S_IMODE((tmp_path / "node.jsonl").stat().st_mode) == 0o600
    monkeypatch.setattr("fedcredit.runtime.daemon.logs._MAX_FILE", 1000)
    other = Logs("small", tmp_path, quiet=True)
    for _ in range(100):
        other.log.info("run.opened")
    other.close()
    sizes = [path.stat().st_size for path in tmp_path.glob("small.jsonl*")]
    assert len(sizes) == 6
    assert max(sizes) <= 1000


def test_standard_error_has_the_same_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = Logs("node", tmp_path)
    logs.log.warning("link.lost", code="exchange.unreachable")
    logs.close()
    assert json.loads(capsys.readouterr().err) == lines(tmp_path)[0]
