"""No page of the guides points at nothing: files, anchors, modules, tests and programs that are spoken of are there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "fedcredit").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$")
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w*./-]+\.(?:py|md)")
MODULE = re.compile(r"(?:fedcredit|nodes|coordinator)(?:\.[a-z_0-9]+)+")
ROOMS = ("", "fedcredit", "fedcredit/crypto", "fedcredit/runtime")  # where a page may leave the room out


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as code hosts make them."""
    seen: Counter[str] = Counter()
    found = set()
    for line in prose(text).splitlines():
        if heading := HEADING.match(line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").strip().lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def dead_links(page: Path, text: str) -> list[str]:
    dead = []
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        other = (page.parent / place).resolve() if place else page
        if not other.exists() or (anchor and anchor not in anchors(other.read_text("utf-8"))):
            dead.append(target)
    return dead


def missing_files(text: str) -> list[str]:
    """Sources, tests and pages named in code spans that are nowhere; a bare name may be of any folder."""
    missing = []
    for span in SPAN.findall(prose(text)):
        for name in (word.strip("./").split("::")[0] for word in span.split() if FILE.fullmatch(word.split("::")[0])):
            if name == "CHECKLIST.md":  # of a bundle
                continue
            found = any(True for room in ROOMS if "/" in name for _ in (ROOT / room).glob(name))
            if not found and "/" not in name:
                rooms = ("fedcredit", "docs", "nodes", "coordinator", "benchmarks", "tests")
                found = any(True for room in rooms for _ in (ROOT / room).rglob(name))
            if not found:
                missing.append(name)
    return missing


def missing_modules(text: str) -> list[str]:
    """Modules and names in them that are spoken of and are not there."""
    missing = []
    for span in SPAN.findall(prose(text)):
        for dotted in (one for one in MODULE.findall(span) if not one.endswith(".toml")):
            parts = dotted.split(".")
            module = next((ROOT.joinpath(*parts[:k]) for k in range(len(parts), 0, -1) if _is_module(parts[:k])), None)
            rest = parts[len(module.relative_to(ROOT).parts) :] if module else parts
            if module is None or len(rest) > 2 or (rest and not _names(module, rest[0])):
                missing.append(dotted)
    return missing


def _is_module(parts: list[str]) -> bool:
    place = ROOT.joinpath(*parts)
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def _names(module: Path, name: str) -> bool:
    file = module.with_suffix(".py") if module.with_suffix(".py").is_file() else module / "__init__.py"
    return re.search(rf"\b{re.escape(name)}\b", file.read_text("utf-8")) is not None


def test_there_are_pages() -> None:
    assert len(PAGES) > 30


@each_page
def test_no_link_is_dead(page: Path) -> None:
    assert dead_links(page, page.read_text("utf-8")) == []


@each_page
def test_files_that_are_named_are_there(page: Path) -> None:
    assert missing_files(page.read_text("utf-8")) == []


@each_page
def test_modules_that_are_named_are_there(page: Path) -> None:
    assert missing_modules(page.read_text("utf-8")) == []


def test_every_guide_is_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        targets = [one.partition("#")[0] for one in LINK.findall(page.read_text("utf-8")) if ":" not in one]
        todo += [(page.parent / one).resolve() for one in targets if one]
    assert [page for page in (ROOT / "docs").glob("*.md") if page not in reached] == []


def test_the_scans_see_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# A `word`, and more\n[a](#a-word-and-more) [b](#b) [c](none.md) [d](page.md#a)\n```\n[e](none)\n```\n"
    page.write_text(text, "utf-8")
    assert dead_links(page, text) == ["#b", "none.md", "page.md#a"]
    assert missing_files("`crypto/ring.py` `ring.py` `crypto/no.py` and `tests/unit/docs/test_docs_*.py::test_x`") == [
        "crypto/no.py"
    ]
    assert missing_modules("`fedcredit.cli.main` `fedcredit.runtime.gone` `fedcredit.cli.console.write_line`") == [
        "fedcredit.runtime.gone"
    ]
