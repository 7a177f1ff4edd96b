"""Whose a value is: the one account of a policy, or the one of its two whose turn it is."""

from __future__ import annotations

from typing import Protocol

from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.model.secret import Fields
from vaultkeeper.ports import Context


class Accounts(Protocol):
    """What settings say of them: `user`, `users`, or neither where values have no user name."""

    @property
    def user(self) -> str | None: ...
    @property
    def users(self) -> tuple[str, str] | None: ...


def next_one(settings: Accounts, ctx: Context) -> str:
    """The account of the next value: the one that CURRENT does not use. Empty where the policy names none."""
    if settings.users is None:
        return settings.user or ""
    first, second = settings.users
    current = ctx.current.fields.get("username") if ctx.current is not None else None
    return second if current is not None and current.text() == first else first


def name_of(given: Fields, settings: Accounts, ctx: Context, *, adopting: bool, outsiders: bool = False) -> str:
    """The account that a value is for, as it says itself or as it is next.

    `outsiders`: beside two that take turns, another one may be adopted. Raises ConfigurationInvalid where an adopted
    value does not say whose it is, or is an account's that the policy does not name.
    """
    if "username" not in given:
        if adopting and settings.users is not None:
            raise ConfigurationInvalid(
                "with alternating users a value needs its username",
                next='give {"username": "…", "password": "…"}',
            )
        return next_one(settings, ctx)
    name, named = given["username"].text(), settings.users or ((settings.user,) if settings.user else ())
    if named and name not in named and not (outsiders and settings.users):
        raise ConfigurationInvalid(
            f"the value is for {name}",
            why=f"the policy has {' and '.join(named)}",
            next="give the value of an account that the policy names, or name this one there",
        )
    return name
