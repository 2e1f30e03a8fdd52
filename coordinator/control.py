"""Speaks to the SuperLink's control interface on loopback: ``ADDRESS CA nodes|run|stop|ended …``; answers on stdout.

A process of its own, so that the daemon need not load Flower. The interface itself asks nobody who they are; the proxy
keeps everybody else away from it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from flwr.common.constant import Status
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from httpx import ConnectError, HTTPStatusError, codes

from fedcredit.runtime.flower_bundle import bundle_archive

__all__ = ["ended_runs", "main", "node_key", "register", "start_run"]

_CONNECT_S, _AGAIN_S = 40.0, 0.5  # a SuperLink needs seconds to start, more on a busy machine


def node_key(line: str) -> bytes:
    """A node's key as Flower keeps it.

    Args:
        line: OpenSSH public line.
    """
    return load_ssh_public_key(line.encode()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def register(client: ControlHttpClient, keys: Mapping[str, str]) -> str:
    """Makes the SuperLink's nodes those of the roster; a node whose key or name changed is registered anew."""
    wanted = {node_key(line): name for name, line in keys.items()}
    known = {}
    for node in client.ListNodes(ListNodesRequest()).nodes_info:
        if not node.HasField("unregistered_at") and node.status != "unregistered":
            known[bytes(node.public_key)] = (node.node_id, node.name)
    gone = [(number, name) for key, (number, name) in known.items() if wanted.get(key) != name]
    new = {key: name for key, name in wanted.items() if key not in known or known[key][1] != name}
    for number, _ in gone:
        client.UnregisterNode(UnregisterNodeRequest(node_id=number))
    for key, name in new.items():
        client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
    return json.dumps({"added": sorted(new.values()), "removed": sorted(name for _, name in gone)})


def start_run(client: ControlHttpClient, run: str) -> str:
    """Starts the installed package's bundle for a run; returns the Flower run's id."""
    archive = bundle_archive()
    bundle = Fab(hashlib.sha256(archive).hexdigest(), archive, {})
    request = StartRunRequest(fab=fab_to_proto(bundle), override_config=user_config_to_proto({"run": run}))
    return str(client.StartRun(request).run_id)


def ended_runs(client: ControlHttpClient, flower_runs: list[str]) -> str:
    """Those of some Flower runs that have ended or are unknown, as a JSON list."""
    ended = []
    for one in flower_runs:
        try:
            known = client.ListRuns(ListRunsRequest(run_id=int(one))).run_dict
            going = [run for run in known.values() if str(run.run_id) == one and run.status.status != Status.FINISHED]
        except HTTPStatusError as error:
            if error.response.status_code != codes.NOT_FOUND:
                raise
            going = []
        if not going:
            ended.append(one)
    return json.dumps(ended)


def main(arguments: list[str]) -> str:
    """The command; returns its answer. A SuperLink that is being restarted is waited for."""
    address, ca, action, argument = arguments
    client = ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=Path(ca).read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    until = time.monotonic() + _CONNECT_S
    try:
        while True:
            try:
                return _done(client, action, argument)
            except ConnectError:  # nothing was sent
                if time.monotonic() > until:
                    raise
                time.sleep(_AGAIN_S)
    finally:
        client.close()


def _done(client: ControlHttpClient, action: str, argument: str) -> str:
    if action == "nodes":
        return register(client, json.loads(argument))
    if action == "run":
        return start_run(client, argument)
    if action == "ended":
        return ended_runs(client, json.loads(argument))
    client.StopRun(StopRunRequest(run_id=int(argument)))
    return ""


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]))
