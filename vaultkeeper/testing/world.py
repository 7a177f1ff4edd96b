"""The remote world that simulated systems live in: plain state, which survives the death of the process working on it.

A system's settings name its world and itself, `{"world": "w1", "system": "db"}`, so simulators open from plain
documents like any other kind. State is made of dicts, lists, str, bytes, numbers and datetimes only: it can be copied,
put back and compared.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from vaultkeeper.model.secret import SecretVersion, main_field
from vaultkeeper.ports import Clock
from vaultkeeper.testing.clock import FakeClock
from vaultkeeper.testing.faults import Faults

State = dict[str, Any]

_WORLDS: WeakValueDictionary[str, World] = WeakValueDictionary()


def copied(value: Any) -> Any:
    """A deep copy of plain state; ten times as fast as `copy.deepcopy`, which the exhaustive search needs."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def frozen(value: Any) -> Any:
    """A hashable equal of plain state."""
    if isinstance(value, dict):
        return tuple(sorted(((key, frozen(item)) for key, item in value.items()), key=lambda pair: str(pair[0])))
    if isinstance(value, list):
        return tuple(frozen(item) for item in value)
    return value


def secret_value(version: SecretVersion) -> bytes:
    """The main field of a version, revealed: a simulator is the system that checks it."""
    return version.fields[main_field(set(version.fields))].reveal()


class World:
    """All simulated systems of one test. Keep a reference to it: the registry of worlds holds only a weak one."""

    def __init__(self, name: str, clock: Clock | None = None, faults: Faults | None = None) -> None:
        self.name = name
        self.clock: Clock = clock or FakeClock()
        self.faults = faults or Faults()
        self.state: dict[str, State] = {}
        self.backups: dict[str, State] = {}
        _WORLDS[name] = self

    @staticmethod
    def named(name: str) -> World:
        """The living world of that name. Raises KeyError."""
        return _WORLDS[name]

    def system(self, name: str) -> State:
        """The state of one system; a new one is empty, and empty is also its first backup."""
        if name not in self.state:
            self.state[name] = {}
            self.backups.setdefault(name, {})
        return self.state[name]

    # -------------------------------------------------------------------------- backups, snapshots

    def backup(self, name: str) -> None:
        """What a later `Goes.RESTORED` brings back."""
        self.backups[name] = copied(self.system(name))

    def restore_backup(self, name: str) -> None:
        """The operator restores this system's last backup."""
        self.state[name] = copied(self.backups.get(name, {}))

    def snapshot(self) -> Any:
        """Everything, for `restore`. The clock and the fault script are not part of it."""
        return copied([self.state, self.backups])

    def restore(self, snapshot: Any) -> None:
        self.state, self.backups = copied(snapshot)

    def key(self) -> Any:
        """Hashable; equal for equal worlds."""
        return frozen(self.state)

    # -------------------------------------------------------------------------- what is true out there

    def accepted(self, target: str) -> frozenset[tuple[str, bytes]]:
        """(account, value) pairs that a login at this target would succeed with. Tokens have the account ""."""
        state = self.system(target)
        if "reads" in state:
            system, consumer, slot = state["reads"]
            lines = self.consumers(system).get(consumer, {}).get(slot, b"").splitlines()
            return frozenset(("", line.partition(b"=")[2]) for line in lines if line)
        if "tokens" in state:
            now = self.clock.now()
            alive = [t for t in state["tokens"].values() if t["expires_at"] is None or t["expires_at"] > now]
            return frozenset(("", token["value"]) for token in alive)
        accounts: dict[str, list[bytes]] = state.get("accounts", {})
        return frozenset((account, value) for account, values in accounts.items() for value in values)

    def accepts(self, target: str, version: SecretVersion) -> bool:
        """Would a login with this version succeed? Costs no budget and no fault."""
        username = version.fields.get("username")
        pairs = self.accepted(target)
        if username is None or not any(account for account, _ in pairs):
            return any(value == secret_value(version) for _, value in pairs)
        return (username.text(), secret_value(version)) in pairs

    def consumers(self, destination: str) -> dict[str, dict[str, bytes]]:
        """What each consumer of a destination runs on now: consumer → slot → content."""
        state = self.system(destination)
        if "published" in state:
            return self._clients(state)
        running: dict[str, dict[str, State]] = state.get("running", {})
        return {name: {slot: held["content"] for slot, held in slots.items()} for name, slots in running.items()}

    def _clients(self, state: State) -> dict[str, dict[str, bytes]]:
        """A client comes online some days after a publication and fetches what is the newest one then."""
        held: dict[str, dict[str, bytes]] = {}
        for client, offline in state["clients"].items():
            held[client] = {}
            for slot, publications in state["published"].items():
                replaced = [*(later["at"] for later in publications), None][1:]
                for publication, gone_at in zip(publications, replaced, strict=True):
                    fetched_at = publication["at"] + offline
                    if fetched_at <= self.clock.now() and (gone_at is None or fetched_at <= gone_at):
                        held[client][slot] = publication["content"]
        return held

    def serves(self, target: str, content: bytes) -> bool:
        """Would a consumer that holds this content log in? It is the bare value, or "account:value"."""
        pairs = self.accepted(target)
        accounts = {account for account, _ in pairs}
        return any(
            content == account.encode() + b":" + value or (len(accounts) == 1 and content == value)
            for account, value in pairs
        )

    def unreadable(self, destination: str) -> list[tuple[str, bytes]]:
        """(service, key) of data that a service of a previous-keys consumer can no longer read."""
        readers = {
            name: {slots.get("key", b""), *slots.get("previous", b"").split(b",")}
            for name, slots in self.consumers(destination).items()
        }
        data: list[bytes] = self.system(destination).get("data", [])
        return [(name, key) for key in data for name, keys in readers.items() if key not in keys]
