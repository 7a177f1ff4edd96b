"""What rotations of one login share: each session has one borrower, and none outlives the last of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vaultkeeper.access import kept as keeping
from vaultkeeper.access.kept import Kept

LATER = float("inf")


@pytest.fixture(autouse=True)
def however_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept stays, also where this machine stands still for longer than one keeps it."""
    monkeypatch.setattr(keeping, "KEPT_S", LATER)


@dataclass(eq=False)
class Session:
    idle: bool = True
    usable: bool = True
    ended: bool = False

    def renew(self, until_s: float) -> bool:
        return self.usable

    def end(self) -> None:
        self.ended = True


class Server:
    def __init__(self) -> None:
        self.made: list[Session] = []

    def connect(self) -> Session:
        self.made.append(Session())
        return self.made[-1]

    @property
    def open(self) -> int:
        return sum(not session.ended for session in self.made)


def test_one_after_the_other_has_the_same_one_and_side_by_side_each_its_own() -> None:
    kept, server = Kept.join("login"), Server()
    with kept.borrow(LATER, server.connect) as first:
        pass
    with kept.borrow(LATER, server.connect) as again, kept.borrow(LATER, server.connect) as beside:
        assert again is first
        assert beside is not first
    kept.leave()
    assert (len(server.made), server.open) == (2, 0)


def test_another_login_shares_nothing_and_who_joins_after_the_last_has_left_begins_anew() -> None:
    server = Server()
    for login in ("one", "other", "one"):
        kept = Kept.join(login)
        with kept.borrow(LATER, server.connect):
            pass
        kept.leave()
    assert (len(server.made), server.open) == (3, 0)


def test_it_is_open_as_long_as_one_of_them_stays() -> None:
    one, other, server = Kept.join("both"), Kept.join("both"), Server()
    with one.borrow(LATER, server.connect):
        pass
    one.leave()
    assert server.open == 1
    other.leave()
    assert server.open == 0


def test_who_comes_back_after_everybody_has_left_keeps_nothing_open() -> None:
    """A call that had overrun its deadline."""
    kept, server = Kept.join("late"), Server()
    with kept.borrow(LATER, server.connect):
        kept.leave()
    assert server.open == 0


@pytest.mark.parametrize("spoilt", ["idle", "usable"])
def test_one_that_is_of_no_use_is_not_lent_again(spoilt: str) -> None:
    kept, server = Kept.join(spoilt), Server()
    with kept.borrow(LATER, server.connect) as first:
        setattr(first, spoilt, False)
    with kept.borrow(LATER, server.connect) as second:
        assert second is not first
        assert first.ended
    kept.leave()


def test_a_failure_ends_it() -> None:
    kept, server = Kept.join("failing"), Server()
    with pytest.raises(RuntimeError), kept.borrow(LATER, server.connect):
        raise RuntimeError
    assert server.open == 0
    kept.leave()


def test_those_that_were_idle_for_too_long_end_when_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "KEPT_S", -1)
    kept, server = Kept.join("old"), Server()
    with kept.borrow(LATER, server.connect), kept.borrow(LATER, server.connect):
        pass
    with kept.borrow(LATER, server.connect) as newest:
        assert [session for session in server.made if not session.ended] == [newest]
    kept.leave()
