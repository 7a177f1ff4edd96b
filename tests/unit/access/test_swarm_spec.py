"""Which references of a raw service spec are a secret's, and that nothing else in the spec changes with them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from vaultkeeper.access.swarm import spec as swarm_spec
from vaultkeeper.access.swarm.objects import MAX_NAME, name_of
from vaultkeeper.access.swarm.spec import NS, Mount, Wanted


def reference(id_: str, name: str, file: str | None = None, **more: object) -> dict[str, Any]:
    file_ = {"Name": file or name, "UID": "7", "GID": "8", "Mode": 0o400}
    return {"SecretID": id_, "SecretName": name, "File": file_, **more}


def spec(*references: dict[str, Any], **container: object) -> dict[str, Any]:
    return {
        "Name": "api",
        "Labels": {"a": "b"},
        "TaskTemplate": {"ContainerSpec": {"Image": "x", "Secrets": list(references), "Unheard": 1, **container}},
        "Mode": {"Replicated": {"Replicas": 3}},
    }


def wanted(**more: Any) -> Wanted:
    return Wanted(more.pop("mount", Mount("db")), frozenset(more.pop("ours", {"old"})), "new", "db_v2", **more)


def test_a_reference_keeps_its_file_owner_mode_and_place_when_its_object_changes() -> None:
    before = spec(reference("o1", "other"), reference("old", "db_v1", "pass"), reference("o2", "db_admin"))
    after = wanted().applied(before)
    assert swarm_spec.references(after) == [
        reference("o1", "other"),
        reference("new", "db_v2", "pass"),
        reference("o2", "db_admin"),
    ]
    assert swarm_spec.strays(before, after) == []
    assert wanted().met(after)
    assert not wanted().met(before)


def test_the_spec_that_was_read_is_never_changed() -> None:
    before = spec(reference("old", "db_v1"))
    kept = copy.deepcopy(before)
    wanted().applied(before)
    assert before == kept


@pytest.mark.parametrize(
    ("found", "is_ours"),
    [
        (reference("old", "whatever", "elsewhere"), True),
        (reference("x", "db", "elsewhere"), True),
        (reference("x", "shop_db", "db"), True),
        (reference("x", "shop_db", "/run/secrets/db"), True),
        (reference("x", "db_admin", "db_admin"), False),
        (reference("x", "db_v1", "db_v1"), False),
        (reference("x", "DB", "DB"), False),
    ],
    ids=["by id", "by hand-made name", "by file", "by path", "a prefix", "a version of somebody else", "another case"],
)
def test_a_reference_is_known_by_id_exact_name_or_file_and_never_by_prefix(
    found: dict[str, Any], is_ours: bool
) -> None:
    assert bool(swarm_spec.at(Mount("db"), [found], {"old"})) is is_ours


def test_a_service_that_does_not_read_it_yet_is_given_it() -> None:
    before = spec()
    del before["TaskTemplate"]["ContainerSpec"]["Secrets"]
    mount = Mount("db", "/etc/db", "33", "44", 0o440)
    (added,) = swarm_spec.references(wanted(mount=mount).applied(before))
    assert added == {
        "SecretID": "new",
        "SecretName": "db_v2",
        "File": {"Name": "/etc/db", "UID": "33", "GID": "44", "Mode": 0o440},
    }


def test_what_the_policy_says_of_the_mount_wins_over_what_is_there() -> None:
    (after,) = swarm_spec.references(wanted(mount=Mount("db", mode=0o404)).applied(spec(reference("old", "db_v1"))))
    assert after["File"] == {"Name": "db_v1", "UID": "7", "GID": "8", "Mode": 0o404}


def test_a_secret_that_is_read_from_two_files_stays_in_both_and_the_policys_mount_is_one_of_them() -> None:
    both = spec(reference("old", "db_v1", "there"), reference("x", "db", "here"))
    after = wanted(mount=Mount("db", "here", mode=0o404)).applied(both)
    named = {each["File"]["Name"]: (each["SecretID"], each["File"]["Mode"]) for each in swarm_spec.references(after)}
    assert named == {"there": ("new", 0o400), "here": ("new", 0o404)}
    moved = wanted(mount=Mount("db", "new")).applied(both)
    assert [each["File"]["Name"] for each in swarm_spec.references(moved)] == ["new", "here"]
    assert wanted(mount=Mount("db", "here", mode=0o404)).met(after)


def test_going_back_puts_the_very_references_back_into_the_present_spec() -> None:
    hand_made = reference("hand", "db", "db")
    before = spec(hand_made, reference("o", "other"))
    present = wanted().applied(before)
    present["Labels"]["added"] = "since"
    back = Wanted(Mount("db"), frozenset({"old", "new"}), put_back=(hand_made,)).applied(present)
    assert swarm_spec.references(back) == swarm_spec.references(before)
    assert back["Labels"] == {"a": "b", "added": "since"}


def test_a_first_delivery_goes_back_to_no_reference() -> None:
    present = wanted().applied(spec(reference("o", "other")))
    nothing = Wanted(Mount("db"), frozenset({"new"}), put_back=())
    assert swarm_spec.references(nothing.applied(present)) == [reference("o", "other")]
    assert nothing.ids == set()


@pytest.mark.parametrize("change", [{"Image": "y"}, {"Unheard": None}, {"Env": ["A=1"]}])
def test_whatever_else_changes_is_noticed(change: dict[str, object]) -> None:
    before = spec(reference("old", "db_v1"))
    after = wanted().applied(before)
    after["TaskTemplate"]["ContainerSpec"].update(change)
    after["UpdateConfig"] = {"Order": "start-first"}
    assert swarm_spec.strays(before, after) == [f"TaskTemplate.ContainerSpec.{next(iter(change))}"]


def test_the_deadline_counts_batches_health_check_stop_grace_and_delay() -> None:
    slow = spec(
        Healthcheck={"Test": ["CMD", "x"], "StartPeriod": 20 * NS, "Interval": 10 * NS, "Retries": 3},
        StopGracePeriod=5 * NS,
    )
    slow["UpdateConfig"] = {"Parallelism": 2, "Delay": 4 * NS, "Monitor": 15 * NS}
    each = swarm_spec.START_S + 20 + 30 + 5 + 4
    assert swarm_spec.rollout_s(slow, 3) == 2 * each
    slow["UpdateConfig"]["Parallelism"] = 0  # all at once
    assert swarm_spec.rollout_s(slow, 30) == each
    assert swarm_spec.monitor_s(slow) == 15
    assert swarm_spec.rollout_s(slow, 0) == 0


@pytest.mark.parametrize(
    ("mode", "tasks", "job"),
    [
        ({"Replicated": {"Replicas": 0}}, 0, False),
        ({"Replicated": {}}, 1, False),
        ({"Global": {}}, None, False),
        ({"ReplicatedJob": {"TotalCompletions": 1}}, 1, True),
        ({"GlobalJob": {}}, 1, True),
    ],
)
def test_a_mode_says_how_many_tasks_shall_run(mode: dict[str, object], tasks: int | None, job: bool) -> None:
    assert swarm_spec.is_job({"Mode": mode}) is job
    assert job or swarm_spec.replicas({"Mode": mode}) == tasks


def test_names_of_objects_fit_and_never_collide() -> None:
    assert name_of("db", 7) == "db_v7"
    assert name_of("db", 7, 2) == "db_v7-2"
    long, longer = "x" * 70, "x" * 71
    names = {name_of(base, number, attempt) for base in (long, longer) for number in (1, 11) for attempt in (1, 2)}
    assert len(names) == 8
    assert all(len(name) <= MAX_NAME for name in names)
    assert name_of("x" * 61, 1) == "x" * 61 + "_v1"


def test_moments_of_the_engine_are_read_to_the_microsecond_and_none_is_long_ago() -> None:
    assert swarm_spec.moment("2026-11-21T03:41:59.123456789Z").isoformat() == "2026-11-21T03:41:59.123456+00:00"
    assert swarm_spec.moment(None).year == 1970
    assert swarm_spec.moment("0001-01-01T00:00:00Z") < swarm_spec.moment("2026-01-01T00:00:00Z")
