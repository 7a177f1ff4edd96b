"""Invariants that hold whatever the strategy, seen from inside the hooks of simulated systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.unit.engine_steps.bench import Bench
from vaultkeeper.errors import AuditUnwritable
from vaultkeeper.model.secret import SecretVersion, Strategy
from vaultkeeper.testing.simulators import DESTINATIONS, TARGETS

KINDS = ["overlap", "alternating", "single", "minted", "via", "keys"]
Seen = Callable[[Sequence[SecretVersion]], None]


def made(kind: str) -> Bench:
    """One secret of this kind at one consumer, rotated once."""
    bench = Bench(f"invariants_{kind}")
    file = bench.make.file("app", {"": "{token}" if kind == "minted" else "{password}"})
    policy = {
        "overlap": lambda: bench.make.overlap("db", file),
        "alternating": lambda: bench.make.alternating("db", file),
        "single": lambda: bench.make.single("db", file),
        "minted": lambda: bench.make.minted("db", file),
        "via": lambda: bench.make.via("db", Strategy.OVERLAP, "sim_service", file),
        "keys": lambda: bench.make.keys("db", "app"),
    }[kind]()
    bench.use(policy)
    bench.done("db")
    return bench


def around_writing_hooks(monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any, str], Any]) -> None:
    """Put something around every hook that changes a system."""
    for kinds, names in ((TARGETS, ("set", "drop")), (DESTINATIONS, ("prepare", "deliver", "release"))):
        for backend in kinds.values():
            for name in names:
                if name in vars(backend) or any(name in vars(base) for base in backend.__mro__[1:-1]):
                    monkeypatch.setattr(backend, name, wrap(getattr(backend, name), name))


@pytest.mark.parametrize("kind", KINDS)
def test_invariant_01_every_value_is_durable_before_any_system_sees_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = made(kind)
    told: list[str] = []
    wrong: list[str] = []  # noted and not raised: what a hook raises is an answer to the engine

    def wrap(hook: Any, name: str) -> Any:
        def asked(self: Any, *args: Any) -> Any:
            given = [one for arg in args if isinstance(arg, list | tuple) for one in arg]
            versions = [one for one in given if isinstance(one, SecretVersion)]
            versions += [one.primary for one in given if getattr(one, "primary", None) is not None]
            durable = {record.number for record in bench.store.versions("db") if record.sealed is not None}
            if not {version.number for version in versions} <= durable:
                wrong.append(f"{name} got what is nowhere stored")
            if not bench.newest("db").begun:
                wrong.append(f"{name} was called before the journal said so")
            told.append(name)
            return hook(self, *args)

        return asked

    around_writing_hooks(monkeypatch, wrap)
    bench.done("db")
    assert wrong == []
    assert "deliver" in told


@pytest.mark.parametrize("kind", KINDS)
def test_invariant_08_every_step_done_twice_is_the_same_as_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once = made(kind)
    once.done("db")
    expected = (once.current("db"), once.previous("db"), once.world.consumers("app"), once.world.accepted("db_db"))
    twice = made(kind)  # in a new world of the same name, where the same values are drawn

    def wrap(hook: Any, name: str) -> Any:
        def again(self: Any, *args: Any) -> Any:
            hook(self, *args)
            return hook(self, *args)

        return again

    around_writing_hooks(monkeypatch, wrap)
    twice.done("db")
    found = (twice.current("db"), twice.previous("db"), twice.world.consumers("app"), twice.world.accepted("db_db"))
    assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_invariant_14_nothing_changes_at_a_target_while_the_audit_log_cannot_be_written(kind: str) -> None:
    bench = made(kind)
    before = (bench.world.accepted("db_db"), bench.world.consumers("app"))
    bench.memory.audit_unwritable = True
    (report,) = bench.rotate("db")
    assert isinstance(report.error, AuditUnwritable)
    assert (bench.world.accepted("db_db"), bench.world.consumers("app")) == before
    bench.memory.audit_unwritable = False
    assert [one.state for one in bench.resume("db")] == ["done"]
