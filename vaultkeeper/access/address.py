"""Where a server is that speaks a protocol of its own over TCP or a Unix socket."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class SocketAddress:
    """`host`: a name, an IP address, or an absolute path: a Unix socket, or its folder where the system wants that."""

    host: str
    port: int

    @property
    def is_socket(self) -> bool:
        return self.host.startswith("/")

    @property
    def is_local(self) -> bool:
        """A Unix socket or loopback: nothing to overhear."""
        if self.is_socket or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Address(SocketAddress):
    """A server, and how it is known to be the right one."""

    tls: bool = True  #: chain and name verified, never less
    ca: str | None = None  #: PEM file; None: the system's authorities
