"""The compose files: every service hardened, every holder alone with the coordinator, nothing published by a node."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import fedcredit
from fedcredit.runtime.house.roster import MemberKind
from fedcredit.runtime.house.settings import CoordinatorSettings, NodeSettings, read_settings
from fedcredit.runtime.provision.spec import load_consortium

CONSORTIUM = Path(__file__).parents[2] / "configs/consortium"
yaml: Any = import_module("yaml")  # it has no types of its own
HOLDERS = ("bank", "tax_office", "utility")


def compose(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CONSORTIUM / name).read_text("utf-8"))
    return loaded


WHOLE, PARTY = compose("compose.yaml"), compose("compose.party.yaml")
SERVICES = [
    *((f"compose.yaml {name}", service) for name, service in WHOLE["services"].items()),
    *((f"compose.party.yaml {name}", service) for name, service in PARTY["services"].items()),
]
each_service = pytest.mark.parametrize("service", [one for _, one in SERVICES], ids=[name for name, _ in SERVICES])


def faults(service: dict[str, Any]) -> list[str]:
    """What of a service is not as hard as it should be."""
    found = [
        *([] if service.get("read_only") is True else ["writable root"]),
        *([] if service.get("cap_drop") == ["ALL"] and "cap_add" not in service else ["capabilities"]),
        *([] if service.get("security_opt") == ["no-new-privileges:true"] else ["new privileges"]),
        *([] if re.search(r":-[1-9]\d{3,}:[1-9]\d{3,}\}$", str(service.get("user"))) else ["root"]),
        *([] if isinstance(service.get("pids_limit"), int) else ["processes without limit"]),
        *([] if service.get("mem_limit") and service["mem_limit"] == service.get("memswap_limit") else ["memory"]),
        *([] if service.get("logging", {}).get("options", {}).get("max-size") else ["logs without limit"]),
    ]
    found += [key for key in ("privileged", "network_mode", "pid", "ipc", "devices", "userns_mode") if key in service]
    for tmpfs in service.get("tmpfs", ["none"]):
        if not {"noexec", "nosuid", "nodev"} <= set(re.split("[:,]", tmpfs)) or "size=" not in tmpfs:
            found.append(f"tmpfs {tmpfs}")
    for mount in service.get("volumes", []):
        if "docker.sock" in str(mount):
            found.append("the engine's socket")
        if not mount.get("read_only") and mount["target"] != "/var/lib/fedcredit":
            found.append(f"writes to {mount['target']}")
    return found


@each_service
def test_every_service_is_hardened(service: dict[str, Any]) -> None:
    assert faults(service) == []


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("read_only", False, "writable root"),
        ("cap_drop", [], "capabilities"),
        ("security_opt", [], "new privileges"),
        ("user", "0:0", "root"),
        ("pids_limit", None, "processes without limit"),
        ("memswap_limit", "-1", "memory"),
        ("privileged", True, "privileged"),
        ("tmpfs", ["/tmp"], "tmpfs /tmp"),
        ("volumes", [{"source": ".", "target": "/data"}], "writes to /data"),
    ],
)
def test_a_softened_service_is_seen(key: str, value: object, fault: str) -> None:
    assert fault in faults({**WHOLE["services"]["bank"], key: value})


@each_service
def test_the_image_is_of_this_version(service: dict[str, Any]) -> None:
    assert re.search(rf"fedcredit-(node|coordinator):{re.escape(fedcredit.__version__)}\}}?$", service["image"])


@each_service
def test_a_home_that_is_not_there_is_not_made(service: dict[str, Any]) -> None:
    homes = [one for one in service["volumes"] if one["target"] == "/var/lib/fedcredit"]
    assert [one["bind"]["create_host_path"] for one in homes] == [False]


def test_who_takes_part() -> None:
    assert set(WHOLE["services"]) == {"coordinator", *HOLDERS, "operations"}
    assert WHOLE["services"]["operations"]["profiles"] == ["operations"]
    assert all("profiles" not in WHOLE["services"][name] for name in ("coordinator", *HOLDERS))


def test_each_holder_is_alone_with_the_coordinator_on_a_network_that_leads_nowhere() -> None:
    services, networks = WHOLE["services"], WHOLE["networks"]
    assert all(network == {"internal": True} for network in networks.values())
    for name in (*HOLDERS, "operations"):
        assert services[name]["networks"] == [name]
        on_it = {other for other, service in services.items() if name in service["networks"]}
        assert on_it == {name, "coordinator"}
    assert set(services["coordinator"]["networks"]) == set(networks)
    assert all("ports" not in service and "expose" not in service for service in services.values())


def test_no_two_services_share_a_folder_that_one_writes() -> None:
    sources = [
        mount["source"]
        for service in WHOLE["services"].values()
        for mount in service["volumes"]
        if not mount.get("read_only")
    ]
    assert len(sources) == len(set(sources)) == 5
    assert [one for one in sources if not one.startswith("${FEDCREDIT_HOMES:-./homes}/")] == []


def test_nodes_start_when_the_coordinator_is_ready() -> None:
    for name in HOLDERS:
        service = WHOLE["services"][name]
        assert service["depends_on"] == {"coordinator": {"condition": "service_healthy"}}
    daemons = [WHOLE["services"][name] for name in ("coordinator", *HOLDERS)] + list(PARTY["services"].values())
    for service in daemons:
        assert service["healthcheck"]["test"][:3] == ["CMD", "/opt/fedcredit/bin/python", "-I"]
        assert service["healthcheck"]["test"][3:] == ["/opt/fedcredit/probe.py", "readyz"]
        assert service["restart"] == "unless-stopped"


def test_only_the_coordinator_is_reached_from_outside() -> None:
    node, coordinator = PARTY["services"]["node"], PARTY["services"]["coordinator"]
    assert "ports" not in node
    assert [one.rsplit(":", 1)[1] for one in coordinator["ports"]] == ["9443"]
    assert node["networks"] != coordinator["networks"]
    assert (node["profiles"], coordinator["profiles"]) == (["node"], ["coordinator"])


def test_the_consortium_of_the_compose_file_and_its_settings_agree() -> None:
    spec = load_consortium(CONSORTIUM / "compose/consortium.toml")
    assert spec.trial
    kinds = {str(name): kind for name, kind in spec.kinds.items()}
    assert set(kinds) == set(WHOLE["services"])
    assert [name for name, kind in kinds.items() if kind is MemberKind.NODE] == list(HOLDERS)
    assert (spec.coordinator.exchange, spec.coordinator.fleet) == ("coordinator:9443", "coordinator:9443")
    coordinator = read_settings(CoordinatorSettings, CONSORTIUM / "compose/coordinator.toml")
    assert (coordinator.exchange.listen, coordinator.flower.proxy) == ("127.0.0.1:9442", "0.0.0.0:9443")
    for name in HOLDERS:
        node = read_settings(NodeSettings, CONSORTIUM / f"compose/{name}.toml")
        section = spec.section(node.party)
        assert section is not None
        assert (node.party, node.role) == (name, section.role)
        assert node.metrics.listen == coordinator.metrics.listen == "127.0.0.1:9464"
        targets = {one["target"]: one["source"] for one in WHOLE["services"][name]["volumes"]}
        assert targets["/var/lib/fedcredit/node.toml"] == f"./compose/{name}.toml"
        assert [Path(one.source).parent.as_posix() for one in node.data.values()] == ["/data"]
        assert targets["/data"].endswith(f"/{name}")
