"""Which addresses processes listen on, as the kernel tells it."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Address = IPv4Address | IPv6Address

_LISTENING = "0A"


def listeners(pids: Iterable[int]) -> set[tuple[Address, int]]:
    """Address and port of every TCP socket on which one of the processes listens."""
    own = {inode for pid in pids for inode in _sockets(pid)}
    return {(address, port) for inode, address, port in _table() if inode in own}


def public(found: Iterable[tuple[Address, int]]) -> list[str]:
    """Those that another machine could reach."""
    return [f"{address} port {port}" for address, port in found if not address.is_loopback]


def _sockets(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # closed meanwhile
            target = str(path.readlink())
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    return found


def _table() -> list[tuple[str, Address, int]]:
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING:
                packed, port = fields[1].split(":")
                found.append((fields[9], _address(packed), int(port, 16)))
    return found


def _address(packed: str) -> Address:
    # Words of 32 bits, each in the machine's own order of bytes.
    words = [int(packed[start : start + 8], 16) for start in range(0, len(packed), 8)]
    return ip_address(struct.pack(f"={len(words)}I", *words))


def open_port(host: str) -> socket.socket:
    """A socket that listens on some port of `host`."""
    return socket.create_server((host, 0))
