"""The network bridge that an engine's containers are on.

Made with the ioctls that brctl and ifconfig use, so that neither iproute2 nor iptables is needed.
``sandbox.guard`` removes it.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time

from sandbox.guard import END_SECONDS, remove_bridge

SIOCBRADDBR = 0x89A0  # linux/sockios.h
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
IFF_UP, IFF_RUNNING = 0x1, 0x40  # linux/if.h
POLL_SECONDS = 0.05


def name_of(network: str) -> str:
    """The interface for a loopback network such as ``127.0.1``; at most 15 characters long."""
    _, second, third = network.split(".")
    return f"ebg-{second}-{third}"


def address_of(network: str) -> str:
    """Its address in a /24 of its own.

    198.18.0.0/15 is for tests between networks (RFC 2544): no Docker, VPN or LAN has it by default.
    """
    _, second, third = network.split(".")
    return f"198.{18 + int(second) % 2}.{third}.1"


def create(name: str, address: str) -> None:
    """Make the bridge and give it its address; raises OSError.

    One that is there belongs to a sandbox that has just been killed, whose guard takes it away, or
    whose guard was killed too.
    """
    deadline = time.monotonic() + END_SECONDS + 1
    while is_there(name) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    remove_bridge(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCBRADDBR, name.encode() + b"\0")
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            where = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, struct.pack("16s16s8x", name.encode(), where))
        flags = struct.pack("16sh22x", name.encode(), IFF_UP | IFF_RUNNING)
        fcntl.ioctl(control, SIOCSIFFLAGS, flags)


def is_there(name: str) -> bool:
    """Whether there is an interface of this name."""
    return name in {interface for _, interface in socket.if_nameindex()}
