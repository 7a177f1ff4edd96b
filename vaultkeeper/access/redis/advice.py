"""What a person must know about a Redis node before a rotation, and who is logged in there.

`CLIENT LIST` names the account of a session and its age in whole seconds, not the password it was opened with. So only
a session that is older than the newest value can be told to use an older one.
https://redis.io/docs/latest/commands/client-list/ and https://redis.io/docs/latest/commands/acl-dryrun/
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from vaultkeeper.access.redis import Command, Refusal, Reply, Session, acl
from vaultkeeper.access.redis.acl import Node
from vaultkeeper.model.outcome import Finding

CLIENTS: Command = ("CLIENT", "LIST")
REPLICATION: Command = ("INFO", "replication")
_REPLICA = re.compile(rb"slave\d+:")  # a replica tells of itself in lines like `slave_priority:`
KNOWN_TO_S = 1.0
"""How exactly the beginning of a session is known."""

Client = Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """What is going to be done at each node."""

    user: str
    admin: str
    hashed: str | None  #: of the value that is current
    nodes: int
    exposed: bool  #: neither TLS nor local
    persisted_by: bool
    close_sessions: bool
    replication_delivered: bool


def findings(session: Session, plan: Plan) -> list[Finding]:
    """Everything of note about one node, read-only. Raises Answered."""
    node = acl.look(session, plan.admin, [plan.user], saves=not plan.persisted_by)
    found = list(_about_node(node, plan))
    found += _about_account(node, plan)
    tried = list(_needed(node, plan))
    asked: list[Command] = [CLIENTS, *([] if node.is_sentinel else [REPLICATION])]
    replies = session.run(*asked, *(("ACL", "DRYRUN", plan.admin.encode(), *command) for command in tried))
    for command, reply in zip(asked, replies, strict=False):
        if isinstance(reply, Refusal):
            raise acl.trouble(reply, plan.admin, node.where, command)
    found += _about_rights(replies[len(asked) :], tried, node, plan)
    found += _about_others(clients(replies[0]), replies[1 : len(asked)], node, plan)
    return found


def _about_node(node: Node, plan: Plan) -> Iterator[Finding]:
    yield Finding("ok", f"{node.where}: version {node.version}, {node.mode}, as {plan.admin}")
    if plan.exposed:
        text = f"{node.where}: tls: off on a network: the login with every password travels readable"
        yield Finding("warn", text, "give tls: {ca: PATH}")
    if node.mode == "cluster" and plan.nodes == 1:
        yield Finding(
            "warn", f"{node.where} belongs to a cluster, and each node has accounts of its own", "name `nodes`"
        )
    if plan.persisted_by:
        return
    if not node.durable and node.acl_file is not None:
        answer = acl.not_kept(node.where, "it was started without a configuration file and without an ACL file")
        yield Finding("refuse", answer.what, answer.next)
    elif not node.durable:
        yield Finding("unchecked", f"{node.where} does not say whether it has an ACL file; the first ACL SAVE tells")
    elif not node.acl_file and not node.is_sentinel:
        text = f"{node.where}: CONFIG REWRITE also keeps whatever else was changed with CONFIG SET"
        yield Finding("warn", text, "an aclfile keeps accounts apart")


def _about_account(node: Node, plan: Plan) -> Iterator[Finding]:
    user = node.users[plan.user]
    if user is None:
        text = f"{node.where} has no account {plan.user}"
        yield Finding("refuse", text, f"ACL SETUSER {plan.user} on, with its keys and commands")
    elif user.nopass:
        answer = acl.open_to_anybody(node.where, plan.user)
        yield Finding("refuse", answer.what, answer.next)
    elif not user.on:
        text = f"{plan.user} at {node.where} is off: nobody can log in as it"
        yield Finding("refuse", text, f"ACL SETUSER {plan.user} on")
    elif plan.hashed is not None and plan.nodes > 1 and plan.hashed not in user.hashes:
        text = f"{plan.user} at {node.where} does not accept the current value, which the others may accept"
        yield Finding("refuse", text, "give that node the accounts of the others, or take it out of `nodes`")


def _needed(node: Node, plan: Plan) -> Iterator[Command]:
    """What a rotation runs there and this does not."""
    yield ("ACL", "SETUSER", plan.user.encode())
    savers = [] if plan.persisted_by else node.savers()
    if acl.CONFIG_REWRITE in savers or acl.FLUSH_CONFIG in savers:
        yield acl.LIST
    yield from savers[:1]
    if plan.close_sessions:
        yield ("CLIENT", "KILL", "USER", plan.user.encode())


def _about_rights(replies: Sequence[Reply], tried: Sequence[Command], node: Node, plan: Plan) -> Iterator[Finding]:
    """By ACL DRYRUN, which came with Redis 7."""
    for command, reply in zip(tried, replies, strict=True):
        if isinstance(reply, Refusal):
            text = f"{node.where} does not tell beforehand all that {plan.admin} may do; the first change shows it"
            yield Finding("unchecked", text, f"from Redis 7 on: ACL SETUSER {plan.admin} +acl|dryrun")
            return
        if reply != b"OK":
            answer = acl.lacks(plan.admin, node.where, command)
            yield Finding("refuse", answer.what, answer.next)


def _about_others(found: Sequence[Client], told: Sequence[Reply], node: Node, plan: Plan) -> Iterator[Finding]:
    """Replicas and Sentinels: nodes of their own, and consumers where they log in as the account."""
    inside = [one for one in found if one.get("user") == plan.user and _role(one) != "session"]
    if inside and not plan.replication_delivered:
        who = ", ".join(sorted({f"a {_role(one)} from {_origin(one)}" for one in inside}))
        yield Finding(
            "refuse",
            f"{who} logs in at {node.where} as {plan.user}, and would keep the old password",
            "give replication an account of its own (masteruser, auth-user), or hand the value to it and say "
            "replication: delivered",
        )
    replicas = sum(_REPLICA.match(line) is not None for reply in told for line in _lines(reply))
    if replicas >= plan.nodes:
        text = f"{node.where} has {replicas} replica{'' if replicas == 1 else 's'}, each with accounts of its own"
        yield Finding("warn", text, "name them in `nodes`, or consumers that read there keep the old password alone")


# ------------------------------------------------------------------------------------------------------------- sessions


def clients(reply: Reply) -> list[Client]:
    """No value in a line of CLIENT LIST holds a blank."""
    lines = [line.decode(errors="replace") for line in _lines(reply)]
    return [dict(word.partition("=")[::2] for word in line.split(" ")) for line in lines if line]


@dataclass(frozen=True)
class Present:
    """Who is logged in as an account at one node, but us. `now_s`: on the node's own clock, no sooner than the list."""

    where: str
    user: str
    now_s: float
    found: Sequence[Client]

    def older(self, than: datetime, now: datetime) -> list[Client]:
        """Those that certainly began before a moment on our clock."""
        there_s = self.now_s - (now - than).total_seconds()
        return [one for one in self.found if self._began_s(one) + KNOWN_TO_S <= there_s]

    def _began_s(self, one: Client) -> float:
        """In whole seconds, as the node counts them."""
        age = one.get("age", "")
        return int(self.now_s) - int(age) if age.isdecimal() else self.now_s

    def holders(self, of: Sequence[Client]) -> list[str]:
        """By address: "2 sessions of app from 10.0.0.5 at cache:6379 (id 12, 19)"."""
        by_origin: dict[str, list[Client]] = {}
        for one in of:
            by_origin.setdefault(_origin(one), []).append(one)
        return [
            f"{len(found)} session{'' if len(found) == 1 else 's'} of {self.user} from {origin} at {self.where}"
            f" (id {', '.join(one.get('id', '?') for one in found)})"
            for origin, found in sorted(by_origin.items())
        ]


