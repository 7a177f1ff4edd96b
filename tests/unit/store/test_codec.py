from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.store.samples import rotation
from vaultkeeper.errors import ConfigurationInvalid, StoreDamaged
from vaultkeeper.model.outcome import Proof
from vaultkeeper.model.policy import (
    Cron,
    DestinationSpec,
    GeneratorSpec,
    KeepVersions,
    Place,
    Read,
    RotationPolicy,
    TargetSpec,
    Window,
)
from vaultkeeper.model.rotation import (
    Audience,
    Cause,
    Direction,
    End,
    Options,
    Phase,
    Placed,
    Purpose,
    Rotation,
    SealedReceipt,
    State,
    Step,
    Waiting,
)
from vaultkeeper.model.secret import Binding, GroupKey, Slot, Strategy
from vaultkeeper.store.codec import decode_binding, decode_rotation, encode_binding, encode_rotation

FIXTURE = Path(__file__).parents[2] / "data" / "journal-schema-1.json"

# ------------------------------------------------- any value of any field, derived from the model's own annotations

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
DOCUMENT: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    bytes: st.binary(max_size=20),
    object: DOCUMENT,
    type(None): st.none(),
    timedelta: st.timedeltas(min_value=timedelta(days=-400_000), max_value=timedelta(days=400_000)),
    datetime: st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC) | OFFSETS),  # noqa: DTZ001
}


