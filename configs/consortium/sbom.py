"""Writes the bill of materials of an image: every Python and Debian package with version, licence and address.

``sbom.cdx.json`` is CycloneDX 1.6; ``licences.txt`` lists the same packages for a reader. Needs the packages of
``sbom.txt``, in an environment other than the one that is listed. Run by the Dockerfiles and by ``make sbom``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import fixup_id
from cyclonedx.validation.json import JsonStrictValidator

__all__ = ["DebianPackage", "debian_packages", "licence_names", "main", "spdx_name"]

_MAX_LICENCES: Final = 40
_DEBIAN_TO_SPDX: Final[Mapping[str, str]] = {
    "apache-2": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0",
    "bsd-2-clauses": "BSD-2-Clause",
    "bsd-3-clauses": "BSD-3-Clause",
    "expat": "MIT",
    "mit/x11": "MIT",
    "zlib/libpng": "Zlib",
}
"""Debian's short names that differ from SPDX by more than their case."""
_READ: Final[Mapping[str, str]] = {
    "contourpy": "BSD-3-Clause",
    "cycler": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "numba": "BSD-2-Clause",
    "packaging": "Apache-2.0 OR BSD-2-Clause",
    "pathspec": "MPL-2.0",
    "prompt_toolkit": "BSD-3-Clause",
    "protobuf": "BSD-3-Clause",
    "pycryptodome": "BSD-2-Clause AND Unlicense",
    "scipy": "BSD-3-Clause",
}
"""Packages whose metadata name a family of licences or none: what their licence file says."""
_GNU: Final = re.compile(r"(?P<name>A?GPL|LGPL|GFDL)-(?P<version>\d(?:\.\d)?)(?P<later>\+?)", re.IGNORECASE)


@dataclass(frozen=True)
class DebianPackage:
    """An installed package.

    Args:
        name: Its name.
        version: Its version.
        architecture: Such as ``amd64`` or ``all``.
        source: Name of the source package, whose copyright file counts where the package has none.
    """

    name: str
    version: str
    architecture: str
    source: str


def debian_packages(status: str) -> Iterator[DebianPackage]:
    """The installed packages of a ``/var/lib/dpkg/status``, by name."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            source = fields.get("Source", fields["Package"]).split(" ")[0]
            found.append(DebianPackage(fields["Package"], fields["Version"], fields["Architecture"], source))
    yield from sorted(found, key=lambda package: (package.name, package.architecture))


def spdx_name(debian: str) -> str:
    """The SPDX identifier of a short name in a Debian copyright file; "" if it has none."""
    gnu = _GNU.fullmatch(debian)
    if gnu is not None:
        version = gnu["version"] if "." in gnu["version"] else f"{gnu['version']}.0"
        return fixup_id(f"{gnu['name'].upper()}-{version}-{'or-later' if gnu['later'] else 'only'}") or ""
    return _DEBIAN_TO_SPDX.get(debian.lower()) or fixup_id(debian) or ""


def licence_names(copyright_file: str) -> list[str]:
    """Short names in a machine-readable Debian copyright file, in the order they appear; none in one that is prose."""
    names: dict[str, None] = {}
    lines: list[str] = re.findall(r"^License: *(\S.*)$", copyright_file, re.MULTILINE)
    for line in lines:
        for name in re.split(r",|\s+(?:and|or|and/or)\s+", re.sub(r"\s+with\s.*", "", line)):
            names.setdefault(name.strip())
    return [name for name in names if name][:_MAX_LICENCES]


def _licences(package: DebianPackage, copyrights: Path) -> list[dict[str, Any]]:
    for name in (package.name, package.source):
        path = copyrights / name / "copyright"
        if path.is_file():
            known = {spdx_name(one) or one for one in licence_names(path.read_text("utf-8", "replace"))}
            entries = [{"id": one} if fixup_id(one) else {"name": one} for one in sorted(known)]
            return [{"license": entry} for entry in entries or [{"name": f"see /usr/share/doc/{name}/copyright"}]]
    return []


def _debian_component(package: DebianPackage, copyrights: Path) -> dict[str, Any]:
    name, version = quote(package.name, safe="+"), quote(package.version, safe="+")
    address = f"pkg:deb/debian/{name}@{version}?arch={package.architecture}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": address,
        "name": package.name,
        "version": package.version,
        "purl": address,
    }
    licences = _licences(package, copyrights)
    return {**component, "licenses": licences} if licences else component


def _python_components(python: Path) -> dict[str, Any]:
    """What is installed for an interpreter, as cyclonedx-py lists it."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--spec-version", "1.6", "--output-reproducible"]
    # the interpreter is the caller's own; no shell is involved
    done = subprocess.run([*command, str(python)], check=True, stdout=subprocess.PIPE)  # noqa: S603
    found: dict[str, Any] = json.loads(done.stdout)
    for component in found["components"]:
        _name_licence(component)
    return found


def _name_licence(component: dict[str, Any]) -> None:
    """Leaves SPDX identifiers alone; where the metadata have none, puts what the licence file says."""
    given = [one for one in component.get("licenses", []) if "expression" in one or "id" in one["license"]]
    if not given and (read := _READ.get(component["name"].lower())) is not None:
        given = [{"expression": read}] if " " in read else [{"license": {"id": read}}]
    if given:
        component["licenses"] = given


def _licence_text(component: Mapping[str, Any]) -> str:
    named = component.get("licenses", [])
    names = [one.get("expression") or one["license"].get("id") or one["license"].get("name") for one in named]
    return "; ".join(names) or "not declared"


def _row(component: Mapping[str, Any]) -> tuple[str, str, str, str]:
    kind = component.get("purl", "pkg:pypi/").split("/")[0].removeprefix("pkg:")
    return kind, component["name"], component.get("version", ""), _licence_text(component)


def _write(bom: Mapping[str, Any], out: Path) -> None:
    text = json.dumps(bom, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        raise SystemExit(f"sbom.cdx.json: not valid CycloneDX: {error}")
    rows = sorted(_row(component) for component in bom["components"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "sbom.cdx.json").write_text(text, "utf-8")
    (out / "licences.txt").write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes ``sbom.cdx.json`` and ``licences.txt``.

    Raises:
        SystemExit: a file is missing, or the result is not valid CycloneDX.
    """
    parser = argparse.ArgumentParser(description="Bill of materials of an environment, and of the Debian around it.")
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the environment to list")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--dpkg-status", type=Path, help="/var/lib/dpkg/status of the image; without it no Debian")
    parser.add_argument("--copyrights", type=Path, default=Path("/usr/share/doc"), help="/usr/share/doc of the image")
    parser.add_argument("--name", default="fedcredit", help="name of what the bill is for")
    given = parser.parse_args(arguments)
    bom = _python_components(given.python)
    own = next((one for one in bom["components"] if one["name"] == "fedcredit"), None)
    if own is None:
        raise SystemExit(f"{given.python}: fedcredit is not installed there; give the environment of an image")
    what = {"type": "application", "bom-ref": given.name, "name": given.name, "version": own["version"]}
    bom["metadata"] = {**bom.get("metadata", {}), "component": what}
    if given.dpkg_status is not None:
        status = given.dpkg_status.read_text("utf-8", "replace")
        packages = [_debian_component(package, given.copyrights) for package in debian_packages(status)]
        bom["components"] = [*bom.get("components", []), *packages]
    _write(bom, given.out)


if __name__ == "__main__":
    main()