def present(session: Session, admin: str, user: str) -> Present:
    """Raises Answered."""
    asked, where = (CLIENTS, acl.SERVER), str(session.address)  # in this order: an age must not count from later on
    replies = session.run(*asked)
    for command, reply in zip(asked, replies, strict=True):
        if isinstance(reply, Refusal):
            raise acl.trouble(reply, admin, where, command)
    found = [one for one in clients(replies[0]) if one.get("user") == user and one.get("addr") != session.ours]
    return Present(where, user, acl.clock_s(acl.told(replies[1])) or time.time(), found)


def kill(session: Session, admin: str, user: str) -> None:
    """End every session of the account but ours. Raises Answered."""
    command: Command = ("CLIENT", "KILL", "USER", user.encode(), "SKIPME", "yes")
    reply = session.ask(command)
    if isinstance(reply, Refusal) and "No such user" not in reply.text:
        raise acl.trouble(reply, admin, str(session.address), command)


def _role(one: Client) -> str:
    if "S" in one.get("flags", ""):
        return "replica"
    return "Sentinel" if one.get("name", "").startswith("sentinel-") else "session"


def _origin(one: Client) -> str:
    """Without its port; a Unix socket's path is the server's own (`addr=/run/redis.sock:0`)."""
    address = one.get("addr", "").rpartition(":")[0]
    return "a local socket" if address.startswith("/") else address or "?"


def _lines(reply: Reply) -> list[bytes]:
    return reply.splitlines() if isinstance(reply, bytes) else []
