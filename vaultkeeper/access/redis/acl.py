"""ACL users of one Redis node: what is accepted, how it is changed, and that a restart keeps it.

A user has any number of passwords, kept as SHA-256. `ACL SETUSER name #HASH !HASH` adds and takes away, all or nothing,
and is lost at the next restart unless `ACL SAVE` (with an ACL file), `CONFIG REWRITE` (with a configuration file) or,
at a Sentinel, `SENTINEL FLUSHCONFIG` follows. `CONFIG SET requirepass` is never used: it drops every other password.
https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vaultkeeper.access.answer import Answered, refused, unknown
from vaultkeeper.access.redis import Command, Refusal, Reply, Session
from vaultkeeper.model.outcome import No

ACL_SAVE: Command = ("ACL", "SAVE")
CONFIG_REWRITE: Command = ("CONFIG", "REWRITE")
FLUSH_CONFIG: Command = ("SENTINEL", "FLUSHCONFIG")
ACL_FILE: Command = ("CONFIG", "GET", "aclfile")
SERVER: Command = ("INFO", "server")
LIST: Command = ("ACL", "LIST")
Pair = tuple[str, str]
"""An account, and the hash of one password of it."""


@dataclass(frozen=True)
class User:
    """One account as a node has it. `hashes`: SHA-256 in lower-case hex, of every password it accepts."""

    on: bool
    nopass: bool
    hashes: frozenset[str]


@dataclass(frozen=True)
class Node:
    """What one node says of itself and of some accounts (None: there is no such account)."""

    where: str
    users: Mapping[str, User | None]
    version: str
    mode: str  #: standalone, cluster, sentinel
    config_file: str
    acl_file: str | None  #: None: it does not say (a Sentinel, a renamed CONFIG)

    @property
    def is_sentinel(self) -> bool:
        return self.mode == "sentinel"

    def savers(self) -> list[Command]:
        """What would make a change outlive a restart, in the order to try; at most one of them works."""
        if self.acl_file:
            return [ACL_SAVE]
        in_config = [FLUSH_CONFIG if self.is_sentinel else CONFIG_REWRITE] if self.config_file else []
        return in_config if self.acl_file == "" else [ACL_SAVE, *in_config]

    def accepts(self, name: str, hashed: str) -> bool:
        user = self.users.get(name)
        return user is not None and user.on and hashed in user.hashes

    @property
    def durable(self) -> bool:
        return bool(self.acl_file or self.config_file)


@dataclass(frozen=True)
class Change:
    """Passwords of one account to be accepted and refused from now on."""

    user: str
    add: tuple[str, ...]
    take: tuple[str, ...]

    @property
    def command(self) -> Command:
        return ("ACL", "SETUSER", self.user.encode(), *(f"#{h}" for h in self.add), *(f"!{h}" for h in self.take))

    @property
    def undone(self) -> Change:
        return Change(self.user, self.take, self.add)


def hashed(password: bytes) -> str:
    """As Redis stores it. Unsalted, so only a long random password keeps it from being guessed."""
    return hashlib.sha256(password).hexdigest()


def named(command: Command) -> str:
    """A command for people: its words, without arguments."""
    words = [word for word in command[:2] if isinstance(word, str) and word.isalpha()]
    return " ".join(words)


def rule(command: Command) -> str:
    """The ACL rule that allows it: `acl|setuser`."""
    return named(command).lower().replace(" ", "|") if command[0] != "INFO" else "info"


def lacks(admin: str, where: str, command: Command) -> Answered:
    """The admin may not run it."""
    return refused(
        No.PRIVILEGE,
        f"{admin} may not run {named(command)} at {where} (NOPERM): ACL SETUSER {admin} +{rule(command)}",
    )


def look(session: Session, admin: str, names: Iterable[str], *, saves: bool) -> Node:
    """One round trip. Raises Answered, and ReplyLost. `saves`: ask how a change is kept, too."""
    users = list(dict.fromkeys(names))
    asked: list[Command] = [SERVER, *([ACL_FILE] if saves else [])]
    asked += [("ACL", "GETUSER", name.encode()) for name in users]
    replies = session.run(*asked)
    where = str(session.address)
    for command, reply in zip(asked, replies, strict=True):
        unknown_command = command is ACL_FILE and isinstance(reply, Refusal) and "unknown command" in reply.text
        if isinstance(reply, Refusal) and not unknown_command:
            raise trouble(reply, admin, where, command)
    info = told(replies[0])
    acl_file = replies[1] if saves else None
    found = replies[len(asked) - len(users) :]
    return Node(
        where,
        {name: _user(reply) for name, reply in zip(users, found, strict=True)},
        version=info.get("valkey_version") or info.get("redis_version", "?"),
        mode=info.get("redis_mode") or info.get("server_mode", "standalone"),  # Valkey calls it the second
        config_file=info.get("config_file", ""),
        acl_file=_text(acl_file[1]) if isinstance(acl_file, list) and len(acl_file) == 2 else None,
    )


def trouble(reply: Refusal, admin: str, where: str, command: Command) -> Answered:
    """What a refused command means for the hook that needed it."""
    if reply.code == "NOPERM":
        return lacks(admin, where, command)
    if "unknown command" in reply.text:
        return refused(No.UNSUPPORTED, f"{where} knows no {named(command)}: Redis 6 or newer is needed")
    if reply.code == "ERR":
        return refused(No.UNSUPPORTED, f"{where} refused {named(command)}")  # its words may quote what was sent
    return unknown(f"{where} answered {named(command)} with {reply.code}")  # BUSY, OOM, … pass by themselves


def kept(session: Session, admin: str, node: Node) -> Command:
    """Save what is there already, before anything is changed: where that fails, nothing is. Raises Answered.

    The command that did it.
    """
    why = "it was started without a configuration file and without an ACL file"
    for command in node.savers():
        if command is not ACL_SAVE:
            _refuse_quotes(session, admin, node)
        reply = session.ask(command)
        if not isinstance(reply, Refusal):
            return command
        if reply.code == "NOPERM":
            raise lacks(admin, node.where, command)
        why = f"{named(command)}: {reply.text}"
        if "not configured to use an ACL file" not in reply.text:
            break
    raise not_kept(node.where, why)


def not_kept(where: str, why: str) -> Answered:
    """It would be gone after a restart."""
    return refused(
        No.UNSUPPORTED,
        f"{where} cannot save its accounts, so a restart would bring the old password back ({why})",
        next="start it with an aclfile that it may write, or with a configuration file; or say persisted_by",
    )


def _refuse_quotes(session: Session, admin: str, node: Node) -> None:
    """Redis writes names and rules into its configuration bare, and reads that file with quotes (tried: 7.0.15)."""
    reply = session.ask(LIST)
    if isinstance(reply, Refusal):
        raise trouble(reply, admin, node.where, LIST)
    for line in reply if isinstance(reply, list) else []:
        if b'"' in line or b"'" in line:
            name = _text(line).split(" ")[1]
            raise refused(
                No.UNSUPPORTED,
                f"the account {name} at {node.where} has a quote in its name or rules: once that is in its "
                "configuration file, the server does not start again",
                next="use an aclfile, which takes any name",
            )


def change(session: Session, admin: str, one: Change, save: Command | None) -> None:
    """In one write, so that a change is never without its save. Raises Answered: nothing is changed, or unknown.

    `save` None: somebody else keeps it.
    """
    where = str(session.address)
    set_, saved = [*session.run(one.command, *([save] if save else [])), None][:2]
    if isinstance(set_, Refusal):
        if "does not exist" in set_.text:
            raise refused(No.CONFLICT, f"somebody else is changing {one.user} at {where}")
        raise trouble(set_, admin, where, one.command)
    if isinstance(saved, Refusal) and save is not None:
        undo(session, one, save)
        raise not_kept(where, f"{named(save)}: {saved.text}; {one.user} is as it was")


def undo(session: Session, one: Change, save: Command | None) -> None:
    """Raises Answered, unknown, where it could not be put back."""
    replies = session.run(one.undone.command, *([save] if save else []))
    if isinstance(replies[0], Refusal):
        raise unknown(f"{session.address} has {one.user} changed, could not save that, and did not take it back")


def changes(node: Node, accept: Iterable[Pair], refuse: Iterable[Pair]) -> list[Change]:
    """What has to change at a node, of (account, hash) pairs. Raises Answered where an account cannot take a value."""
    wanted = list(dict.fromkeys(accept))
    gone = [pair for pair in dict.fromkeys(refuse) if pair not in wanted]
    found = []
    for name, user in node.users.items():
        add = [h for n, h in wanted if n == name and not (user and h in user.hashes)]
        take = [h for n, h in gone if n == name and user and h in user.hashes]
        if user is None and add:
            raise refused(No.UNSUPPORTED, f"{node.where} has no account {name}: ACL SETUSER {name} on, with its rules")
        if user is not None and user.nopass:
            raise open_to_anybody(node.where, name)
        if add or take:
            found.append(Change(name, tuple(add), tuple(take)))
    return found


def open_to_anybody(where: str, name: str) -> Answered:
    """A first password on such an account would cut off everybody who uses none."""
    return refused(
        No.UNCHECKED,
        f"{name} at {where} is nopass: it accepts any password",
        next=f"give its users a password first, then ACL SETUSER {name} resetpass and that password's #hash",
    )


# ------------------------------------------------------------------------------------------------------------- replies


def told(reply: Reply) -> dict[str, str]:
    """Of INFO."""
    lines = _text(reply).splitlines()
    return {key: value for key, colon, value in (line.partition(":") for line in lines) if colon}


def clock_s(info: Mapping[str, str]) -> float | None:
    """The node's own, in seconds since the epoch."""
    usec = info.get("server_time_usec", "")
    return int(usec) / 1e6 if usec.isdecimal() else None


def _user(reply: Reply) -> User | None:
    """A flat list of names and values, in Redis 6 and in 7 alike."""
    if not isinstance(reply, list):
        return None
    told = dict(zip(map(_text, reply[::2]), reply[1::2], strict=False))
    flags = _words(told.get("flags"))
    return User("on" in flags, "nopass" in flags, frozenset(_words(told.get("passwords"))))


def _words(reply: object) -> Sequence[str]:
    return [_text(word) for word in reply] if isinstance(reply, list) else []


def _text(reply: object) -> str:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else ""
