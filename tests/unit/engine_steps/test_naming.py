"""Names of objects are told only where all consumers agree on them, and only as a shell may read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.unit.engine_steps.bench import Bench, SimBackends
from vaultkeeper.engine.naming import names
from vaultkeeper.engine.reconcile import apply
from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Login, Unknown
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.ports import DeliveryContext
from vaultkeeper.testing.simulators.service import ServiceDestination

Told = Mapping[str, str] | Unknown


@dataclass
class Naming:
    """A destination that can do nothing but name; `told` by system."""

    told: Mapping[str, Told]
    kind: str = "sim_service"

    def names(self, spec: DestinationSpec, ctx: DeliveryContext) -> Told:
        return self.told[str(spec.settings["system"])]


class Backends(SimBackends):
    def __init__(self, told: Mapping[str, Told]) -> None:
        self.told = told

    def destination(self, kind: str) -> Any:
        return Naming(self.told) if kind == "sim_service" else super().destination(kind)


def named(told: Mapping[str, Told], *, once: tuple[str, ...] = (), **changes: Any) -> dict[str, str]:
    """One policy with a destination per system, beside a file that names nothing."""
    bench = Bench("naming")
    to = [bench.make.service(system) for system in told]
    to = [replace(spec, read=Read.FIRST_START) if spec.settings["system"] in once else spec for spec in to]
    bench.use(replace(bench.make.unchecked("s", bench.make.file("f"), *to), **changes))
    return names(replace(bench.parts(), backends=Backends(told)))


def test_consumers_that_agree_make_one_variable() -> None:
    assert named({"web": {"VK_DB": "db_v3"}, "api": {"VK_DB": "db_v3", "VK_A": "a_v1"}}) == {
        "VK_A": "a_v1",
        "VK_DB": "db_v3",
    }


def test_a_consumer_that_reads_once_keeps_a_name_of_its_own() -> None:
    told = {"web": {"VK_DB": "db_v3"}, "store": {"VK_DB": "db_by_hand"}}
    assert named(told, once=("store",)) == {"VK_DB": "db_v3", "VK_DB_FIRST_START": "db_by_hand"}


def test_consumers_that_differ_are_an_error_and_not_a_guess() -> None:
    with pytest.raises(BackendError, match="db_v3 and db_v2"):
        named({"web": {"VK_DB": "db_v3"}, "api": {"VK_DB": "db_v2"}})


def test_a_place_that_cannot_tell_is_an_error() -> None:
    with pytest.raises(BackendError, match="the Engine is away"):
        named({"web": Unknown(Login.UNREACHABLE, "the Engine is away")})


@pytest.mark.parametrize("name", ["db; reboot", "$(id)", "db'", "db v3", ""])
def test_a_name_that_a_shell_would_read_otherwise_is_an_error(name: str) -> None:
    with pytest.raises(BackendError, match="cannot be named"):
        named({"web": {"VK_DB": name}})


def test_a_disabled_policy_names_nothing() -> None:
    assert named({"web": {"VK_DB": "db_v3"}}, enabled=False) == {}


class NamingService(ServiceDestination):
    """A simulated service whose object is named after the version it runs on."""

    kind = "sim_service"

    def names(self, spec: DestinationSpec, ctx: DeliveryContext) -> dict[str, str]:
        return {"VK_DB": "db_vx"}


class NamingBackends(SimBackends):
    def destination(self, kind: str) -> Any:
        return NamingService() if kind == "sim_service" else super().destination(kind)


def deployed(name: str, read: Read = Read.AT_START) -> Bench:
    """v2 is CURRENT; a stale deploy has taken every service back to v1, so that all of them agree."""
    bench = Bench(name)
    bench.use(bench.make.overlap("s", replace(bench.make.service("v", services=("api", "web")), read=read)))
    bench.done("s")
    bench.world.backup("v")
    bench.done("s")
    assert names(replace(bench.parts(), backends=NamingBackends())) == told_of(read)
    bench.world.restore_backup("v")
    return bench


def told_of(read: Read) -> dict[str, str]:
    return {"VK_DB_FIRST_START" if read is Read.FIRST_START else "VK_DB": "db_vx"}


def test_consumers_that_agree_on_a_stale_version_are_an_error_that_leads_to_reconcile() -> None:
    bench = deployed("stale")
    with pytest.raises(BackendError, match="another object than that of v2 of s") as told:
        names(replace(bench.parts(), backends=NamingBackends()))
    assert told.value.next == "vaultkeeper reconcile s"
    apply("s", "deliver", bench.parts())
    assert names(replace(bench.parts(), backends=NamingBackends())) == told_of(Read.AT_START)


def test_an_object_that_nobody_stored_is_an_error() -> None:
    bench = deployed("foreign")
    bench.world.state["v"]["running"]["web"][""] = {"content": b"by hand", "version": "not ours"}
    apply("s", "deliver", bench.parts())
    bench.world.state["v"]["running"]["web"][""] = {"content": b"by hand", "version": "not ours"}
    with pytest.raises(BackendError, match="another object than that of v2 of s"):
        names(replace(bench.parts(), backends=NamingBackends()))


def test_what_is_read_once_may_be_of_any_version() -> None:
    bench = deployed("once", Read.FIRST_START)
    assert names(replace(bench.parts(), backends=NamingBackends())) == told_of(Read.FIRST_START)
