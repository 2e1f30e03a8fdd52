"""Command lines, environments, the bundle, the guard at the node, and the supervisor of child processes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fedcredit
from fedcredit.errors import IntegrityError, SpecError
from fedcredit.runtime.daemon.supervisor import Child, Supervisor
from fedcredit.runtime.exchange.loopback_tls import loopback_tls
from fedcredit.runtime.flower_bundle import bundle_archive, bundle_files, bundle_sha256
from fedcredit.runtime.flower_client import HOME_VARIABLE, SUPERVISOR_VARIABLE
from fedcredit.runtime.flower_processes import (
    SWITCHED_OFF,
    CoordinatorFlower,
    NodeFlower,
    coordinator_children,
    flower_folder,
    node_children,
)
from fedcredit.types import PartyId

NODE = {"party": PartyId("bank"), "role": "label_holder", "fleet": "consortium.example:9444", "port": 9094}


def node_at(home: Path, **changed: str) -> NodeFlower:
    return NodeFlower(home=home, **{**NODE, **changed})  # type: ignore[arg-type]


def option(child: Child, name: str) -> str:
    return child.command[child.command.index(name) + 1]


def test_the_coordinators_processes(tmp_path: Path) -> None:
    link, starts = coordinator_children(CoordinatorFlower(tmp_path, 9093))
    assert (option(link, "--host"), option(link, "--port")) == ("127.0.0.1", "9093")
    assert option(link, "--isolation") == "process"
    assert "--enable-supernode-auth" in link.command
    assert "--disable-runtime-dependency-installation" in link.command
    assert not {"--insecure", "--simulation"} & set(link.command + starts.command)
    assert Path(option(link, "--database")).parent == flower_folder(tmp_path)
    secret = Path(option(link, "--superexec-auth-secret-file"))
    assert option(starts, "--superexec-auth-secret-file") == str(secret)
    assert (secret.stat().st_size, stat.S_IMODE(secret.stat().st_mode)) == (32, 0o600)
    assert option(starts, "--runtime-api-address") == "localhost:9093"
    assert option(starts, "--root-certificates") == option(link, "--ssl-ca-certfile")


def test_the_nodes_processes(tmp_path: Path) -> None:
    node, starts = node_children(node_at(tmp_path))
    assert option(node, "--superlink") == "consortium.example:9444"
    assert option(node, "--root-certificates") == str(tmp_path / "ca.pem")
    assert option(node, "--auth-supernode-private-key") == str(tmp_path / "keys" / "flower.key")
    assert option(node, "--node-config") == 'party="bank" role="label_holder"'
    assert option(node, "--isolation") == "process"
    assert "--insecure" not in node.command
    assert "--allow-runtime-dependency-installation" not in node.command + starts.command
    assert option(starts, "--runtime-api-address") == "127.0.0.1:9094"
    assert option(starts, "--superexec-auth-secret-file") == option(node, "--superexec-auth-secret-file")


def test_nothing_listens_beyond_this_machine(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="loopback"):
        node_children(node_at(tmp_path, host="0.0.0.0"))
    with pytest.raises(SpecError, match="loopback"):
        coordinator_children(CoordinatorFlower(tmp_path, 9093, host="192.0.2.1"))


def test_environments_switch_everything_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("FLWR_MODEL_API_KEY", "key")
    monkeypatch.setenv(HOME_VARIABLE, "/elsewhere")
    children = [*coordinator_children(CoordinatorFlower(tmp_path, 9093)), *node_children(node_at(tmp_path))]
    for child in children:
        assert {name: child.environment[name] for name in SWITCHED_OFF} == dict(SWITCHED_OFF)
        assert SWITCHED_OFF["FLWR_TELEMETRY_ENABLED"] == "0"
        assert child.environment[HOME_VARIABLE] == str(tmp_path)
        assert child.environment[SUPERVISOR_VARIABLE] == str(os.getpid())
        assert child.environment["FLWR_HOME"].startswith(str(tmp_path))
        assert "FLWR_MODEL_API_KEY" not in child.environment


def test_every_command_a_supernode_could_start_is_ours(tmp_path: Path) -> None:
    constant = pytest.importorskip("flwr.supercore.constant")
    node, starts = node_children(node_at(tmp_path))
    for child in (node, starts):
        first = Path(child.environment["PATH"].split(os.pathsep)[0])
        for command in constant.TASK_TYPE_TO_COMMAND.values():
            script = first / command
            assert "nodes.shim" in script.read_text()
            assert stat.S_IMODE(script.stat().st_mode) == 0o700


@pytest.mark.slow
def test_another_command_than_the_clientapp_is_refused_and_written_down(tmp_path: Path) -> None:
    node, _ = node_children(node_at(tmp_path))
    script = Path(node.environment["PATH"].split(os.pathsep)[0]) / "flwr-agentapp"
    environment = {**node.environment, SUPERVISOR_VARIABLE: ""}
    done = subprocess.run([script, "--token", "x"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "[task.refused]" in done.stderr
    (line,) = (tmp_path / "logs" / "flower-audit.jsonl").read_text().splitlines()
    assert json.loads(line)["event"] == "task.refused"


def test_a_damaged_secret_is_not_used(tmp_path: Path) -> None:
    (flower_folder(tmp_path) / "superexec.secret").write_bytes(b"short")
    with pytest.raises(IntegrityError) as error:
        node_children(node_at(tmp_path))
    assert error.value.code == "flower.secret"


def test_the_bundle_holds_an_entry_point_and_nothing_else(tmp_path: Path) -> None:
    files = bundle_files()
    assert set(files) == {"pyproject.toml", "fedcredit_coordinator.py", "fedcredit_node.py"}
    code = [line for line in files["fedcredit_node.py"].decode().splitlines()[1:] if line]
    assert code == ["from nodes.app import app", '__all__ = ["app"]']
    assert f'version = "{fedcredit.__version__}"' in files["pyproject.toml"].decode()
    assert b"dependencies" not in files["pyproject.toml"]
    build = pytest.importorskip("flwr.cli.build")
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.warns(DeprecationWarning, match="gitwildmatch"):
        on_disk = build.build_fab_from_disk(folder)
    assert bundle_sha256() == hashlib.sha256(on_disk).hexdigest() == hashlib.sha256(bundle_archive()).hexdigest()


def test_one_byte_more_is_another_bundle() -> None:
    files = bundle_files()
    files["fedcredit_node.py"] += b" "
    assert bundle_sha256(files) != bundle_sha256()


def test_the_guard_lets_listed_bundles_through_alone(tmp_path: Path) -> None:
    shim = pytest.importorskip("nodes.shim")
    (tmp_path / "node.toml").write_text(f'party = "bank"\n[flower]\nbundles = ["{"ab" * 32}"]\n')
    guard = shim.Guard.of_home(tmp_path)
    assert guard.listed == {bundle_sha256(), "ab" * 32}
    assert guard.check(bundle_archive(), skip_prompt=True) == tmp_path
    assert not (tmp_path / "logs" / shim.AUDIT_FILE).exists()
    with pytest.raises(IntegrityError) as error:
        guard.check(bundle_archive() + b"\0", skip_prompt=True)
    assert error.value.code == "bundle.unlisted"
    (line,) = (tmp_path / "logs" / shim.AUDIT_FILE).read_text().splitlines()
    assert json.loads(line)["found"] == hashlib.sha256(bundle_archive() + b"\0").hexdigest()


def test_a_house_of_two_versions_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = pytest.importorskip("nodes.shim")
    guard = shim.Guard.of_home(tmp_path)
    monkeypatch.setattr(shim, "version", lambda _: "9.9.9")
    with pytest.raises(IntegrityError) as error:
        guard.check(bundle_archive())
    assert error.value.code == "bundle.version"


def test_the_guard_stands_where_flower_unpacks_and_loads() -> None:
    shim = pytest.importorskip("nodes.shim")
    module = pytest.importorskip("flwr.supernode.runtime.run_clientapp")
    app = pytest.importorskip("nodes.app").app
    source = Path(module.__file__).read_text()
    for name in shim._REPLACED:
        assert source.count(f"{name}(") == 1
    unpacks, loads = (source.index(f"{name}(") for name in shim._REPLACED)
    assert unpacks < loads < source.index("client_app(message=")
    assert shim._installed_app(default_app_ref="")("fab", "1", "hash") is app


def test_the_loopback_certificate(tmp_path: Path) -> None:
    files = loopback_tls(tmp_path / "loopback")
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    context = ssl.create_default_context(cafile=str(files.ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    for name in ("localhost", "127.0.0.1"):
        ours, theirs = (ssl.MemoryBIO(), ssl.MemoryBIO()), (ssl.MemoryBIO(), ssl.MemoryBIO())
        client = context.wrap_bio(*ours, server_hostname=name)
        served = server.wrap_bio(*theirs, server_side=True)
        for _ in range(6):
            for side in (client, served):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                theirs[0].write(ours[1].read())
                ours[0].write(theirs[1].read())
        assert client.version() == "TLSv1.3"
    before = files.certificate.read_bytes()
    assert loopback_tls(tmp_path / "loopback").certificate.read_bytes() == before
    files.key.unlink()
    assert loopback_tls(tmp_path / "loopback").certificate.read_bytes() != before


def child(name: str, code: str) -> Child:
    return Child(name, (sys.executable, "-I", "-S", "-c", code), {"PATH": os.defpath})


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(what: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def test_children_are_started_again_with_growing_pauses(tmp_path: Path) -> None:
    async def watched() -> None:
        supervisor = Supervisor(tmp_path)
        await supervisor.start([child("falls", "import sys; print('fell'); sys.exit(3)"), child("stays", SLEEPS)])
        try:
            await until(lambda: supervisor.views()[0].restarts == 2)
            falls, stays = supervisor.views()
            assert (falls.last_exit, stays.restarts, stays.last_exit) == (3, 0, None)
            assert stays.process is not None
        finally:
            await supervisor.stop()
        assert not alive(stays.process)
        assert supervisor.views() == []

    start = time.monotonic()
    asyncio.run(watched())
    assert time.monotonic() - start > 1.5, "pauses of 0.5 s and 1 s"
    assert (tmp_path / "falls.log").read_text().count("fell") >= 2


SLEEPS = "import time; time.sleep(60)"
STUBBORN = (
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
)
PARENT = (
    "import os, subprocess, sys, time;"
    "one = subprocess.Popen([sys.executable, '-I', '-S', '-c', {stubborn!r}, sys.argv[1]]);"
    "time.sleep(0.3); {then}"
)


@pytest.mark.slow
@pytest.mark.parametrize("then", ["time.sleep(60)", "sys.exit(1)"])
def test_no_grandchild_is_left(tmp_path: Path, then: str) -> None:
    one = child("parent", PARENT.format(then=then, stubborn=STUBBORN))
    one = Child(one.name, (*one.command, str(tmp_path / "pid")), one.environment)

    async def stopped() -> int:
        supervisor = Supervisor(tmp_path / "logs", grace_s=0.5)
        await supervisor.start([one])
        await until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
        grandchild = int((tmp_path / "pid").read_text())
        if "exit" in then:
            await until(lambda: supervisor.views()[0].last_exit == 1)
        assert alive(grandchild)
        await supervisor.stop()
        return grandchild

    assert not alive(asyncio.run(stopped()))


def test_children_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from fedcredit.runtime.daemon.supervisor import Child, Supervisor\n"
        "async def main():\n"
        "    supervisor = Supervisor(Path(sys.argv[1]))\n"
        f"    await supervisor.start([Child('one', (sys.executable, '-I', '-S', '-c', {SLEEPS!r}), {{}})])\n"
        "    Path(sys.argv[1], 'pid').write_text(str(supervisor.views()[0].process))\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])

    async def killed() -> None:
        await until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
        await asyncio.sleep(0.2)  # the leash is on when the interpreter has become the child
        process.send_signal(signal.SIGKILL)
        process.wait()
        await until(lambda: not alive(int((tmp_path / "pid").read_text())))

    asyncio.run(killed())


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SpecError, match="flower-supernode"):
        node_children(node_at(tmp_path))
