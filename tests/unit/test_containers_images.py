"""The Dockerfiles, read as text: what an image may be made of, whom it runs as, and what it starts."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fedcredit

ROOT = Path(__file__).parents[2]
FILES = {"fedcredit-node": ROOT / "nodes/Dockerfile", "fedcredit-coordinator": ROOT / "coordinator/Dockerfile"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {"fedcredit-node": ["deploy", "postgres"], "fedcredit-coordinator": ["deploy"]}

each_image = pytest.mark.parametrize("image", FILES)


def steps(path: Path) -> list[tuple[str, str]]:
    """Instructions and their arguments; continued lines joined, comments left out."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in joined.splitlines() if line.strip()]


def stages(path: Path) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {"": []}
    for name, words in steps(path):
        if name == "FROM":
            found[words.split(" AS ")[1]] = [(name, words)]
        else:
            found[list(found)[-1]].append((name, words))
    return found


def last(path: Path) -> list[tuple[str, str]]:
    return list(stages(path).values())[-1]


def only(image: str, name: str) -> str:
    values = [words for step, words in last(FILES[image]) if step == name]
    assert len(values) == 1, f"{image}: {name} stands {len(values)} times"
    return values[0]


def variables(image: str) -> dict[str, str]:
    return dict(re.findall(r"([A-Z_]+)=(\S+)", only(image, "ENV")))


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    return {str(canonicalize_name(line.split("==")[0])): line.split("==")[1] for line in lines}


def closure(extras: list[str]) -> dict[str, Distribution]:
    """What an installation with these extras consists of, read from the metadata of what is installed here."""
    wanted = [Requirement(one) for one in PROJECT["dependencies"]]
    wanted += [Requirement(one) for extra in extras for one in PROJECT["optional-dependencies"][extra]]
    found: dict[str, Distribution] = {}
    while wanted:
        one = wanted.pop()
        name = str(canonicalize_name(one.name))
        if name in found and not one.extras:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is wanted by the image and not installed here")
        for text in found[name].requires or []:
            inner = Requirement(text)
            markers = [{"extra": extra} for extra in ("", *one.extras)]
            if inner.marker is None or any(inner.marker.evaluate(marker) for marker in markers):
                wanted.append(inner)
    return found


def test_the_two_files_share_all_stages_but_the_last() -> None:
    node, coordinator = (stages(path) for path in FILES.values())
    assert list(node) == list(coordinator) == ["", "os", "system", "build", "sbom", "image"]
    different = []
    for name in ("", "os", "system", "build", "sbom"):
        for ours, theirs in zip(node[name], coordinator[name], strict=True):
            if ours != theirs:
                different.append((ours[1], theirs[1]))
    assert different == [
        ('SYSTEM_PACKAGES=""', 'SYSTEM_PACKAGES="nginx libnginx-mod-stream"'),
        ("EXTRAS=deploy,postgres", "EXTRAS=deploy"),
        ("IMAGE=fedcredit-node", "IMAGE=fedcredit-coordinator"),
    ]
    fixed = ("ENV", "USER", "WORKDIR", "HEALTHCHECK", "COPY", "CMD", "ARG")
    same = [[one for one in file["image"] if one[0] in fixed] for file in (node, coordinator)]
    assert same[0] == same[1]


@each_image
def test_nothing_comes_from_elsewhere(image: str) -> None:
    known = ["${BASE}", "os", "system", "build"]
    for name, words in steps(FILES[image]):
        if name == "FROM":
            assert words.split(" AS ")[0] in known
        assert name != "ADD"
        assert not re.search(r"\b(curl|wget|git clone)\b", words)
        assert not re.search(r"https?://", words)
    base = next(words for name, words in stages(FILES[image])[""] if name == "ARG")
    assert re.fullmatch(r"BASE=docker\.io/library/debian:bookworm-slim(@sha256:[0-9a-f]{64})?", base)


@each_image
def test_the_last_stage_runs_no_command_and_holds_no_build_tool(image: str) -> None:
    names = [name for name, _ in last(FILES[image])]
    assert "RUN" not in names
    parts = [*stages(FILES[image])["os"], *stages(FILES[image])["system"]]
    installed = " ".join(words for name, words in parts if name == "RUN")
    packages = re.findall(r"--no-install-recommends ([^&;]*)[&;]", installed)
    assert [one.split() for one in packages] == [["python3", "tini"], ["${SYSTEM_PACKAGES}"]]
    assert "chmod a-s" in installed, "programs that run as root for others stay in the image"
    build = " ".join(words for _, words in stages(FILES[image])["build"])
    assert "--without-pip" in build
    assert re.search(r"uninstall --yes uv\b", build)
    assert "--only-binary=:all:" in build, "a package could be compiled from source"


