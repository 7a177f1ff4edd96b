"""Credentials in data sources of a simulated Grafana: what a delivery changes and keeps, what its health check says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.delivery_kit import version
from tests.integration.grafana_kit import Home, saw, texts
from vaultkeeper.access.grafana.errors import LOCKED_FOR
from vaultkeeper.destinations.grafana_datasource import GrafanaDatasourceDestination
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.outcome import (
    Confirmed,
    Done,
    Failed,
    Held,
    Login,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.rotation import Cause, State, Waiting
from vaultkeeper.model.secret import SecretVersion
from vaultkeeper.model.template import Template
from vaultkeeper.ports import Item
from vaultkeeper.testing.contract.trial import SECRET, Watch
from vaultkeeper.testing.grafana import Seen
from vaultkeeper.testing.grafana.sources import use

NAME = "grafana/metrics"
POSTGRES = "grafana-postgresql-datasource"
LOGIN_FAILED = 'failed SASL auth: FATAL: password authentication failed for user "reader" (SQLSTATE 28P01)'
OLD, NEW = version(1, "old one", SECRET), version(2, "new one", SECRET)


class Database:
    """What the data source logs in at: one password that works, or something else that is wrong."""

    def __init__(self) -> None:
        self.password: str | None = None  #: None: any
        self.wrong = ""
        self.logins = 0

    def __call__(self, _row: Mapping[str, Any], secure: Mapping[str, str]) -> str | None:
        self.logins += 1
        if self.wrong:
            return self.wrong
        return None if self.password in (None, secure.get("password")) else LOGIN_FAILED


class Shelf:
    """One PostgreSQL data source with `old one` stored by hand, and its destination."""

    def __init__(self, home: Home, database: Database) -> None:
        self.home, self.database, self.state = home, database, home.state
        place: dict[str, Any] = {
            "url": "db:5432",
            "user": "reader",
            "database": "shop",
            "jsonData": {"sslmode": "disable"},
        }
        self.source = self.state.source("shop", POSTGRES, {"password": "old one", "tlsClientKey": "kept"}, **place)
        self.destination = GrafanaDatasourceDestination.open()

    @property
    def settings(self) -> dict[str, Any]:
        return {"url": self.home.grafana.url, "uid": self.source.row["uid"], "auth": self.home.by_ops}

    def spec(self, values: Mapping[str, str] | None = None, **settings: Any) -> DestinationSpec:
        chosen = values or {"password": "{password}"}
        return DestinationSpec("grafana_datasource", chosen, Read.PER_USE, {**self.settings, **settings})

    def items(self, spec: DestinationSpec, carried: SecretVersion | None) -> tuple[Any, list[Item]]:
        spots = self.destination.spots(spec, Watch().delivery())
        assert not isinstance(spots, Unknown)
        items = []
        for spot in spots:
            content = Template.parse(spec.values[spot.value]).render(carried.fields) if carried else None
            items.append(Item(spot.slot, spec, SECRET, carried, content, (NEW, OLD) if carried else ()))
        return spots[0].group, items

    def call(self, hook: str, carried: SecretVersion | None = NEW, *, spec: DestinationSpec | None = None) -> Any:
        group, items = self.items(spec or self.spec(), carried)
        return getattr(self.destination, hook)(group, items, Watch().delivery())

    def hand_over(self, carried: SecretVersion, spec: DestinationSpec | None = None) -> Any:
        self.home.state.advance(5)
        answer = self.call("prepare", carried, spec=spec)
        return self.call("deliver", carried, spec=spec) if isinstance(answer, Prepared) else answer

    def policy(self, *, adopted: bool = True, **destination: Any) -> None:
        """A secret that only the data source reads, and nobody checks but its health."""
        place = {"kind": "grafana_datasource", **self.settings, **destination}
        self.home.policy(NAME, generator={"kind": "password"}, destinations=[place])
        if adopted:
            self.home.adopt(NAME, password="old one")


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def home(tmp_path: Path, database: Database) -> Iterator[Home]:
    opened = Home(tmp_path, log_in=database)
    opened.state.user("max", "max@example.test", role="Editor")
    yield opened
    opened.close()


@pytest.fixture
def shelf(home: Home, database: Database) -> Shelf:
    return Shelf(home, database)


# ------------------------------------------------------------------------------------------------- what it writes


def test_everything_else_of_the_data_source_stays_as_it_was(shelf: Shelf) -> None:
    before = json.loads(json.dumps(shelf.source.row))
    assert shelf.hand_over(NEW) == Done()
    assert shelf.source.secure == {"password": "new one", "tlsClientKey": "kept"}
    after = json.loads(json.dumps(shelf.source.row))
    note = after["jsonData"].pop("vaultkeeper")
    assert after == {**before, "version": 2}
    assert note["version"] == 2
    assert note["keys"]["password"] | {"template": ""} == {
        "id": NEW.id, "template": "", "installation": "contract-installation", "secret": SECRET, "generation": 2,
    }  # fmt: skip


def test_what_is_there_already_is_not_written_again(shelf: Shelf) -> None:
    shelf.hand_over(NEW)
    assert shelf.hand_over(NEW) == Done()
    assert len(saw(shelf.home.grafana, "PUT ")) == 1


def test_user_and_password_change_in_one_write(shelf: Shelf) -> None:
    spec = shelf.spec({"user": "{username}", "password": "{password}"})
    moved = version(2, "new one", SECRET, username="reader_b")
    assert shelf.hand_over(moved, spec) == Done()
    assert (shelf.source.row["user"], shelf.source.secure["password"]) == ("reader_b", "new one")
    assert len(saw(shelf.home.grafana, "PUT ")) == 1


def test_only_what_nobody_can_read_is_warned_of_before_a_first_delivery(shelf: Shelf) -> None:
    spec = shelf.spec({"user": "{username}", "password": "{password}"})
    assert (
        f"what {spec.settings['uid']} has as password cannot be read"
        in texts(shelf.call("check", None, spec=spec))["warn"]
    )


def test_a_write_by_somebody_else_is_a_conflict_and_the_next_try_keeps_theirs(shelf: Shelf) -> None:
    def rename(seen: Seen) -> None:
        if seen.method == "PUT":
            shelf.home.grafana.before.remove(rename)
            shelf.source.row |= {"name": "renamed", "version": shelf.source.row["version"] + 1}

    shelf.home.grafana.before.append(rename)
    answer = shelf.hand_over(NEW)
    assert isinstance(answer, Refused)
    assert answer.why is No.CONFLICT
    assert shelf.source.secure["password"] == "old one"
    assert shelf.call("deliver") == Done()
    assert (shelf.source.row["name"], shelf.source.secure["password"]) == ("renamed", "new one")


def test_after_somebody_elses_write_nobody_knows_what_is_stored(shelf: Shelf) -> None:
    shelf.hand_over(NEW)
    assert shelf.call("observe") == {"password": Held(2)}
    shelf.source.row["version"] += 1  # as any edit does, which keeps our note in jsonData
    assert shelf.call("observe") == {"password": Held(None, foreign=True)}
    shelf.home.state.advance(5)
    assert shelf.call("deliver") == Done()
    assert shelf.call("observe") == {"password": Held(2)}


def test_another_template_is_another_content(shelf: Shelf) -> None:
    shelf.hand_over(NEW)
    other = shelf.spec({"password": "x{password}"})
    assert shelf.call("observe", spec=other) == {"password": Held(None, foreign=True)}
    assert shelf.hand_over(NEW, other) == Done()
    assert shelf.source.secure["password"] == "xnew one"


def test_two_writes_are_seconds_apart(shelf: Shelf) -> None:
    """Within one second of its clock Grafana may stay on the first value for good."""
    shelf.hand_over(NEW)
    shelf.call("prepare", OLD)
    answer = shelf.call("deliver", OLD)
    assert isinstance(answer, NotYet)
    shelf.home.state.advance(ceil(answer.after.total_seconds()))  # its clock stands still, and is told in whole seconds
    assert shelf.call("deliver", OLD) == Done()
    assert isinstance(shelf.call("confirm", OLD), Confirmed)


@pytest.mark.parametrize("times", [1, 2])
def test_a_lost_reply_is_looked_up(shelf: Shelf, times: int) -> None:
    shelf.call("prepare")
    with shelf.home.grafana.fault("lost-reply", "PUT ", times=times):
        assert isinstance(shelf.call("deliver"), Unknown)
    assert shelf.call("deliver") == Done()
    assert len(saw(shelf.home.grafana, "PUT ")) == 1
    assert shelf.source.secure["password"] == "new one"


# ------------------------------------------------------------------------------------------------- what it refuses


def test_a_provisioned_data_source_is_refused_in_check_with_the_way_out(shelf: Shelf) -> None:
    shelf.source.row["readOnly"] = True
    found = texts(shelf.call("check"))["refuse"]
    assert "is provisioned from a file" in found
    assert "$__file{" in found
    assert "/api/admin/provisioning/datasources/reload" in found
    assert isinstance(shelf.call("prepare"), Refused)


def test_who_may_not_write_is_told_which_right_is_missing(shelf: Shelf) -> None:
    uid = shelf.source.row["uid"]
    editor = shelf.state.token(shelf.state.account("an editor", "Editor"), "e")
    spec = shelf.spec(auth={"token": shelf.home.write("editor", editor.value)})
    found = texts(shelf.call("check", spec=spec))["refuse"]
    assert f"the token lacks datasources:write on datasources:uid:{uid}" in found
    assert "role Admin" in found
    answer = shelf.call("prepare", spec=spec)
    assert isinstance(answer, Refused)
    assert answer.why is No.PRIVILEGE


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"uid": "nobody's"}, "no data source with the uid nobody's"), ({"org": 2}, "organisation 2")],
)
def test_where_there_is_none_it_says_so(shelf: Shelf, settings: Mapping[str, Any], says: str) -> None:
    shelf.state.org("second")
    assert says in texts(shelf.call("check", spec=shelf.spec(**settings)))["refuse"]


def test_an_admin_who_looks_at_another_organisation_finds_it_all_the_same(shelf: Shelf) -> None:
    shelf.home.ops.using = shelf.state.org("second")
    assert shelf.hand_over(NEW) == Done()


@pytest.mark.parametrize("key", ["passwd", "basicAuthPassword"])
def test_a_key_that_nobody_reads_is_refused(shelf: Shelf, key: str) -> None:
    found = texts(shelf.call("check", spec=shelf.spec({key: "{password}"})))["refuse"]
    assert f"stores password, tlsClientKey, and nobody reads {key}" in found


def test_templates_that_show_two_versions_and_empty_values_are_refused(shelf: Shelf) -> None:
    with pytest.raises(PolicyInvalid):
        shelf.call("observe", spec=shelf.spec({"password": "{accepted[-1]}"}))
    with pytest.raises(PolicyInvalid):
        shelf.call("observe", spec=shelf.spec({"": "{password}", "user": "x"}))
    answer = shelf.call("prepare", version(2, b"\xff", SECRET))
    assert answer == Refused(No.VALUE, "password: expected text that is not empty")


def test_invariant_12_a_newer_generation_is_left_alone(shelf: Shelf) -> None:
    shelf.hand_over(version(9, "of a later store", SECRET))
    shelf.state.advance(5)
    answer = shelf.call("prepare")
    assert isinstance(answer, Refused)
    assert answer.why is No.STALE
    assert shelf.source.secure["password"] == "of a later store"


def test_a_wrong_password_of_its_login_is_told_before_anything_is_set(shelf: Shelf) -> None:
    shelf.home.write("ops", "not that one")
    answer = shelf.call("prepare")
    assert isinstance(answer, Refused)
    assert answer.why is No.PRIVILEGE
    assert shelf.call("prepare") == answer
    assert shelf.state.failed("ops") == 1


def test_a_refused_login_is_not_made_again_each_moment(shelf: Shelf) -> None:
    """Every look of a waiting rotation may be a process of its own, and five of them would lock the name."""
    shelf.home.write("ops", "not that one")
    answer = shelf.call("observe")
    assert isinstance(answer, Unknown)
    assert (answer.reason, answer.retry_after) == (Login.THROTTLED, LOCKED_FOR)
    assert "ops was refused" in answer.detail


def test_a_lock_of_its_login_after_that_is_waited_for(shelf: Shelf) -> None:
    shelf.call("prepare")
    for _ in range(5):
        shelf.state.fail("ops")
    assert isinstance(shelf.call("deliver"), Unknown)


def test_nobody_there_is_unknown(shelf: Shelf) -> None:
    with shelf.home.grafana.fault("unreachable"):
        for hook in ("observe", "prepare", "deliver", "confirm"):
            assert isinstance(shelf.call(hook), Unknown)
        assert "refuse" not in texts(shelf.call("check"))


# ------------------------------------------------------------------------------------------------- what health tells


def test_it_is_confirmed_by_a_login_with_what_is_stored_now(shelf: Shelf) -> None:
    """A panel that was drawn a moment ago left settings in Grafana's cache, and a connection in its pool."""
    shelf.database.password = "old one"
    shelf.home.state.advance(5)
    shelf.call("prepare")
    assert use(shelf.state, shelf.source, fresh=False) is None
    assert shelf.call("deliver") == Done()
    assert use(shelf.state, shelf.source, fresh=False) is None
    failed = shelf.call("confirm")
    assert isinstance(failed, Failed)
    assert "28P01" in failed.why
    shelf.database.password = "new one"
    assert shelf.call("confirm") == Confirmed(Proof.DEMONSTRATED)


