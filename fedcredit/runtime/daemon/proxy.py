"""The reverse proxy in front of the coordinator: who reaches which interface, as a configuration of nginx.

    the one address ─┬─ offers HTTP/2 ── TLS is passed through untouched ──► exchange (mutual TLS stays end to end)
                     └─ anything else ── TLS ends here ──► /v1/fleet/*    SuperLink: nodes prove themselves by keys
                                                           /v1/control/*  SuperLink, for an operator's certificate
                                                           /v1/runtime/*  403: the SuperExec needs no proxy
                                                           all else       403 and 404

The first message of TLS tells the two apart: a client of the exchange offers HTTP/2, one of Flower does not. That needs
nginx's module ``stream`` with ``ssl_preread``. With two addresses the exchange has one of its own and needs no proxy.

Source: RFC 7301 (ALPN); nginx, ngx_stream_ssl_preread_module and ngx_http_ssl_module.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fedcredit.errors import SpecError
from fedcredit.runtime.checkpoints import replace_file
from fedcredit.runtime.daemon.supervisor import Child
from fedcredit.runtime.exchange.loopback_tls import LOOPBACK_NAME
from fedcredit.runtime.house.roster import split_address
from fedcredit.types import PartyId

__all__ = [
    "NO_STREAM",
    "PASSED_THROUGH",
    "ProxySettings",
    "StreamModule",
    "find_nginx",
    "proxy_child",
    "render_proxy",
    "stream_module",
    "write_proxy",
]

PASSED_THROUGH = "h2"
"""ALPN name of what goes to the exchange."""

NO_STREAM = (
    "one address for exchange and fleet needs nginx with its stream module: install libnginx-mod-stream (Debian, "
    "Ubuntu) or nginx-mod-stream (Fedora, RHEL), or write exchange and fleet in place of address in consortium.toml"
)
"""What to do where nginx cannot tell the two apart."""

_MODULES = tuple(Path(one) for one in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/etc/nginx/modules"))
_PROGRAMS = tuple(Path(one) for one in ("/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"))
_PATH = re.compile(r"/[\w./+@%=~-]*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

_MAIN = """\
{module}daemon off;
master_process on;
worker_processes auto;
worker_rlimit_nofile 32768;
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
events {{
    worker_connections 8192;
}}
"""

_STREAM = """
stream {{
    limit_conn_zone $binary_remote_addr zone=addresses:10m;
    map $ssl_preread_alpn_protocols $behind {{
        default         {fleet_upstream};
        "~(^|,)h2(,|$)" {exchange};
    }}
    server {{
        listen {listen};
        ssl_preread on;
        preread_timeout 10s;
        limit_conn addresses {per_address};
        proxy_connect_timeout 5s;
        proxy_timeout 10m;
        tcp_nodelay on;
        proxy_pass $behind;
    }}
}}
"""

_HTTP = """
http {{
    access_log off;
    server_tokens off;
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    limit_conn_zone $binary_remote_addr zone=clients:10m;
    map "$ssl_client_verify $ssl_client_s_dn" $operator {{
        default 0;
{operators}    }}
    upstream superlink {{
        server {superlink};
        keepalive 64;
    }}
    server {{
        listen {http_listen} ssl;
        server_name _;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        ssl_client_certificate {ca};
        ssl_verify_client optional;
        ssl_verify_depth 1;
        ssl_session_tickets off;
        {limit}client_max_body_size {max_body};
        client_header_timeout 10s;
        client_body_timeout 60s;
        keepalive_timeout 75s;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host {loopback};
        proxy_connect_timeout 5s;
        proxy_read_timeout 120s;
        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_verify on;
        proxy_ssl_name {loopback};
        proxy_ssl_trusted_certificate {loopback_ca};
        location ~ ^/v1/fleet/[a-z0-9-]+$ {{
            proxy_pass https://superlink;
        }}
        location ~ ^/v1/control/[a-z0-9-]+$ {{
            if ($operator != 1) {{
                return 403;
            }}
            proxy_pass https://superlink;
        }}
        location /v1/ {{
            return 403;
        }}
        location / {{
            return 404;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class ProxySettings:
    """What the proxy needs to know.

    Args:
        folder: For its own files; made with mode 0700.
        listen: "host:port" that nodes reach Flower at.
        superlink: "host:port" of the SuperLink, on loopback.
        loopback_ca: Authority of the SuperLink's certificate.
        certificate: The coordinator's certificate.
        key: Its private key.
        ca: The consortium's authority.
        consortium: Name of the consortium, as in the subjects of its certificates.
        operators: Members that may reach the control interface.
        exchange: "host:port" of the exchange behind the one address; "" = the exchange has an address of its own.
        max_body_mb: Largest request in MiB.
        per_address: Most connections of one address.
    """

    folder: Path
    listen: str
    superlink: str
    loopback_ca: Path
    certificate: Path
    key: Path
    ca: Path
    consortium: str
    operators: tuple[PartyId, ...] = ()
    exchange: str = ""
    max_body_mb: int = 64
    per_address: int = 256


def find_nginx() -> Path:
    """The program.

    Raises:
        SpecError: it is not installed.
    """
    for path in _PROGRAMS:
        if path.is_file():
            return path
    raise SpecError("proxy.nginx", 'nginx is not installed; install it, or set [flower] proxy = "" and bring your own')


@dataclass(frozen=True)
class StreamModule:
    """What tells TLS connections apart.

    Args:
        file: To be loaded; None = built into the program.
    """

    file: Path | None = None


def stream_module() -> StreamModule | None:
    """The module ``stream``, built in or installed beside nginx; None where it is missing."""
    found = next((one for folder in _MODULES if (one := folder / "ngx_stream_module.so").is_file()), None)
    if found is not None:
        return StreamModule(found)
    try:
        told = subprocess.run([str(find_nginx()), "-V"], capture_output=True, timeout=10, check=False, text=True)  # noqa: S603 -- fixed
    except (SpecError, OSError, subprocess.TimeoutExpired):
        return None
    built = {"--with-stream", "--with-stream_ssl_preread_module"} <= set(told.stderr.split())
    return StreamModule() if built else None


def render_proxy(settings: ProxySettings, module: StreamModule | None) -> str:
    """The configuration as text.

    Args:
        settings: What the proxy needs to know.
        module: As `stream_module`; needed where exchange and Flower share an address.

    Raises:
        SpecError: the module is missing, or a name or path would not survive the configuration's syntax.
    """
    if settings.exchange and module is None:
        raise SpecError("proxy.stream", NO_STREAM)
    inner = f"unix:{settings.folder / 'fleet.sock'}"
    values = {
        "folder": _path(settings.folder),
        "module": f"load_module {_path(module.file)};\n" if settings.exchange and module and module.file else "",
        "user": "user root;" if os.geteuid() == 0 else "",  # files and keys are its own; containers run it as no root
        "listen": _address(settings.listen),
        "exchange": _address(settings.exchange) if settings.exchange else "",
        "fleet_upstream": inner,
        "http_listen": inner if settings.exchange else _address(settings.listen),
        "limit": "" if settings.exchange else f"limit_conn clients {settings.per_address:d};\n        ",
        "superlink": _address(settings.superlink),
        "certificate": _path(settings.certificate),
        "key": _path(settings.key),
        "ca": _path(settings.ca),
        "loopback": LOOPBACK_NAME,
        "loopback_ca": _path(settings.loopback_ca),
        "operators": "".join(
            f'        "SUCCESS CN={_name(one)},O={_name(settings.consortium)}" 1;\n' for one in settings.operators
        ),
        "max_body": f"{settings.max_body_mb:d}m",
        "per_address": f"{settings.per_address:d}",
    }
    return "".join(part.format(**values) for part in (_MAIN, _STREAM if settings.exchange else "", _HTTP))


def write_proxy(settings: ProxySettings) -> Path:
    """Writes the configuration; a proxy that runs reads it on SIGHUP, and its connections stay.

    Raises:
        SpecError: as in `render_proxy`.
    """
    settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.folder / "nginx.conf"
    replace_file(path, render_proxy(settings, stream_module()).encode("utf-8"))
    return path


def proxy_child(settings: ProxySettings) -> Child:
    """Writes the configuration; returns the process to keep up."""
    path = write_proxy(settings)
    (settings.folder / "fleet.sock").unlink(missing_ok=True)  # left behind by one that was killed
    command = (str(find_nginx()), "-p", str(settings.folder), "-c", str(path), "-e", "stderr")
    return Child("proxy", command, {"PATH": os.defpath})


def _path(path: Path) -> str:
    if _PATH.fullmatch(str(path)) is None:
        raise SpecError(
            "proxy.path", f"{path}: the proxy's configuration takes absolute paths without spaces or quotes"
        )
    return str(path)


def _name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise SpecError("proxy.name", f"{name!r}: no name of a member or consortium")
    return name


def _address(address: str) -> str:
    host, port = split_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
