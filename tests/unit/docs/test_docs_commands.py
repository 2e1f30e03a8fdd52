"""Every command, flag, configuration and target of make that the guides print is there."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from fedcredit.spec.load import load_spec

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "fedcredit").rglob("*.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])

PROGRAMS = {
    "fedcredit": ("fedcredit.cli", "app"),
    "fedcredit-node": ("nodes.cli", "app"),
    "fedcredit-coordinator": ("coordinator.cli", "app"),
}
BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LEFT_OUT = {"…", "...", "DIR", "HOME"}  # where a page leaves something out


def commands_of(text: str) -> dict[str, Any]:
    """Every command of the three programs by its words, with click's object."""
    found: dict[str, Any] = {}

    def walk(words: str, command: Any) -> None:
        found[words] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                walk(f"{words} {name}", command.get_command(context, name))

    for program, (module, name) in PROGRAMS.items():
        walk(program, typer.main.get_command(getattr(importlib.import_module(module), name)))
    assert text in found
    return found


COMMANDS = commands_of("fedcredit run submit")


def lines_of_blocks(text: str) -> Iterator[str]:
    for block in BLOCK.findall(text):
        yield from block.replace("\\\n", " ").splitlines()


def calls(line: str) -> Iterator[list[str]]:
    """The simple commands of a line of shell, without their variables and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&()")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";|&()"):
            while words and (words[0] in {"do", "then", "else", "nice", "time", "sudo"} or "=" in words[0]):
                words = words[1:]
            if words:
                yield words
            words = []
        else:
            words.append(word)


def fault(words: list[str], *, whole: bool) -> str | None:
    """What is wrong with one call of our programs, if anything is."""
    name = Path(words[0]).name
    if name == "make":
        return next((f"make {t}" for t in words[1:] if re.fullmatch(r"[a-z]+", t) and t not in TARGETS), None)
    if name.startswith("python") and len(words) > 1 and words[1].endswith(".py"):
        return None if (ROOT / words[1]).is_file() else words[1]
    if name not in PROGRAMS:
        return None
    path, rest = name, words[1:]
    while rest and f"{path} {rest[0]}" in COMMANDS:
        path, rest = f"{path} {rest[0]}", rest[1:]
    command = COMMANDS[path]
    group = hasattr(command, "commands")
    if group and rest and not rest[0].startswith(("-", "…")) and (whole or re.fullmatch(r"[a-z]+", rest[0])):
        return f"{path} has no command {rest[0]}"
    return None if group else _fault_of_arguments(path, command, rest, whole=whole)


def _fault_of_arguments(path: str, command: Any, rest: list[str], *, whole: bool) -> str | None:
    flags = {flag: one for one in command.params for flag in getattr(one, "opts", ()) if flag.startswith("-")}
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    given, used, waiting = [], {"--help"}, False
    for word in rest:
        if waiting:
            waiting = False
        elif word.startswith("-") and word != "-":
            flag = word.split("=")[0]
            if flag not in flags and flag != "--help":
                return f"{path} has no flag {flag}"
            used.add(flag)
            waiting = flag in flags and not flags[flag].is_flag and "=" not in word
        else:
            given.append(word)
    if not whole or LEFT_OUT & set(rest) or "--help" in rest:
        return None
    if sum(one.required for one in arguments) > len(given) or len(given) > len(arguments):
        return f"{path} takes {len(arguments)} arguments, not {given}"
    needed = [flag for flag, one in flags.items() if one.required and not one.envvar]
    lacking = [flag for flag in needed if not any(other in used for other in flags[flag].opts)]
    return f"{path} needs {lacking}" if lacking else None


TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@each_page
def test_commands_of_shell_blocks_are_there(page: Path) -> None:
    lines = list(lines_of_blocks(page.read_text("utf-8")))
    faults = [fault(words, whole=True) for line in lines for words in calls(line)]
    assert [one for one in faults if one is not None] == []


@each_page
def test_commands_named_in_prose_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = [one for one in SPAN.findall(text) if one.split()[0] in {*PROGRAMS, "make", "python"}]
    faults = [fault(one.replace("(", "").replace(")", "").split(), whole=False) for one in spans]
    assert [one for one in faults if one is not None] == []


@each_page
def test_files_and_keys_of_commands_are_there(page: Path) -> None:
    for line in lines_of_blocks(page.read_text("utf-8")):
        for words in calls(line):
            files = [word for word in words if re.fullmatch(r"configs/[\w./-]+\.(toml|py|yaml)", word)]
            assert [file for file in files if not (ROOT / file).is_file()] == []
            simulations = [file for file in files if "/simulations/" in file]
            given = [words[k + 1] for k, word in enumerate(words[:-1]) if word == "--set" and "," not in words[k + 1]]
            if simulations and "sweep" not in words:
                load_spec(ROOT / simulations[0], given)


@pytest.mark.parametrize("command", [name for name, one in COMMANDS.items() if not hasattr(one, "commands")])
def test_examples_of_help_are_there(command: str) -> None:
    epilog = COMMANDS[command].epilog or ""
    examples = re.split(r"Examples?: |; |: (?=fedcredit)|\n\n", epilog)
    found = [words for one in examples for words in calls(one) if words[0] in PROGRAMS]
    assert [text for words in found if (text := fault(words, whole=True)) is not None] == []


def test_the_scan_sees_what_is_wrong() -> None:
    wrong = "make nothing; fedcredit run sumbit x; FEDCREDIT_HOME=a fedcredit run list --al; fedcredit spec check a b"
    faults = [fault(words, whole=True) for words in calls(wrong)]
    assert len(faults) == 4
    assert None not in faults
    assert fault(["fedcredit", "run", "submit", "x.toml", "--home", "ops"], whole=True) is not None  # no --data
    assert fault(["fedcredit", "run", "submit", "x.toml", "--data", "a", "--home", "b"], whole=True) is None
