"""Pages say what the code does: names by its enums, edges by the exhaustive search, a stack file by its policy."""

from __future__ import annotations

import re
from dataclasses import replace
from enum import Enum
from importlib import import_module
from pathlib import Path

import pytest
import reference
import yaml

from tests.unit.engine.abstract import Point
from tests.unit.engine.cases import CASES
from tests.unit.engine.search import Search
from vaultkeeper.model.outcome import Basis, Holds, Login, No, Proof
from vaultkeeper.model.policy import Read
from vaultkeeper.model.rotation import ENDED, Audience, Cause, Direction, Purpose, State, Step, Waiting
from vaultkeeper.model.secret import Acceptance, StagingLabel, Strategy
from vaultkeeper.policyfile.load import load
from vaultkeeper.registry import Registry

DOCS = Path(__file__).parents[2] / "docs"
BY_OTHER_COMMANDS = {("waiting", "done"), ("parked", "done"), ("ambiguous", "done")}
"""Superseded after `finish`: a rollback or reconcile closes the rotation outside of it (engine/rollback.py)."""


def section(page: str, heading: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    _, _, after = text.partition(f"\n## {heading}\n")
    assert after, f"docs/{page} has no section {heading}"
    return after.partition("\n## ")[0]


def rows(page: str, heading: str) -> list[list[str]]:
    lines = [line for line in section(page, heading).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines[2:]]


def first_cells(page: str, heading: str) -> list[str]:
    return [row[0].strip("`") for row in rows(page, heading)]


@pytest.mark.parametrize(
    ("page", "heading", "enum"),
    [
        ("states.md", "States", State),
        ("states.md", "Steps", Step),
        ("states.md", "Why it waits", Waiting),
        ("states.md", "Causes", Cause),
        *(
            ("glossary.md", enum.__name__, enum)
            for enum in (Strategy, StagingLabel, Acceptance, Purpose, Direction, Login, Basis, No, Proof, Holds, Read)
        ),
        ("glossary.md", "Audience", Audience),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_names_exactly_the_members_of_its_enum(page: str, heading: str, enum: type[Enum]) -> None:
    assert sorted(first_cells(page, heading)) == sorted(member.value for member in enum)


def test_every_name_in_code_that_the_glossary_gives_exists() -> None:
    names = re.findall(r"`(vaultkeeper\.[\w.]+)`", (DOCS / "glossary.md").read_text(encoding="utf-8"))
    assert len(names) > 15
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name


def test_every_row_of_every_table_is_complete() -> None:
    for page in ("states.md", "glossary.md"):
        for block in re.split(r"\n(?!\|)", (DOCS / page).read_text(encoding="utf-8")):
            widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
            assert len(widths) <= 1, block


# ---------------------------------------------------------------------------------------------------------------- edges


def diagram() -> set[tuple[str, str]]:
    text = (DOCS / "states.md").read_text(encoding="utf-8")
    return set(re.findall(r"^ +(\w+) --> (\w+)\b", text, re.MULTILINE))


@pytest.fixture(scope="module")
def searches() -> list[Search]:
    """Small cases that show every edge and most ends between them."""
    names = {"single, first", "alternating users, emergency", "manual"}
    made = [Search(replace(case, faults=1)) for case in CASES if case.name in names]
    for search in made:
        search.run()
    return made


def shown(search: Search, at: Point) -> str:
    """What a user sees. A process that looks at a waiting rotation whose time has come is running it."""
    rotation = search.engine.rotation(at.live or at.durable)
    awake = rotation.state is State.WAITING and at.live is not None and rotation.not_before is None
    return (State.RUNNING if awake else rotation.state).value


def test_the_diagram_has_exactly_the_edges_that_the_search_walks(searches: list[Search]) -> None:
    walked = set()
    for search in searches:
        for at, to, label in search.walked():
            edge = (shown(search, at), shown(search, to))
            if edge[0] != edge[1] and at.round == to.round and label != "killed":
                walked.add(edge)
    assert diagram() == walked | BY_OTHER_COMMANDS


def test_every_edge_of_the_diagram_is_explained() -> None:
    explained = [(row[0].strip("`"), row[1].strip("`")) for row in rows("states.md", "Edges")]
    assert sorted(explained) == sorted(diagram())


def test_ended_states_are_not_open_and_all_others_are() -> None:
    assert {row[0].strip("`") for row in rows("states.md", "States") if row[2] == "no"} == {s.value for s in ENDED}


def test_each_cause_is_documented_with_the_states_in_which_the_search_meets_it(searches: list[Search]) -> None:
    documented = {row[0].strip("`"): row[2] for row in rows("states.md", "Causes")}
    met = {name for search in searches for name in search.found.ends if "(" in name}
    assert len(met) > 8
    for name in met:
        state, cause = name.rstrip(")").split("(")
        told = documented[cause].replace("as privilege", documented["privilege"])
        assert state in told, f"{name}: {told}"


def test_the_stack_file_asks_for_exactly_the_names_that_its_policy_makes() -> None:
    policies = load([DOCS.parent / "policies/swarm.yaml"], Registry())
    made = {f"VK_{name.upper()}" for policy in policies.values() for to in policy.destinations for name in to.values}
    stack = (DOCS / "how-to/swarm/stack.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(VK_[A-Z_]+):\?", stack)) == made


def test_the_compose_file_reads_exactly_what_its_policy_writes() -> None:
    policies = load([DOCS.parent / "policies/compose.yaml"], Registry())
    services = yaml.safe_load((DOCS / "how-to/compose/docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for settings in (to.settings for policy in policies.values() for to in policy.destinations):
        folder = Path(str(settings["project_dir"]))
        for service in settings["services"]:  # type: ignore[attr-defined]
            if "env_file" in settings:
                assert folder / services[service]["env_file"] == Path(str(settings["env_file"]))
            else:
                mounted = [folder / volume.partition(":")[0] for volume in services[service]["volumes"]]
                assert Path(str(settings["path"])).parent in mounted


# ------------------------------------------------------------------------------------------------------ the reference


def test_the_reference_says_what_every_kind_says_of_itself() -> None:
    made = reference.pages()
    written = {path.relative_to(reference.REFERENCE): path for path in reference.REFERENCE.rglob("*.md")}
    kept = {name: path.read_text(encoding="utf-8") for name, path in written.items()}
    differing = sorted(str(name) for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))
    assert differing == [], "run   ./scripts/reference"


@pytest.mark.parametrize(
    ("group", "kind"), [(group, kind) for group in reference.GROUPS for kind in Registry().kinds(group)]
)
def test_every_kind_has_a_how_to_that_leads_to_its_reference(group: str, kind: str) -> None:
    link = f"[`{kind}`](../reference/{group}/{kind}.md)"
    assert reference.how_tos(group, kind), f"add {link} to its page in docs/how-to/, then run   ./scripts/reference"
