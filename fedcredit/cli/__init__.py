"""The command line: parse, call, print; nothing else."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Annotated

import typer
from click import Command, Context
from typer.core import TyperGroup
from typer.main import get_group

import fedcredit
from fedcredit.cli.console import write_error, write_text
from fedcredit.errors import FedCreditError

__all__ = ["app", "main"]

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "simulate": "simulate",
        "sweep": "sweep",
        "report": "report",
        "request": "provision",
        "provision": "provision",
        "pin": "provision",
        "doctor": "doctor",
        "audit": "audit",
        "spec": "spec",
        "data": "data",
        "catalog": "catalog",
        "run": "run",
    }
)
"""Commands in the order of --help, and the module of this package whose ``register(app)`` makes each."""

_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# Every fault of a command line, such as a missing argument. Newer releases of typer bring their own copy of click, so
# the class is found as the ancestor of one that typer exports (BadParameter, UsageError, ClickException).
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

_EPILOG = """Examples:

fedcredit data list

fedcredit spec check configs/simulations/demo.toml --data

fedcredit spec show configs/simulations/demo.toml --set scorecard.fit=moments

Exit codes: 0 done; 2 a configuration, records or a command line that are wrong; 3 a protocol, policy or peer that
failed; 130 interrupted. Errors are one line on standard error."""


class _Commands(TyperGroup):
    """Loads the module of a command when it is called: all of them take seconds, one a fraction."""

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """All names, without loading anything."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """The command of that name, loaded now; None where there is none, with all loaded to suggest one."""
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                part = typer.Typer(callback=_root)  # a callback keeps a single command a group's
                import_module(f"fedcredit.cli.{COMMANDS[name]}").register(part)
                self.commands.update(get_group(part).commands)
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=_Commands,
    name="fedcredit",
    help="Institutions train and use one credit-risk model together without showing a record.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 -- the signature of a typer callback
    if wanted:
        write_text(f"fedcredit {fedcredit.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: FBT002 -- typer reads the default of a flag
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Institutions train and use one credit-risk model together without showing a record."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: Command line without the program's name; None = that of the process.

    Returns:
        The exit code: 0 done, 2 wrong input, 3 failed run, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given, prog_name="fedcredit", standalone_mode=False)
    except FedCreditError as error:
        write_error(str(error))
        return error.exit_code
    except _CommandLineError as error:
        message = getattr(error, "format_message", str)()
        if message:  # none where a group was called without a command: its help has been shown
            # click and typer may both suggest the same command
            message = re.sub(r"(Did you mean [^?]*\?) \1", r"\1", " ".join(message.split()))
            write_error(f"{message} (see fedcredit --help)")
        return _EXIT_USAGE
    except (typer.Abort, KeyboardInterrupt):
        write_error("interrupted")
        return _EXIT_INTERRUPTED
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        write_error(f"no space left on the device{f': {error.filename}' if error.filename else ''}; free some")
        return _EXIT_USAGE
    if code == _EXIT_INTERRUPTED:  # typer turns an interrupt into this code by itself
        write_error("interrupted")
    return code if isinstance(code, int) else 0
