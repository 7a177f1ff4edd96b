"""One login over AMQP 0-9-1, as an application makes it, by RabbitMQ's own client.

A server that refuses a login says 403 before the virtual host is named; a virtual host that is refused, missing or full
is said later, with 530 (tried on 3.10). Everything else, a connection that ends without a word too, is no answer.
The host is resolved once and the connection made to that address. Without TLS a password goes to this machine only.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

from vaultkeeper.errors import BackendError, ConfigurationInvalid
from vaultkeeper.model.outcome import Login
from vaultkeeper.ports import Deadline

_GREETING = b"AMQP\x00\x00\x09\x01"
_HEARTBEAT_S = 5  # closing has no time-out of its own: a server that falls silent meanwhile is given up
_CODE = re.compile(r"ConnectionClosedByBroker: \((\d{3})\)")


@dataclass(frozen=True)
class Broker:
    """Where applications log in. `secure`: TLS, verified in full."""

    host: str
    port: int
    vhost: str
    secure: bool
    plain_ok: bool = False  #: without TLS beyond this machine is meant
    ca: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def log_in(broker: Broker, username: str, password: str, deadline: Deadline) -> Login:
    """One new connection, closed at once.

    Raises ConfigurationInvalid where a password may not go, and BackendError where the account exists but may not use
    the virtual host.
    """
    import pika
    from pika.adapters.utils.connection_workflow import AMQPConnectorException
    from pika.exceptions import AMQPError, ProbableAccessDeniedError, ProbableAuthenticationError

    left_s = deadline.left_s(time.monotonic())
    try:
        parameters = pika.ConnectionParameters(
            host=address_of(broker),
            port=broker.port,
            virtual_host=broker.vhost,
            credentials=pika.PlainCredentials(username, password),
            ssl_options=pika.SSLOptions(_trust(broker), broker.host) if broker.secure else None,
            connection_attempts=1,
            socket_timeout=left_s,
            stack_timeout=left_s,
            blocked_connection_timeout=left_s,
            heartbeat=_HEARTBEAT_S,
            client_properties={"connection_name": "vaultkeeper"},
        )
        connection = pika.BlockingConnection(parameters)
    except ProbableAuthenticationError as error:
        return Login.REJECTED if _code(error) == 403 else Login.UNREACHABLE
    except ProbableAccessDeniedError as error:
        if "limit" in str(error):
            return Login.THROTTLED
        raise _denied(broker, username, str(error)) from None
    except (AMQPError, AMQPConnectorException, OSError):  # the second are time-outs, of no kin to the first
        return Login.UNREACHABLE
    _close(connection)
    return Login.ACCEPTED


def reach(broker: Broker, deadline: Deadline) -> None:
    """Is an AMQP server there, and trusted? No login is tried.

    Raises BackendError, saying why not, and ConfigurationInvalid where a password may not go.
    """
    try:
        with socket.create_connection((address_of(broker), broker.port), deadline.left_s(time.monotonic())) as plain:
            there = _trust(broker).wrap_socket(plain, server_hostname=broker.host) if broker.secure else plain
            with there:
                there.settimeout(deadline.left_s(time.monotonic()))
                there.sendall(_GREETING)
                answer = there.recv(1)
    except TimeoutError:
        raise BackendError(f"{broker} did not answer in time") from None
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason or "failed"
        raise BackendError(f"{broker} cannot be reached: TLS: {reason}") from None
    except OSError as error:
        raise BackendError(f"{broker} cannot be reached: {type(error).__name__}") from None
    if answer != b"\x01":  # the type of the frame that carries Connection.Start
        hint = "" if broker.secure else "; does it ask for TLS? then say amqps://"
        raise BackendError(f"{broker} does not speak AMQP{hint}")


def address_of(broker: Broker) -> str:
    """Where a connection goes. Raises OSError for an unknown name, ConfigurationInvalid where none may go."""
    found = str(socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)[0][4][0])
    ip = ipaddress.ip_address(found.partition("%")[0])
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        raise ConfigurationInvalid(f"{found} is a link-local or multicast address; nothing is sent there")
    if not (broker.secure or broker.plain_ok or ip.is_loopback):
        raise ConfigurationInvalid(
            f"a password goes over plain AMQP to this machine only, not to {found}",
            next="use amqps://, or say tls: off",
        )
    return found


def _trust(broker: Broker) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=broker.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _code(error: Exception) -> int:
    found = _CODE.search(str(error))
    return int(found[1]) if found else 0


def _denied(broker: Broker, username: str, said: str) -> BackendError:
    """The password was right: this is about permissions, not about the credential."""
    missing = "not found" in said
    why = f"there is no virtual host {broker.vhost}" if missing else "it has no permission there"
    grant = f"rabbitmqctl set_permissions -p {broker.vhost} {username} CONFIGURE WRITE READ"
    return BackendError(
        f"{username} cannot use the virtual host {broker.vhost}", why=why, next="say `vhost`" if missing else grant
    )


def _close(connection: Any) -> None:
    from pika.exceptions import AMQPError

    try:
        connection.close()
    except (AMQPError, OSError):
        return  # it was let in; that is all that was asked
