"""A rollout is judged by its tasks: what the Engine says of itself is not believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.access.test_swarm_spec import reference, spec
from vaultkeeper.access.swarm import Service
from vaultkeeper.access.swarm import advice as swarm_advice
from vaultkeeper.access.swarm import rollout as swarm_rollout
from vaultkeeper.access.swarm.rollout import Case
from vaultkeeper.access.swarm.spec import NS, Mount, Wanted
from vaultkeeper.model.outcome import Confirmation, Confirmed, Failed, Holds, NotYet, Proof

NOW = datetime(2026, 11, 21, 3, 0, 0, tzinfo=UTC)
STARTED = NOW - timedelta(minutes=1)
OURS = Wanted(Mount("db"), frozenset({"old", "new"}), "new", "db_v2")


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def task(
    state: str = "running", *, has: str = "new", desired: str = "running", since_s: float = 30, err: str = ""
) -> dict[str, Any]:
    return {
        "ID": f"{state}-{has}-{since_s}",
        "DesiredState": desired,
        "Status": {"State": state, "Timestamp": ago(since_s), "Err": err},
        "Spec": {"ContainerSpec": {"Secrets": [reference(has, "n"), reference("other", "o")]}},
    }


def service(
    carries: str = "new", *, replicas: int | None = 2, state: str = "completed", said: str = "", was: str = "old"
) -> Service:
    raw = spec(reference(carries, {"new": "db_v2", "old": "db_v1"}[carries], "db"))
    raw["Mode"] = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
    raw["UpdateConfig"] = {"Monitor": 20 * NS}
    return Service("id", "api", 1, raw, spec(reference(was, "x", "db")), state, said, STARTED)


def judged(seen: Service, *tasks: dict[str, Any], back: bool = False, line: str = "boom") -> Confirmation:
    case = Case(seen, tasks, [OURS], NOW, timedelta(seconds=10), timedelta(minutes=5), going_back=back)
    return swarm_rollout.judge(case, lambda asked: f"{line} ({asked[0]['ID']})")


def why(answer: Confirmation) -> str:
    return answer.why if isinstance(answer, Failed) else answer.reason if isinstance(answer, NotYet) else ""


def test_every_task_running_on_it_for_long_enough_is_success() -> None:
    old = task("shutdown", has="old", desired="shutdown")
    assert judged(service(), task(), task(), old) == Confirmed(Proof.DEMONSTRATED)
    assert judged(service(state=""), task(), task()) == Confirmed(Proof.DEMONSTRATED)


def test_completed_is_not_believed_while_a_task_runs_on_the_old_object() -> None:
    answer = judged(service(), task(), task(has="old"))
    assert isinstance(answer, NotYet)
    assert "1 of 2 tasks" in answer.reason


def test_a_task_counts_by_its_own_spec_and_not_by_the_service() -> None:
    assert isinstance(judged(service(), task(has="old"), task(has="old")), NotYet)


def test_it_is_watched_for_the_longer_of_healthy_for_and_monitor() -> None:
    answer = judged(service(), task(since_s=30), task(since_s=19))
    assert isinstance(answer, NotYet)
    assert answer.after == timedelta(seconds=1)
    assert judged(service(), task(since_s=30), task(since_s=20)) == Confirmed(Proof.DEMONSTRATED)


def test_completed_is_not_believed_while_tasks_crash() -> None:
    crashed = task("failed", desired="shutdown", since_s=5, err="task: non-zero exit (3)")
    answer = judged(service(), task(), task(since_s=1), crashed)
    assert answer == Failed("api", "task: non-zero exit (3); its last line: boom (failed-new-5)")


def test_a_task_that_ends_well_has_failed_where_tasks_shall_go_on() -> None:
    ended = task("complete", desired="shutdown", since_s=5)
    assert isinstance(judged(service(), task(), task(), ended), Failed)
    once = service()
    once.spec["TaskTemplate"]["RestartPolicy"] = {"Condition": "none"}
    assert judged(once, task(), task(), ended) == Confirmed(Proof.DEMONSTRATED)


@pytest.mark.parametrize(
    "crashed",
    [
        task("failed", has="old", desired="shutdown", since_s=5),
        task("failed", desired="shutdown", since_s=61),
        task("orphaned", desired="shutdown", since_s=5),
        task("shutdown", desired="shutdown", since_s=5),
    ],
    ids=["on the old object", "before this rollout", "its node was lost", "told to end"],
)
def test_other_ends_of_tasks_are_nobodys_failure(crashed: dict[str, Any]) -> None:
    assert judged(service(), task(), task(), crashed) == Confirmed(Proof.DEMONSTRATED)


@pytest.mark.parametrize("state", ["paused", "rollback_paused"])
def test_a_paused_update_has_failed(state: str) -> None:
    seen = service(state=state, said="update paused due to failure")
    assert why(judged(seen, task("starting"))).startswith("update paused due to failure")
    assert isinstance(judged(seen, task(), task(), back=True), Failed)


def test_the_engines_own_rollback_is_a_failure_with_the_tasks_words() -> None:
    crashed = task("failed", desired="shutdown", since_s=40, err="non-zero exit (1)")
    seen = service("old", state="rollback_started", said="update rolled back due to failure")
    assert why(judged(seen, task(has="old"), crashed)).startswith("update rolled back due to failure; non-zero exit")


def test_a_spec_that_somebody_else_wrote_over_ours_is_a_failure() -> None:
    assert "somebody updated it" in why(judged(service("old"), task(has="old"), task(has="old")))


def test_rollback_completed_proves_nothing_when_going_back() -> None:
    """It was seen with no task running at all."""
    seen = service(state="rollback_completed")
    assert isinstance(judged(seen, back=True), NotYet)
    assert judged(seen, task(), task(), back=True) == Confirmed(Proof.DEMONSTRATED)


def test_going_back_waits_for_a_consumer_that_fails_and_starts_again() -> None:
    crashed = task("failed", desired="shutdown", since_s=5)
    assert judged(service(), task(), task(since_s=25), crashed, back=True) == Confirmed(Proof.DEMONSTRATED)
    assert isinstance(judged(service(), task(), crashed, back=True), NotYet)


def test_a_rollout_under_way_is_waited_for_and_tells_what_is_late() -> None:
    stuck = task("pending", since_s=20, err="no suitable node (host-mode port already in use on 1 node)")
    answer = judged(service(state="updating"), task(), task(has="old"), stuck)
    assert isinstance(answer, NotYet)
    assert "host-mode port" in answer.reason
    assert answer.waiting_for == ("api",)
    assert answer.after == timedelta(seconds=5)
    fresh = judged(service(state="updating"), task(), task("starting", since_s=1))
    assert "boom" not in why(fresh)


def test_no_task_to_run_leaves_the_written_spec_as_the_proof() -> None:
    assert judged(service(replicas=0, state="")) == Confirmed(Proof.WRITTEN)
    assert judged(service(replicas=None)) == Confirmed(Proof.WRITTEN)
    assert isinstance(judged(service(replicas=None, state="updating")), NotYet)


def test_a_global_service_needs_all_of_its_present_tasks() -> None:
    assert judged(service(replicas=None), task(), task(), task()) == Confirmed(Proof.DEMONSTRATED)
    assert isinstance(judged(service(replicas=None), task(), task("preparing")), NotYet)


def test_a_global_service_whose_only_task_waits_to_be_started_again_is_not_one_without_tasks() -> None:
    """Between a crash and its restart delay a task is wanted `ready`, and none is wanted `running`."""
    crashed, again = task("failed", desired="shutdown", since_s=2), task("ready", desired="ready", since_s=2)
    assert isinstance(judged(service(replicas=None), crashed, again, back=True), NotYet)


def test_a_node_whose_clock_is_late_makes_no_task_older_than_it_is() -> None:
    """A task's status bears its node's clock; when it was made, the manager's."""
    just_made = {**task(since_s=3600), "CreatedAt": ago(5)}
    assert isinstance(judged(service(), just_made, just_made), NotYet)
    crashed = {**task("failed", desired="shutdown", since_s=3600), "CreatedAt": ago(30)}
    assert isinstance(judged(service(), task(), task(), crashed), Failed)