def anything(kind: Any) -> st.SearchStrategy[Any]:
    kind = getattr(kind, "__supertype__", kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if dataclasses.is_dataclass(kind):
        return st.deferred(lambda: instances(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(anything, arguments))
    if origin is tuple:
        return st.lists(anything(arguments[0]), max_size=3).map(tuple)
    if origin is frozenset:
        return st.frozensets(anything(arguments[0]), max_size=3)
    if origin is Mapping:
        return st.dictionaries(anything(arguments[0]), anything(arguments[1]), max_size=3)
    raise NotImplementedError(f"the journal codec is not tested with {kind}")


def instances(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind, vars(sys.modules[kind.__module__]))
    return st.builds(kind, **{f.name: anything(hints[f.name]) for f in dataclasses.fields(kind)})


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(instances(Rotation))
def test_a_rotation_survives_the_journal_field_by_field(value: Rotation) -> None:
    text = encode_rotation(value)
    back = decode_rotation(text)
    assert back == value
    assert encode_rotation(back) == text
    for mine, theirs in zip(leaves(value), leaves(back), strict=True):
        assert type(mine) is type(theirs)  # 1 == True == 1.0 would pass a comparison


@given(instances(Binding))
def test_a_binding_survives_the_journal(value: Binding) -> None:
    assert decode_binding(encode_binding(value)) == value


def leaves(value: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        yield type(value)
        for item in value:
            yield from leaves(item)
    elif isinstance(value, frozenset):
        yield from sorted(value)
    else:
        yield value


# ------------------------------------------------------------------------------------------- what was written once

_SWARM = DestinationSpec(
    kind="swarm",
    values={"db_password": "{password}", "db_username": "{username}"},
    read=Read.AT_START,
    settings={"services": ["shop_api", "shop_worker"], "strict": True, "retries": 3, "share": 0.5, "network": None},
    timeout=timedelta(minutes=2, microseconds=1),
    healthy_for=timedelta(seconds=15),
)
_FILE = DestinationSpec(kind="file", values={"": "{password}"}, read=Read.COPY, settings={"path": "/etc/shop/ü"})

WRITTEN_IN_SCHEMA_1 = Rotation(
    id="0f8c",
    secret="shop/db-password",
    policy=RotationPolicy(
        name="shop/db-password",
        place=Place("policies/shop.yaml", 12, 3),
        generator=GeneratorSpec("password", {"length": 32}, field="password", weak_ok="a PIN"),
        static="text",
        fields=("username", "password"),
        target=TargetSpec(
            kind="postgres",
            strategy=Strategy.ALTERNATING_USERS,
            settings={"host": "db", "admin": {"password": {"file": "/run/secrets/admin"}}},
            via=_FILE,
            persisted_by=_FILE,
            unverified="no login",
            close_sessions=True,
            self_service=True,
        ),
        strategy=Strategy.ALTERNATING_USERS,
        destinations=(_SWARM, _FILE),
        rotation_period=timedelta(days=90),
        rotation_schedule=Cron("0 3 * * 7"),
        rotation_window=Window(timedelta(hours=2), Cron("0 2 * * *")),
        timezone="Europe/Berlin",
        jitter=timedelta(minutes=7),
        min_interval=timedelta(minutes=6),
        grace_period=timedelta(hours=24),
        on_drift_repair=True,
        depends_on=("shop/admin",),
        keep_versions=KeepVersions(7, None),
        owner="platform@example.com",
        description='quotes " and\nlines',
        tags=("shop", "db"),
        enabled=False,
    ),
    phases=(
        Phase(Step.OBSERVE),
        Phase(Step.SET, (End.TO, End.FROM)),
        Phase(Step.DELIVER, (End.TO,), audience=Audience.CHECKER),
        Phase(Step.RETIRE, (End.TO,), (End.FROM,)),
    ),
    opened_at=datetime(2026, 11, 21, 12, 30, 0, 123456, tzinfo=UTC),
    entered_at=datetime(2026, 11, 21, 13, 0, tzinfo=UTC),
    purpose=Purpose.EMERGENCY,
    options=Options("leak", True, True, timedelta(minutes=3), True, True, True),
    from_version=7,
    to_version=8,
    previous_version=6,
    back=(Phase(Step.DELIVER, (End.FROM,)), Phase(Step.SET, (End.FROM,), (End.TO,))),
    at=1,
    reached=3,
    direction=Direction.BACK,
    state=State.WAITING,
    begun=True,
    outcome_unknown=True,
    doubted=True,
    settled=(GroupKey("file:/etc/shop/.env"), GroupKey("swarm:shop_api")),
    proof=Proof.WRITTEN,
    tries=2,
    failed_proofs=1,
    value_refusals=1,
    places=(
        Placed(0, GroupKey("swarm:shop_api"), Slot("/run/secrets/db"), "db_password", "shop_api", Audience.CHECKER),
    ),
    receipts={"swarm:shop_api\n/run/secrets/db": SealedReceipt({"old": "x_g41", "n": 1}, b"\x00\xff\xfe~")},
    waiting=Waiting.CONFIRM,
    waiting_for=("shop_api.2",),
    not_before=datetime(2026, 11, 22, tzinfo=UTC),
    cause=Cause.LAGGARDS,
    detail="2 of 3",
    ended_at=datetime(2026, 11, 23, tzinfo=UTC),
    superseded=True,
    unverified="target cannot be asked",
    epoch=9,
)


def test_a_document_of_schema_1_is_read_for_ever() -> None:
    """The fixture is never written anew: rotations that were open when people upgraded look like it."""
    assert decode_rotation(FIXTURE.read_text()) == WRITTEN_IN_SCHEMA_1


def test_the_fixture_says_something_of_every_field_that_it_was_written_with() -> None:
    plain = dataclasses.asdict(rotation(id=WRITTEN_IN_SCHEMA_1.id))
    full = dataclasses.asdict(WRITTEN_IN_SCHEMA_1)
    written = json.loads(FIXTURE.read_text())["rotation"]
    assert [name for name in written if plain[name] == full[name]] == ["id"]


def test_this_release_still_writes_what_the_fixture_says() -> None:
    """A renamed or removed field shows here; a field added later may stand in it beside."""
    written = json.loads(encode_rotation(WRITTEN_IN_SCHEMA_1))
    assert contains(written, json.loads(FIXTURE.read_text()))


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


# ------------------------------------------------------------------------------------------------------ refusals


def test_a_newer_schema_is_refused_by_both_numbers() -> None:
    document = json.loads(encode_rotation(rotation()))
    with pytest.raises(ConfigurationInvalid, match=r"schema 2: .* up to schema 1"):
        decode_rotation(json.dumps(document | {"schema": 2}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("unheard_of", 1),
        ("policy.unheard_of", 1),
        ("policy.place.unheard_of", 1),
        ("at", "1"),
        ("begun", "true"),
        ("state", "sleeping"),
        ("opened_at", 5),
    ],
)
def test_a_field_of_unknown_name_or_wrong_type_is_refused_and_its_value_is_not_shown(path: str, value: object) -> None:
    document = json.loads(encode_rotation(rotation(detail="canary")))
    *parents, last = path.split(".")
    inner = document["rotation"]
    for name in parents:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(StoreDamaged) as caught:
        decode_rotation(json.dumps(document))
    assert path in caught.value.why
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "null", "{}", "[1]", '{"schema":"1"}', "{", encode_rotation(rotation())[:-9]])
def test_text_that_is_no_document_is_damage(text: str) -> None:
    with pytest.raises(StoreDamaged):
        decode_rotation(text)
