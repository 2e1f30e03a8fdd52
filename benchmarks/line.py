"""A long-distance line between two network namespaces, in user space: for kernels without the netem qdisc.

usage: python benchmarks/line.py INTERFACE@NAMESPACE INTERFACE@NAMESPACE

Makes a TUN device in each namespace and carries packets between them as ``tc netem delay MS rate MBPS limit 1000``
would in both directions: a packet leaves when those before it have left, is there MS later, and is dropped where 1000
are waiting. MBPS and MS, 0 at first for no limit and no delay, come as lines on standard input, or the word "count".
Says how many bytes it has carried each way and how many packets it has dropped, first when both devices are there and
then after each line; ends when standard input does. Large segments are carried in
one piece, as between cards that cut them, but take the time and the place in the queue of their packets.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_TUN, _NO_PI, _VNET_HDR = 0x0001, 0x1000, 0x4000
_CSUM, _TSO4 = 0x01, 0x02
_HEADER = 10  # of virtio: flags, kind of segmentation, header length, segment size, checksum place
_ETHERNET = 14  # netem counts it, a TUN device does not have it
_LIMIT = 1000
_LARGEST = _HEADER + (1 << 16)


def device(interface: str, namespace: str) -> int:
    """A TUN device, moved to a namespace; its file stays here."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH", interface.encode(), _TUN | _NO_PI | _VNET_HDR))
    fcntl.ioctl(file, _TUNSETOFFLOAD, _CSUM | _TSO4)
    subprocess.run(["ip", "link", "set", interface, "netns", namespace], check=True)
    return file


class Direction:
    """Packets on their way from one end to the other."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target = source, target
        self.rate = self.delay = 0.0
        self.free = 0.0
        self.under_way: deque[tuple[float, float, int, bytes]] = deque()
        self.bytes = self.packets = self.dropped = 0

    def take(self) -> None:
        """Takes what has come in."""
        while True:
            try:
                data = os.read(self.source, _LARGEST)
            except BlockingIOError:
                return
            now = time.monotonic()
            count, size = measured(data)
            if self.queued(now) + count > _LIMIT:
                self.dropped += count
                continue
            self.free = max(now, self.free) + (size / self.rate if self.rate else 0.0)
            self.under_way.append((self.free + self.delay, self.free, count, data))
            self.bytes, self.packets = self.bytes + size, self.packets + count

    def queued(self, now: float) -> int:
        """Packets that have not left yet."""
        found = 0
        for _, left, count, _ in reversed(self.under_way):
            if left <= now:
                break
            found += count
        return found

    def deliver(self) -> float | None:
        """Hands on what is due; says when the next packet is."""
        while self.under_way:
            due = self.under_way[0][0]
            if due > time.monotonic():
                return due
            os.write(self.target, self.under_way.popleft()[3])
        return None


def measured(data: bytes) -> tuple[int, int]:
    """Packets on the wire and their bytes."""
    size = len(data) - _HEADER + _ETHERNET
    _, kind, _, segment = struct.unpack_from("=BBHH", data)
    if not kind or not segment:
        return 1, size
    packet = memoryview(data)[_HEADER:]
    before = 4 * (packet[0] & 15)
    before += 4 * (packet[before + 12] >> 4)
    count = max(1, -(-(len(packet) - before) // segment))
    return count, size + (count - 1) * (before + _ETHERNET)


def say(ways: list[Direction]) -> None:
    os.write(1, f"{ways[0].bytes} {ways[1].bytes} {ways[0].dropped + ways[1].dropped}\n".encode())


def main(arguments: list[str]) -> int:
    first, second = (device(*end.split("@")) for end in arguments)
    ways = [Direction(first, second), Direction(second, first)]
    by_file = {way.source: way for way in ways}
    say(ways)
    while True:
        due = [when for way in ways if (when := way.deliver()) is not None]
        left = max(0.0, min(due) - time.monotonic()) if due else None
        ready, _, _ = select.select([*by_file, 0], [], [], left)
        for file in ready:
            if file in by_file:
                by_file[file].take()
                continue
            words = sys.stdin.readline().split()
            if not words:
                return 0
            for way in ways if words[0] != "count" else []:
                way.rate, way.delay = float(words[0]) * 1e6 / 8, float(words[1]) / 1e3
            say(ways)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