@each_image
def test_secrets_of_the_build_are_mounted_not_copied(image: str) -> None:
    for name, words in steps(FILES[image]):
        if name == "RUN" and re.search(r"pip (wheel|install)", words) and "--no-index" not in words:
            assert words.startswith("--mount=type=secret,id=pip,target=/etc/pip.conf")
        if name in {"ARG", "ENV"}:
            assert not re.search(r"TOKEN|PASSWORD|INDEX_URL|SECRET", words.upper())
        if name == "COPY":
            assert "pip.conf" not in words


@each_image
def test_nobody_in_the_container_is_root(image: str) -> None:
    user = re.fullmatch(r"(\d+):(\d+)", only(image, "USER"))
    assert user is not None, "numbers, so that Kubernetes can see that it is not root"
    assert int(user[1]) >= 10000
    assert int(user[2]) >= 10000


@each_image
def test_it_starts_a_command_of_the_project_without_a_shell(image: str) -> None:
    entry, command = json.loads(only(image, "ENTRYPOINT")), json.loads(only(image, "CMD"))
    assert entry == ["/usr/bin/tini", "--", f"/opt/fedcredit/bin/{image}"]
    assert image in PROJECT["scripts"]
    assert command == ["serve", "--home", "/var/lib/fedcredit"]
    assert "SHELL" not in [name for name, _ in last(FILES[image])]


@each_image
def test_the_health_check_needs_no_shell(image: str) -> None:
    options, check = only(image, "HEALTHCHECK").split("CMD ")
    assert json.loads(check) == ["/opt/fedcredit/bin/python", "-I", "/opt/fedcredit/probe.py", "readyz"]
    assert "COPY configs/consortium/probe.py /opt/fedcredit/probe.py" in [" ".join(one) for one in last(FILES[image])]
    assert dict(re.findall(r"--([a-z-]+)=(\d+)", options)) == {
        "interval": "15",
        "timeout": "6",
        "start-period": "90",
        "retries": "4",
    }


@each_image
def test_nothing_phones_home_and_nothing_is_written_into_the_image(image: str) -> None:
    given = variables(image)
    wanted = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
    }
    assert wanted.items() <= given.items()
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        assert given[name].startswith(("/var/lib/fedcredit/", "/tmp/")), name


@each_image
def test_labels_tell_the_version_of_the_package(image: str) -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', only(image, "LABEL")))
    assert labels["version"] == fedcredit.__version__
    assert labels["title"] == image
    assert labels["licenses"] == PROJECT["license"]
    assert set(labels) == {"title", "description", "licenses", "version", "revision", "created"}


@each_image
def test_every_package_of_the_image_is_pinned_and_is_what_is_tested_here(image: str) -> None:
    extras = next(words for name, words in stages(FILES[image])["build"] if name == "ARG" and "EXTRAS" in words)
    assert extras == f"EXTRAS={','.join(EXTRAS[image])}"
    build = " ".join(words for _, words in stages(FILES[image])["build"])
    assert build.count("--constraint constraints.txt") == 2
    found, versions = closure(EXTRAS[image]), pinned()
    assert len(found) > 50
    assert "torch" not in found
    assert {name: versions.get(name) for name in found} == {name: one.version for name, one in found.items()}


def test_the_builder_sees_what_is_listed_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    shown = {line[1:] for line in lines if line.startswith("!")}
    assert {"**/*.key", "**/*.pem"} <= set(lines)
    copied = set()
    for path in FILES.values():
        for name, words in steps(path):
            if name == "COPY" and not words.startswith("--from="):
                copied |= set(words.split()[:-1])
    assert all(any(one == show or one.startswith(f"{show}/") for show in shown) for one in copied)
    assert all((ROOT / one).exists() for one in copied)
    assert shown - copied <= {"configs", "configs/consortium"}, "what is shown to the builder is used by it"


def test_the_tools_of_the_bill_of_materials_are_pinned() -> None:
    lines = (ROOT / "configs/consortium/sbom.txt").read_text("utf-8").splitlines()[1:]
    assert "cyclonedx-bom" in {line.split("==")[0] for line in lines}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