def test_old_tasks_have_their_stop_grace_to_leave_and_no_longer() -> None:
    leaving = task(has="old", desired="shutdown", since_s=3600)
    assert "way out" in why(judged(service(), task(since_s=22), task(since_s=22), leaving))
    assert isinstance(judged(service(), task(since_s=26), task(since_s=26), leaving), Confirmed)
    slow = service()
    slow.spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = 60 * NS
    assert "way out" in why(judged(slow, task(since_s=66), task(since_s=66), leaving))
    assert isinstance(judged(slow, task(since_s=76), task(since_s=76), leaving), Confirmed)


def test_who_was_told_to_leave_a_moment_ago_is_waited_for_beside_those_that_stayed() -> None:
    leaving = {**task(has="old", desired="shutdown", since_s=3600), "UpdatedAt": ago(24)}
    stayed = [task(since_s=7200), task(since_s=7200)]
    assert "way out" in why(judged(service(), *stayed, leaving))
    assert isinstance(judged(service(), *stayed, {**leaving, "UpdatedAt": ago(26)}), Confirmed)


def test_scaled_up_meanwhile_needs_the_new_tasks_too() -> None:
    assert isinstance(judged(service(replicas=3), task(), task()), NotYet)


@pytest.mark.parametrize(
    ("tasks", "names", "answer"),
    [
        ([task(has="old")], "new", Holds.RUNNING),
        ([task("pending", has="old")], "new", Holds.RUNNING),
        ([task(has="old", desired="shutdown")], "new", Holds.ROLLBACK_PATH),
        ([task("failed", has="old", desired="shutdown")], "old", Holds.ROLLBACK_PATH),
        ([task()], "new", Holds.NOTHING),
    ],
    ids=["a task", "a task to come", "a task on its way out", "the previous spec", "nobody"],
)
def test_who_still_holds_an_object(tasks: list[dict[str, Any]], names: str, answer: Holds) -> None:
    assert swarm_rollout.holds(service(was=names), tasks, {"old"}) is answer


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("registry.example.com/shop:1", "your database is not restarted"),
        ("postgres-exporter", "your database is not restarted"),
        ("docker.io/library/postgres:16@sha256:00", "this is your database"),
    ],
)
def test_nobody_is_told_of_a_database_that_it_is_not_restarted(image: str, told: str) -> None:
    seen = service()
    seen.spec["TaskTemplate"]["ContainerSpec"]["Image"] = image
    *_, plan = swarm_advice.findings(seen, [(Mount("db"), [])], [task(), task()])
    assert told in plan.text
