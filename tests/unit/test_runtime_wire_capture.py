"""Captures: what is TLS 1.3 passes, and everything else is named."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedcredit.errors import DataError
from fedcredit.runtime.wire_proof.capture import read_capture
from fedcredit.runtime.wire_proof.check import main

CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 9443)
SYN, SYN_ACK, DATA = 0x02, 0x12, 0x18
End = tuple[str, int]


def record(kind: int, body: bytes, version: int = 0x0303) -> bytes:
    return struct.pack(">BHH", kind, version, len(body)) + body


def hello(kind: int, version: int | None = 0x0304) -> bytes:
    extension = b"" if version is None else struct.pack(">HHH", 43, 2, version)
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x13\x01\x00" + struct.pack(">H", len(extension)) + extension
    return record(22, bytes([kind]) + len(body).to_bytes(3, "big") + body)


CLIENT_HELLO, SERVER_HELLO = hello(1), hello(2)
APPLICATION = record(23, b"x" * 100)


def packet(source: End, target: End, sequence: int, flags: int, payload: bytes = b"") -> bytes:
    hosts = [bytes(map(int, host.split("."))) for host, _ in (source, target)]
    tcp = struct.pack(">HHIIBBHHH", source[1], target[1], sequence % 2**32, 0, 5 << 4, flags, 1000, 0, 0) + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + b"".join(hosts)
    return bytes(12) + b"\x08\x00" + head + tcp


def write(path: Path, frames: Sequence[bytes], link: int = 1) -> Path:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    path.write_bytes(head + b"".join(struct.pack("<IIII", 0, 0, len(one), len(one)) + one for one in frames))
    return path


def conversation(client: bytes, server: bytes, start: int = 1000, size: int = 60) -> list[bytes]:
    frames = [packet(CLIENT, SERVER, start, SYN), packet(SERVER, CLIENT, 7, SYN_ACK)]
    for place in range(0, max(len(client), len(server)), size):
        for source, target, first, data in ((CLIENT, SERVER, start + 1, client), (SERVER, CLIENT, 8, server)):
            if data[place : place + size]:
                frames.append(packet(source, target, first + place, DATA, data[place : place + size]))
    return frames


GOOD = (CLIENT_HELLO + record(20, b"\x01") + APPLICATION * 3, SERVER_HELLO + record(20, b"\x01") + APPLICATION * 2)


def test_tls_13_passes_and_is_heard_in_order(tmp_path: Path) -> None:
    heard: dict[str, bytes] = {}

    def hear(name: str, data: bytes) -> None:
        heard[name] = heard.get(name, b"") + data

    found = read_capture(write(tmp_path / "a.pcap", conversation(*GOOD)), hear)
    assert found.faults == []
    (stream,) = found.streams
    assert (stream.client, stream.server) == ("10.0.0.1:40000", "10.0.0.2:9443")
    assert (stream.records, stream.carried) == (9, sum(map(len, GOOD)))
    assert sorted(heard.values()) == sorted(GOOD)


@pytest.mark.parametrize("start", [1000, 2**32 - 100], ids=["", "sequence numbers wrap"])
def test_packets_twice_and_out_of_order(tmp_path: Path, start: int) -> None:
    first, second, *rest = conversation(*GOOD, start=start)
    frames = [first, first, second, *reversed(rest), *rest]
    found = read_capture(write(tmp_path / "a.pcap", frames))
    assert found.faults == []
    assert [one.carried for one in found.streams] == [sum(map(len, GOOD))]


@pytest.mark.parametrize(
    ("client", "server", "fault"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n", "no TLS record"),
        (CLIENT_HELLO, hello(2, 0x0303), "did not choose TLS 1.3"),
        (CLIENT_HELLO, hello(2, None), "did not choose TLS 1.3"),
        (CLIENT_HELLO + APPLICATION + b"plain text", SERVER_HELLO, "client sent bytes that are no TLS record"),
        (APPLICATION + CLIENT_HELLO, SERVER_HELLO, "did not begin with a TLS handshake"),
        (CLIENT_HELLO, SERVER_HELLO + record(22, b"\x0b" + bytes(60)), "in the clear that is no hello"),
        (CLIENT_HELLO, SERVER_HELLO + record(21, b"\x02\x28"), "alert in the clear"),
        (CLIENT_HELLO, SERVER_HELLO + record(20, b"secret"), "malformed change of ciphers"),
        (CLIENT_HELLO, SERVER_HELLO[:20], "did not begin with a whole TLS handshake record"),
    ],
)
def test_what_is_not_tls_13_is_named(tmp_path: Path, client: bytes, server: bytes, fault: str) -> None:
    found = read_capture(write(tmp_path / "a.pcap", conversation(client, server)))
    assert any(fault in one for one in found.faults), found.faults


def test_what_the_capture_lacks_is_named(tmp_path: Path) -> None:
    frames = conversation(*GOOD)
    assert "lacks bytes" in read_capture(write(tmp_path / "a.pcap", frames[:4] + frames[6:])).faults[0]
    assert "its beginning" in read_capture(write(tmp_path / "b.pcap", frames[2:])).faults[0]


def test_what_is_not_tcp_is_counted(tmp_path: Path) -> None:
    udp = bytearray(packet(CLIENT, SERVER, 0, 0))
    udp[14 + 9] = 17
    found = read_capture(write(tmp_path / "a.pcap", [bytes(udp), bytes(12) + b"\x08\x06" + bytes(28)]))
    assert found.other == {"udp": 1, "arp": 1}
    assert found.faults == []


@pytest.mark.parametrize(
    ("link", "before"), [(113, bytes(14) + b"\x08\x00"), (276, b"\x08\x00" + bytes(18)), (101, b"")]
)
def test_cooked_and_bare_frames(tmp_path: Path, link: int, before: bytes) -> None:
    frames = [before + one[14:] for one in conversation(*GOOD)]
    found = read_capture(write(tmp_path / "a.pcap", frames, link))
    assert found.faults == []
    assert found.streams[0].records == 9


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes(b"something else entirely, long enough")
    with pytest.raises(DataError, match="not a pcap file"):
        read_capture(tmp_path / "a.pcap")
    with pytest.raises(DataError, match="link type 105"):
        read_capture(write(tmp_path / "b.pcap", [], 105))
    cut = struct.pack("<IIII", 0, 0, 4, 90) + b"1234"
    (tmp_path / "c.pcap").write_bytes(write(tmp_path / "c.pcap", []).read_bytes() + cut)
    with pytest.raises(DataError, match="cut short"):
        read_capture(tmp_path / "c.pcap")


def test_the_command_tells_what_is_wrong_and_shows_no_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "bank.csv"
    table.write_text("enterprise,turnover\nNTPL-4711,123456789012345\nNTPL-4712,7\n")
    clean = write(tmp_path / "clean.pcap", conversation(*GOOD))
    assert main([str(clean), str(table)]) == 0
    leaking = APPLICATION + record(23, b"......NTPL-4711......" + struct.pack("<q", 123456789012345))
    dirty = write(tmp_path / "dirty.pcap", conversation(GOOD[0] + leaking, GOOD[1]))
    assert main([str(dirty), str(table)]) == 1
    out = capsys.readouterr().out
    assert "FOUND IN THE CLEAR enterprise of bank.csv" in out
    assert "FOUND IN THE CLEAR turnover of bank.csv" in out
    assert "4711" not in out
    assert main([str(write(tmp_path / "plain.pcap", conversation(b"GET / HTTP/1.1\r\n", b"no")))]) == 1
    assert "NOT TLS 1.3" in capsys.readouterr().out


def test_the_command_says_when_it_cannot_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main([str(tmp_path / "missing.pcap")]) == 2
    assert main([str(write(tmp_path / "a.pcap", [])), str(tmp_path / "missing.csv")]) == 2
    err = capsys.readouterr().err
    assert "usage" in err
    assert "cannot be read as CSV" in err
