"""fedcredit request, provision, pin and doctor on the command line."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    from fedcredit.cli import main

from fedcredit.runtime.house.home import open_home

CONFIGS = Path(__file__).parents[2] / "configs" / "consortium"
EXAMPLE, TRIAL = str(CONFIGS / "example.toml"), str(CONFIGS / "credit_data.toml")
Output = pytest.CaptureFixture[str]


def run(capsys: Output, *arguments: str, code: int = 0) -> str:
    """What a command writes on standard output, or on standard error if it fails."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def test_a_consortium_from_the_command_line(tmp_path: Path, capsys: Output) -> None:
    requests, out = tmp_path / "requests", tmp_path / "out"
    requests.mkdir()
    for name, kind in (("bank", "node"), ("coordinator", "coordinator"), ("operations", "operator")):
        shown = run(capsys, "request", "--name", name, "--kind", kind, "--out", str(tmp_path / name))
        assert "send to the operator" in shown
        shutil.copy(tmp_path / name / f"{name}.request.json", requests)
    assert main(["provision", EXAMPLE, "--out", str(out), "--requests", str(requests)]) == 0
    shown, notes = capsys.readouterr()
    assert "bank: added" in shown
    assert "COMPARE BY TELEPHONE" in shown
    assert "no request yet of tax_office, utility" in notes
    assert "back up" in notes
    done = json.loads(run(capsys, "provision", EXAMPLE, "--out", str(out), "--requests", str(requests), "--json"))
    assert done["changes"] == []
    fingerprint = done["fingerprint"]
    assert main(["pin", str(out / "bank"), "--home", str(tmp_path / "bank")]) == 0
    shown, notes = capsys.readouterr()
    assert fingerprint in shown
    assert "was not compared" in notes
    pinned = json.loads(
        run(
            capsys,
            "pin",
            str(out / "operations"),
            "--home",
            str(tmp_path / "operations"),
            "--fingerprint",
            fingerprint.replace(" ", "-"),
            "--json",
        )
    )
    assert pinned["compared"]
    assert open_home(tmp_path / "bank").roster.version == 1
    wrong = run(
        capsys,
        "pin",
        str(out / "coordinator"),
        "--home",
        str(tmp_path / "coordinator"),
        "--fingerprint",
        "12345",
        code=3,
    )
    assert "not the one given" in wrong


def test_rotation_and_revocation(tmp_path: Path, capsys: Output) -> None:
    requests, out = tmp_path / "requests", tmp_path / "out"
    requests.mkdir()

    def ask(name: str, kind: str, *more: str) -> dict[str, object]:
        made = json.loads(
            run(capsys, "request", "--name", name, "--kind", kind, "--out", str(tmp_path / name), "--json", *more)
        )
        shutil.copy(str(made["request"]), requests)
        return dict(made)

    first = ask("bank", "node")
    ask("coordinator", "coordinator")
    run(capsys, "provision", EXAMPLE, "--out", str(out), "--requests", str(requests))
    run(capsys, "pin", str(out / "bank"), "--home", str(tmp_path / "bank"))
    assert ask("bank", "node", "--rotate")["fingerprint"] != first["fingerprint"]
    assert "bank: keys changed" in run(capsys, "provision", EXAMPLE, "--out", str(out), "--requests", str(requests))
    assert "with the new keys" in run(capsys, "pin", str(out / "bank"), "--home", str(tmp_path / "bank"))
    assert "bank: revoked" in run(capsys, "provision", EXAMPLE, "--out", str(out), "--revoke", "bank")
    assert "renewed" in run(capsys, "provision", EXAMPLE, "--out", str(out), "--renew")


def test_a_trial_is_loud(tmp_path: Path, capsys: Output) -> None:
    assert main(["provision", TRIAL, "--out", str(tmp_path), "--local"]) == 0
    shown, notes = capsys.readouterr()
    assert "TRIAL ONLY" in notes
    assert str(tmp_path / "bank") in shown
    again = json.loads(run(capsys, "provision", TRIAL, "--out", str(tmp_path), "--local", "--json"))
    assert set(again["homes"]) == {"bank", "coordinator", "operations", "tax_office", "utility"}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["provision", TRIAL, "--local", "--renew"], 2, "--local stands alone"),
        (["provision", EXAMPLE, "--local"], 2, "set trial = true"),
        (["provision", EXAMPLE, "--requests", "none"], 2, "no such folder"),
        (["provision", EXAMPLE], 2, "no request of the coordinator"),
        (["provision", "none.toml"], 2, "cannot be read"),
        (["provision", TRIAL, "--revok", "x"], 2, "No such option"),
    ],
)
def test_wrong_command_lines(tmp_path: Path, capsys: Output, arguments: list[str], code: int, text: str) -> None:
    assert text in run(capsys, *arguments, "--out", str(tmp_path / "out"), code=code)


def test_a_kind_that_is_none(tmp_path: Path, capsys: Output) -> None:
    shown = run(capsys, "request", "--name", "bank", "--kind", "nod", "--out", str(tmp_path), code=2)
    assert 'did you mean "node"' in shown


def test_the_doctor(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDCREDIT_HOME", raising=False)
    assert "python" in run(capsys, "doctor")
    run(capsys, "provision", TRIAL, "--out", str(tmp_path), "--local")
    home = str(tmp_path / "operations")
    shown = run(capsys, "doctor", "--home", home, "--offline")
    assert "left out by --offline" in shown
    assert "\x1b" not in shown
    monkeypatch.setenv("FEDCREDIT_HOME", home)
    found = json.loads(run(capsys, "doctor", "--offline", "--json"))
    assert (found["status"], found["home"]) == ("warn", home)
    assert {"python", "packages", "telemetry", "clock", "home", "certificate"} <= {
        one["check"] for one in found["checks"]
    }
    (tmp_path / "operations" / "certificate.pem").unlink()
    assert main(["doctor", "--home", home, "--offline", "--json"]) == 2
    broken = json.loads(capsys.readouterr().out)
    assert broken["status"] == "fail"
    assert broken["checks"][-1] == {
        "check": "the rest",
        "status": "not checked",
        "found": "certificate, folders, disk, sqlite, ports, lines, data and policy",
        "remedy": "first mend the home",
    }


def test_the_doctor_opens_the_records(tmp_path: Path, capsys: Output) -> None:
    run(capsys, "provision", TRIAL, "--out", str(tmp_path), "--local")
    shown = run(capsys, "doctor", "--home", str(tmp_path / "bank"), "--offline")
    assert "4,454 rows, 15 columns" in shown


@pytest.mark.parametrize("command", ["request", "provision", "pin", "doctor"])
def test_help_has_an_example(command: str, capsys: Output) -> None:
    assert "Example" in run(capsys, command, "--help")
