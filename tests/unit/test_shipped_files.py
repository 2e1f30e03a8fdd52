"""Catalogues, configurations and consortia that come with the program are found by name from anywhere."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fedcredit.catalog.load import load_catalog
from fedcredit.cli import main
from fedcredit.errors import SpecError
from fedcredit.runtime.provision.spec import load_consortium
from fedcredit.shipped import Kind, known_file, named_file, shipped_files
from fedcredit.spec.load import load_spec

ROOT = Path(__file__).parents[2]
KINDS: tuple[Kind, ...] = ("catalog", "simulations", "consortium")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_all_files_of_the_source_tree_are_shipped(kind: Kind) -> None:
    assert {path.name for path in shipped_files(kind).values()} == {
        path.name for path in (ROOT / "configs" / kind).glob("*.toml")
    }


def test_every_file_that_is_shipped_can_be_read(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDCREDIT_DISTRICT", str(elsewhere))
    for path in shipped_files("catalog").values():
        load_catalog(path)
    for path in shipped_files("simulations").values():
        load_spec(path)
    for path in shipped_files("consortium").values():
        load_consortium(path)


def test_no_shipped_configuration_needs_the_folder_of_the_project() -> None:
    for kind in KINDS:
        for path in shipped_files(kind).values():
            assert "../" not in path.read_text("utf-8"), path.name


def test_commands_take_names(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "show", "gas"]) == 0
    assert main(["spec", "digest", "demo"]) == 0
    by_name = capsys.readouterr().out.splitlines()[-1]
    assert main(["spec", "digest", str(ROOT / "configs/simulations/demo.toml")]) == 0
    assert capsys.readouterr().out.strip() == by_name
    assert main(["provision", "credit_data", "--out", "trial", "--local"]) == 0
    assert (elsewhere / "trial" / "bank" / "node.toml").is_file()


def test_a_file_of_ones_own_goes_before_a_shipped_one(elsewhere: Path) -> None:
    (elsewhere / "demo").touch()
    assert named_file("simulations", "demo") == Path("demo")
    assert named_file("simulations", "demo.toml") == Path("demo.toml")
    assert named_file("simulations", "credit_data_boost").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_name_is_one_line_with_the_nearest(kind: Kind) -> None:
    right = next(iter(shipped_files(kind)))
    with pytest.raises(SpecError) as of_a_command:
        named_file(kind, f"{right}x")
    with pytest.raises(SpecError) as of_a_key:
        known_file(kind, f"known:{right}x", Path())
    for line in (str(of_a_command.value), str(of_a_key.value)):
        assert f'"{right}"' in line
        assert "\n" not in line


def test_places_of_keys_are_names_or_relative_to_their_file(tmp_path: Path) -> None:
    assert known_file("catalog", "mine.toml", tmp_path) == tmp_path / "mine.toml"
    assert known_file("catalog", "known:bank", tmp_path) == shipped_files("catalog")["bank"]


@pytest.mark.slow
def test_a_wheel_holds_the_files_themselves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in tracked.split("\0")[:-1]:
        if name.startswith(("fedcredit/", "nodes/", "coordinator/", "configs/", "pyproject", "README", "LICENSE")):
            place = source / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                place.symlink_to((ROOT / name).readlink())
            elif (ROOT / name).is_file():
                place.write_bytes((ROOT / name).read_bytes())
    subprocess.run([*command, str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        for kind in KINDS:
            for path in shipped_files(kind).values():
                assert opened.read(f"fedcredit/shipped/{kind}/{path.name}") == path.read_bytes()
        names = set(opened.namelist())
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "fedcredit").rglob("LEAKAGE.md")} <= names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "fedcredit").rglob("*.j2")} <= names
