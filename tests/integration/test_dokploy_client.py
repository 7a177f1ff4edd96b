"""Each answer of a simulated Dokploy that is no success is an error of its own, with a next step and without a body."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.servers.dokploy import simulated
from vaultkeeper.access import dokploy
from vaultkeeper.access.dokploy import Connection, Dokploy, DokployError
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.secret import SecretBytes
from vaultkeeper.ports import Deadline
from vaultkeeper.testing.dokploy import SimulatedDokploy

ENV = "HIDDEN=vk-canary-1f2e3d4c\n"


@pytest.fixture
def server() -> Iterator[SimulatedDokploy]:
    made = simulated()
    yield made
    made.stop()


def client(server: SimulatedDokploy, key: str | None = None, *, seconds: float = 60) -> Dokploy:
    key = key or server.state.key(server.state.user()).value
    return Dokploy(Connection(url=server.url), SecretBytes(key.encode()), Deadline(time.monotonic() + seconds))


@pytest.mark.parametrize(
    ("procedure", "body", "kind", "said"),
    [
        ("application.one", None, dokploy.Misunderstood, "applicationId"),
        ("application.saveEnvironment", {"applicationId": "x", "env": ENV}, dokploy.Misunderstood, "buildArgs"),
        ("compose.saveEnvironment", {"composeId": "x", "env": ENV}, dokploy.NotThere, "nothing of that id"),
        ("application.update", {"applicationId": "x", "env": ENV}, dokploy.NotThere, "nothing of that id"),
        ("environment.update", {"environmentId": "x", "env": ENV}, dokploy.NotThere, "nothing of that id"),
        ("project.update", {"projectId": "x", "env": ENV}, dokploy.NotThere, "nothing of that id"),
        ("application.nowhere", {"env": ENV}, dokploy.ProcedureMissing, "this version of Dokploy"),
        ("user.createApiKey", {"name": "k", "metadata": {}}, dokploy.RightMissing, "may not call"),
    ],
)
def test_each_refusal_is_an_error_of_its_own(
    server: SimulatedDokploy, procedure: str, body: dict[str, object] | None, kind: type[DokployError], said: str
) -> None:
    with client(server) as asked, pytest.raises(DokployError) as error:
        asked.get(procedure) if body is None else asked.post(procedure, body)
    assert type(error.value) is kind
    assert said in error.value.what
    assert error.value.next
    assert error.value.definite
    assert error.value.__cause__ is None
    assert "vk-canary" not in repr(error.value) + str(error.value.__context__)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("lost-reply", dokploy.NoAnswer),
        ("redirect", dokploy.Elsewhere),
        ("html", dokploy.NotDokploy),
        ("429", dokploy.TooOften),
        ("500", dokploy.ServerFailed),
        ("unreachable", dokploy.NoAnswer),
    ],
)
def test_each_failure_is_an_error_of_its_own(server: SimulatedDokploy, fault: str, kind: type[DokployError]) -> None:
    with client(server) as asked, server.fault(fault), pytest.raises(DokployError) as error:
        asked.get("settings.getDokployVersion")
    assert type(error.value) is kind
    assert error.value.next
    assert error.value.definite is (kind is dokploy.Elsewhere)


@pytest.mark.parametrize("body", [b"404 page not found", b"", b'{"error":"login required"}', b'["no"]'])
@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_a_proxy_refuses_says_nothing_of_key_right_or_version(
    server: SimulatedDokploy, status: int, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(server) as asked:
        monkeypatch.setattr(server, "answer", lambda *_: (status, body))
        with pytest.raises(dokploy.NotDokploy) as error:
            asked.get("settings.getDokployVersion")
    assert not error.value.definite
    assert error.value.next


def test_a_server_that_says_nothing_ends_with_the_deadline_of_the_whole_call(server: SimulatedDokploy) -> None:
    with client(server, seconds=0.3) as asked, server.fault("silent"), pytest.raises(dokploy.NoAnswer, match="in time"):
        asked.get("settings.getDokployVersion")


def test_an_empty_answer_is_nothing_and_no_error(server: SimulatedDokploy) -> None:
    with client(server) as asked, server.fault("empty"):
        assert asked.post("application.redeploy", {"applicationId": "x"}) is None


def test_an_address_may_end_in_a_slash_or_in_api(server: SimulatedDokploy) -> None:
    key = SecretBytes(server.state.key(server.state.user()).value.encode())
    for ending in ("", "/", "/api", "/api/"):
        deadline = Deadline(time.monotonic() + 60)
        with Dokploy(Connection(url=server.url + ending), key, deadline) as asked:
            assert asked.get("settings.getDokployVersion") == "v0.30.2"


def test_a_key_goes_over_plain_http_to_this_machine_only() -> None:
    where, key = Connection(url="http://192.0.2.1:3000"), SecretBytes(b"vk-canary-key")
    with Dokploy(where, key, Deadline(time.monotonic() + 5)) as asked:
        with pytest.raises(ConfigurationInvalid, match="use https"):
            asked.get("settings.getDokployVersion")
        assert "vk-canary" not in repr(asked) + repr(asked.key)
