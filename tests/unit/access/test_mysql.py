"""Stored forms against published and foreign ones, and every way that two slots can be changed."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultkeeper.access.mysql import hashes
from vaultkeeper.access.mysql.people import Connected, began_before, grants
from vaultkeeper.access.mysql.settings import AccountSettings
from vaultkeeper.access.mysql.slots import Held, Move, Slots, moves
from vaultkeeper.testing.mysql import hashes as theirs

# ------------------------------------------------------------------------------------------------------------- hashes


def test_stored_forms_are_the_published_ones() -> None:
    """hashcat's example for MySQL's `$A$` (mode 7401), MariaDB's and MySQL's own for the two others."""
    salt = bytes.fromhex("F9CC98CE08892924F50A213B6BC571A2C11778C5")
    digest = bytes.fromhex(
        "625479393559393965414D45316477456B484F41316E64484742577A2E3162785353526B7554584647562F"
    ).decode()
    assert hashes._crypt(b"hashcat", salt, 5000) == digest
    assert theirs.sha_crypt(b"hashcat", salt, 5000) == digest
    assert hashes.native(b"mypass") == "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4"
    assert hashes.ed25519(b"secret") == "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY"


@settings(deadline=None, max_examples=12)  # SHA-crypt is slow on purpose
@given(st.binary(min_size=1, max_size=90).filter(lambda password: b"\0" not in password))
def test_both_sides_make_the_same_of_every_password(password: bytes) -> None:
    stored = theirs.stored_form(theirs.SHA2, password)
    assert hashes.is_sha2(stored)
    assert hashes.matches_sha2(stored, password) is True
    assert hashes.matches_sha2(stored, password + b"x") is False
    assert theirs.fits(theirs.SHA2, hashes.sha2(password), password)
    assert hashes.native(password) == theirs.stored_form(theirs.NATIVE, password)


def test_a_stored_form_cannot_stall_us() -> None:
    assert hashes.matches_sha2("$A$FFF$" + "s" * 20 + "d" * 43, b"x") is None
    assert hashes.matches_sha2("whatever", b"x") is False


def test_no_two_forms_of_one_password_are_alike() -> None:
    assert hashes.sha2(b"x") != hashes.sha2(b"x")


# -------------------------------------------------------------------------------------------------------------- slots

HELD: tuple[Held | None, ...] = (0, 1, "stranger", "another", None)
STATES: list[Slots] = [(one, two) for one, two in product(HELD, HELD) if one is not None or two is None]
WISHES = [([0, 1], []), ([0], [1]), ([1], [0]), ([0], []), ([], [0]), ([], [0, 1])]


@pytest.mark.parametrize(("accept", "refuse"), WISHES)
def test_no_way_through_the_slots_loses_what_shall_stay_or_leaves_what_shall_go(
    accept: list[int], refuse: list[int]
) -> None:
    for start in STATES:
        _judge(start, accept, refuse)


def _judge(start: Slots, accept: list[int], refuse: list[int]) -> None:
    keep = {*accept, *(held for held in start if isinstance(held, str))}
    way = moves(start, accept, refuse)
    assert (way is None) is (len(keep) > 2)
    slots = start
    for move in way or []:
        there = keep & set(slots)
        slots = move.apply(slots)
        assert there <= set(slots), f"{start} loses {there - set(slots)} on {way}"
    if way is not None:
        assert keep <= {*slots, ""}
        assert not set(refuse) & set(slots)
        assert len(way) <= 2
        assert moves(slots if "" not in slots else (None, None), accept, refuse) == []


def test_the_usual_ways_are_what_the_manual_shows() -> None:
    assert moves((1, None), [0, 1], []) == [Move(0, retain=True)]
    assert moves((0, 1), [0, 1], []) == []  # saying RETAIN again would lose the old one
    assert moves((0, 1), [0], [1]) == [Move(None)]
    assert moves((0, 1), [1], [0]) == [Move(1), Move(None)]
    assert moves((1, 1), [1], [0]) == [Move(None)]  # killed between these two


def test_a_locked_account_forgets_what_it_had_and_an_old_server_has_one_slot() -> None:
    assert moves(("stranger", "another"), [0], [], forgets=True) == [Move(0), Move(None)]
    assert moves((1, None), [0, 1], [], room=1) is None
    assert moves((1, None), [0], [1], room=1) == [Move(0)]


# ---------------------------------------------------------------------------------------------------------- privileges


class Told:
    """A session that answers SHOW GRANTS."""

    def __init__(self, *lines: str) -> None:
        self._lines = lines

    def rows(self, sql: str) -> list[tuple[str]]:
        return [(line,) for line in self._lines] if sql == "SHOW GRANTS" else [("rot@%",)]


def test_privileges_are_read_as_mysql_9_7_4_spells_them() -> None:
    may = grants(
        cast(
            "Any",
            Told(
                "GRANT SELECT, PROCESS, CREATE USER ON *.* TO `rot`@`%`",
                "GRANT CONNECTION_ADMIN,SYSTEM_USER ON *.* TO `rot`@`%`",
                "REVOKE SELECT ON `mysql`.* FROM `rot`@`%`",
            ),
        )
    )
    held = ("PROCESS", "CREATE USER", "CONNECTION_ADMIN", "SYSTEM_USER")
    assert [may.has(privilege) for privilege in held] == [True] * 4
    assert (may.has("SELECT", "shop.t"), may.has("SELECT", "mysql.user")) == (True, False)
    again = grants(
        cast(
            "Any",
            Told(
                "GRANT SELECT ON *.* TO `rot`@`%`",
                "REVOKE SELECT ON `mysql`.* FROM `rot`@`%`",
                "GRANT SELECT (`User`, `Host`) ON `mysql`.`user` TO `rot`@`%`",
            ),
        )
    )
    assert (again.has("SELECT", "mysql.user"), again.has("SELECT", "mysql.db")) == (True, False)


# ------------------------------------------------------------------------------------------------------------ sessions


def test_a_session_with_a_lower_number_than_an_old_one_is_old_too() -> None:
    minute = timedelta(minutes=1)
    found = [Connected(number, "h", quiet * minute) for number, quiet in ((3, 0), (5, 9), (8, 0), (9, 1))]
    assert [one.id for one in began_before(found, 5 * minute)] == [3, 5]
    assert began_before(found, 10 * minute) == []
    assert began_before([], minute) == []


# ------------------------------------------------------------------------------------------------------------ settings

ADMIN = {"username": "rot", "password": {"file": "f"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"user": "a", "users": ["a", "b"]}, "give `user`"),
        ({"users": ["a", "a"]}, "two different accounts"),
        ({"users": ["a", "b"], "admin": "self"}, "changes its own account only"),
        ({"user": "rot"}, "needs `admin: self`"),
        ({"user": "a", "admin": "self", "hosts": ["x", "y"]}, "name an admin for several hosts"),
        ({"user": "a", "hosts": ["x", "x"]}, "names one twice"),
        ({"user": "a", "hosts": ["o'd"]}, "the host part of an account"),
        ({"user": "a", "hosts": []}, "at least 1 item"),
        ({"user": "a\0b"}, "1 to 80 characters"),
        ({"user": "a\N{GRINNING FACE}"}, "beyond U\\+FFFF"),
        ({"user": "a", "host": "/run/socket", "tls": {"ca": "/ca.pem"}}, "means nothing on a Unix socket"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_load(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AccountSettings.model_validate({"host": "db", "admin": ADMIN, **settings})


@pytest.mark.parametrize(
    ("settings", "tls", "exposed"),
    [
        ({}, True, False),
        ({"tls": {"ca": "/ca.pem"}}, True, False),
        ({"tls": False}, False, True),
        ({"host": "127.0.0.1"}, False, False),
        ({"host": "::1"}, False, False),
        ({"host": "/run/mysqld.sock"}, False, False),
        ({"host": "localhost", "tls": {"ca": "/ca.pem"}}, True, False),
    ],
)
def test_a_network_needs_tls_or_a_word_that_it_is_not_wanted(
    settings: dict[str, object],
    tls: bool,
    exposed: bool,
) -> None:
    made = AccountSettings.model_validate({"host": "db", "user": "a", "admin": ADMIN, **settings})
    assert (made.address.tls, made.is_exposed) == (tls, exposed)
