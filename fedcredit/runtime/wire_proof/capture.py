"""What a capture of network traffic shows: who spoke with whom, and whether it was TLS 1.3 from the first byte.

Reads what ``tcpdump -w`` writes (pcap with Ethernet, "cooked" or bare IP frames), puts each TCP stream together and
follows its TLS records. Nothing is decrypted.

Source: RFC 8446 (4.1.2, 4.1.3, 4.2.1, 5.1); draft-ietf-opsawg-pcap; RFC 9293.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from fedcredit.errors import DataError

__all__ = ["Capture", "Stream", "read_capture"]

_MAGIC = {0xA1B2C3D4, 0xA1B23C4D}  # microseconds, nanoseconds
_LINKS = {1: (12, 14), 101: (-1, 0), 12: (-1, 0), 113: (14, 16), 276: (0, 20)}
"""Link types: where the protocol stands in a frame (-1: only IP is there), and where the packet begins."""

_IPV4, _IPV6, _ARP, _VLAN = 0x0800, 0x86DD, 0x0806, 0x8100
_TCP = 6
_NAMES = {_ARP: "arp", 1: "icmp", 2: "igmp", 17: "udp", 58: "icmpv6"}
_SYN, _ACK = 0x02, 0x10
_TLS13 = 0x0304
_CHANGE, _ALERT, _HANDSHAKE, _DATA = 20, 21, 22, 23
_MOST_RECORD = (1 << 14) + 256
_HELLOS = {1: "client", 2: "server"}


@dataclass
class _Way:
    """One direction of a stream."""

    take: Callable[[bytes], None]
    next: int | None = None
    carried: int = 0
    early: dict[int, bytes] = field(default_factory=dict)

    def add(self, sequence: int, payload: bytes) -> None:
        """Hands on what is next; keeps what came too early; drops what came twice."""
        if self.next is None:
            return
        self._place(sequence, payload)
        while self.early:
            ready = [one for one in self.early if _before(one, self.next) <= 0]
            if not ready:
                return
            for one in sorted(ready, key=lambda one: _before(one, self.next or 0)):
                self._place(one, self.early.pop(one))

    def _place(self, sequence: int, payload: bytes) -> None:
        behind = -_before(sequence, self.next or 0)
        if behind < 0:
            self.early[sequence] = max(payload, self.early.get(sequence, b""), key=len)
        elif behind < len(payload):
            fresh = payload[behind:]
            self.next = ((self.next or 0) + len(fresh)) % (1 << 32)
            self.carried += len(fresh)
            self.take(fresh)


def _before(one: int, other: int) -> int:
    """Distance from ``other`` to ``one`` among sequence numbers, which wrap around."""
    return (one - other + (1 << 31)) % (1 << 32) - (1 << 31)


@dataclass
class Stream:
    """One TCP connection.

    Attributes:
        client, server: "address:port".
        hear: Gets the payload, in order, with the end that sent it.
        begun: Sequence number of the client's SYN; None if it was not captured.
        faults: What is not as it should be, in words.
        records: TLS records seen, both ways.
    """

    client: str
    server: str
    hear: Callable[[str, bytes], None]
    begun: int | None = None
    faults: list[str] = field(default_factory=list)
    records: int = 0
    _ways: dict[str, _Way] = field(init=False)
    _rest: dict[str, bytes] = field(init=False)
    _hello: dict[str, bool] = field(init=False)

    def __post_init__(self) -> None:
        """Both directions, nothing seen."""
        self._ways = {end: _Way(partial(self._take, end)) for end in _HELLOS.values()}
        self._rest = dict.fromkeys(self._ways, b"")
        self._hello = dict.fromkeys(self._ways, False)

    @property
    def carried(self) -> int:
        """Payload bytes, both ways."""
        return sum(way.carried for way in self._ways.values())

    def segment(self, end: str, sequence: int, flags: int, payload: bytes) -> None:
        """Takes one segment of the client or the server."""
        way = self._ways[end]
        if flags & _SYN:
            way.next = (sequence + 1) % (1 << 32)
        elif way.next is None:
            self._fault("its beginning is not in the capture")
            way.next = sequence
        if payload:
            way.add(sequence, payload)

    def finish(self) -> None:
        """Notes what is missing at the end of the capture."""
        for end, way in self._ways.items():
            if way.early:
                self._fault(f"the capture lacks bytes of the {end}")
            elif way.carried and not self._hello[end]:
                self._fault(f"the {end} did not begin with a whole TLS handshake record")

    def _fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def _take(self, end: str, data: bytes) -> None:
        self.hear(end, data)
        rest = self._rest[end] + data
        place = 0
        while len(rest) - place >= 5:
            kind, version, size = struct.unpack_from(">BHH", rest, place)
            if kind not in {_CHANGE, _ALERT, _HANDSHAKE, _DATA} or version >> 8 != 3 or size > _MOST_RECORD:
                self._fault(f"the {end} sent bytes that are no TLS record")
                place = len(rest)
                break
            if len(rest) - place < 5 + size:
                break
            self._record(end, kind, rest[place + 5 : place + 5 + size])
            place += 5 + size
        self._rest[end] = rest[place:]

    def _record(self, end: str, kind: int, body: bytes) -> None:
        self.records += 1
        if kind == _HANDSHAKE:
            if not body or _HELLOS.get(body[0]) != end:
                self._fault(f"the {end} sent a handshake message in the clear that is no hello")
            elif end == "server" and _chosen_version(body) != _TLS13:
                self._fault("the server did not choose TLS 1.3")
            self._hello[end] = True
        elif not self._hello[end]:
            self._fault(f"the {end} did not begin with a TLS handshake")
        elif kind == _CHANGE and body != b"\x01":
            self._fault(f"the {end} sent a malformed change of ciphers")
        elif kind == _ALERT:
            self._fault(f"the {end} sent an alert in the clear")


def _chosen_version(hello: bytes) -> int:
    """Version in the ``supported_versions`` of a ServerHello; 0 where there is none."""
    try:
        place = 4 + 2 + 32
        place += 1 + hello[place] + 2 + 1
        (left,) = struct.unpack_from(">H", hello, place)
        place += 2
        end = place + left
        while place + 4 <= end:
            kind, size = struct.unpack_from(">HH", hello, place)
            if kind == 43 and size == 2:  # supported_versions
                return int.from_bytes(hello[place + 4 : place + 6], "big")
            place += 4 + size
    except (struct.error, IndexError):
        return 0
    return 0


@dataclass
class Capture:
    """All that was captured.

    Attributes:
        streams: TCP connections, in the order they began.
        other: Packets that are not TCP, by protocol.
        packets: All packets.
    """

    streams: list[Stream] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    packets: int = 0

    @property
    def faults(self) -> list[str]:
        """What is not TLS 1.3 throughout, in words; connections without a byte are none."""
        return [f"{one.client} → {one.server}: {text}" for one in self.streams if one.carried for text in one.faults]


def read_capture(path: Path, hear: Callable[[str, bytes], None] | None = None) -> Capture:
    """Reads a capture.

    Args:
        path: Of a pcap file.
        hear: Gets the payload of every stream, in order, under a name for each direction.

    Raises:
        DataError: not a pcap file, of a link type that is not known, or packets that were cut short.
    """
    found = Capture()
    known: dict[tuple[str, str], Stream] = {}

    def opened(source: str, target: str, begun: int | None) -> Stream:
        name, listener = f"{source} → {target}", hear
        stream = Stream(source, target, lambda end, data: listener(f"{name}, {end}", data) if listener else None, begun)
        known.pop((target, source), None)
        known[source, target] = stream
        found.streams.append(stream)
        return stream

    for link, frame in _frames(path):
        found.packets += 1
        segment = _segment(*_network(link, frame))
        if isinstance(segment, str):
            found.other[segment] += 1
            continue
        source, target, sequence, flags, payload = segment
        mine, theirs = known.get((source, target)), known.get((target, source))
        if flags & (_SYN | _ACK) == _SYN:
            if mine is None or mine.begun != sequence:  # loopback shows every packet twice
                mine, theirs = opened(source, target, sequence), None
        elif mine is None and theirs is None:
            mine = opened(source, target, None)
        if mine is not None:
            mine.segment("client", sequence, flags, payload)
        elif theirs is not None:
            theirs.segment("server", sequence, flags, payload)
    for stream in found.streams:
        stream.finish()
    return found


def _frames(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        head = file.read(24)
        order = next((one for one in "<>" if len(head) == 24 and struct.unpack_from(f"{one}I", head)[0] in _MAGIC), "")
        if not order:
            raise DataError("capture.format", f"{path}: not a pcap file (tcpdump -w writes one)")
        link = struct.unpack_from(f"{order}I", head, 20)[0] & 0xFFFF
        if link not in _LINKS:
            raise DataError("capture.link", f"{path}: link type {link} is not known; capture with tcpdump -i any")
        record = struct.Struct(f"{order}IIII")
        while len(raw := file.read(record.size)) == record.size:
            _, _, kept, length = record.unpack(raw)
            frame = file.read(kept)
            if len(frame) < kept:
                return  # the last packet, where the capture was ended
            if kept < length:
                raise DataError("capture.cut", f"{path}: packets were cut short; capture with tcpdump -s 0")
            yield link, frame


def _network(link: int, frame: bytes) -> tuple[int, bytes]:
    """Protocol and bytes of the packet in a frame."""
    where, start = _LINKS[link]
    if where < 0:
        return (_IPV6 if frame[:1] and frame[0] >> 4 == 6 else _IPV4), frame
    protocol = int.from_bytes(frame[where : where + 2], "big")
    if protocol == _VLAN:
        protocol, start = int.from_bytes(frame[start + 2 : start + 4], "big"), start + 4
    return protocol, frame[start:]


def _segment(protocol: int, packet: bytes) -> tuple[str, str, int, int, bytes] | str:
    """Source, target, sequence, flags and payload of a TCP segment; else the name of what it is."""
    if protocol == _IPV4 and len(packet) >= 20:
        start, inner, hosts = 4 * (packet[0] & 15), packet[9], (packet[12:16], packet[16:20])
        # 0 where the sending kernel leaves it to the card: large segments that were captured before they were cut
        packet = packet[: int.from_bytes(packet[2:4], "big") or len(packet)]
        if int.from_bytes(packet[6:8], "big") & 0x3FFF:
            return "fragment"
    elif protocol == _IPV6 and len(packet) >= 40:
        start, inner, hosts = 40, packet[6], (packet[8:24], packet[24:40])
        packet = packet[: 40 + (int.from_bytes(packet[4:6], "big") or len(packet))]
    else:
        return _NAMES.get(protocol, f"ethertype {protocol:#06x}")
    if inner != _TCP or len(packet) < start + 20:
        return _NAMES.get(inner, f"ip {inner}")
    source, target, sequence = struct.unpack_from(">HHI", packet, start)
    ends = [str(ip_address(host)) for host in hosts]
    payload = packet[start + 4 * (packet[start + 12] >> 4) :]
    return f"{ends[0]}:{source}", f"{ends[1]}:{target}", sequence, packet[start + 13], payload
