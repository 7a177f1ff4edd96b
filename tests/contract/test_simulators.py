"""The contracts hold for the simulated systems: the suites themselves are tried on systems that can be looked into."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from vaultkeeper.model.outcome import Done, Login
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import SecretBytes, SecretVersion, main_field
from vaultkeeper.ports import Mints, Rendered
from vaultkeeper.testing.contract import DestinationContract, GeneratorContract, TargetContract
from vaultkeeper.testing.contract.target import Trial
from vaultkeeper.testing.contract.trial import canary
from vaultkeeper.testing.faults import Fault, Faults, Goes
from vaultkeeper.testing.servers import LOST_REPLY, UNREACHABLE, Account
from vaultkeeper.testing.simulators import DESTINATIONS, GENERATORS, TARGETS
from vaultkeeper.testing.world import World

GOES = {UNREACHABLE: Goes.UNREACHABLE, LOST_REPLY: Goes.LOST_REPLY}


@dataclass(frozen=True)
class MadeAccount:
    username: str
    password: str
    settings: Mapping[str, object] = field(default_factory=dict)


class SimulatedServer:
    """Every account is a system of its own in one world."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.world = World(f"contract-{secrets.token_hex(4)}")
        self.systems: list[str] = []

    def account(self) -> MadeAccount:
        system, value = f"system{len(self.systems)}", canary()
        self.systems.append(system)
        state = self.world.system(system)
        settings: dict[str, object] = {"world": self.world.name, "system": system}
        match self.kind:
            case "sim_minting":
                state["tokens"] = {"0": {"name": "before", "value": value.encode(), "expires_at": None}}
                return MadeAccount("", value, settings)
            case "sim_checker":
                self.world.system(f"{system}-file")["running"] = {"gate": {"list": _slot(value)}}
                state["reads"] = [f"{system}-file", "gate", "list"]
                return MadeAccount("", value, {**settings, "reads": tuple(state["reads"])})
            case "sim_alternating":
                state["accounts"] = {f"{system}_a": [value.encode()]}
                return MadeAccount(f"{system}_a", value, {**settings, "users": (f"{system}_a", f"{system}_b")})
            case _:
                state["accounts"] = {system: [value.encode()]}
                return MadeAccount(system, value, {**settings, "user": system})

    def login(self, username: str, password: str) -> bool:
        return any((username, password.encode()) in self.world.accepted(system) for system in self.systems)

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        self.world.faults = Faults([Fault(hook, GOES[name], call=0) for hook in ("set", "test", "observe", "check")])
        if name == LOST_REPLY:
            self.world.faults = Faults([Fault("set", Goes.LOST_REPLY, call=0)])
        yield
        self.world.faults = Faults()

    def stop(self) -> None:
        pass


class SeveralValues(SimulatedServer):
    def foreign(self, account: Account) -> tuple[str, str]:
        state = self.world.system(str(account.settings["system"]))
        value = canary("stranger-")
        state["accounts"][account.username].append(value.encode())
        return account.username, value


def _slot(value: str) -> dict[str, object]:
    return {"content": f"contract/secret={value}\nforeign=stranger".encode(), "version": "before"}


class SimulatedTargetContract(TargetContract):
    faults = frozenset({UNREACHABLE, LOST_REPLY})

    @pytest.fixture
    def server(self) -> SimulatedServer:
        return (SeveralValues if self.target.kind == "sim_overlap" else SimulatedServer)(self.target.kind)


class TestOverlap(SimulatedTargetContract):
    target = TARGETS["sim_overlap"]


class TestAlternating(SimulatedTargetContract):
    target = TARGETS["sim_alternating"]


class TestSingle(SimulatedTargetContract):
    target = TARGETS["sim_single"]


class TestThrottling(SimulatedTargetContract):
    target = TARGETS["sim_throttling"]

    def test_a_decoy_spends_nothing_of_the_accounts_budget(self, server: SimulatedServer) -> None:
        trial = self.begin(server)
        assert trial.target.capabilities.login_budget is not None
        decoy = trial.target.decoy(trial.old)
        assert decoy is not None
        for _ in range(10):
            assert trial.test(decoy) is Login.REJECTED
        assert trial.test(trial.old) is Login.ACCEPTED


