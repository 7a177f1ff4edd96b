"""The pages of docs/reference/, made of what each kind says of itself. `scripts/reference` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vaultkeeper.model.secret import Strategy
from vaultkeeper.policyfile.schema import common_keys
from vaultkeeper.registry import Registry
from vaultkeeper.wiring.described import STRATEGIES, Described, Setting, described

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
GROUPS = {"targets": "the systems that check a credential", "destinations": "the places where consumers read one"}
INTRODUCTION = """\
Every kind that is part of vaultkeeper, with the privileges that it needs and every setting. `vaultkeeper targets` and
`vaultkeeper destinations` tell what is installed, by other packages too; with the name of a kind they tell it all."""
NOTE = "<!-- Written by scripts/reference from the kind itself: change that, not this page. -->"


def pages() -> dict[Path, str]:
    """Path below docs/reference → content, for every kind that is part of vaultkeeper itself."""
    kinds = Registry()
    found: dict[Path, str] = {}
    every: dict[str, list[Described]] = {}
    for group in GROUPS:
        ours = [kind for kind in kinds.kinds(group) if kinds.origin(group, kind) == "vaultkeeper"]
        every[group] = [described(group, kind, kinds) for kind in ours]
        found |= {Path(group, f"{one.kind}.md"): "\n".join(page(one)) + "\n" for one in every[group]}
    found[Path("README.md")] = "\n".join(index(every)) + "\n"
    return found


def index(every: dict[str, list[Described]]) -> Iterator[str]:
    yield NOTE
    yield "# Reference"
    yield ""
    yield INTRODUCTION
    for group, what in GROUPS.items():
        yield ""
        yield f"## {group.title()}"
        yield ""
        yield f"{what[:1].upper()}{what[1:]}."
        yield ""
        yield from table(
            ("kind", "what it is", *(("strategies",) if group == "targets" else ())),
            [
                (
                    f"[`{one.kind}`]({group}/{one.kind}.md)",
                    text(one.summary),
                    *((", ".join(f"`{s.value}`" for s in one.strategies),) if group == "targets" else ()),
                )
                for one in every[group]
            ],
        )
        yield ""
        yield f"Keys of all {group}:"
        yield ""
        yield from table(("key", "meaning"), [(f"`{name}`", text(doc)) for name, doc in shared(group)])
    yield ""
    yield "## Strategies"
    yield ""
    yield from table(("strategy", "how no consumer is cut off"), [(f"`{s.value}`", STRATEGIES[s]) for s in Strategy])


def shared(group: str) -> Iterator[tuple[str, str]]:
    for name, schema in common_keys(group).items():
        choices = ", ".join(f"`{choice}`" for choice in schema.get("enum", ()))
        yield name, schema.get("description", choices)


def page(one: Described) -> Iterator[str]:
    yield NOTE
    yield f"# `{one.kind}`"
    yield ""
    yield text(one.summary)
    for paragraph in one.text.split("\n\n") if one.text else ():
        yield ""
        yield f"```json\n{paragraph}\n```" if paragraph.startswith("{") else text(paragraph)
    yield ""
    yield " · ".join([*links(one.group, one.kind), f"[all {one.group}](../README.md#{one.group})"])
    yield ""
    yield "## Privileges"
    yield ""
    yield text(f"{one.privileges[:1].upper()}{one.privileges[1:]}")
    if one.strategies:
        yield ""
        yield "## Strategies"
        yield ""
        yield from table(
            ("`strategy`", "how no consumer is cut off"), [(f"`{s.value}`", STRATEGIES[s]) for s in one.strategies]
        )
    yield ""
    yield "## What it can do"
    yield ""
    yield from (f"- {text(trait)}" for trait in one.traits)
    yield ""
    yield "## Settings"
    yield from settings(one.settings)
    yield ""
    besides = ", ".join(f"`{name}`" for name in one.common)
    yield f"Besides, as for [all {one.group}](../README.md#{one.group}): {besides}."
    if one.sources:
        yield ""
        yield "## Sources"
        yield ""
        yield from (f"- <{source}>" for source in one.sources)


def settings(keys: Sequence[Setting], inside: str = "") -> Iterator[str]:
    yield ""
    yield from table(
        ("key", "type", "default", "meaning"),
        [
            (
                f"`{key.name}`",
                code(key.type),
                "**required**" if key.required else code(key.default) if key.default else "",
                text(key.description),
            )
            for key in keys
        ],
    )
    for key in keys:
        for spelt, inner in key.inside.items():
            yield ""
            yield f"In `{inside}{key.name}: {spelt}`:"
            yield from settings(inner, f"{inside}{key.name}: ")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def code(spelt: str) -> str:
    return f"`{spelt}`"


def text(prose: str) -> str:
    """As Markdown: what a docstring means literally stays so."""
    parts = re.split(r"(`[^`]*`)", prose)
    return "".join(p if p.startswith("`") else p.replace("*.*", "\\*.\\*").replace("<", "&lt;") for p in parts)


# ------------------------------------------------------------------------------------------------ what stands elsewhere


def how_tos(group: str, kind: str) -> list[Path]:
    """Pages that lead to the kind's own one."""
    found = sorted((ROOT / "docs/how-to").glob("*.md"))
    return [page for page in found if f"](../reference/{group}/{kind}.md)" in page.read_text(encoding="utf-8")]


def examples(kind: str) -> list[Path]:
    """Policies with such a part: those that are named after it, else all, unless it is everywhere."""
    found = sorted((ROOT / "policies").glob("*.yaml"))
    using = [p for p in found if re.search(rf"\bkind: {kind}\b", p.read_text(encoding="utf-8"))]
    named = [p for p in using if p.stem.startswith(kind.replace("_", "-"))]
    return named or (using if len(using) <= 3 else [])


def links(group: str, kind: str) -> list[str]:
    led = [f"[how-to](../../how-to/{page.name})" for page in how_tos(group, kind)]
    return led + [f"[{policy.name}](../../../policies/{policy.name})" for policy in examples(kind)]


def main() -> None:
    made = pages()
    for path in REFERENCE.rglob("*.md"):
        if path.relative_to(REFERENCE) not in made:
            path.unlink()
    for name, content in made.items():
        path = REFERENCE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    print(f"{len(made)} pages in docs/reference/")


if __name__ == "__main__":
    main()
