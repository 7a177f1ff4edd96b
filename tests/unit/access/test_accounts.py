"""Whose a value is. With real systems: the rotations of each kind that takes turns, in tests/integration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from vaultkeeper.access.accounts import name_of, next_one
from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.secret import Binding, Fields, SecretBytes, SecretVersion, Strategy
from vaultkeeper.ports import Context, Deadline
from vaultkeeper.testing.contract.trial import Credentials


@dataclass(frozen=True)
class Named:
    user: str | None = None
    users: tuple[str, str] | None = None


ONE, TWO, NOBODY = Named(user="app"), Named(users=("a", "b")), Named()


def fields(username: str | None) -> Fields:
    return {} if username is None else {"username": SecretBytes(username.encode())}


def while_on(username: str | None) -> Context:
    """CURRENT is this account's; None: there is none yet."""
    binding = Binding(Strategy.ALTERNATING_USERS, "any", {}, 1)
    version = SecretVersion("shop/db", 1, "id", fields(username), binding, datetime(2026, 11, 30, tzinfo=UTC))
    current = version if username is not None else None
    return Context("installation", "shop/db", 1, Deadline(0), Credentials(), current, None)


@pytest.mark.parametrize(("current", "following"), [(None, "a"), ("a", "b"), ("b", "a"), ("owner", "a")])
def test_the_next_value_is_for_the_one_that_current_does_not_use(current: str | None, following: str) -> None:
    assert next_one(TWO, while_on(current)) == following
    assert name_of({}, TWO, while_on(current), adopting=False) == following


def test_one_account_is_always_the_next_one_and_none_where_values_have_no_user_name() -> None:
    assert name_of({}, ONE, while_on("app"), adopting=True) == "app"
    assert name_of({}, NOBODY, while_on(None), adopting=True) == ""
    assert name_of(fields("anybody"), NOBODY, while_on(None), adopting=True) == "anybody"


def test_an_adopted_value_says_whose_it_is_where_two_take_turns() -> None:
    assert name_of(fields("b"), TWO, while_on(None), adopting=True) == "b"
    with pytest.raises(ConfigurationInvalid, match="needs its username"):
        name_of({}, TWO, while_on(None), adopting=True)


@pytest.mark.parametrize("settings", [ONE, TWO])
def test_an_account_that_the_policy_does_not_name_is_refused(settings: Named) -> None:
    with pytest.raises(ConfigurationInvalid, match="the value is for owner"):
        name_of(fields("owner"), settings, while_on(None), adopting=True)


def test_an_outsider_may_be_adopted_beside_two_that_take_turns_and_beside_one_not() -> None:
    assert name_of(fields("owner"), TWO, while_on(None), adopting=True, outsiders=True) == "owner"
    with pytest.raises(ConfigurationInvalid):
        name_of(fields("owner"), ONE, while_on(None), adopting=True, outsiders=True)
