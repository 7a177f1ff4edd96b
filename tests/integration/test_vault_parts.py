"""What target, generator and reference say where a server is not as they need it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from tests.servers.vaults import Vaults
from vaultkeeper.access import vault as logins
from vaultkeeper.errors import ChecksNothing, ConfigurationInvalid, NotAuthorised, Unavailable
from vaultkeeper.generators.vault import Settings as GeneratorSettings
from vaultkeeper.generators.vault import VaultGenerator
from vaultkeeper.model.outcome import Done, Login, No, Refused, Unknown
from vaultkeeper.model.secret import Fields, SecretBytes, SecretVersion
from vaultkeeper.targets.vault_approle_secret_id import VaultAppRoleTarget
from vaultkeeper.testing.contract.trial import Watch, version
from vaultkeeper.testing.memory import MemoryEnvelope, MemoryStore
from vaultkeeper.wiring.credentials import References


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vaults]:
    monkeypatch.setattr(logins, "FAREWELL_S", 60.0)  # that a login ends is looked at here
    server = Vaults()
    yield server
    logins.end()
    server.stop()


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vaults]:
    monkeypatch.delenv("VAULTKEEPER_TEST_VAULT_ADDR", raising=False)
    server = Vaults()
    yield server
    logins.end()
    server.stop()


# -------------------------------------------------------------------------------------------------------------- target


def target(vault: Vaults, **role: object) -> tuple[VaultAppRoleTarget, dict[str, Any]]:
    settings = {**vault.connection(), "mount": vault.approle, "role": vault.new_role(**role)}
    return VaultAppRoleTarget.open(settings, 1), settings


def secret_id(number: int, value: str) -> SecretVersion:
    return version(number, {"token": SecretBytes(value.encode())}, "vault_approle_secret_id", {})


def levels(vault: Vaults, **role: object) -> list[str]:
    return [finding.level for finding in target(vault, **role)[0].check(Watch().context())]


def test_a_role_whose_secret_ids_are_used_up_or_not_asked_for_is_refused(vault: Vaults) -> None:
    assert levels(vault) == ["ok"]
    assert levels(vault, secret_id_num_uses=10) == ["refuse"]
    assert levels(vault, bind_secret_id=False, token_bound_cidrs=["127.0.0.0/8"])[0] == "refuse"
    assert levels(vault, secret_id_ttl="24h") == ["warn"]
    assert levels(vault, secret_id_bound_cidrs=["127.0.0.0/8"]) == ["warn"]


def test_a_role_that_does_not_exist_is_refused(vault: Vaults) -> None:
    settings = {**vault.connection(), "mount": vault.approle, "role": "nobody"}
    (finding,) = VaultAppRoleTarget.open(settings, 1).check(Watch().context())
    assert finding.level == "refuse"


def test_a_role_that_asks_for_no_secret_id_checks_nothing(vault: Vaults) -> None:
    opened, _ = target(vault, bind_secret_id=False, token_bound_cidrs=["127.0.0.0/8"])
    with pytest.raises(ChecksNothing):
        opened.test(secret_id(1, "anything"), Watch().context())


def test_an_expired_secret_id_is_not_accepted(simulated: Vaults) -> None:
    import time

    opened, settings = target(simulated, secret_id_ttl="60s")
    one = secret_id(1, "short-lived")
    assert isinstance(opened.set([one], [], Watch().context()), Done)
    assert opened.observe([one], Watch().context()).answers == {1: Login.ACCEPTED}  # type: ignore[union-attr]
    assert simulated.simulator is not None
    made = simulated.simulator.state.mounts[f"auth/{simulated.approle}"].roles[settings["role"]].secret_ids
    made["short-lived"].made_s = time.time() - 61
    assert opened.observe([one], Watch().context()).answers == {1: Login.REJECTED}  # type: ignore[union-attr]
    # whoever goes back to it registers it anew; the server keeps dead ones for a while, and refuses to take one twice
    assert isinstance(opened.set([one], [], Watch().context()), Done)
    assert opened.observe([one], Watch().context()).answers == {1: Login.ACCEPTED}  # type: ignore[union-attr]


def test_decoys_lock_no_role_and_a_locked_one_is_told_from_a_refusal(vault: Vaults) -> None:
    opened, _ = target(vault)
    good = secret_id(1, "the-right-one")
    assert isinstance(opened.set([good], [], Watch().context()), Done)
    for _ in range(8):
        decoy = opened.decoy(good)
        assert decoy is not None
        assert opened.login_key(decoy) != opened.login_key(good)
        assert opened.test(decoy, Watch().context()) is Login.REJECTED
    assert opened.test(good, Watch().context()) is Login.ACCEPTED
    for number in range(5):
        assert opened.test(secret_id(2, f"wrong-{number}"), Watch().context()) is Login.REJECTED
    assert opened.test(good, Watch().context()) is Login.THROTTLED


def test_its_handle_is_the_accessor_and_tokens_tell_who_made_the_secret_id(vault: Vaults) -> None:
    opened, settings = target(vault)
    done = opened.set([secret_id(3, "handled")], [], Watch().context())
    assert isinstance(done, Done)
    role = f"auth/{vault.approle}/role/{settings['role']}"
    told = vault.api("POST", f"{role}/secret-id/lookup", {"secret_id": "handled"})["data"]
    assert done.handle == f'{{"accessor": "{told["secret_id_accessor"]}"}}'
    assert told["metadata"] == {"vaultkeeper": "contract-installation contract/secret v3"}


# ----------------------------------------------------------------------------------------------------------- generator


def fetched(settings: dict[str, Any], forbidden: str = "", max_bytes: int | None = None) -> Fields | Refused | Unknown:
    GeneratorSettings.model_validate(settings)
    return VaultGenerator().fetch(settings, frozenset(forbidden), max_bytes, Watch().context())


def test_any_path_may_make_the_value(vault: Vaults) -> None:
    create = {"path": "auth/token/create", "body": {"policies": ["default"], "ttl": "60s"}, "take": "auth.client_token"}
    made = fetched({**vault.by_token(vault.root), **create, "bits": 100})
    assert isinstance(made, dict)
    assert vault.api("GET", "auth/token/lookup-self", token=made["value"].text())["data"]["policies"] == ["default"]
    vault.put("made/here", {"token": "from-the-store"})
    found = {"path": f"{vault.mount}/data/made/here", "method": "GET", "take": "data.data.token", "bits": 1}
    assert fetched({**vault.connection(), **found}) == {"value": SecretBytes(b"from-the-store")}


def test_a_value_that_does_not_fit_or_is_not_there_is_refused(vault: Vaults) -> None:
    too_long = fetched({**vault.connection(), "bytes": 32}, max_bytes=63)
    assert isinstance(too_long, Refused)
    assert too_long.why is No.VALUE
    missing = {"path": "auth/token/lookup-self", "method": "GET", "take": "data.nothing", "bits": 1}
    nothing = fetched({**vault.connection(), **missing})
    assert isinstance(nothing, Refused)
    assert "data.nothing" in nothing.detail


def test_a_generator_without_its_server_is_unknown(vault: Vaults) -> None:
    with vault.fault("unreachable"):
        assert isinstance(fetched(vault.connection()), Unknown)


@pytest.mark.parametrize(
    "settings",
    [{"bits": 3}, {"method": "GET"}, {"path": "x/y", "bits": 3}, {"path": "x/y", "take": "a.b"}, {"take": "a..b"}],
)
def test_settings_that_say_too_little_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GeneratorSettings.model_validate({"url": "https://x", "auth": {"token": {"file": "t"}}, **settings})


# ----------------------------------------------------------------------------------------------------------- reference


def resolve(reference: dict[str, Any]) -> tuple[References, str]:
    learned: list[Fields] = []
    references = References(
        MemoryStore(),
        MemoryEnvelope(),
        identity=lambda: SecretBytes(b""),
        recipients=list,
        learn=learned.append,
    )
    found = references.resolve(reference)["value"]
    assert {"value": found} in learned
    return references, found.text()


def test_a_reference_is_read_by_a_login_of_its_own_that_ends(vault: Vaults) -> None:
    vault.put("ops/pg", {"password": "at-the-server"})
    reference = {"vault": "ops/pg", "field": "password", "mount": vault.mount, **vault.connection()}
    references, value = resolve(reference)
    assert value == "at-the-server"
    references.close()
    server = vault.simulator
    assert server is None or set(server.state.tokens) == {server.root_token}


def test_a_reference_that_cannot_be_read_is_an_error_of_its_kind(vault: Vaults) -> None:
    vault.put("ops/pg", {"password": "x", "port": 5})
    vault.put("ops/gone", {"password": "x"})
    vault.api("DELETE", f"{vault.mount}/data/ops/gone")
    base = {"mount": vault.mount, **vault.connection()}
    for path, field in (("ops/pg", "nothing"), ("ops/pg", "port"), ("ops/gone", "password"), ("ops/never", "password")):
        with pytest.raises(ConfigurationInvalid, match="cannot be read") as raised:
            resolve({"vault": path, "field": field, **base})
        assert raised.value.next
    denied = vault.by_token(vault.new_token(policies=["default"]))
    with pytest.raises(NotAuthorised):
        resolve({"vault": "ops/pg", "field": "password", "mount": vault.mount, **denied})
    with vault.fault("unreachable"), pytest.raises(Unavailable):
        resolve({"vault": "ops/pg", "field": "password", **base})
    with pytest.raises(ConfigurationInvalid, match="no reference"):
        resolve({"vault": "ops/pg", "field": "password"})
