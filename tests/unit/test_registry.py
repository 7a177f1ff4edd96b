from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from vaultkeeper.errors import ConfigurationInvalid
from vaultkeeper.registry import Registry
from vaultkeeper.wiring.described import all_of, described, parted

GENERATOR = """
from pydantic import BaseModel, ConfigDict

class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

class Dice:
    "Throws dice."
    kind = "dice"
    field = "value"
    Settings = Settings
    def generate(self, settings, forbidden, max_bytes): ...
    def entropy_bits(self, settings, forbidden): return 200.0
    def alphabet(self, settings): return frozenset("123456")
"""

TARGET = """
from pydantic import BaseModel, ConfigDict
from vaultkeeper.model.outcome import Basis
from vaultkeeper.model.secret import Strategy
from vaultkeeper.ports import Capabilities

class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

class Thing:
    kind = "thing"
    codec = 1
    capabilities = Capabilities(frozenset({Strategy.OVERLAP}), frozenset({Basis.LISTING}))
    Settings = Settings
    @classmethod
    def open(cls, settings, codec): return cls()
    def check(self, ctx): ...
    def complete(self, given, ctx, *, adopting): ...
    def observe(self, candidates, ctx): ...
    def login_key(self, version): ...
    def decoy(self, version): ...
    def set(self, accept, refuse, ctx): ...
    def test(self, version, ctx): ...
"""

Install = Callable[..., Registry]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package of somebody else's with one entry point, and look with a new registry."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)

    def install(group: str, kind: str, value: str, source: str) -> Registry:
        (tmp_path / "somebodys.py").write_text(source)
        info = tmp_path / "somebodys-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[vaultkeeper.{group}]\n{kind} = {value}\n")
        return Registry()

    yield install
    for name in set(sys.modules) - modules:
        if name == "somebodys":
            del sys.modules[name]


def test_every_kind_of_ours_keeps_its_protocol() -> None:
    registry = Registry()
    for group in ("targets", "destinations", "generators"):
        assert registry.kinds(group)
        for kind in registry.kinds(group):
            assert registry.load(group, kind).kind == kind
            assert registry.origin(group, kind) == "vaultkeeper"


@pytest.mark.parametrize(
    ("group", "kind"), [(group, kind) for group in ("targets", "destinations") for kind in Registry().kinds(group)]
)
def test_every_kind_says_what_privileges_it_needs(group: str, kind: str) -> None:
    found = described(group, kind, Registry())
    assert found.privileges, f"a line of the docstring of vaultkeeper/{group}/{kind}.py begins with `Privileges: …`"
    assert "rivileges" not in found.text, "one place for them: a line that begins with `Privileges`"
    assert found.summary.count("\n") == 0


def test_a_docstring_is_parted_into_what_it_is_what_it_needs_and_where_that_is_written() -> None:
    docstring = """Accounts of a thing: two at once. More of it.

    What it does.
    https://example.com/inline is a source.

    Privileges of the admin account: ADMIN on it;
    and ROOT.
    https://example.com/one,
    https://example.com/two
    """
    summary, text, privileges = parted(inspect.cleandoc(docstring))
    assert summary == "Accounts of a thing: two at once."
    assert text == "More of it.\n\nWhat it does."
    assert privileges == "Of the admin account: ADMIN on it; and ROOT."
    assert parted("Throws dice.") == ("Throws dice.", "", "")


