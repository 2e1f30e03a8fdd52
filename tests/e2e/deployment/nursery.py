"""Starts worker processes fast: everything is imported once here, every process is a fork in a session of its own.

A JSON line on standard input is a command, a line on standard output its answer:

    {"module", "arguments", "stdin", "stdout", "stderr", "environment"} → {"pid"}      {"wait": pid} → {"status"}

What such a process does from then on is what ``python -m MODULE ARGUMENTS`` does: nothing is opened or computed before
the fork; gRPC, pools of threads and files are its own.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

sys.path.append(str(Path(__file__).parent))

MODULES = ("faulty_worker", "exchange_process", "nodes.worker", "coordinator.worker")


def child(order: dict[str, Any]) -> NoReturn:
    status = 1
    try:
        os.setsid()
        for number, (name, mode) in enumerate(
            [("stdin", os.O_RDWR), ("stdout", os.O_WRONLY | os.O_TRUNC), ("stderr", os.O_WRONLY | os.O_APPEND)]
        ):
            flags = mode if name == "stdin" else mode | os.O_CREAT
            file = os.open(order[name], flags, 0o600)
            os.dup2(file, number)
            os.close(file)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        os.environ.update(order["environment"])
        status = importlib.import_module(order["module"]).main(order["arguments"])
    except BaseException:  # noqa: BLE001 - the process ends here, whatever it was
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def main() -> None:
    for name in MODULES:
        importlib.import_module(name)
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                child(order)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
