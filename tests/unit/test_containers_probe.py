"""The health check of the containers, run as the engine runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

PROBE = Path(__file__).parents[2] / "configs/consortium/probe.py"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def probe(home: Path, *words: str) -> int:
    command = [sys.executable, "-I", str(PROBE), *words]
    done = subprocess.run(command, check=False, env={**os.environ, "FEDCREDIT_HOME": str(home)}, capture_output=True)
    assert done.stderr == b""
    return done.returncode


@pytest.mark.parametrize("name", ["node.toml", "coordinator.toml"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_asks_where_the_settings_say(tmp_path: Path, port: int, name: str, host: str) -> None:
    (tmp_path / name).write_text(f'party = "bank"\n[metrics]\nlisten = "{host}:{port}"\n', "utf-8")
    assert probe(tmp_path, "healthz") == 0
    assert probe(tmp_path, "readyz") == 1
    assert probe(tmp_path) == 1


def test_a_daemon_that_is_not_there_is_not_healthy(tmp_path: Path, port: int) -> None:
    (tmp_path / "node.toml").write_text(f'[metrics]\nlisten = "127.0.0.1:{port}"\n', "utf-8")
    assert probe(tmp_path, "healthz") == 0
    (tmp_path / "node.toml").write_text('[metrics]\nlisten = "127.0.0.1:1"\n', "utf-8")
    assert probe(tmp_path, "healthz") == 1


def test_settings_that_cannot_be_read_are_not_healthy(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("metrics", "utf-8")
    assert probe(tmp_path, "healthz") == 1
