"""The proxy's configuration as text; that nginx does what it says is tested in tests/e2e."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedcredit.errors import SpecError
from fedcredit.runtime.daemon import proxy
from fedcredit.runtime.daemon.proxy import ProxySettings, StreamModule, render_proxy, stream_module
from fedcredit.types import PartyId

MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
TWO_PORTS = ProxySettings(
    folder=Path("/home/c/proxy"),
    listen="0.0.0.0:9444",
    superlink="127.0.0.1:9093",
    loopback_ca=Path("/home/c/loopback/ca.pem"),
    certificate=Path("/home/c/certificate.pem"),
    key=Path("/home/c/keys/tls.key"),
    ca=Path("/home/c/ca.pem"),
    consortium="district",
    operators=(PartyId("ops"),),
)
ONE_PORT = replace(TWO_PORTS, exchange="127.0.0.1:9443")


def test_two_ports_need_no_module() -> None:
    text = render_proxy(TWO_PORTS, None)
    assert "listen 0.0.0.0:9444 ssl;" in text
    assert "stream {" not in text
    assert "load_module" not in text
    assert '"SUCCESS CN=ops,O=district" 1;' in text
    assert text.count("{") == text.count("}")


def test_one_port_tells_by_the_first_message() -> None:
    text = render_proxy(ONE_PORT, StreamModule(MODULE))
    assert f"load_module {MODULE};" in text
    assert "ssl_preread on;" in text
    assert "listen unix:/home/c/proxy/fleet.sock ssl;" in text
    assert "127.0.0.1:9443;" in text


def test_one_port_without_the_module_is_refused() -> None:
    with pytest.raises(SpecError) as error:
        render_proxy(ONE_PORT, None)
    assert error.value.code == "proxy.stream"
    assert "install libnginx-mod-stream" in error.value.public
    assert "exchange and fleet in place of address" in error.value.public
    assert "\n" not in error.value.public


def test_a_module_that_is_built_in_is_not_loaded() -> None:
    text = render_proxy(ONE_PORT, StreamModule())
    assert "load_module" not in text
    assert "ssl_preread on;" in text


@pytest.mark.parametrize(
    ("built", "there"),
    [
        ("--with-stream --with-stream_ssl_preread_module", True),
        ("--with-stream=dynamic --with-stream_ssl_preread_module", False),
        ("--with-stream", False),
        ("", False),
    ],
)
def test_the_module_is_found_in_the_program_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str, there: bool
) -> None:
    program = tmp_path / "nginx"
    program.write_text(f"#!/bin/sh\necho 'configure arguments: {built} --with-http_ssl_module' >&2\n")
    program.chmod(0o700)
    monkeypatch.setattr(proxy, "_MODULES", (tmp_path / "modules",))
    monkeypatch.setattr(proxy, "_PROGRAMS", (program,))
    assert stream_module() == (StreamModule() if there else None)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "ngx_stream_module.so").touch()
    assert stream_module() == StreamModule(tmp_path / "modules" / "ngx_stream_module.so")


def test_without_nginx_there_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_MODULES", (tmp_path / "modules",))
    monkeypatch.setattr(proxy, "_PROGRAMS", (tmp_path / "nginx",))
    assert stream_module() is None


@pytest.mark.parametrize(
    "changed",
    [
        {"key": Path("/home/c/tls key")},
        {"ca": Path("/x;}")},
        {"certificate": Path("relative.pem")},
        {"operators": (PartyId('ops" 1; default'),)},
        {"consortium": "a,CN=b"},
        {"listen": "0.0.0.0:9444 ssl; return 200"},
        {"superlink": "nowhere"},
    ],
)
def test_nothing_slips_into_the_configuration(changed: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        render_proxy(replace(TWO_PORTS, **changed), None)  # type: ignore[arg-type]
