"""Every protocol's LEAKAGE.md says what each role learns from every field it receives, and nothing else."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import fedcredit.protocol
import fedcredit.wire
from fedcredit.errors import SpecError
from fedcredit.wire.leakage import check_leakage, parse_leakage
from fedcredit.wire.notice import NOTICE_SCHEMA
from fedcredit.wire.schema import ProtocolSchema

ROOT = Path(fedcredit.protocol.__file__).parent
PROTOCOLS = sorted(path.parent.name for path in ROOT.glob("*/messages.py"))


def test_there_are_protocols() -> None:
    assert {"align", "bin", "group_sum", "scorecard"} <= set(PROTOCOLS)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_page_matches_the_messages(name: str) -> None:
    schema = importlib.import_module(f"fedcredit.protocol.{name}.messages").SCHEMA
    assert isinstance(schema, ProtocolSchema)
    assert schema.name == name
    check_leakage(parse_leakage((ROOT / name / "LEAKAGE.md").read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_page_without_its_last_row_would_fail(name: str) -> None:
    schema = importlib.import_module(f"fedcredit.protocol.{name}.messages").SCHEMA
    rows = parse_leakage((ROOT / name / "LEAKAGE.md").read_text(encoding="utf-8"))
    with pytest.raises(SpecError, match=rows[-1].field):
        check_leakage(rows[:-1], schema)


def test_the_page_of_the_messages_every_run_has_matches_them() -> None:
    page = (Path(fedcredit.wire.__file__).parent / "LEAKAGE.md").read_text(encoding="utf-8")
    rows = parse_leakage(page)
    check_leakage(rows, NOTICE_SCHEMA)
    with pytest.raises(SpecError, match=rows[-1].field):
        check_leakage(rows[:-1], NOTICE_SCHEMA)
