"""`schema`, `targets`, `destinations`, `generators`: what policy files may say."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vaultkeeper.cli.command import command
from vaultkeeper.cli.output import clean
from vaultkeeper.cli.session import Session
from vaultkeeper.errors import ConfigurationInvalid, NotFound

if TYPE_CHECKING:
    from vaultkeeper.wiring.described import Described, Setting

PANEL = "Reference"
WIDTH = 100  # columns of running text

Kind = Annotated[str | None, typer.Argument(metavar="KIND", help="One of them, in full.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add to the command line."""
    command(app, "schema", panel=PANEL)(schema)
    command(app, "targets", panel=PANEL)(targets)
    command(app, "destinations", panel=PANEL)(destinations)
    command(app, "generators", panel=PANEL)(generators)


def schema(session: Session) -> None:
    """The JSON Schema of policy files, for editors."""
    from vaultkeeper import wiring

    session.out.data(json.dumps(wiring.schema(), indent=2, ensure_ascii=False))


def targets(session: Session, kind: Kind = None) -> None:
    """The kinds of systems whose credentials can be rotated; with KIND what that one needs and takes."""
    _show(session, "targets", kind)


def destinations(session: Session, kind: Kind = None) -> None:
    """The kinds of places where consumers read; with KIND what that one needs and takes."""
    _show(session, "destinations", kind)


def generators(session: Session, kind: Kind = None) -> None:
    """The kinds of values that can be generated; with KIND what that one takes."""
    _show(session, "generators", kind)


def _show(session: Session, group: str, kind: str | None) -> None:
    from vaultkeeper import wiring
    from vaultkeeper.wiring import described

    kinds = wiring.kinds()
    if kind is None:
        found = described.all_of(group, kinds)
        if session.out.json:
            session.out.document({group: [_document(one) for one in found]})
        else:
            _table(session, group, found)
        return
    if kind not in kinds.kinds(group):
        try:
            kinds.load(group, kind)
        except ConfigurationInvalid as error:
            raise NotFound(error.what, why=error.why, next=f"vaultkeeper {group}   lists them") from None
    one = described.described(group, kind, kinds)
    if session.out.json:
        session.out.document(_document(one, whole=True))
    else:
        session.out.data("\n".join(clean(line) for line in _page(one)))


def _table(session: Session, group: str, found: Sequence[Described]) -> None:
    rows = []
    for one in found:
        what = f"cannot be loaded: {one.problem}" if one.problem else one.summary
        brought = "" if one.origin == "vaultkeeper" else f" (by {one.origin})"
        strategies = [", ".join(s.value for s in one.strategies)] if group == "targets" else []
        rows.append((one.kind, *strategies, what + brought))
    columns = ("KIND", "STRATEGIES", "WHAT IT IS") if group == "targets" else ("KIND", "WHAT IT IS")
    session.out.table(columns, rows)


def _document(one: Described, *, whole: bool = False) -> dict[str, object]:
    listed: dict[str, object] = {
        "kind": one.kind,
        "origin": one.origin,
        "summary": one.summary,
        "strategies": [strategy.value for strategy in one.strategies],
        "privileges": one.privileges,
        "problem": one.problem or None,
    }
    if not whole:
        return listed
    further = {"text": one.text, "traits": list(one.traits), "sources": list(one.sources), "common": list(one.common)}
    return {**listed, **further, "settings": [_setting(setting) for setting in one.settings]}


def _setting(setting: Setting) -> dict[str, object]:
    return {
        "name": setting.name,
        "type": setting.type,
        "required": setting.required,
        "default": setting.default or None,
        "description": setting.description,
        "inside": {spelt: [_setting(inner) for inner in keys] for spelt, keys in setting.inside.items()},
    }


def _page(one: Described) -> Iterator[str]:
    from vaultkeeper.wiring.described import STRATEGIES

    yield f"{one.kind}  {one.summary}" + ("" if one.origin == "vaultkeeper" else f"  (by {one.origin})")
    for paragraph in one.text.split("\n\n") if one.text else ():
        yield ""
        yield from _wrapped(paragraph, "  ")
    if one.privileges or one.group != "generators":
        yield ""
        yield "privileges"
        yield from _wrapped(one.privileges or "its author does not say", "  ")
    if one.strategies:
        yield ""
        yield "strategies"
        yield from (f"  {strategy.value:<18}  {STRATEGIES[strategy]}" for strategy in one.strategies)
    if one.traits:
        yield ""
        yield "traits"
        for trait in one.traits:
            yield from _wrapped(trait, "  ")
    yield ""
    yield "settings"
    yield from _rows(one.settings, "  ")
    yield ""
    yield from _wrapped(f"besides, as for all {one.group}: {', '.join(one.common)}", "  ")
    for source in one.sources:
        yield f"  {source}"


def _rows(settings: Sequence[Setting], indent: str) -> Iterator[str]:
    for setting in settings:
        remarks = [setting.type, "required" if setting.required else ""]
        remarks.append(f"default {setting.default}" if setting.default else "")
        told = "; ".join(text for text in (", ".join(r for r in remarks if r), setting.description) if text)
        first, *rest = _wrapped(told, " " * (len(indent) + 20))
        yield f"{indent}{setting.name:<18}  {first.strip()}"
        yield from rest
        for spelt, keys in setting.inside.items():
            yield f"{indent}  in {spelt}"
            yield from _rows(keys, indent + "    ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