class TestMinting(SimulatedTargetContract):
    target = TARGETS["sim_minting"]
    field = "token"

    def test_it_mints(self, trial: Trial) -> None:
        assert isinstance(trial.target, Mints)


class TestReadableMinting(TestMinting):
    def begin(self, server: SimulatedServer) -> Trial:  # type: ignore[override]  # this server is the only one here
        trial = super().begin(server)
        settings = {**trial.account.settings, "readable": True}
        trial.target = self.target.open(settings, 1)
        return trial


class TestChecker(SimulatedTargetContract):
    """Its `set` is a delivery of what it renders, which is what the engine does for a target with `via`."""

    target = TARGETS["sim_checker"]
    field = "token"
    faults = frozenset()

    def change(
        self, trial: Trial, accept: Sequence[SecretVersion], refuse: Sequence[SecretVersion], epoch: int
    ) -> object:
        assert isinstance(trial.target, Rendered)
        assert isinstance(trial.server, SimulatedServer)
        if any(set(v.fields[main_field(set(v.fields))].text()) & trial.target.capabilities.forbidden for v in accept):
            return trial.target.set(accept, refuse, trial.watch.context(trial.old))
        system, service, slot = trial.server.world.system(str(trial.account.settings["system"]))["reads"]
        there = trial.server.world.system(system)["running"][service][slot]
        there["content"] = trial.target.render(accept, SecretBytes(there["content"])).reveal()
        assert b"foreign=stranger" in there["content"]
        return Done()

    def test_a_forbidden_character_is_refused_or_works(self, trial: Trial) -> None:
        """A line break would be two entries: the loader refuses it by `forbidden`, before anything is rendered."""
        assert "\n" in trial.target.capabilities.forbidden


class SimulatedPlace:
    """Each destination is a system of its own in one world, with two services."""

    names: tuple[str, ...] = ("key", "other")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.world = World(f"contract-{secrets.token_hex(4)}")
        self.made = 0

    def spec(self, values: Mapping[str, str]) -> DestinationSpec:
        self.made += 1
        settings: dict[str, object] = {"world": self.world.name, "system": f"system{self.made}"}
        if self.kind != "sim_clients":
            settings["services"] = ("api", "worker")
        return DestinationSpec(self.kind, values, Read.AT_START, settings)

    def read(self, spec: DestinationSpec, name: str) -> bytes | None:
        consumers = self.world.consumers(str(spec.settings["system"])).values()
        contents = {slots.get(name) for slots in consumers} or {None}
        assert len(contents) == 1, "consumers differ"
        return contents.pop()

    def pass_time(self, duration: timedelta) -> None:
        self.world.clock.sleep(duration)

    def stop(self) -> None:
        pass


class ServicePlace(SimulatedPlace):
    """A service has slots of other people's too; a client holds nothing but what was published."""

    def put_foreign(self, spec: DestinationSpec) -> bytes:
        running = self.world.system(str(spec.settings["system"])).setdefault("running", {})
        running["api"] = {"theirs": {"content": b"foreign", "version": "theirs"}}
        return b"foreign"

    def read_foreign(self, spec: DestinationSpec) -> bytes:
        return self.world.consumers(str(spec.settings["system"]))["api"].get("theirs", b"")


class SimulatedDestinationContract(DestinationContract):
    @pytest.fixture
    def place(self) -> SimulatedPlace:
        return (SimulatedPlace if self.destination.kind == "sim_clients" else ServicePlace)(self.destination.kind)


class TestFile(SimulatedDestinationContract):
    destination = DESTINATIONS["sim_file"]


class TestService(SimulatedDestinationContract):
    destination = DESTINATIONS["sim_service"]


class TestKeyringApp(SimulatedDestinationContract):
    destination = DESTINATIONS["sim_keyring_app"]


class TestClients(SimulatedDestinationContract):
    destination = DESTINATIONS["sim_clients"]


class TestCounter(GeneratorContract):
    generator = GENERATORS["sim_counter"]
    settings = ({"world": "contract-generator", "system": "generator"},)

    @pytest.fixture(autouse=True)
    def world(self) -> World:
        return World("contract-generator")
