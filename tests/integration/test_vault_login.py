"""Who asks, for how long, and what is never sent anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.integration.vault_kit import Lines
from tests.servers.vaults import Refusal, Vaults
from vaultkeeper.access import vault as logins
from vaultkeeper.access.vault import errors as vault_errors
from vaultkeeper.access.vault import kv as vault_kv
from vaultkeeper.access.vault.settings import VaultSettings
from vaultkeeper.destinations.vault_kv import Settings
from vaultkeeper.model.outcome import Login, No, Refused, Unknown
from vaultkeeper.ports import Deadline
from vaultkeeper.testing.vault import VaultServer

CANARY = "vk-canary-7d1f0c"


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


@pytest.fixture
def elsewhere() -> Iterator[VaultServer]:
    """Where nothing may ever be sent."""
    server = VaultServer()
    yield server
    assert server.requests == 0
    server.stop()


def ask(settings: Mapping[str, Any], act: Callable[[Any], Any], seconds: float = 60) -> Any:
    return logins.ask(VaultSettings.model_validate(settings), Lines(), Deadline(time.monotonic() + seconds), act)


def reads(vault: Vaults) -> Callable[[Any], Any]:
    return lambda at: vault_kv.read(at, vault_kv.Where(vault.mount, "shop/db"))


def alive(vault: Vaults, token: str) -> bool:
    try:
        vault.api("GET", "auth/token/lookup-self", token=token)
    except Refusal as refused:
        if refused.status == 403:
            return False
        raise
    return True


# -------------------------------------------------------------------------------------------------------- nothing else


def test_nothing_is_taken_from_the_environment(
    vault: Vaults, elsewhere: VaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".vault-token").write_text(elsewhere.root_token)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    for name in ("VAULT_ADDR", "BAO_ADDR", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, elsewhere.url)
    for name in ("VAULT_TOKEN", "BAO_TOKEN"):
        monkeypatch.setenv(name, elsewhere.root_token)
    monkeypatch.setenv("VAULT_NAMESPACE", "other")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ask(vault.connection(), reads(vault)).version == 0
    assert ask(vault.by_token(), lambda at: at.token) not in ("", elsewhere.root_token)
    assert vault.simulator is None or "authorization" not in "".join(vault.simulator.log).lower()


def test_a_redirect_is_an_error_and_takes_the_token_nowhere(simulated: Vaults, elsewhere: VaultServer) -> None:
    ask(simulated.connection(), reads(simulated))
    assert simulated.simulator is not None
    simulated.simulator.state.redirects_to = elsewhere.url
    for settings in (simulated.connection(), simulated.by_token("s.some")):
        with pytest.raises(vault_errors.Standby, match="never followed") as raised:
            ask(settings, reads(simulated))
        assert isinstance(raised.value.result, Unknown)
        assert "active node" in raised.value.next


def test_a_standby_that_passes_writes_on_is_told_from_other_errors(simulated: Vaults) -> None:
    where = vault_kv.Where(simulated.mount, "shop/db")
    ask(simulated.connection(), reads(simulated))
    assert simulated.simulator is not None
    simulated.simulator.state.standby = True
    assert ask(simulated.connection(), reads(simulated)).version == 0
    with pytest.raises(vault_errors.Standby):
        ask(simulated.connection(), lambda at: vault_kv.write(at, where, {"a": "b"}, 0))


def test_a_sealed_server_is_waited_for(simulated: Vaults) -> None:
    assert simulated.simulator is not None
    simulated.simulator.state.sealed = True
    with pytest.raises(vault_errors.Sealed, match="sealed") as raised:
        ask(simulated.connection(), reads(simulated))
    assert isinstance(raised.value.result, Unknown)
    assert "unseal" in raised.value.next
    simulated.simulator.state.sealed = False
    assert ask(simulated.connection(), reads(simulated)).version == 0


def test_an_answer_that_drips_ends_at_the_deadline_of_the_whole_call(simulated: Vaults) -> None:
    ask(simulated.by_token(), reads(simulated))
    simulated.put("shop/db", {"a": "b" * 200})
    assert simulated.simulator is not None
    simulated.simulator.state.drips = True
    with pytest.raises(vault_errors.Unanswered, match="in time"):
        ask(simulated.by_token(simulated.root), reads(simulated), seconds=0.6)


def test_an_answer_without_end_is_cut_off(vault: Vaults) -> None:
    for part in range(5):
        vault.put(f"big/{part}", {"a": "b" * 900_000})
    vault.put("shop/db", {"a": "small"})
    big = vault_kv.Where(vault.mount, "big/1")
    assert len(ask(vault.connection(), lambda at: vault_kv.read(at, big)).keys["a"]) == 900_000
    with pytest.raises(vault_errors.Unanswered, match="more than 4 MiB"):
        vault_errors.judge(200, b'{"a": "' + b"b" * (4 << 20), "x", limit_bytes=4 << 20)


@pytest.mark.parametrize("path", ["../sys/policies/acl/default", "/a", "a/", "a//b", "a/./b", "", "a\nb", ".."])
def test_a_path_never_leaves_its_mount(path: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"url": "https://x", "auth": {"token": {"file": "t"}}, "path": path})


# ------------------------------------------------------------------------------------------------------- whose it is


def test_what_we_obtained_is_kept_between_calls_and_revoked_at_the_end(vault: Vaults) -> None:
    tokens = [ask(vault.connection(), lambda at: at.token) for _ in range(3)]
    assert len(set(tokens)) == 1
    assert alive(vault, tokens[0])
    logins.end()
    assert not alive(vault, tokens[0])


def test_a_token_of_the_policy_is_never_revoked(vault: Vaults) -> None:
    token = vault.new_token()
    assert ask(vault.by_token(token), lambda at: at.token) == token
    logins.end()
    assert alive(vault, token)


def test_a_login_that_was_ended_meanwhile_is_made_again(vault: Vaults) -> None:
    token = ask(vault.connection(), lambda at: at.token)
    vault.api("POST", "auth/token/revoke-self", token=token)
    again = ask(vault.connection(), lambda at: (reads(vault)(at), at.token)[1])
    assert again != token
    assert alive(vault, again)


def test_a_dead_token_of_the_policy_is_said_to_be_dead(vault: Vaults) -> None:
    token = vault.new_token()
    settings = vault.by_token(token)
    ask(settings, reads(vault))
    vault.api("POST", "auth/token/revoke-self", token=token)
    for _ in range(2):
        with pytest.raises(vault_errors.TokenDead, match="not valid") as raised:
            ask(settings, reads(vault))
        assert raised.value.result == Refused(No.PRIVILEGE, raised.value.result.detail)  # type: ignore[union-attr]


def test_a_token_file_that_was_given_a_new_token_meanwhile_is_read_again(vault: Vaults) -> None:
    """As an agent of the server does it."""
    first = vault.new_token()
    at = vault.by_token(first)
    ask(at, reads(vault))
    vault.api("POST", "auth/token/revoke-self", token=first)
    second = vault.new_token()
    Path(at["auth"]["token"]["file"]).write_text(second)
    assert ask(at, lambda transport: (reads(vault)(transport), transport.token)[1]) == second


def test_a_living_token_without_the_right_is_said_to_lack_it(vault: Vaults) -> None:
    with pytest.raises(vault_errors.PermissionDenied, match="policy does not allow"):
        ask(vault.by_token(vault.new_token(policies=["default"])), reads(vault))


def test_a_token_in_its_second_half_is_renewed(simulated: Vaults) -> None:
    token = simulated.new_token(ttl="100s")
    server = simulated.simulator
    assert server is not None
    known = server.state.tokens[token]
    now = known.dies_at - 100
    for seconds, lives in ((20, 100), (60, 160)):
        server.state.clock = lambda seconds=seconds: now + seconds  # type: ignore[misc]
        ask(simulated.by_token(token), reads(simulated))
        assert known.dies_at - now == pytest.approx(lives)


def test_a_token_that_may_not_renew_itself_is_used_until_it_ends(simulated: Vaults) -> None:
    token = simulated.new_token(ttl="100s")
    server = simulated.simulator
    assert server is not None
    policies, now = server.state.policies, time.time()
    policies["default"] = policies["default"].replace("auth/token/renew-self", "auth/token/nothing")
    server.state.clock = lambda: now + 60
    assert ask(simulated.by_token(token), reads(simulated)).version == 0  # it was asked


def test_a_login_that_will_soon_end_is_replaced_before_it_is_used(vault: Vaults) -> None:
    vault.api("POST", f"auth/{vault.approle}/role/vaultkeeper", {"token_ttl": "4s", "token_max_ttl": "4s"})
    first = ask(vault.connection(), lambda at: at.token)
    assert ask(vault.connection(), lambda at: at.token) != first
    assert not alive(vault, first)


# ----------------------------------------------------------------------------------------------------------- AppRole


def wrapped(vault: Vaults, token: str) -> dict[str, Any]:
    path = vault.file("wrapped", token)
    auth = {"role_id": {"file": str(vault.role_id)}, "wrapped_secret_id": {"file": str(path)}, "mount": vault.approle}
    return {"url": vault.url, "auth": auth}


def wrapping(vault: Vaults, path: str, body: object = None) -> str:
    told = vault.api("POST" if body is not None else "GET", path, body, **{"X-Vault-Wrap-TTL": "60s"})
    return str(told["wrap_info"]["token"])


def test_a_wrapped_secret_id_is_unwrapped_once_and_serves_later_logins_too(vault: Vaults) -> None:
    settings = wrapped(vault, wrapping(vault, f"auth/{vault.approle}/role/vaultkeeper/secret-id", {}))
    first = ask(settings, lambda at: at.token)
    logins.end()
    assert ask(settings, lambda at: at.token) != first


def test_a_spent_wrapping_token_raises_an_alarm(vault: Vaults) -> None:
    token = wrapping(vault, f"auth/{vault.approle}/role/vaultkeeper/secret-id", {})
    vault.api("POST", "sys/wrapping/unwrap", {}, token=token)
    with pytest.raises(vault_errors.WrappingInvalid, match="spent or expired") as raised:
        ask(wrapped(vault, token), reads(vault))
    assert "stolen" in raised.value.next


def test_a_wrapping_token_that_was_made_elsewhere_is_not_unwrapped(vault: Vaults) -> None:
    vault.put("shop/db", {"secret_id": "planted"})
    token = wrapping(vault, f"{vault.mount}/data/shop/db")
    with pytest.raises(vault_errors.VaultError, match="no secret id of this AppRole mount"):
        ask(wrapped(vault, token), reads(vault))
    assert vault.api("POST", "sys/wrapping/unwrap", {}, token=token)["data"]["data"]["secret_id"] == "planted"


def test_a_wrong_secret_id_is_refused_and_a_locked_role_is_waited_for(vault: Vaults) -> None:
    good = vault.secret_id.read_text()
    vault.file("secret-id", "wrong")
    for _ in range(5):
        with pytest.raises(vault_errors.LoginRefused) as refused:
            ask(vault.connection(), reads(vault))
        assert isinstance(refused.value.result, Refused)
    vault.secret_id.write_text(good)
    with pytest.raises(vault_errors.LoginLocked, match="locked") as locked:
        ask(vault.connection(), reads(vault))
    assert isinstance(locked.value.result, Unknown)
    assert locked.value.result.reason is Login.THROTTLED


# ---------------------------------------------------------------------------------------------------- what is not said


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, vault_errors.Rejected),
        (403, vault_errors.PermissionDenied),
        (405, vault_errors.Rejected),
        (412, vault_errors.Unanswered),
        (413, vault_errors.TooLarge),
        (429, vault_errors.Throttled),
        (500, vault_errors.Unanswered),
        (502, vault_errors.Unanswered),
        (301, vault_errors.Standby),
    ],
)
@pytest.mark.parametrize(
    "body", [f'{{"errors": ["bad value {CANARY}"]}}', f"<html>{CANARY}</html>", f'["{CANARY}"]', ""]
)
def test_nothing_that_the_server_says_reaches_an_error(status: int, error: type[Exception], body: str) -> None:
    with pytest.raises(error) as raised:
        vault_errors.judge(status, body.encode(), "host/v1/x", limit_bytes=1 << 20)
    assert CANARY not in repr(raised.value) + str(raised.value) + raised.value.next  # type: ignore[attr-defined]
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (f'{{"errors": ["{CANARY}"]}}', vault_errors.NotThere),
        (f"<html>{CANARY}</html>", vault_errors.Unanswered),
        (f'{{"message": "{CANARY}"}}', vault_errors.Unanswered),
        ("", vault_errors.Unanswered),
    ],
)
def test_a_404_of_a_proxy_is_not_taken_for_a_secret_that_was_never_written(body: str, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        vault_errors.judge(404, body.encode(), "host/v1/x", limit_bytes=1 << 20)
    assert CANARY not in repr(raised.value) + str(raised.value) + raised.value.next  # type: ignore[attr-defined]


def test_a_page_of_somebody_else_is_no_answer() -> None:
    with pytest.raises(vault_errors.Unanswered, match="no JSON"):
        vault_errors.judge(200, b"<html>welcome</html>", "host/v1/x", limit_bytes=1 << 20)


def test_an_answer_of_another_shape_is_no_answer(vault: Vaults) -> None:
    with pytest.raises(vault_errors.Unanswered, match="another shape"):
        ask(vault.connection(), lambda at: reads(vault)(at).keys["data"])
