"""Everything under "Refused" in the policy format, and what is settled between keys."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.policyfile.conftest import Folder
from vaultkeeper.model.policy import Cron, KeepVersions, Read, Window
from vaultkeeper.model.secret import Strategy

PASSWORD = "generator: {kind: password}"
DATABASE = "target: {kind: database, host: h, strategy: overlap, user: u}"
BY_HAND = f"{PASSWORD}, {DATABASE}"


def _refused() -> list[tuple[str, str]]:
    lines = Path(__file__).with_name("refused.txt").read_text().splitlines()
    told = [line for line in lines if line and not line.startswith("#")]
    return [
        (body.replace("<password>", PASSWORD).replace("<database>", DATABASE), expected.strip())
        for body, expected in zip(told[::2], told[1::2], strict=True)
    ]


@pytest.mark.parametrize(("body", "expected"), _refused())
def test_a_refused_policy_names_key_expectation_and_nearest_name(folder: Folder, body: str, expected: str) -> None:
    assert folder.error(body) == expected


@pytest.mark.parametrize("name", ["-x", "a b", "ä", "a" * 201, "/x"])
def test_a_name_outside_the_alphabet_is_refused(folder: Folder, name: str) -> None:
    (told,) = folder.errors(f"secrets:\n  {name}: {{static: x}}\n")
    assert "expected a name of letters" in told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("password: hunter22", "password: a credential never stands in a policy file"),
        ("password: {filee: x}", "password.filee: unknown key; did you mean `file`?"),
        ("password: {file: x, env: Y}", "password: expected a reference"),
        ("password: {env: X, field: F}", "password.field: goes with `secret` or `vault` only"),
        ("password: {vault: a/b}", "password: expected {vault: PATH, field: F}"),
        ("password: {secret: shop/nobody}", "password.secret: no secret `shop/nobody`"),
    ],
)
def test_a_credential_that_is_no_reference_is_refused_without_showing_it(
    folder: Folder, settings: str, told: str
) -> None:
    (error,) = folder.errors(
        f"secrets:\n  s: {{{PASSWORD}, target: {{kind: database, host: h, strategy: overlap, user: u, "
        f"admin: {{username: a, {settings}}}}}}}\n"
    )
    assert f"s.target.admin.{told}" in error
    assert "hunter22" not in error


@pytest.mark.parametrize(
    ("value", "symbols", "told"),
    [
        ("postgresql://u:{password}@h/d", "/", "breaks a URL: write {password|url}"),
        ("https://h/?a={password}", "&", "breaks a URL: write {password|url}"),
        ("host=h password={password} dbname=d", " ", "breaks a connection string"),
        ("Server=h;Password={password};", ";", "breaks a connection string"),
        ('{{"password": "{password}"}}', '"', "breaks JSON: write {password|json}"),
        ('{{"password": {password}}}', "", "breaks JSON: write {password|json}"),
    ],
)
def test_a_raw_value_that_could_break_out_is_refused_naming_the_filter(
    folder: Folder, value: str, symbols: str, told: str
) -> None:
    text = (
        f"secrets:\n  s:\n    generator: {{kind: password, symbols: '{symbols}'}}\n"
        f"    destinations:\n      - {{kind: file, path: p, read: copy, value: '{value}'}}\n"
    )
    (error,) = folder.errors(text)
    assert told in error
    assert error.startswith("shop.yaml:5:43 s.destinations[0].value: {password} may hold ")


@pytest.mark.parametrize(
    "value",
    ["postgresql://u:{password|url}@h/d", "{password}", "key={password}", '{{"p": {password|json}}}', "a/{password}"],
)
def test_a_value_that_is_escaped_or_alone_may_hold_anything(folder: Folder, value: str) -> None:
    folder.load(
        "secrets:\n  s:\n    generator: {kind: password, symbols: '/&\" ;'}\n"
        f"    destinations:\n      - {{kind: file, path: p, read: copy, value: '{value}'}}\n"
    )


def test_a_raw_user_name_that_breaks_a_url_is_refused(folder: Folder) -> None:
    (error,) = folder.errors(
        f"secrets:\n  s:\n    {PASSWORD}\n"
        "    target: {kind: database, host: h, strategy: alternating_users, users: [a@x, b]}\n"
        "    destinations: [{kind: file, path: p, read: copy, value: 'x://{username}:{password}@h'}]\n"
    )
    assert "{username} may hold '@', which breaks a URL: write {username|url}" in error


def test_what_the_target_cannot_take_is_no_risk_in_a_template(folder: Folder) -> None:
    folder.load(  # the stub database forbids %
        "secrets:\n  s:\n    generator: {kind: password, symbols: '%'}\n"
        "    target: {kind: database, host: h, strategy: overlap, user: u}\n"
        "    destinations: [{kind: file, path: p, read: copy, value: 'x://u:{password}@h'}]\n"
    )


def test_two_secrets_in_one_slot_are_refused_at_the_second(folder: Folder) -> None:
    secret = "{static: x, destinations: [{kind: dotenv, path: .env, values: {A: '{value}'}}]}"
    folder.write("a.yaml", f"secrets:\n  a: {secret}\n")
    folder.write("b.yaml", f"secrets:\n  b: {secret}\n  c: {secret.replace('A:', 'B:')}\n")
    (told,) = folder.errors()
    assert told.startswith("b.yaml:2:33 b.destinations[0]: two secrets in one slot: ")
    assert told.endswith("is written by a already (a.yaml:2:33)")


ACCOUNT = "{generator: {kind: password}, destinations: [], target: {kind: database, host: h, %s}}"


@pytest.mark.parametrize(
    ("one", "other", "whose"),
    [
        ("strategy: single, user: u", "strategy: single, user: u", "u"),
        ("strategy: alternating_users, users: [u, v]", "strategy: alternating_users, users: [w, v]", "v"),
        ("strategy: overlap, user: u", "strategy: single, user: u", "u"),
        ("strategy: single, user: u, hosts: ['%', x]", "strategy: single, user: u, hosts: [x]", "u"),
    ],
)
def test_two_secrets_for_one_account_are_refused_at_the_second(
    folder: Folder, one: str, other: str, whose: str
) -> None:
    (told,) = folder.errors(f"secrets:\n  a: {ACCOUNT % one}\n  b: {ACCOUNT % other}\n")
    assert " b.target: two secrets for one account: " in told
    assert f": {whose} is changed by a already (" in told


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("strategy: overlap, user: u", "strategy: overlap, user: u"),  # their values stand side by side
        ("strategy: single, user: u", "strategy: single, user: v"),
        ("strategy: single, user: u", "strategy: single, user: u, port: 1"),
        ("strategy: single, user: u, hosts: ['%']", "strategy: single, user: u, hosts: [x]"),
    ],
)
def test_accounts_that_are_not_the_same_or_take_many_values_are_nobodys_business(
    folder: Folder, one: str, other: str
) -> None:
    folder.load(f"secrets:\n  a: {ACCOUNT % one}\n  b: {ACCOUNT % other}\n")


def test_two_kinds_in_one_file_are_refused(folder: Folder) -> None:
    (told,) = folder.errors(
        "secrets:\n"
        "  a: {static: x, destinations: [{kind: dotenv, path: .env, values: {A: '{value}'}}]}\n"
        "  b: {static: x, destinations: [{kind: file, path: ./.env, read: copy}]}\n"
    )
    assert "b.destinations[0]: " in told
    assert told.endswith(".env belongs to dotenv of a already; expected one kind per file")


def test_a_cycle_is_told_once_with_its_whole_way(folder: Folder) -> None:
    lines = [f"  {a}: {{{PASSWORD}, depends_on: [{b}]}}" for a, b in ("ab", "bc", "ca", "da")]
    told = folder.errors("secrets:\n" + "\n".join(lines) + "\n")
    assert len(told) == 1
    assert "a cycle: " in told[0]
    assert {"a", "b", "c"} == set(told[0].partition("a cycle: ")[2].split(" → "))


@pytest.mark.parametrize(
    ("body", "grace"),
    [
        (BY_HAND, timedelta(hours=24)),
        (f"{BY_HAND}, rotation_period: 90d", timedelta(hours=24)),
        (f"{BY_HAND}, rotation_period: 1d", timedelta(hours=12)),
        (f"{BY_HAND}, rotation_schedule: '@hourly'", timedelta(minutes=30)),
        (f"{BY_HAND}, rotation_period: 1d, grace_period: 20h", timedelta(hours=20)),
        (f"{BY_HAND}, grace_period: 0s", timedelta(0)),
        (f"{PASSWORD}, target: {{kind: database, host: h, strategy: single, user: u}}", timedelta(0)),
        (PASSWORD, timedelta(0)),
    ],
)
def test_grace_defaults_to_a_day_and_at_most_half_the_period(folder: Folder, body: str, grace: timedelta) -> None:
    assert folder.one(body).grace_period == grace


def test_no_grace_is_fine_where_consumers_are_seen_or_nobody_reads(folder: Folder) -> None:
    folder.one(
        f"{BY_HAND}, grace_period: 0s, destinations: [{{kind: file, path: p, read: copy}}, "
        "{kind: file, path: q, read: at_start, confirm: {http: x}}]"
    )


def test_every_key_reaches_the_policy(folder: Folder) -> None:
    policy = folder.one(
        "owner: me, description: d, tags: [a, b], enabled: false, generator: {kind: password, field: key, length: 40}, "
        "keep_versions: {at_least: 2, for: 1y}, rotation_schedule: '@weekly', rotation_window: 2h, "
        "timezone: Europe/Paris, jitter: 1h, min_interval: 1d, grace_period: 2d, on_drift: repair, "
        "target: {kind: database, host: h, user: u, strategy: overlap, admin: self, verify: none, reason: r}, "
        "destinations: [{kind: file, path: p, read: per_use, timeout: 1min, healthy_for: 3s, mode: '0400'}]"
    )
    assert (policy.owner, policy.description, policy.tags, policy.enabled) == ("me", "d", ("a", "b"), False)
    assert policy.generator is not None
    assert (policy.generator.field, policy.generator.settings) == ("key", {"length": 40})
    assert policy.keep_versions == KeepVersions(2, timedelta(days=365))
    assert (policy.rotation_schedule, policy.rotation_window) == (Cron("0 0 * * 0"), Window(timedelta(hours=2)))
    assert (policy.timezone, policy.jitter, policy.min_interval) == (
        "Europe/Paris",
        timedelta(hours=1),
        timedelta(days=1),
    )
    assert (policy.grace_period, policy.on_drift_repair) == (timedelta(days=2), True)
    assert policy.target is not None
    assert (policy.target.strategy, policy.target.self_service, policy.target.unverified) == (
        Strategy.OVERLAP,
        True,
        "r",
    )
    assert policy.target.settings == {"host": "h", "user": "u", "admin": "self"}
    (destination,) = policy.destinations
    assert destination.values == {"": "{key}"}
    assert destination.settings == {"path": str(folder.path / "p"), "mode": "0400"}
    assert (destination.read, destination.timeout) == (Read.PER_USE, timedelta(minutes=1))
    assert destination.healthy_for == timedelta(seconds=3)


def test_a_via_without_a_value_leaves_the_content_to_the_target(folder: Folder) -> None:
    target = folder.one(
        f"{PASSWORD}, target: {{kind: token_list, via: {{kind: file, path: p, read: at_start}}}}"
    ).target
    assert target is not None
    assert target.via is not None
    assert target.via.values == {"": ""}


@pytest.mark.parametrize("values", ["value: '{password}'", "values: {A: '{accepted[0]}', B: '{password}'}"])
def test_a_via_without_room_for_the_old_value_is_no_overlap(folder: Folder, values: str) -> None:
    via = f"{{kind: dotenv, path: p, read: at_start, {values}}}"
    assert folder.error(f"{PASSWORD}, target: {{kind: token_list, via: {via}}}") == (
        "s.target.via: overlap keeps the old value accepted, and nothing here holds it: add `{accepted[-1]}`"
    )


def test_two_users_in_turn_need_room_for_both_in_a_via_too(folder: Folder) -> None:
    via = "{kind: dotenv, path: p, read: at_start, values: {A: '{password}'}}"
    target = f"{{kind: database, host: h, strategy: alternating_users, users: [a, b], via: {via}}}"
    place = "{kind: file, path: q, read: per_use, value: '{username} {password}'}"
    assert folder.error(f"{PASSWORD}, target: {target}, destinations: [{place}]") == (
        "s.target.via: alternating_users keep the old value accepted, and nothing here holds it: add `{accepted[-1]}`"
    )


@pytest.mark.parametrize("old", ["{accepted[-1]}", "{previous.password|join(',')}"])
def test_a_via_with_room_for_the_old_value_is_one(folder: Folder, old: str) -> None:
    values = f'{{A: "{{password}}", B: "{old}"}}'
    via = f"{{kind: dotenv, path: p, read: at_start, values: {values}}}"
    target = folder.one(f"{PASSWORD}, target: {{kind: token_list, via: {via}}}").target
    assert target is not None
    assert target.via is not None


def test_a_manual_secret_with_several_parts_says_which_one_it_delivers(folder: Folder) -> None:
    body = (
        "target: {kind: manual}, fields: [client_id, client_secret], destinations: [{kind: file, path: p, read: copy}]"
    )
    assert folder.error(body) == (
        "s.destinations[0]: expected `value` or `values`: the secret has the fields client_id, client_secret"
    )
    policy = folder.one("target: {kind: manual}, fields: [client_id, client_secret]")
    assert (policy.fields, policy.strategy) == (("client_id", "client_secret"), Strategy.MANUAL)
