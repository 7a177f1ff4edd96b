"""What a policy may say of a swarm destination, and how its groups, objects and rollouts are called."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vaultkeeper.access.swarm.settings import SwarmSettings, service_of
from vaultkeeper.errors import PolicyInvalid


def settings(**said: object) -> SwarmSettings:
    return SwarmSettings.model_validate({"services": ["api"], **said})


@pytest.mark.parametrize(
    "said",
    [
        {"services": []},
        {"discover": True},
        {"keep": 1},
        {"services": ["api/x"]},
        {"services": ["../secrets"]},
        {"order": ["worker"]},
        {"mount": {"uid": "nobody"}},
        {"mount": {"mode": "0777"}},
        {"update_config": {"monitor": "5m"}},
        {"update_config": {"failure_action": "ignore"}},
        {"host": "http://x"},
        {"host": "tcp://user:pw@x:1"},
        {"tls": True},
    ],
)
def test_what_cannot_be_meant_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings(**said)


def test_objects_are_named_once_by_secret_or_by_secrets() -> None:
    assert settings(secret="db").bases({"": "{password}"}) == {"db": ""}
    assert settings().bases({"db": "{password}", "user": "{username}"}) == {"db": "db", "user": "user"}
    for said, values in (({}, {"": "x"}), ({"secret": "db"}, {"db": "x"}), ({"secret": "-db"}, {"": "x"})):
        with pytest.raises(PolicyInvalid):
            settings(**said).bases(values)


def test_one_mount_target_is_no_place_for_two_objects() -> None:
    both = {"db": "{password}", "user": "{username}"}
    with pytest.raises(PolicyInvalid):
        settings(mount={"target": "db"}).bases(both)
    assert settings(mount={"mode": "0400"}).bases(both)


@pytest.mark.parametrize("where", [{}, {"host": "unix:///run/d.sock"}, {"host": "tcp://m:2376"}, {"context": "far"}])
def test_a_group_is_a_service_of_one_engine(where: dict[str, object]) -> None:
    group = settings(**where).group("shop_api")
    assert service_of(group) == "shop_api"
    assert (group == "swarm:shop_api") is (not where)


def test_services_of_order_go_first_and_each_service_once() -> None:
    made = settings(services=["a", "b", "c", "b"], order=["c"])
    assert made.ordered(made.services) == ["c", "a", "b"]


def test_yaml_reads_an_unquoted_off_as_false() -> None:
    assert settings(tls=False).tls == "off"


def test_a_mount_says_only_what_the_policy_says() -> None:
    mount = settings(mount={"uid": 33, "mode": "0440"}).mount_of("db")
    assert (mount.target, mount.uid, mount.gid, mount.mode) == (None, "33", None, 0o440)
    assert mount.path == "/run/secrets/db"


def test_an_update_config_is_in_force_whatever_zeros_the_engine_leaves_out() -> None:
    said = settings(update_config={"delay": "0s", "order": "start-first"}).update_config
    assert said is not None
    assert said.in_force({"Order": "start-first"})
    assert not said.in_force({"Order": "stop-first"})
    assert said.over({}) == {"Parallelism": 1, "Delay": 0, "Order": "start-first"}
    assert said.taken_back({"Parallelism": 1, "Order": "start-first"}, {}) is None
    assert said.taken_back({"Parallelism": 4, "Order": "start-first"}, {}) == {"Parallelism": 4}
