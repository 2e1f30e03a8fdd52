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
FILE = ROOT / "Dockerfile"
IMAGES = {"fedcredit-node": "node", "fedcredit-coordinator": "coordinator"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {"fedcredit-node": ["deploy", "postgres"], "fedcredit-coordinator": ["deploy"]}

each_image = pytest.mark.parametrize("image", IMAGES)


def steps(path: Path = FILE) -> list[tuple[str, str]]:
    """Instructions and their arguments; continued lines joined, comments left out."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in joined.splitlines() if line.strip()]


def stages(path: Path = FILE) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {"": []}
    for name, words in steps(path):
        if name == "FROM":
            found[words.split(" AS ")[1]] = [(name, words)]
        else:
            found[list(found)[-1]].append((name, words))
    return found


def lineage(image: str) -> list[str]:
    """Stages that an image grows from, the first one first."""
    names, found = [IMAGES[image]], stages()
    while (before := found[names[0]][0][1].split(" AS ")[0]) in found:
        names.insert(0, before)
    return names


def last(image: str) -> list[tuple[str, str]]:
    return stages()[IMAGES[image]]


def only(image: str, name: str) -> str:
    found = stages()
    values = [words for stage in lineage(image) for step, words in found[stage] if step == name]
    assert len(values) == 1, f"{image}: {name} stands {len(values)} times"
    return values[0]


def labels(image: str) -> dict[str, str]:
    found = stages()
    words = " ".join(words for stage in lineage(image) for step, words in found[stage] if step == "LABEL")
    return dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', words))


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


def test_what_each_image_grows_from() -> None:
    assert lineage("fedcredit-node") == ["os", "member", "node-os", "node"]
    assert lineage("fedcredit-coordinator") == ["os", "member", "coordinator-os", "coordinator"]
    assert list(stages())[-1] == "node", "built where no target is named"
    shared = ("USER", "CMD")
    node, coordinator = ([one for one in last(image) if one[0] in shared] for image in IMAGES)
    assert node == coordinator


def test_nothing_comes_from_elsewhere() -> None:
    known = {"${BASE}", "scratch", *stages()}
    for name, words in steps():
        if name == "FROM":
            assert words.split(" AS ")[0] in known
        assert name != "ADD"
        assert not re.search(r"\b(curl|wget|git clone)\b", words)
        assert not re.search(r"https?://", words)
    base = next(words for name, words in stages()[""] if name == "ARG")
    assert re.fullmatch(r"BASE=docker\.io/library/debian:bookworm-slim(@sha256:[0-9a-f]{64})?", base)


@each_image
def test_the_last_stage_runs_no_command_and_holds_no_build_tool(image: str) -> None:
    found = stages()
    assert "RUN" not in [name for name, _ in last(image)]
    parts = [words for stage in lineage(image) for name, words in found[stage] if name == "RUN"]
    packages = re.findall(r"--no-install-recommends ([^&;]*)[&;]", " ".join(parts))
    more = [["nginx", "libnginx-mod-stream"]] if image == "fedcredit-coordinator" else []
    assert [one.split() for one in packages] == [["python3", "tini"], *more]
    assert "chmod a-s" in parts[-1], "programs that run as root for others stay in the image"
    copied = [words for name, words in last(image) if name == "COPY"]
    assert copied == [
        f"--from={IMAGES[image]}-parts /opt/fedcredit /opt/fedcredit",
        f"--from={IMAGES[image]}-parts /sbom /usr/share/doc/fedcredit",
        "configs/consortium/probe.py /opt/fedcredit/probe.py",
    ]


def test_the_environment_has_no_installer_and_nothing_is_compiled() -> None:
    script = (ROOT / "configs/consortium/assemble.sh").read_text("utf-8")
    assert "--without-pip" in script
    assert re.search(r"uninstall --yes uv\b", script)
    assert "--no-index" in script
    build = [words for _, words in stages()["build"] if re.search(r"pip (wheel|install)", words)]
    for words in build:
        assert "--only-binary=:all:" in words or "--no-deps" in words, "a package could be compiled from source"


def test_secrets_of_the_build_are_mounted_not_copied() -> None:
    asked = 0
    for name, words in steps():
        if name == "RUN" and re.search(r"pip (wheel|install)", words):
            assert words.startswith("--mount=type=secret,id=pip,target=/etc/pip.conf")
            asked += 1
        if name in {"ARG", "ENV"}:
            assert not re.search(r"TOKEN|PASSWORD|INDEX_URL|SECRET", words.upper())
        if name == "COPY":
            assert "pip.conf" not in words
    assert asked == 3


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
    assert "SHELL" not in [name for name, _ in last(image)]


@each_image
def test_the_health_check_needs_no_shell(image: str) -> None:
    options, check = only(image, "HEALTHCHECK").split("CMD ")
    assert json.loads(check) == ["/opt/fedcredit/bin/python", "-I", "/opt/fedcredit/probe.py", "readyz"]
    assert "COPY configs/consortium/probe.py /opt/fedcredit/probe.py" in [" ".join(one) for one in last(image)]
    assert dict(re.findall(r"--([a-z-]+)=(\d+)", options)) == {
        "interval": "15",
        "timeout": "6",
        "start-period": "240",
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
    found = labels(image)
    assert found["version"] == fedcredit.__version__
    assert found["title"] == image
    assert found["licenses"] == PROJECT["license"]
    assert set(found) == {"title", "description", "licenses", "version", "revision", "created"}


@each_image
def test_every_package_of_the_image_is_pinned_and_is_what_is_tested_here(image: str) -> None:
    defaults = dict(words.split("=", 1) for name, words in stages()[""] if name == "ARG")
    parts = " ".join(words for _, words in stages()[f"{IMAGES[image]}-parts"])
    named = re.search(rf"assemble\.sh {image} (\S+)", parts)
    assert named is not None
    extras = named[1].strip('"').replace("${NODE_EXTRAS}", defaults["NODE_EXTRAS"])
    assert extras.split(",") == EXTRAS[image]
    build = " ".join(words for _, words in stages()["build"])
    script = (ROOT / "configs/consortium/assemble.sh").read_text("utf-8")
    assert build.count("--constraint constraints.txt") == script.count("--constraint constraints.txt") == 1
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
    for name, words in steps():
        if name == "COPY" and not words.startswith("--from="):
            copied |= set(words.split()[:-1])
    assert all(any(one == show or one.startswith(f"{show}/") for show in shown) for one in copied)
    assert all(list(ROOT.glob(one)) for one in copied)
    assert shown - copied <= {"configs", "configs/consortium"}, "what is shown to the builder is used by it"


def test_what_the_package_links_to_is_in_the_builder() -> None:
    """A link without its file would leave nothing in the wheel, and no error."""
    copied = [one for name, words in stages()["build"] if name == "COPY" for one in words.split()[:-1]]
    found = {path for one in copied for path in ROOT.glob(one)}
    links = [path for path in (ROOT / "fedcredit").rglob("*") if path.is_symlink()]
    assert len(links) > 2
    assert [path for path in links if not {path.resolve(), *path.resolve().parents} & found] == []


def test_an_argument_of_several_stages_has_one_default_before_them() -> None:
    """A stage that grows from another has its arguments' defaults with Docker's builder, and not with all others."""
    before = {words.split("=", 1)[0] for name, words in stages()[""] if name == "ARG"}
    given = [words for stage, found in stages().items() if stage for name, words in found if name == "ARG"]
    names = [words.split("=", 1)[0] for words in given]
    assert "NODE_EXTRAS" in before
    for words, name in zip(given, names, strict=True):
        assert (name in before) != ("=" in words), words
        assert name in before or names.count(name) == 1, words


def test_the_tools_of_the_bill_of_materials_are_pinned() -> None:
    lines = (ROOT / "configs/consortium/sbom.txt").read_text("utf-8").splitlines()[1:]
    assert "cyclonedx-bom" in {line.split("==")[0] for line in lines}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)


def test_a_node_for_averaging_is_pinned_too() -> None:
    """The same target with another argument: what it adds stands in constraints.txt as it is installed here."""
    text = FILE.read_text("utf-8")
    assert "--build-arg NODE_EXTRAS=deploy,postgres,averaging --tag fedcredit-node-averaging:" in text
    found, versions = closure([*EXTRAS["fedcredit-node"], "averaging"]), pinned()
    assert {"torch", "opacus", "dp-accounting"} <= set(found)
    found.pop("setuptools")  # torch asks for any; it stands in no environment of the tests' own making
    wrong = {name: one.version for name, one in found.items() if one.version.split("+")[0] != versions.get(name)}
    assert wrong == {}
