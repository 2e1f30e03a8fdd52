"""Which loops a run needs compiled, for which kinds of arguments: a list that ships with the package.

A loop is compiled for the kinds of arguments it is called with; the list is what real runs called
(``python -m fedcredit.runtime.loop_signatures CONFIG …`` adds to it, by simulating each). A call that is not in it is
compiled when it is first made, as before.

Kinds: ``"int64"``; ``"uint32 2 C"`` for an array of two dimensions, with ``" const"`` where it cannot be written;
``{"module:class": […]}`` for a named tuple; a list for another tuple.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from numba.core.dispatcher import Dispatcher

from fedcredit.kernels.loop_store import LOOP_SOURCES

__all__ = ["Loop", "loops_called", "loops_listed", "main"]

Loop = tuple[str, str, list[Any]]
"""Module, function, kinds of arguments."""

_FILE = "loops.toml"
types: Any = importlib.import_module("numba.core.types")  # which has no types of its own


def loops_listed() -> list[tuple[Dispatcher, tuple[Any, ...], str]]:
    """Loops to compile: the loop, the kinds of its arguments, its module."""
    listed: list[Loop] = tomllib.loads(files("fedcredit.runtime").joinpath(_FILE).read_text("utf-8"))["loops"]
    return [
        (getattr(importlib.import_module(module), name), tuple(map(_kind, kinds)), module)
        for module, name, kinds in listed
    ]


def loops_called() -> list[Loop]:
    """What this process has had compiled, or taken from the store, so far."""
    return [
        (loop.py_func.__module__, loop.py_func.__name__, [_word(one) for one in signature])
        for loop in _dispatchers()
        for signature in loop.signatures
        if "Literal" not in str(signature)  # those are compiled along with the loop that calls them so
    ]


def _dispatchers() -> Iterator[Dispatcher]:
    for source in LOOP_SOURCES:
        module = sys.modules.get("fedcredit." + source.removesuffix(".py").replace("/", "."))
        if module is not None:
            own = [one for one in vars(module).values() if isinstance(one, Dispatcher)]
            yield from (one for one in own if one.py_func.__module__ == module.__name__)


def _word(kind: Any) -> Any:
    if isinstance(kind, types.Array):
        return f"{kind.dtype} {kind.ndim} {kind.layout}{'' if kind.mutable else ' const'}"
    if isinstance(kind, types.BaseNamedTuple):
        own = kind.instance_class
        return {f"{own.__module__}:{own.__qualname__}": [_word(one) for one in kind.types]}
    if isinstance(kind, types.BaseTuple):
        return [_word(one) for one in kind.types]
    return str(kind)


def _kind(word: Any) -> Any:
    if isinstance(word, Mapping):
        ((name, inside),) = word.items()
        module, _, own = name.partition(":")
        kinds, named = tuple(map(_kind, inside)), getattr(importlib.import_module(module), own)
        alike = len(set(kinds)) == 1
        return types.NamedUniTuple(kinds[0], len(kinds), named) if alike else types.NamedTuple(kinds, named)
    if isinstance(word, list):
        return types.BaseTuple.from_types(tuple(map(_kind, word)))
    element, *array = word.split()
    scalar = types.boolean if element == "bool" else getattr(types, element)
    return types.Array(scalar, int(array[0]), array[1], readonly="const" in array) if array else scalar


def _line(word: Any) -> str:
    if isinstance(word, Mapping):
        ((name, inside),) = word.items()
        return f"{{ {json.dumps(name)} = {_line(inside)} }}"
    return json.dumps(word) if isinstance(word, str) else f"[{', '.join(map(_line, word))}]"


def main(configs: list[str]) -> None:
    """Adds to the list what some simulations call; for a checkout of the sources."""
    from fedcredit.runtime.simulate import simulate  # noqa: PLC0415 -- loads what the list itself does not need
    from fedcredit.spec.load import load_spec  # noqa: PLC0415 -- as above

    path = Path(__file__).with_name(_FILE)
    known = tomllib.loads(path.read_text("utf-8"))["loops"]
    with tempfile.TemporaryDirectory() as folder:
        for number, config in enumerate(configs):
            simulate(load_spec(Path(config)), Path(folder) / str(number))
    lines = sorted({_line(loop) for loop in (*known, *loops_called())})
    text = "".join(f"    {line},\n" for line in lines)
    path.write_text(f"# Written by fedcredit.runtime.loop_signatures.\nloops = [\n{text}]\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
