"""Engine and store over simulated systems, with kills and faults at every hook: random schedules that replay.

Each invariant that a schedule can show is also broken on purpose here, and the schedules must notice.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.crash.invariants import Broken
from tests.crash.simulation import LONG, Disk, Failure, Run, run
from tests.unit.encryption.making import new_house
from vaultkeeper.engine import judge, moves, observe, opening, plan, readying, rotate, steps
from vaultkeeper.engine.guard import Redactor
from vaultkeeper.engine.rollback import rollback
from vaultkeeper.engine.work import Work
from vaultkeeper.model.outcome import Done
from vaultkeeper.model.rotation import Cause, Rotation, State, Step
from vaultkeeper.model.secret import SecretVersion, Strategy
from vaultkeeper.ports import Change, Context
from vaultkeeper.store.opening import create_store
from vaultkeeper.testing.clock import FakeClock
from vaultkeeper.testing.memory import MemoryStore
from vaultkeeper.testing.simulators.base import SimulatedTarget

CHUNK = 20


@pytest.mark.parametrize("first", range(0, 300, CHUNK))
def test_every_invariant_holds_in_every_schedule(first: int) -> None:
    struck = sum(run(seed).weather.strikes for seed in range(first, first + CHUNK))
    assert struck > CHUNK  # a storm that strikes nothing would prove nothing


@pytest.mark.parametrize("seed", range(1000, 1010))
def test_every_invariant_holds_on_the_real_store_and_envelope(seed: int, tmp_path: Path) -> None:
    house = new_house(tmp_path / "house")
    store = create_store(tmp_path / "state", b"k" * 32, "simulated", FakeClock())
    run(seed, Disk(store, house.envelope()), commands=12)
    assert store.verify_audit() is None
    store.close()


def test_the_same_seed_is_the_same_run() -> None:
    one, other = run(11).log, run(11).log
    assert one == other
    assert len(one) > 50


def test_a_seed_replays_in_another_process_whatever_its_hash_seed() -> None:
    logs = set()
    for hash_seed in ("1", "2"):
        replay = subprocess.run(
            [sys.executable, "-m", "tests.crash.simulate", "--seed", "12"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert replay.returncode == 0, replay.stdout[-2000:] + replay.stderr
        logs.add(replay.stdout)
    assert len(logs) == 1


def test_a_failing_seed_is_told_with_its_log_and_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.STEPS, Step.TEST, lambda work: moves.advance(work.rotation, work.parts.clock.now()))
    failed = _first_failure(5, range(40))
    assert failed is not None
    assert f"scripts/simulate --seed {failed.seed}" in str(failed)
    assert "observe done" in str(failed)
    with pytest.raises(Failure) as again:
        run(failed.seed)
    assert again.value.log == failed.log


# ------------------------------------------------------------------------------- each invariant, broken on purpose


def _first_failure(invariant: int, seeds: range) -> Failure | None:
    """A broken engine breaks several invariants; the one that is meant must be among them."""
    for seed in seeds:
        try:
            run(seed)
        except Failure as failure:
            if failure.why.startswith(f"invariant {invariant}:"):
                return failure
    return None


def _broken(invariant: int, seeds: range = range(60)) -> None:
    assert _first_failure(invariant, seeds) is not None, f"no schedule noticed that invariant {invariant} is broken"


def _unwritten_begin(work: Work) -> None:
    work.apply(Change(moves.begin(work.rotation, work.parts.clock.now())))
    work.parts.store.audit(work._record("begin", "set"))


def _unaudited_begin(work: Work) -> None:
    work.apply(Change(moves.begin(work.rotation, work.parts.clock.now())))
    work.write()


def test_invariant_01_a_value_that_leaves_before_it_is_stored_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Work, "begin", _unwritten_begin)
    _broken(1)


def test_invariant_02_a_consumer_that_is_locked_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan._FORWARD, Strategy.OVERLAP, plan._single)
    _broken(2)


def test_invariant_03_a_candidate_that_is_drawn_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    taken_up = moves.taken_up

    def starting_over(rotation: Rotation) -> Rotation:
        create = next(i for i, phase in enumerate(rotation.phases) if phase.step is Step.CREATE)
        return replace(taken_up(rotation), at=min(rotation.at, create), outcome_unknown=False)

    monkeypatch.setattr(moves, "taken_up", starting_over)
    _broken(3)


def test_invariant_04_a_second_open_rotation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "_none_open", lambda *_: None)
    monkeypatch.setattr(rotate, "newest_open", lambda *_: None)
    monkeypatch.setattr(opening, "_overtaken", lambda *_: None)
    _broken(4)


def test_invariant_05_a_rotation_that_tests_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.STEPS, Step.TEST, lambda work: moves.advance(work.rotation, work.parts.clock.now()))
    _broken(5)


def test_invariant_05_an_old_value_that_survives_its_retirement_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (Step.RETIRE, Step.PROVE):
        monkeypatch.setitem(steps.STEPS, step, lambda work: moves.advance(work.rotation, work.parts.clock.now()))
    _broken(5)


def test_invariant_06_a_retirement_within_grace_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "judge_grace", moves.advance)
    _broken(6)


def test_invariant_06_a_retirement_under_an_open_rollback_path_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.STEPS, Step.RELEASE, lambda work: moves.advance(work.rotation, work.parts.clock.now()))
    _broken(6)


def test_invariant_07_a_run_that_does_not_converge_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stays_parked(rotation: Rotation, _now: object) -> Rotation:
        return rotation

    monkeypatch.setattr(moves, "resumed", stays_parked)
    _broken(7)


def test_invariant_07_a_stray_object_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readying, "_released", lambda *_: Done())
    monkeypatch.setattr(readying, "_release_one", lambda *_: Done())
    monkeypatch.setattr("tests.crash.invariants.Judge._retired_last", lambda *_: None)
    _broken(7)


def test_invariant_09_a_value_in_an_error_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Redactor, "clean", lambda _self, text: text)
    _broken(9, range(120))


def _tagged_without_comparing(target: SimulatedTarget, versions: Sequence[SecretVersion], ctx: Context) -> None:
    number = max(version.number for version in versions)
    target.state["tag"] = [ctx.installation, ctx.secret, number, ctx.epoch]


def _of_a_restored_store() -> Run:
    """Its CURRENT is accepted still, because a rollback made it the newest value again: only the tag tells."""
    played = Run(12)
    played.weather.calm = True
    played.policies["one"] = played.make.overlap("one", played.make.file("file_one"))
    _rotate_one(played, LONG)
    played.back_up_the_store()
    _rotate_one(played, timedelta(0))  # v2, in grace
    played.command("rollback one", lambda parts: rollback("one", parts, wait=LONG))  # v3, with v1's fields
    played.restore_the_store()
    return played


def _rotate_one(played: Run, wait: timedelta) -> Rotation | None:
    (report,) = played.command("rotate one", lambda parts: rotate.rotate(["one"], parts, by_name=True, wait=wait))
    return report.rotation


def test_invariant_12_writing_to_a_target_of_a_newer_store_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "_newer", lambda *_: False)
    monkeypatch.setattr(SimulatedTarget, "stale", _tagged_without_comparing)
    with pytest.raises(Broken, match="invariant 12: one: set although the target is at generation 3"):
        _rotate_one(_of_a_restored_store(), LONG)


def test_invariant_12_nothing_is_written_to_a_target_of_a_newer_store() -> None:
    played = _of_a_restored_store()
    before = played.world.snapshot()
    rotation = _rotate_one(played, LONG)
    assert rotation is not None
    assert (rotation.state, rotation.cause) == (State.PARKED, Cause.STALE)
    assert played.world.snapshot() == before


def test_invariant_14_a_change_that_the_audit_log_does_not_know_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Work, "begin", _unaudited_begin)
    _broken(14)


def test_invariant_14_what_closed_a_gap_and_never_reached_the_audit_log_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audit = Work._audit

    def forgets(self: Work, record: dict[str, object]) -> None:
        if record not in self.rotation.unaudited:
            audit(self, record)
        self.rotation = replace(self.rotation, unaudited=())

    monkeypatch.setattr(Work, "_audit", forgets)
    _broken(14)


def test_invariant_14_a_stuck_state_without_a_next_command_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotate, "told", lambda _rotation: None)
    _broken(14)


# ---------------------------------------------------------------------------------------------- any step twice


def _twice(hook: Callable[..., object]) -> Callable[..., object]:
    def called_twice(*args: object) -> object:
        hook(*args)
        return hook(*args)

    return called_twice


@pytest.mark.parametrize("seed", range(2000, 2020))
def test_invariant_08_every_changing_hook_twice_is_as_good_as_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = []
    for doubled in (False, True):
        played = Run(seed, commands=8)
        played.weather.calm = True
        if doubled:
            monkeypatch.setattr("tests.crash.invariants.repeated", _twice)
        played.play()
        worlds.append(played.world.state)
    assert worlds[0] == worlds[1]


@pytest.mark.parametrize("by", [timedelta(days=3), timedelta(days=-3)])
def test_invariant_13_a_clock_step_neither_doubles_nor_drops_a_run(by: timedelta) -> None:
    played = Run(5)
    played.policies["one"] = played.make.overlap("one", rotation_period=timedelta(days=10))
    played.run_due_now()
    played.clock.advance(timedelta(days=10, minutes=1))
    played.run_due_now()
    assert played.rotations("one") == 2
    played.clock.step(by)
    for _ in range(3):
        played.run_due_now()
    assert played.rotations("one") == 2
    played.clock.advance(timedelta(days=13, minutes=2))
    for _ in range(3):
        played.run_due_now()
    assert played.rotations("one") == 3


def test_invariant_13_many_missed_runs_make_one() -> None:
    played = Run(6)
    played.policies["one"] = played.make.overlap("one", rotation_period=timedelta(days=1))
    played.run_due_now()
    played.clock.advance(timedelta(days=100))
    for _ in range(3):
        played.run_due_now()
    assert played.rotations("one") == 2


def test_invariant_13_nothing_rotates_sooner_than_min_interval() -> None:
    played = Run(7)
    played.policies["one"] = played.make.overlap("one", min_interval=timedelta(hours=1))
    for _ in range(3):
        played.rotate_all()
    assert played.rotations("one") == 1
