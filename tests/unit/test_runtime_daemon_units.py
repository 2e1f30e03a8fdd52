"""The systemd units: hardened, in step with the commands, and right in systemd's own eyes where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import coordinator.cli
import nodes.cli

FOLDER = Path(__file__).parents[2] / "configs" / "consortium" / "systemd"
NAMES = ("fedcredit-node", "fedcredit-coordinator")
HARDENED = {
    "DynamicUser": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "NoNewPrivileges": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "StateDirectoryMode": "0700",
    "UMask": "0077",
    "LimitCORE": "0",
}


def directives(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (FOLDER / f"{name}.service").read_text("utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_units_are_hardened_and_write_to_their_home_alone(name: str) -> None:
    unit = directives(name)
    for key, value in HARDENED.items():
        assert unit[key] == [value], key
    assert unit["ReadWritePaths"] == [f"/var/lib/{name}"]
    assert unit["StateDirectory"] == unit["User"] == [name]
    assert unit["Environment"] == [f"FEDCREDIT_HOME=/var/lib/{name}"]
    assert unit["SystemCallFilter"][0] == "@system-service"


@pytest.mark.parametrize("name", NAMES)
def test_units_start_what_there_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = directives(name)["ExecStart"]
    program, verb, *options = command.split()
    assert Path(program).name == name
    main = nodes.cli.main if name.endswith("node") else coordinator.cli.main
    assert main([verb, "--help"]) == 0
    told = capsys.readouterr().out
    assert all(option in told for option in options)
    assert directives(name)["Type"] == ["notify"]


@pytest.mark.parametrize("name", NAMES)
def test_systemd_takes_them(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("NOT TESTED: systemd-analyze is not installed")
    text = (FOLDER / f"{name}.service").read_text("utf-8")
    unit = tmp_path / f"{name}.service"
    unit.write_text(text.replace(f"/opt/fedcredit/bin/{name}", sys.executable), "utf-8")
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rated = subprocess.run(
        [analyze, "security", "--offline=yes", "--no-pager", str(unit)], capture_output=True, text=True, check=False
    )
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", rated.stdout)
    assert exposure is not None, rated.stderr
    assert float(exposure[1]) <= 2.0
