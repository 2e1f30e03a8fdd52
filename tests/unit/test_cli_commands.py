"""The command line: exit codes, one line of error, JSON, no colours where there is no terminal."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
from rich.console import Console

with warnings.catch_warnings():
    # typer before 0.21 imports names that click 8.5 deprecates
    warnings.filterwarnings("ignore", message="'click", category=DeprecationWarning)
    from typer.testing import CliRunner

    from fedcredit.cli import app, console, main

from fedcredit.data.known import known_sets
from fedcredit.errors import PeerError
from fedcredit.spec.load import parse_toml

DEMO = Path(__file__).parents[2] / "configs" / "simulations" / "demo.toml"
COMMANDS = [["data", "list"], ["data", "info", "german"], ["spec", "check"], ["spec", "show"], ["spec", "digest"]]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fedcredit 0.")


@pytest.mark.parametrize("arguments", [[], ["spec"], ["data"], ["spec", "check"], ["data", "info"]])
def test_help_teaches(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
    if not arguments:
        assert "fedcredit spec check configs/simulations/demo.toml" in result.output
    if len(arguments) == 2:
        assert "Example: fedcredit" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json(command: list[str]) -> None:
    arguments = [*command, str(DEMO)] if command[0] == "spec" else command
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)


def test_data_list_names_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in known_sets())
    assert "\x1b" not in out


def test_data_list_without_a_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("FEDCREDIT_DATA", raising=False)
    assert main(["data", "list"]) == 0
    assert "FEDCREDIT_DATA not set" in capsys.readouterr().out


def test_data_info_says_whether_the_checksum_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDCREDIT_DATA", str(tmp_path))
    assert main(["data", "info", "german"]) == 0
    assert "no file" in capsys.readouterr().out
    (tmp_path / "german.csv.gz").write_bytes(b"x")
    assert main(["data", "info", "german"]) == 0
    out = capsys.readouterr().out
    assert "CHECKSUM WRONG" in out
    assert "bad = 1" in out
    assert "duration_in_month" in out


def test_data_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FEDCREDIT_DATA", str(tmp_path))
    assert main(["data", "path", "german"]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "german.csv.gz").write_bytes(b"x")
    assert main(["data", "path", "german"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'german.csv.gz'}\n"


def test_spec_show_is_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", "show", str(DEMO), "--set", "bin.max_bins=5"]) == 0
    spec = parse_toml(capsys.readouterr().out)
    assert spec.bin.max_bins == 5
    assert main(["spec", "show", str(DEMO), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["run"] == {
        "name": "demo",
        "model": "scorecard",
        "mode": "simulation",
        "seed": 7,
        "on_missing": "stop",
    }
    assert set(tomllib.loads(DEMO.read_text("utf-8"))) <= set(shown)


def test_spec_digest_depends_on_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for arguments in ([], ["--set", "run.seed=8"], ["--set", "party.bank.source=x.csv"]):
        assert main(["spec", "digest", str(DEMO), *arguments]) == 0
        digests.append(capsys.readouterr().out.strip())
    assert digests[0] != digests[1]
    assert len(digests[0]) == 64
    assert digests[0] == digests[2]


def test_spec_check_reads_records_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bank.csv").write_text("id,y,a\n1,0,1\n2,1,2\n3,0,3\n4,0,4\n")
    (tmp_path / "tax.csv").write_text("id,b\n1,x\n2,y\n")
    config = tmp_path / "run.toml"
    config.write_text(
        '[run]\nname = "t"\nmode = "simulation"\n'
        '[[party]]\nname = "bank"\nrole = "label_holder"\nsource = "bank.csv"\nlabel = "y"\n'
        '[[party]]\nname = "tax"\nrole = "feature_holder"\nsource = "tax.csv"\n'
    )
    assert main(["spec", "check", str(config), "--data"]) == 0
    out = capsys.readouterr().out
    assert "right (t: scorecard, simulation, 2 parties)" in out
    assert "25.0 %" in out
    assert main(["spec", "check", str(config), "--data", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"]["tax"]["features"] == ["b"]
    assert report["data"]["bank"]["rows"] == 4
    assert main(["spec", "check", str(config), "--set", "party.tax.source=absent.csv"]) == 0
    assert main(["spec", "check", str(config), "--data", "--set", "party.tax.source=absent.csv"]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["spec", "check", "absent.toml"], "absent.toml: no such file"),
        (["spec", "check", str(DEMO), "--set", "bin.max_bin=3"], 'did you mean "max_bins"'),
        (["data", "info", "germany"], 'did you mean "german"'),
        (["spec", "check"], "Missing argument"),
        (["spec", "chek"], "No such command 'chek'"),
        (["spec", "check", str(DEMO), "--bla"], "No such option"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert part in captured.err
    assert captured.err.count("Did you mean") <= 1
    assert "\x1b" not in captured.err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "Usage" in captured.out + captured.err
    assert "error:" not in captured.err


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fedcredit.cli.spec.load_spec", fail)
    return main(["spec", "digest", str(DEMO)])


def test_protocol_failure_is_exit_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(monkeypatch, PeerError("peer.size", "tax_office: message\ntoo [bold]large", "inner")) == 3
    assert capsys.readouterr().err == "error: tax_office: message too [bold]large [peer.size]\n"


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(monkeypatch, KeyboardInterrupt()) == 130
    assert "error: interrupted" in capsys.readouterr().err


def test_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/summary.json")
    assert fail_with(monkeypatch, full) == 2
    assert capsys.readouterr().err == "error: no space left on the device: runs/summary.json; free some\n"


def test_other_system_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="odd"):
        fail_with(monkeypatch, OSError(errno.EIO, "odd"))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "red"), [("", True), ("1", False)])
def test_errors_are_red_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, no_color: str, red: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("NO_COLOR", no_color)
    assert isinstance(console.stderr(), Console)
    console.write_error("wrong")
    assert ("31m" in terminal.getvalue()) == red
    assert "wrong" in terminal.getvalue()


def test_a_command_loads_no_others() -> None:
    program = "import sys; from fedcredit.cli import main; main(['run', '--help']); print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines())
    assert "fedcredit.cli.run" in loaded
    assert not loaded & {"fedcredit.cli.audit", "fedcredit.cli.simulate", "matplotlib", "numba", "polars"}