def test_a_refused_login_is_asked_once_and_dropped_connections_twice(shelf: Shelf) -> None:
    shelf.hand_over(NEW)
    shelf.database.password = "old one"
    before = shelf.database.logins
    assert isinstance(shelf.call("confirm"), Failed)
    assert shelf.database.logins == before + 1
    shelf.database.password = None
    assert isinstance(shelf.call("confirm"), Confirmed)
    shelf.source.dropped = True
    assert isinstance(shelf.call("confirm"), Confirmed)


@pytest.mark.parametrize("wrong", ["dial tcp: connection refused", 'database "shop" does not exist (SQLSTATE 3D000)'])
def test_what_is_wrong_for_another_reason_is_waited_for(shelf: Shelf, wrong: str) -> None:
    shelf.hand_over(NEW)
    shelf.database.wrong = wrong
    answer = shelf.call("confirm")
    assert isinstance(answer, NotYet)
    assert wrong.partition(" ")[0] in answer.reason


def test_what_was_changed_after_the_delivery_is_not_confirmed(shelf: Shelf) -> None:
    shelf.hand_over(NEW)
    shelf.source.row["version"] += 1
    assert isinstance(shelf.call("confirm"), NotYet)


# ------------------------------------------------------------------------------------------------------ rotations


def test_five_in_a_row_and_a_reply_lost_at_each_call(home: Home, shelf: Shelf) -> None:
    shelf.policy()

    def is_whole(before: str) -> str:
        assert home.current(NAME) == shelf.source.secure["password"] != before
        return home.current(NAME)

    before = "old one"
    for _ in range(5):
        assert home.to_the_end().exit_code == 0
        before = is_whole(before)
        home.state.advance(5)
    assert home.lost_at_each_call(NAME, is_whole, before, 1) >= 6