def test_looking_for_kinds_imports_none_of_them() -> None:
    code = (
        "import sys; from vaultkeeper.registry import Registry; r = Registry(); r.kinds('targets');"
        "r.kinds('destinations'); r.generator('token');"
        "print([m for m in sys.modules if m.startswith(('psycopg', 'vaultkeeper.targets.', 'vaultkeeper.dest'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['vaultkeeper.destinations']"


def test_an_instance_is_made_once() -> None:
    registry = Registry()
    assert registry.generator("password") is registry.generator("password")
    assert registry.destination("file") is registry.destination("file")


@pytest.mark.parametrize("ask", ["target_class", "destination", "generator"])
def test_an_unknown_kind_is_refused_with_the_nearest_name(ask: str) -> None:
    misspelt = {"target_class": "postgre", "destination": "dotenvs", "generator": "pasword"}[ask]
    with pytest.raises(ConfigurationInvalid) as caught:
        getattr(Registry(), ask)(misspelt)
    nearest = {"target_class": "postgres", "destination": "dotenv", "generator": "password"}[ask]
    assert f"did you mean `{nearest}`?" in caught.value.why


def test_a_kind_of_somebody_elses_joins_by_its_entry_point(install: Install) -> None:
    registry = install("generators", "dice", "somebodys:Dice", GENERATOR)
    assert "dice" in registry.kinds("generators")
    assert registry.generator("dice").alphabet({}) == frozenset("123456")
    assert registry.origin("generators", "dice") == "somebodys"
    assert described("generators", "dice", registry).summary == "Throws dice."


def test_a_target_of_somebody_elses_is_opened_from_a_binding(install: Install) -> None:
    registry = install("targets", "thing", "somebodys:Thing", TARGET)
    assert type(registry.target("thing", {}, 1)) is registry.target_class("thing")


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda s: s.replace("def set(", "def sett("), "`set` is missing"),
        (lambda s: s.replace("    codec = 1\n", ""), "`codec` is missing"),
        (lambda s: s.replace("def test(self, version, ctx): ...", "test = 5"), "`test` is no method"),
        (lambda s: s.replace('kind = "thing"', 'kind = "think"'), "its `kind` is 'think'"),
        (lambda s: s.replace("frozen=True, ", ""), "`Settings` is not frozen"),
        (lambda s: s.replace("(BaseModel)", ""), "`Settings` is no pydantic model"),
        (
            lambda s: s.replace("Capabilities(frozenset({Strategy.OVERLAP}), ", "Capabilities(frozenset(), "),
            "no strategy",
        ),
        (lambda s: s.replace("OVERLAP", "MINTED"), "strategy minted: `mint` is missing"),
        (
            lambda s: (
                s.replace("OVERLAP", "MINTED").replace("{Basis.LISTING}", "{Basis.NONE}")
                + "    mint = find = drop = test\n"
            ),
            "a target that cannot observe must take a chosen value",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_class_that_does_not_keep_the_protocol_is_refused_naming_what_is_missing(
    install: Install, break_it: Callable[[str], str], told: str
) -> None:
    registry = install("targets", "thing", "somebodys:Thing", break_it(TARGET))
    with pytest.raises(ConfigurationInvalid) as caught:
        registry.target_class("thing")
    assert told in caught.value.why
    assert "somebodys:Thing" in caught.value.what


def test_a_kind_that_cannot_be_loaded_is_listed_with_the_reason_and_hides_no_other(install: Install) -> None:
    registry = install("targets", "thing", "somebodys:Thing", "import no_such_package\n")
    listed = {one.kind: one for one in all_of("targets", registry)}
    assert "no_such_package" in listed["thing"].problem
    assert listed["thing"].origin == "somebodys"
    assert listed["postgres"].settings


def test_a_kind_that_lacks_a_package_says_which(install: Install) -> None:
    registry = install("targets", "thing", "somebodys:Thing", "import no_such_package\n")
    with pytest.raises(ConfigurationInvalid, match="no_such_package"):
        registry.target_class("thing")


def test_two_kinds_of_one_name_are_refused(install: Install) -> None:
    registry = install("generators", "password", "somebodys:Dice", GENERATOR)
    with pytest.raises(ConfigurationInvalid, match="two generators are called `password`"):
        registry.generator("password")


def test_a_second_thread_may_ask_while_the_first_is_still_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, look = Registry(), entry_points
    kinds: list[str] = []

    def interrupted(**asked: Any) -> Any:
        if not kinds:
            kinds.append("asked")
            with ThreadPoolExecutor(1) as other:
                kinds[:] = other.submit(registry.kinds, "generators").result()
        return look(**asked)

    monkeypatch.setattr("vaultkeeper.registry.entry_points", interrupted)

    assert registry.kinds("generators") == kinds
