"""`scripts/bench`: what vaultkeeper costs, as ratios of medians that are taken side by side in one run.

Both sides of a line take turns (A B A B …), so that a busy machine burdens both alike; absolute times on two machines
cannot be compared, ratios can. Every line is bounded in rounds and in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median

import bench_target
import pyrage
from bench_grafana import Grafana
from bench_parts import Bare
from bench_stage import Stage
from bench_turns import Line, take_turns
from bench_vault import Vault, requests_of

from tests.servers import ServerMissing
from vaultkeeper.model.secret import SecretBytes

SECRETS = 200
IN_A_BATCH = 16  # rotations of one window of the throughput line
SEALS = 200  # of one window of the envelope line
WARM_UP = 3
A_WHILE = timedelta(minutes=5)  # no failed login of one rotation counts against the next

# ------------------------------------------------------------------------------------------------------- what is asked


def rotation(stage: Stage, seconds: float) -> Iterator[Line]:
    """One rotation against the sum of its necessary parts; then the parts, each as its share of that sum."""
    names, [bare] = stage.adopted(1), stage.bare(1)
    with bare:
        yield _against(lambda: stage.rotate(names), bare.parts, "one rotation / its necessary parts", seconds)


def vault(stage: Stage, seconds: float) -> Iterator[Line]:
    """Requests of one delivery into a key-value store against those that it needs; then the time of both."""
    with Vault(stage.folder / "vault") as server:
        names = stage.unchecked("at_vault", server.destination())
        yield _requests("vault_kv", stage, names, needed=len(server.requests))
        parts = server.requests | server.fsyncs
        yield _against(
            lambda: stage.rotate(names), parts, "vault_kv: time / of its necessary parts", seconds, at_most=8
        )


def target(stage: Stage, seconds: float, kind: str) -> Iterator[Line]:
    """One rotation at a system of this kind against the sum of its necessary parts. Nothing without its server."""
    try:
        started = bench_target.start(kind, stage.folder / f"bare-{kind}")
    except ServerMissing as missing:
        print(f"{kind:<42} not measured: {missing}", flush=True)
        return
    with started as subject:
        names = stage.checked_by(f"at_{kind}", subject.target, subject.works_today)
        ours = partial(stage.rotate, names, after=A_WHILE)
        yield _against(ours, subject.parts, f"{kind}: one rotation / its parts", seconds)


def grafana(stage: Stage, _seconds: float) -> Iterator[Line]:
    """Requests of one rotation of a user's password, of a token, and of what a data source logs in with."""
    with Grafana(stage.folder / "grafana") as server:
        for case in server.cases():
            names = stage.take(case.policy, case.works_today)
            yield _requests(case.policy.name, stage, names, needed=len(case.needed))


def _requests(kind: str, stage: Stage, names: Sequence[str], *, needed: int) -> Line:
    """Of the second rotation: the first one has nothing to put away, or asks about what was made by hand."""
    stage.rotate(names)
    sent = requests_of(lambda: stage.rotate(names))
    return Line(f"{kind}: requests / necessary requests", sent, needed, "requests", "at most", 1.5, 1)


def _against(
    ours: Callable[[], None],
    parts: Mapping[str, Callable[[], None]],
    name: str,
    seconds: float,
    at_most: float = 1.5,
) -> Line:
    spent: dict[str, list[float]] = {part: [] for part in parts}

    def theirs() -> None:
        for part, act in parts.items():
            started = time.perf_counter()
            act()
            spent[part].append(time.perf_counter() - started)

    _warm(ours, theirs)
    line = take_turns(ours, theirs, rounds=60, seconds=seconds).line(name, at_most=at_most)
    return replace(line, parts={part: median(times) * 1000 for part, times in spent.items()})


