"""The swarm destination's hooks on a real Engine. Services without tasks show what is written; others, what runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.servers.docker import SECOND, Engine
from tests.servers.docker_service import Service, reference
from vaultkeeper.access.docker import EngineSettings, engine
from vaultkeeper.access.docker.answers import Declined
from vaultkeeper.access.swarm import Swarm
from vaultkeeper.access.swarm.objects import Logical, Memory, Objects
from vaultkeeper.destinations.swarm import SwarmDestination
from vaultkeeper.errors import VaultkeeperError
from vaultkeeper.model.outcome import (
    Confirmed,
    Done,
    Failed,
    Held,
    Holds,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion
from vaultkeeper.ports import DeliveryContext, Item, Spot
from vaultkeeper.testing.contract.trial import SECRET, Credentials, Watch, version

NAMESPACE = "com.docker.stack.namespace"


@dataclass
class Hands:
    """The hooks for one service and one logical secret `base`."""

    docker: Engine
    service: Service
    base: str
    settings: dict[str, Any] = field(default_factory=dict)
    read: Read = Read.AT_START
    destination: SwarmDestination = field(default_factory=SwarmDestination.open)

    @property
    def ctx(self) -> DeliveryContext:
        return Watch().delivery()

    @property
    def group(self) -> GroupKey:
        (group,) = {spot.group for spot in self.spots()}
        return group

    @property
    def spec(self) -> DestinationSpec:
        which = {} if self.settings.get("discover") else {"services": [self.service.name]}
        said = {"host": self.docker.url, "secret": self.base, **which, **self.settings}
        return DestinationSpec("swarm", {"": "{password}"}, self.read, said, healthy_for=timedelta(0))

    def spots(self) -> Sequence[Spot]:
        found = self.destination.spots(self.spec, self.ctx)
        assert not isinstance(found, Unknown)
        return found

    def item(self, carried: SecretVersion | None, *others: SecretVersion, receipt: object = None) -> Item:
        content = carried.fields["password"] if carried else None
        accepted = (carried, *others) if carried else others
        (slot,) = {spot.slot for spot in self.spots()}
        return Item(slot, self.spec, SECRET, carried, content, accepted, receipt)

    def prepared(self, item: Item) -> Item:
        answer = self.destination.prepare(self.group, [item], self.ctx)
        assert isinstance(answer, Prepared), answer
        return replace(item, receipt=answer.receipts[item.slot])

    def deliver(self, item: Item) -> object:
        return self.destination.deliver(self.group, [item], self.ctx)

    def carry(self, carried: SecretVersion, *others: SecretVersion) -> Item:
        item = self.prepared(self.item(carried, *others))
        assert self.deliver(item) == Done()
        return item

    def release(self, gone: SecretVersion, item: Item) -> None:
        assert self.destination.release(self.group, gone, item, self.ctx) == Done()

    def files(self) -> dict[str, str]:
        return self.service.files()

    def objects(self) -> list[str]:
        return sorted(each["Spec"]["Name"] for each in self.docker.secrets())

    def check(self, item: Item) -> dict[str, list[str]]:
        said: dict[str, list[str]] = {}
        for finding in self.destination.check(self.group, [item], self.ctx):
            said.setdefault(finding.level, []).append(finding.text)
        return said


def made(number: int, value: str = "") -> SecretVersion:
    return version(number, {"password": SecretBytes((value or f"vk-canary-{number}").encode())}, "none", {})


def still(docker: Engine, base: str = "db", files: dict[str, Any] | None = None, **options: Any) -> Hands:
    """A service without tasks: its updates take no time."""
    name = docker.name(base)
    return Hands(docker, docker.service(base, files, replicas=0, started=False, **options), name)


def test_objects_are_labelled_and_never_as_a_stacks_own(docker: Engine) -> None:
    hands = still(docker)
    hands.carry(made(7))
    (found,) = docker.secrets()
    assert found["Spec"]["Name"] == f"{hands.base}_v7"
    labels = found["Spec"]["Labels"]
    assert labels["vaultkeeper.secret"] == SECRET
    assert labels["vaultkeeper.version"] == "7"
    assert NAMESPACE not in labels


def test_a_hand_made_object_that_is_equal_is_adopted_and_restarts_nobody(docker: Engine) -> None:
    base = docker.name("db")
    by_hand = docker.secret(base, "vk-canary-1")
    hands = still(docker, files={"password": by_hand})
    hands.base = base
    before = hands.service.spec()
    assert hands.destination.observe(hands.group, [hands.item(made(1))], hands.ctx) == {base: Held(1)}
    one, two = made(1), made(2)
    hands.carry(one)
    assert hands.service.spec() == before
    assert "PreviousSpec" not in hands.service.raw()
    assert hands.objects() == [base]
    item = hands.carry(two, one)
    assert hands.files() == {"password": f"{base}_v2"}
    back = replace(hands.item(one), receipt=item.receipt)
    assert hands.deliver(back) == Done()
    assert hands.files() == {"password": base}
    hands.release(two, back)
    assert hands.objects() == [base]


def test_a_taken_name_is_passed_by_and_one_of_ours_is_adopted(docker: Engine) -> None:
    hands = still(docker)
    docker.secret(f"{hands.base}_V7", "vk-canary-7")
    seven = made(7)
    hands.carry(seven)
    assert hands.files() == {hands.base: f"{hands.base}_v7-2"}
    other = replace(seven, id="of-a-restored-store")
    hands.carry(other)
    assert hands.files() == {hands.base: f"{hands.base}_v7-3"}
    Hands(docker, hands.service, hands.base).carry(seven)
    assert hands.files() == {hands.base: f"{hands.base}_v7-2"}


def test_two_processes_that_make_the_same_object_share_it(docker: Engine) -> None:
    hands, seven = still(docker), made(7)
    logical, content = Logical("an-installation", SECRET, hands.base), b"vk-canary-7"
    found = []
    for _ in range(2):
        with engine(EngineSettings(host=docker.url), Credentials()) as opened:
            objects = Objects(Swarm(opened, hands.ctx.deadline), Memory())
            found.append(objects.make(logical, seven, content).id)
    assert len(set(found)) == 1
    assert hands.objects() == [f"{hands.base}_v7"]


def test_an_edited_template_makes_another_object_of_the_same_version(docker: Engine) -> None:
    hands, seven = still(docker), made(7)
    hands.carry(seven)
    item = replace(hands.item(seven), content=SecretBytes(b"user vk-canary-7"))
    item = hands.prepared(item)
    assert hands.deliver(item) == Done()
    assert hands.files() == {hands.base: f"{hands.base}_v7-2"}
    assert hands.objects() == [f"{hands.base}_v7", f"{hands.base}_v7-2"]


def test_old_objects_go_but_for_the_newest_and_those_that_anybody_names(docker: Engine) -> None:
    hands, versions = still(docker), [made(number) for number in range(1, 6)]
    hands.settings = {"keep": 2}
    first = hands.carry(versions[0])
    pinned = {each["Spec"]["Name"]: each for each in docker.secrets()}[f"{hands.base}_v1"]
    named = {"x": {"ID": pinned["ID"], "Name": f"{hands.base}_v1"}}
    pin = docker.service("pin", named, replicas=0, started=False)
    pin.set(lambda raw: raw["TaskTemplate"]["ContainerSpec"].pop("Secrets"))  # a rollback would need it still
    for old, new in pairwise(versions):
        item = hands.carry(new, old)
        assert hands.destination.holds(hands.group, old, item, hands.ctx) is Holds.ROLLBACK_PATH
        hands.release(old, item)
        assert hands.destination.holds(hands.group, old, item, hands.ctx) is Holds.NOTHING
    assert first.receipt is not None
    assert hands.objects() == [f"{hands.base}_v{number}" for number in (1, 4, 5)]


def test_the_current_object_stays_also_below_newer_ones_of_a_lost_store_and_without_a_service(docker: Engine) -> None:
    hands, current = still(docker), made(4)
    for number in (7, 8):
        hands.carry(made(number))
    item = hands.carry(current)
    group = hands.group
    hands.service.remove()
    assert hands.destination.release(group, made(3), item, hands.ctx) == Done()
    assert f"{hands.base}_v4" in hands.objects()


def test_until_release_a_rollback_by_hand_leads_to_the_old_value_and_after_it_to_the_new(docker: Engine) -> None:
    hands, one, two = still(docker), made(1), made(2)
    hands.carry(one)
    hands.release(one, hands.item(one))
    item = hands.carry(two, one)
    hands.service.roll_back()
    assert hands.files() == {hands.base: f"{hands.base}_v1"}
    assert hands.deliver(item) == Done()
    hands.release(one, item)
    hands.service.roll_back()
    assert hands.files() == {hands.base: f"{hands.base}_v2"}


def test_an_update_config_holds_for_our_rollout_and_is_restored_at_release(docker: Engine) -> None:
    hands, one, two = still(docker, update={"Order": "stop-first"}), made(1), made(2)
    hands.settings = {"update_config": {"order": "start-first", "monitor": "7s"}}
    own = hands.service.spec()["UpdateConfig"]
    item = hands.carry(one)
    assert hands.service.spec()["UpdateConfig"] == {**own, "Order": "start-first", "Monitor": 7 * SECOND}
    later = hands.prepared(hands.item(two, one))  # a rotation that takes the place of one that did not release
    assert hands.deliver(later) == Done()
    assert hands.service.spec()["UpdateConfig"]["Order"] == "start-first"
    hands.service.set(lambda raw: raw["UpdateConfig"].update(Parallelism=3))
    hands.release(one, later)
    assert hands.service.spec()["UpdateConfig"] == {**own, "Parallelism": 3}
    hands.release(made(9), item)
    assert hands.service.spec()["UpdateConfig"] == {**own, "Parallelism": 3}
    assert hands.files() == {hands.base: f"{hands.base}_v2"}


def test_an_update_config_that_people_chose_themselves_is_not_taken_for_ours(docker: Engine) -> None:
    hands = still(docker, update={"Order": "stop-first"})
    hands.settings = {"update_config": {"order": "start-first"}}
    hands.service.set(lambda raw: raw["UpdateConfig"].update(Order="start-first"))
    hands.release(made(9), hands.carry(made(1)))
    assert hands.service.spec()["UpdateConfig"]["Order"] == "start-first"


def test_a_repair_that_no_release_follows_leaves_the_update_config_alone(docker: Engine) -> None:
    hands = still(docker, update={"Order": "stop-first"})
    hands.settings = {"update_config": {"order": "start-first"}}
    assert hands.deliver(hands.item(made(1))) == Done()
    assert hands.files() == {hands.base: f"{hands.base}_v1"}
    assert hands.service.spec()["UpdateConfig"]["Order"] == "stop-first"


def test_no_update_config_at_all_comes_back_as_none(docker: Engine) -> None:
    hands = still(docker, update_config=False)
    hands.settings = {"update_config": {"failure_action": "rollback", "delay": "0s"}}
    item = hands.carry(made(1))
    ours = hands.service.spec()["UpdateConfig"]
    assert (ours["FailureAction"], ours["Parallelism"]) == ("rollback", 1)  # what is left out would mean: all at once
    hands.release(made(9), item)
    assert "UpdateConfig" not in hands.service.spec()


def test_services_are_discovered_by_object_and_not_by_prefix(docker: Engine) -> None:
    base = docker.name("db")
    by_hand, theirs = docker.secret(base, "x"), docker.secret(f"{base}_admin", "y")
    quiet: dict[str, Any] = {"replicas": 0, "started": False}
    found = docker.service("found", {"password": by_hand}, **quiet)
    docker.service("not", {"password": theirs}, **quiet)
    docker.service("once", {"p": by_hand}, Labels={**docker.labels, "vaultkeeper.read": "first_start"}, **quiet)
    path = f"/run/secrets/{base}"
    docker.service("init", {base: by_hand}, environment={"POSTGRES_PASSWORD_FILE": path}, **quiet)
    hands = Hands(docker, found, base, {"discover": True})
    assert [spot.group for spot in hands.spots()] == [f"swarm:{docker.url}/{found.name}"]
    hands.carry(made(1))
    assert found.files() == {"password": f"{base}_v1"}
    assert [spot.group for spot in hands.spots()] == [f"swarm:{docker.url}/{found.name}"]
    with pytest.raises(VaultkeeperError, match="no service refers"):
        replace(hands, base=docker.name("nobody")).spots()


def test_another_secrets_object_of_the_same_name_is_not_discovered(docker: Engine) -> None:
    hands = still(docker)
    hands.carry(made(1))
    stranger = replace(Watch().delivery(), epochs={"another/secret": 0})
    spec = replace(hands.spec, settings={"host": docker.url, "secret": hands.base, "discover": True})
    with pytest.raises(VaultkeeperError, match="no service refers"):
        hands.destination.spots(spec, stranger)


def test_a_file_that_another_secret_of_ours_is_delivered_to_is_refused(docker: Engine) -> None:
    hands = still(docker)
    hands.carry(made(1))
    other = Hands(docker, hands.service, docker.name("other"), {"mount": {"target": hands.base}})
    item = replace(other.item(made(1)), secret="another/secret")
    answer = other.destination.prepare(other.group, [item], other.ctx)
    assert isinstance(answer, Refused)
    assert answer.why is No.CAPACITY
    assert SECRET in answer.detail


def test_what_is_mounted_otherwise_keeps_its_owner_mode_and_name(docker: Engine) -> None:
    base = docker.name("db")
    hands = still(docker)
    hands.base = base
    by_hand = reference("/etc/db.txt", docker.secret(base, "x"), uid="33", gid="44", mode=0o440)
    hands.service.set(lambda raw: raw["TaskTemplate"]["ContainerSpec"].update(Secrets=[by_hand]))
    hands.carry(made(1))
    (after,) = hands.service.spec()["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert after["File"] == by_hand["File"]
    assert after["SecretName"] == f"{base}_v1"


def test_a_service_without_tasks_is_confirmed_as_written(docker: Engine) -> None:
    hands = still(docker)
    item = hands.carry(made(1))
    assert hands.destination.confirm(hands.group, [item], hands.ctx) == Confirmed(Proof.WRITTEN)


def test_what_reads_at_its_first_start_only_is_left_alone(docker: Engine) -> None:
    hands = still(docker)
    hands.read = Read.FIRST_START
    before = hands.service.spec()
    item = hands.carry(made(1))
    assert hands.destination.confirm(hands.group, [item], hands.ctx) == Confirmed(Proof.WRITTEN)
    assert hands.destination.holds(hands.group, made(1), item, hands.ctx) is Holds.NOTHING
    assert hands.destination.release(hands.group, made(1), item, hands.ctx) == Done()
    assert hands.service.spec() == before
    assert "PreviousSpec" not in hands.service.raw()
    assert hands.objects() == []


def test_a_job_is_refused_because_an_update_runs_it_again(docker: Engine) -> None:
    hands = still(
        docker, update_config=False, Mode={"ReplicatedJob": {}}, task={"RestartPolicy": {"Condition": "none"}}
    )
    answer = hands.destination.prepare(hands.group, [hands.item(made(1))], hands.ctx)
    assert isinstance(answer, Refused)
    assert "is a job" in answer.detail
    assert "is a job" in hands.check(hands.item(made(1)))["refuse"][0]
    assert hands.objects() == []


def test_a_global_service_runs_on_it_on_every_node(docker: Engine) -> None:
    service = docker.service("each", replicas=None, healthcheck=False, container={"Command": ["sleep", "inf"]})
    hands = Hands(docker, service, docker.name("db"))
    item = hands.carry(made(1))
    answer = docker.wait_for("confirmed", lambda: _definite(hands, item))
    assert answer == Confirmed(Proof.DEMONSTRATED)
    assert service.read(hands.base) == {b"vk-canary-1"}


def test_going_back_waits_for_a_new_task_that_is_slow_to_leave_beside_an_old_one_that_stayed(docker: Engine) -> None:
    """Its value is refused next."""
    slow = {
        "Command": ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"],
        "Healthcheck": {"Test": ["CMD", "grep", "-q", "old", "/run/secrets/db"], "Interval": SECOND // 2,
                        "StartPeriod": 600 * SECOND},
        "StopGracePeriod": 5 * SECOND,
    }  # fmt: skip
    by_hand = docker.secret("db", "old")
    hands = Hands(docker, docker.service("slow", {"db": by_hand}, container=slow), by_hand["Name"])
    item = hands.carry(made(2))
    (new,) = hands.files().values()

    def alive() -> list[str]:
        states = [task["Status"]["State"] for task in hands.service.tasks() if _has(task, new)]
        return [state for state in states if state in {"starting", "running"}]

    docker.wait_for("the new one starts", alive)
    docker.wait_for("the old one has run for long", lambda: _age_s(hands.service.running(by_hand["Name"])) > 20)
    back = replace(item, primary=None, content=None, accepted=())
    assert hands.deliver(back) == Done()
    assert docker.wait_for("confirmed", lambda: _definite(hands, back)) == Confirmed(Proof.DEMONSTRATED)
    assert alive() == []


def _has(task: dict[str, Any], name: str) -> bool:
    return any(each["SecretName"] == name for each in task["Spec"]["ContainerSpec"]["Secrets"])


def _age_s(tasks: Sequence[dict[str, Any]]) -> float:
    (since,) = [datetime.fromisoformat(task["Status"]["Timestamp"]) for task in tasks]
    return (datetime.now(UTC) - since).total_seconds()


def _definite(hands: Hands, item: Item) -> object:
    answer = hands.destination.confirm(hands.group, [item], hands.ctx)
    return None if isinstance(answer, NotYet) else answer


def test_names_are_told_for_whoever_deploys_the_stack(docker: Engine) -> None:
    hands = still(docker)
    variable = "VK_" + hands.base.upper().replace("-", "_")
    assert hands.destination.names(hands.spec, hands.ctx) == {}
    hands.carry(made(3))
    assert hands.destination.names(hands.spec, hands.ctx) == {variable: f"{hands.base}_v3"}


def test_no_name_is_told_while_services_carry_different_objects(docker: Engine) -> None:
    hands = still(docker)
    hands.carry(made(1))
    behind = Hands(docker, docker.service("behind", {}, replicas=0, started=False), hands.base)
    behind.carry(made(2))
    both = replace(hands.spec, settings={**hands.spec.settings, "services": [hands.service.name, behind.service.name]})
    with pytest.raises(VaultkeeperError, match="another service"):
        hands.destination.names(both, hands.ctx)


def test_check_tells_what_will_surprise_and_shows_no_value(docker: Engine) -> None:
    ports = {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 28081, "PublishMode": "host"}]}
    hands = still(
        docker,
        healthcheck=False,
        container={"Image": docker.tag},
        environment={"SHOP_DB_PASSWORD": "vk-canary-env"},
        update={"FailureAction": "continue"},
        EndpointSpec=ports,
    )
    hands.base = "db_password"
    said = hands.check(hands.item(made(1)))
    assert set(said) == {"warn", "ok"}
    told = "\n".join(said["warn"])
    for word in ("health check", "failure_action is continue", "28081", docker.tag, "monitor", "SHOP_DB_PASSWORD"):
        assert word in told, word
    assert "it is added as /run/secrets/db_password" in told
    assert "vk-canary" not in told
    assert "0 tasks restart" in said["ok"][0]
    assert "your database is not restarted" in said["ok"][0]


def test_a_service_that_reads_the_object_and_is_not_listed_is_told(docker: Engine) -> None:
    hands = still(docker)
    hands.carry(made(1))
    (carried,) = hands.service.spec()["TaskTemplate"]["ContainerSpec"]["Secrets"]
    quiet: dict[str, Any] = {"replicas": 0, "started": False}
    by_id = {"ID": carried["SecretID"], "Name": carried["SecretName"]}
    missed = docker.service("missed", {"db": by_id}, **quiet)
    docker.service("once", {"db": by_id}, Labels={**docker.labels, "vaultkeeper.read": "first_start"}, **quiet)
    (told,) = [text for text in hands.check(hands.item(made(1)))["warn"] if "does not list it" in text]
    assert told.startswith(f"{missed.name} refers to {hands.base}")
    hands.settings = {"services": [hands.service.name, missed.name]}
    for found in hands.destination.check(hands.spots()[0].group, [hands.item(made(1))], hands.ctx):
        assert "does not list it" not in found.text


def test_what_another_installation_made_is_told_before_it_is_taken_over(docker: Engine) -> None:
    hands = still(docker)
    item = hands.carry(made(1))
    assert not any("installation" in text for text in hands.check(item)["warn"])
    ctx = replace(hands.ctx, installation="another")
    told = [finding.text for finding in hands.destination.check(hands.group, [item], ctx)]
    assert any(f"was made by the installation {hands.ctx.installation}" in text for text in told)


def test_a_target_that_only_services_of_the_swarm_reach_is_told_with_its_network(docker: Engine) -> None:
    body = {"Name": docker.name("back"), "Driver": "overlay", "Internal": True, "Labels": docker.labels}
    docker.api("POST", "/networks/create", body)
    quiet: dict[str, Any] = {"replicas": 0, "started": False}
    inside = docker.service("pg", {}, task={"Networks": [{"Target": body["Name"]}]}, **quiet)
    ports = {"Ports": [{"Protocol": "tcp", "TargetPort": 5432, "PublishedPort": 28432, "PublishMode": "host"}]}
    outside = docker.service("pub", {}, EndpointSpec=ports, **quiet)
    hands = still(docker)
    said: dict[str, list[str]] = {}
    for host in (inside.name, outside.name, f"{inside.name}.internal", "nobody"):
        at_host = made(1)
        at_host = replace(at_host, binding=replace(at_host.binding, target_settings={"host": host}))
        said[host] = [text for text in hands.check(hands.item(at_host))["warn"] if "without a published port" in text]
    (told,) = said.pop(inside.name)
    assert f"reached inside {body['Name']} only" in told
    assert list(said.values()) == [[], [], []]


def test_a_service_that_does_not_run_even_before_is_told(docker: Engine) -> None:
    hands = Hands(docker, docker.service("lame", breaks="exit", works_on=["never"], started=False), "db")
    (told,) = [text for text in hands.check(hands.item(made(1)))["warn"] if "before any change" in text]
    assert "only 0 of 1 tasks run" in told


def test_nobody_there_is_unknown_and_no_such_service_a_refusal(docker: Engine) -> None:
    gone = still(docker)
    gone.service.remove()
    assert isinstance(gone.destination.prepare(gone.group, [gone.item(made(1))], gone.ctx), Refused)
    assert gone.check(gone.item(made(1)))["refuse"] == [f"there is no service {gone.service.name}"]
    nobody = replace(gone, settings={"host": "unix:///nonexistent/docker.sock"})
    assert isinstance(nobody.deliver(nobody.item(made(1))), Unknown)
    assert isinstance(nobody.destination.confirm(nobody.group, [nobody.item(made(1))], nobody.ctx), Unknown)


def test_a_service_that_vanished_has_nothing_to_put_back_and_cannot_go_on(docker: Engine) -> None:
    hands, one, two = still(docker), made(1), made(2)
    hands.carry(one)
    item = hands.carry(two, one)
    hands.service.remove()
    assert isinstance(hands.deliver(item), Refused)
    assert isinstance(hands.destination.confirm(hands.group, [item], hands.ctx), Failed)
    back = replace(hands.item(one, two), receipt=item.receipt)
    in_grace = replace(item, secret="a/neighbour")  # it has a receipt too, and nothing of it is under way
    for items in ([back], [back, in_grace]):
        assert hands.destination.deliver(hands.group, items, hands.ctx) == Done()
        assert hands.destination.confirm(hands.group, items, hands.ctx) == Confirmed(Proof.WRITTEN)


def test_somebody_elses_change_in_between_is_noticed_and_kept(docker: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    hands = still(docker)
    item = hands.prepared(hands.item(made(1)))
    real, writes = Swarm.update, list[str]()

    def hurried(self: Swarm, service: Any, spec: Any) -> None:
        if not writes:
            hands.service.set(lambda raw: raw["Labels"].update(theirs="kept"))
        writes.append(service.name)
        real(self, service, spec)

    monkeypatch.setattr(Swarm, "update", hurried)
    assert hands.deliver(item) == Done()
    assert len(writes) == 2
    assert hands.service.spec()["Labels"]["theirs"] == "kept"
    assert hands.files() == {hands.base: f"{hands.base}_v1"}


def test_what_cannot_be_read_after_the_update_is_not_taken_for_nothing_done(
    docker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused would mean that the service has the old object, and the target alone would be put back."""
    hands = still(docker)
    item = hands.prepared(hands.item(made(1)))
    real, reads = Swarm.service, list[str]()

    def stopped(self: Swarm, name: str) -> Any:
        reads.append(name)
        if len(reads) == 2:
            raise Declined(400, "a proxy's word", "GET /services")
        return real(self, name)

    monkeypatch.setattr(Swarm, "service", stopped)
    assert isinstance(hands.deliver(item), Unknown)
    assert hands.files() == {hands.base: f"{hands.base}_v1"}
    assert hands.deliver(item) == Done()


def test_somebody_elses_rollout_is_waited_for_and_interrupted_only_to_go_back(docker: Engine) -> None:
    service = docker.service(
        "slow", replicas=2, healthcheck=False, container={"Command": ["sleep", "inf"]}, update={"Delay": 600 * SECOND}
    )
    hands, one, two = Hands(docker, service, docker.name("db")), made(1), made(2)
    item = hands.carry(one)  # ours; it takes ten minutes, so it is under way all the time
    later = hands.prepared(hands.item(two, one))
    service.set(lambda raw: raw["TaskTemplate"].update(ForceUpdate=1))
    docker.wait_for("theirs is under way", lambda: service.update_state() == "updating")
    # `single` opens its gap between the two: whoever must wait then waits with a value that is refused
    for hook in (hands.destination.prepare, hands.destination.deliver):
        answer = hook(hands.group, [later], hands.ctx)
        assert isinstance(answer, NotYet), hook
        assert "somebody else" in answer.reason
    assert "is being updated" in hands.check(later)["refuse"][0]
    assert hands.deliver(replace(item, primary=None, content=None, accepted=())) == Done()
    assert hands.files() == {}
    assert service.spec()["TaskTemplate"]["ForceUpdate"] == 1