def test_a_data_source_that_cannot_log_in_goes_back_to_the_old_password(home: Home, shelf: Shelf) -> None:
    shelf.policy()
    shelf.database.password = "old one"
    report = home.to_the_end()
    assert report.rotation.state is State.ROLLED_BACK
    assert "28P01" in report.rotation.detail
    assert shelf.source.secure == {"password": "old one", "tlsClientKey": "kept"}


def test_what_was_stored_before_a_first_delivery_cannot_be_put_back_and_the_plan_says_so(
    home: Home, shelf: Shelf
) -> None:
    shelf.policy(adopted=False)
    found = texts(shelf.call("check", None))["warn"]
    assert "cannot be read" in found
    assert "adopt" in found
    shelf.database.password = "old one"
    report = home.to_the_end()
    assert (report.rotation.state, report.rotation.cause) == (State.PARKED, Cause.UNSUPPORTED)
    assert "cannot be read, so it cannot be put back" in report.rotation.detail


def test_a_server_that_is_down_is_waited_for(home: Home, shelf: Shelf) -> None:
    shelf.policy()
    with home.grafana.fault("unreachable"):
        assert home.rotate(wait=timedelta(0)).rotation.waiting is Waiting.UNREACHABLE
    assert home.to_the_end().exit_code == 0
    assert home.current(NAME) == shelf.source.secure["password"]


def test_two_data_sources_of_one_secret_and_two_secrets_of_one_data_source(home: Home, shelf: Shelf) -> None:
    second = home.state.source("m", "prometheus", {"basicAuthPassword": "old one"}, basicAuth=True, url="http://p")
    first = {"kind": "grafana_datasource", **shelf.settings}
    other = {**first, "uid": second.row["uid"], "values": {"basicAuthPassword": "{password}"}}
    home.policy(NAME, generator={"kind": "password"}, destinations=[first, other])
    key = {**first, "values": {"tlsClientKey": "{value}"}}
    home.policy("grafana/key", generator={"kind": "hex"}, destinations=[key])
    home.adopt(NAME, password="old one")
    home.adopt("grafana/key", value="kept")
    assert home.to_the_end().exit_code == 0
    assert home.parts.store.open_rotations() == []
    assert shelf.source.secure == {"password": home.current(NAME), "tlsClientKey": home.current("grafana/key")}
    assert second.secure == {"basicAuthPassword": home.current(NAME)}