def throughput(stage: Stage, seconds: float) -> Iterator[Line]:
    """Rotations per second, alone and eight at a time, against loops that do the necessary parts only."""
    names = stage.adopted(IN_A_BATCH)
    with ExitStack() as held:
        loops = [held.enter_context(bare) for bare in stage.bare(8)]
        for threads in (1, 8):

            def ours(threads: int = threads) -> None:
                stage.rotate(names, parallel=threads)

            def theirs(threads: int = threads) -> None:
                _loop(loops[:threads], IN_A_BATCH // threads)

            _warm(ours, theirs)
            turns = take_turns(ours, theirs, rounds=20, seconds=seconds)
            yield turns.rate(f"rotations, {threads} in parallel / bare loop", at_least=0.6, each=IN_A_BATCH)


def _loop(loops: Sequence[Bare], times: int) -> None:
    def run(bare: Bare) -> None:
        for _ in range(times):
            bare.rotate()

    if len(loops) == 1:
        run(loops[0])
        return
    with ThreadPoolExecutor(len(loops)) as pool:
        list(pool.map(run, loops))


def envelope(stage: Stage, seconds: float) -> Iterator[Line]:
    """Seal and open, against pyrage alone with the same recipients and as many bytes."""
    fields = {"username": SecretBytes(b"shop"), "password": SecretBytes(os.urandom(24).hex().encode())}
    document = stage.encryptor.decrypt(stage.envelope.seal(fields, secret="shop/db", bound_to="1:a"))
    key = pyrage.x25519.Identity.generate()
    recipients = [key.to_public() for _ in stage.encryptor.recipients()]

    def ours() -> None:
        for _ in range(SEALS):
            stage.envelope.open(stage.envelope.seal(fields, secret="s", bound_to="1:a"), secret="s", bound_to="1:a")

    def theirs() -> None:
        for _ in range(SEALS):
            pyrage.decrypt(pyrage.encrypt(document, recipients), [key])

    _warm(ours, theirs)
    turns = take_turns(ours, theirs, rounds=50, seconds=seconds)
    yield turns.line("envelope, seal and open / bare pyrage", at_most=2, each=SEALS)


def parallel(stage: Stage, seconds: float) -> Iterator[Line]:
    """One command for many secrets, four at a time against one after another."""
    names = stage.adopted(SECRETS)
    turns = take_turns(
        lambda: stage.rotate(names, parallel=4),
        lambda: stage.rotate(names, parallel=1),
        rounds=5,
        seconds=seconds,
        at_least=2,
    )
    yield turns.line(f"{SECRETS} secrets, --parallel 4 / one by one", at_most=0.6, unit="s")


def coalesced(stage: Stage, seconds: float) -> Iterator[Line]:
    """Needs Docker, or VAULTKEEPER_TEST_DOCKER_HOST."""
    import bench_swarm

    yield from bench_swarm.coalesced(stage, seconds)


def shared(stage: Stage, seconds: float, services: int = 20) -> Iterator[Line]:
    """Needs Docker, as `coalesced`."""
    import bench_swarm

    yield from bench_swarm.shared(stage, seconds, services)


BENCHMARKS: dict[str, Callable[[Stage, float], Iterator[Line]]] = {
    "rotation": rotation,
    "vault": vault,
    "grafana": grafana,
    **{kind: partial(target, kind=kind) for kind in bench_target.kinds()},
    "throughput": throughput,  # from here on with many policies, all of which every command asks where they deliver
    "envelope": envelope,
    "parallel": parallel,
    "coalesced": coalesced,
    "shared": shared,
}
NEED_DOCKER = ("coalesced", "shared")


def _warm(*acts: Callable[[], object]) -> None:
    """First calls import, compile and fill caches."""
    for act in acts * WARM_UP:
        act()


# ---------------------------------------------------------------------------------------------------------------- told


def told(line: Line) -> str:
    goal = f"{'≤' if line.side == 'at most' else '≥'} {line.limit:g}"
    verdict = "met" if line.met else "MISSED"
    sides = f"{line.ours:9.2f} {line.theirs:9.2f} {line.unit:<10}"
    parts = "".join(f"\n    {name:<49} {spent:8.2f} {line.unit}" for name, spent in line.parts.items())
    return f"{line.name:<42} {sides} {line.ratio:6.2f}  {goal:<6} {verdict:<6} ({line.rounds} rounds){parts}"


def document(lines: Sequence[Line]) -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "lines": [asdict(line) | {"ratio": round(line.ratio, 3), "met": line.met} for line in lines],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("only", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("--services", type=int, default=20, metavar="N")
    asked = parser.parse_args()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="vk-bench-", ignore_cleanup_errors=True) as folder, ExitStack() as held:
        Path(folder).chmod(0o711)
        stage = Stage(Path(folder))
        held.callback(stage.close)
        print(f"{'':<42} {'ours':>9} {'beside':>9} {'':<10} {'ratio':>6}  goal", flush=True)
        benchmarks: dict[str, Callable[[Stage, float], Iterator[Line]]] = BENCHMARKS | {
            "shared": partial(shared, services=asked.services)
        }
        for name in asked.only or (name for name in BENCHMARKS if name not in NEED_DOCKER):
            for line in benchmarks[name](stage, asked.seconds):
                lines.append(line)
                print(told(line), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(document(lines), indent=2) + "\n")
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
