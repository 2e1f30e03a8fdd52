"""Rules of the house that a reader can check and a linter cannot: scanned from the syntax tree of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for room in ("fedcredit", "nodes", "coordinator") for path in (ROOT / room).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]
BANNED_CALLS = {"eval", "exec", "print", "compile", "__import__", "breakpoint"}
BANNED_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "random"}
BANNED_ATTRIBUTES = {"numpy.random", "np.random"}
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS = 400, 50, 6

each_module = pytest.mark.parametrize("path", MODULES, ids=NAMES)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(module: ast.Module) -> list[str]:
    """What a module does that no library code may."""
    found = [f"imports {name}" for name in imports(module) if name.split(".")[0] in BANNED_IMPORTS]
    found += [f"imports {name}" for name in imports(module) if name.startswith("numpy.random")]
    for node in ast.walk(module):
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BANNED_CALLS:
            found.append(f"line {node.lineno}: {node.func.id}()")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in BANNED_ATTRIBUTES:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            defaults = [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]
            found += [
                f"line {node.lineno}: {node.name} has a mutable default"
                for one in defaults
                if isinstance(one, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp))
            ]
    return found


def test_there_are_modules() -> None:
    assert len(MODULES) > 100


@each_module
def test_nothing_unsafe_in_library_code(path: Path) -> None:
    found = breaches(tree(path))
    if path.parent == ROOT / "fedcredit" / "attack":  # an attacker's guesses are not secret; they are seeded
        found = [one for one in found if "random" not in one]
        assert "default_rng()" not in path.read_text("utf-8")
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from random import choice",
        "import numpy.random",
        "from numpy.random import default_rng",
        "x = np.random.rand()",
        "assert x",
        "print(1)",
        "y = eval('1')",
        "def f(a=[]): ...",
        "async def f(*, a={}): ...",
    ],
)
def test_the_scan_sees_each_breach(text: str) -> None:
    assert len(breaches(ast.parse(text))) > 0


@each_module
def test_module_says_what_it_is_and_what_it_offers(path: Path) -> None:
    module = tree(path)
    assert ast.get_docstring(module), "no docstring"
    if path.name in {"__init__.py", "__main__.py"} and len(module.body) <= 1:
        return
    assigned = [
        node
        for node in module.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if path.name == "__init__.py" and not assigned:
        return
    assert len(assigned) == 1, "no __all__"
    listed = ast.literal_eval(assigned[0].value)
    defined = {
        node.name for node in module.body if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
    }
    for node in module.body:
        if isinstance(node, ast.Assign):
            defined |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    assert set(listed) <= defined, f"__all__ lists what is not there: {sorted(set(listed) - defined)}"
    assert len(set(listed)) == len(listed)


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node) is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


@each_module
def test_sizes(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    for node in ast.walk(tree(path)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        assert node.end_lineno is not None
        assert node.end_lineno - node.lineno + 1 - docstring_lines(node) <= MOST_LINES_OF_A_FUNCTION, node.name
        positional = [*node.args.posonlyargs, *node.args.args]
        given = [one for one in positional if one.arg not in {"self", "cls"}]
        compiled = path.name == "lanes.py"  # its functions are steps of compiled loops: arrays only, no dataclasses
        if not compiled and path.parent.name != "cli":  # a command's options are its arguments
            assert len(given) + len(node.args.kwonlyargs) <= MOST_PARAMETERS, node.name


@each_module
def test_heavy_imports_stay_in_their_place(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    roots = {one.split(".")[0] for one in imports(tree(path))}
    if name != "fedcredit/crypto/bfv.py":
        assert "tenseal" not in roots
    heavy = {"flwr", "torch", "tensorflow"}
    if name == "fedcredit/runtime/flower_simulation.py":
        heavy -= {"flwr"}
    if name.startswith(("fedcredit/kernels/nn", "fedcredit/protocol/fedavg/")):
        heavy -= {"torch"}
    if name.startswith("fedcredit/"):
        assert not roots & heavy


def test_the_cipher_library_is_used() -> None:
    assert any(one.startswith("tenseal") for one in imports(tree(ROOT / "fedcredit" / "crypto" / "bfv.py")))
