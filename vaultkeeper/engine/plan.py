"""Which phases a rotation has. Pure; `rotation.md` section 1 is its specification.

In this file C is the version a rotation leaves (`End.FROM`) and P the one it goes to (`End.TO`), as on that page.
This is the only place in the engine that names a strategy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vaultkeeper.model.policy import RotationPolicy
from vaultkeeper.model.rotation import Audience, Direction, End, Phase, Purpose, Rotation, Step
from vaultkeeper.model.secret import Strategy

P = (End.TO,)
C = (End.FROM,)
P_THEN_C = (End.TO, End.FROM)
C_THEN_P = (End.FROM, End.TO)
CONSUMERS, CHECKER = Audience.CONSUMERS, Audience.CHECKER


@dataclass(frozen=True)
class Shape:
    """All that the phases depend on."""

    strategy: Strategy | None  #: None: nobody checks the secret
    via: bool = False  #: the checker reads its value from a destination
    first: bool = False  #: there is no C yet
    purpose: Purpose = Purpose.ROTATE
    values_exist: bool = False  #: a rollback carries PREVIOUS's fields: nothing is minted or asked for
    drops_old: bool = False  #: a leaked key leaves the fallback list, and what only it opens is lost


def shape_of(policy: RotationPolicy, *, first: bool, purpose: Purpose, data_loss: bool = False) -> Shape:
    """What the plan needs to know of a policy, and of what a person declared."""
    strategy = policy.target.strategy if policy.target else policy.strategy
    via = policy.target is not None and policy.target.via is not None
    return Shape(
        strategy, via=via, first=first, purpose=purpose, values_exist=purpose is Purpose.ROLLBACK, drops_old=data_loss
    )


def plan(shape: Shape) -> tuple[Phase, ...]:
    """The forward phases, without those that concern a C that does not exist."""
    if shape.purpose is Purpose.REHEARSE:
        return _without_c(shape, _rehearsal())
    return _without_c(shape, _FORWARD[shape.strategy](shape))


def _hand_over(carry: tuple[End, ...], audience: Audience = CONSUMERS) -> list[Phase]:
    return [Phase(Step.DELIVER, carry, audience=audience), Phase(Step.CONFIRM, carry, audience=audience)]


def _prepare(carry: tuple[End, ...], audience: Audience = CONSUMERS) -> Phase:
    return Phase(Step.PREPARE, carry, audience=audience)


def _retirement(shape: Shape, refusal: Iterable[Phase]) -> list[Phase]:
    """Everything between the moved labels and the dead old value. A leak waits for neither grace nor evidence."""
    calm = shape.purpose is not Purpose.EMERGENCY
    return [
        *([Phase(Step.GRACE, C)] if calm else []),
        Phase(Step.RELEASE, C),
        *([Phase(Step.EVIDENCE, C)] if calm else []),
        *refusal,
        Phase(Step.PROVE, C),
    ]


def _overlap(shape: Shape) -> list[Phase]:
    if shape.via:
        accept = [_prepare(P_THEN_C, CHECKER), _prepare(P), *_hand_over(P_THEN_C, CHECKER)]
        refusal = [_prepare(P, CHECKER), *_hand_over(P, CHECKER)]
    else:
        accept = [_prepare(P), Phase(Step.SET, P_THEN_C)]
        refusal = [Phase(Step.RETIRE, P, refuse=C)]
    return [
        Phase(Step.OBSERVE),
        Phase(Step.CREATE, P),
        *accept,
        Phase(Step.TEST, P),
        *_hand_over(P),
        Phase(Step.FINISH, P),
        *_retirement(shape, refusal),
    ]


def _minted(shape: Shape) -> list[Phase]:
    mint = [] if shape.values_exist else [Phase(Step.MINT, P)]
    return [
        Phase(Step.OBSERVE),
        Phase(Step.CREATE, P),
        *mint,
        Phase(Step.TEST, P),
        _prepare(P),
        *_hand_over(P),
        Phase(Step.FINISH, P),
        *_retirement(shape, [Phase(Step.RETIRE, P, refuse=C)]),
    ]


def _single(shape: Shape) -> list[Phase]:
    """The barrier keeps the gap short: everything that can be ready is ready before the set."""
    if shape.via:
        prepared, accept = [_prepare(P, CHECKER), _prepare(P)], _hand_over(P, CHECKER)
    else:
        prepared, accept = [_prepare(P)], [Phase(Step.SET, P, refuse=C)]
    return [
        Phase(Step.OBSERVE),
        Phase(Step.CREATE, P),
        *prepared,
        Phase(Step.BARRIER, P),
        *accept,
        Phase(Step.TEST, P),
        *_hand_over(P),
        Phase(Step.FINISH, P),
        Phase(Step.RELEASE, C),
    ]


def _previous_keys(shape: Shape) -> list[Phase]:
    """New key into the fallback list everywhere, then promoted. C stays in the list, unless its data may be lost.

    The release is about the objects that have C first: without it a way back to a list without P stays open.
    """
    rounds = [(P,)] if shape.first else [(C_THEN_P,), (P_THEN_C,)]
    deliveries = [phase for (carry,) in rounds for phase in (_prepare(carry), *_hand_over(carry))]
    dropped = [_prepare(P), *_hand_over(P)] if shape.drops_old and not shape.first else []
    return [
        Phase(Step.OBSERVE),
        Phase(Step.CREATE, P),
        *deliveries,
        Phase(Step.FINISH, P),
        *dropped,
        Phase(Step.RELEASE, C),
    ]


def _manual(shape: Shape) -> list[Phase]:
    """CREATE waits for a person's input; PROVE waits until a person has revoked C."""
    return [
        Phase(Step.OBSERVE),
        Phase(Step.CREATE, P),
        Phase(Step.TEST, P),
        _prepare(P),
        *_hand_over(P),
        Phase(Step.FINISH, P),
        *_retirement(shape, []),
    ]


def _nobody_checks(_shape: Shape) -> list[Phase]:
    return [
        Phase(Step.OBSERVE),
        Phase(Step.CREATE, P),
        _prepare(P),
        *_hand_over(P),
        Phase(Step.FINISH, P),
        Phase(Step.RELEASE, C),
    ]


def _rehearsal() -> list[Phase]:
    """Sets and tests the idle user or second value, takes it away again, touches no consumer."""
    return [
        Phase(Step.OBSERVE),
        Phase(Step.CREATE, P),
        Phase(Step.SET, P_THEN_C),
        Phase(Step.TEST, P),
        Phase(Step.SET, C, refuse=P),
        Phase(Step.PROVE, P),
    ]


_FORWARD = {
    Strategy.OVERLAP: _overlap,
    Strategy.ALTERNATING_USERS: _overlap,
    Strategy.MINTED: _minted,
    Strategy.SINGLE: _single,
    Strategy.PREVIOUS_KEYS: _previous_keys,
    Strategy.MANUAL: _manual,
    None: _nobody_checks,
}

REHEARSABLE = frozenset({Strategy.OVERLAP, Strategy.ALTERNATING_USERS})
ONE_AT_A_TIME = frozenset({Strategy.SINGLE})
KEEPS_OLD = frozenset({Strategy.PREVIOUS_KEYS})
SETTABLE_BESIDE = frozenset({Strategy.OVERLAP, Strategy.ALTERNATING_USERS})
BOTH_ACCEPTED = SETTABLE_BESIDE | {Strategy.MINTED, Strategy.MANUAL}
BY_HAND = frozenset({Strategy.MANUAL})


def one_at_a_time(policy: RotationPolicy) -> bool:
    """Is there a gap in which only one of the two values works?"""
    return shape_of(policy, first=False, purpose=Purpose.ROTATE).strategy in ONE_AT_A_TIME


def by_hand(policy: RotationPolicy) -> bool:
    """Does only a person make its values, and revoke them?"""
    return shape_of(policy, first=False, purpose=Purpose.ROTATE).strategy in BY_HAND


def keeps_old(policy: RotationPolicy) -> bool:
    """Do consumers need older versions beside the primary one?"""
    return shape_of(policy, first=False, purpose=Purpose.ROTATE).strategy in KEEPS_OLD


def dies_for_good(policy: RotationPolicy) -> bool:
    """Can nothing here set a value again that the target refuses?"""
    return shape_of(policy, first=False, purpose=Purpose.ROTATE).strategy not in SET_AGAIN


ROLLS_BACK_AFTER_RETIRE = frozenset(Strategy) - {Strategy.MINTED} | {None}
SET_AGAIN = ROLLS_BACK_AFTER_RETIRE - BY_HAND


def _without_c(shape: Shape, phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """A first rotation has no C: nothing to keep, nothing to retire."""
    if not shape.first:
        return tuple(phases)
    about_c = {Step.GRACE, Step.RELEASE, Step.EVIDENCE, Step.RETIRE}
    kept: list[Phase] = []
    for phase in phases:
        carry = tuple(end for end in phase.carry if end is End.TO)
        refuse = tuple(end for end in phase.refuse if end is End.TO)
        if phase.step in about_c or (phase.step is Step.PROVE and not carry):
            continue
        later_list = phase.audience is CHECKER and any(p.step is Step.FINISH for p in kept)
        if not later_list:
            kept.append(Phase(phase.step, carry, refuse, phase.audience))
    return tuple(kept)


def way_back(rotation: Rotation, shape: Shape) -> tuple[Phase, ...] | None:
    """The phases that undo what may have been done, before FINISH. None: there is no way back.

    `single` puts the target back first, because its consumers can log in with nothing until then; everything else
    puts consumers back first, because the target still accepts both: which is looked at before.
    """
    begun = rotation.phases[: rotation.reached + 1]
    one_at_a_time = shape.strategy in ONE_AT_A_TIME
    copied = shape.values_exist and not one_at_a_time and any(p.step is Step.CREATE for p in begun)
    doubtful = rotation.phases if copied else begun  # the retirement of a copied value may have been cancelled
    at_target = any(p.step in {Step.SET, Step.MINT, Step.RETIRE} for p in doubtful)
    at_checker = any(p.step is Step.DELIVER and p.audience is CHECKER for p in doubtful)
    handed_over = [p for p in begun if p.step is Step.DELIVER and p.audience is CONSUMERS]
    if shape.first and one_at_a_time and (at_target or at_checker):
        return None
    c = () if shape.first else C
    target = [Phase(Step.SET, c, refuse=P)] if at_target else []
    if at_checker:
        target = [_prepare(c, CHECKER), *_hand_over(c, CHECKER)]
    consumers = _hand_over(_carry_back(shape, handed_over)) if handed_over else []
    # A person's new value may have come because C was dead already: going back to it is not said to help then.
    given = shape.strategy in BY_HAND and rotation.options.replace and rotation.to_version is not None
    if (consumers or given) and not shape.first and shape.strategy in BOTH_ACCEPTED:
        consumers.insert(0, Phase(Step.OBSERVE, C))
    tail = [Phase(Step.RELEASE, P)] if any(p.step is Step.PREPARE for p in begun) else []
    return tuple([*target, *consumers, *tail] if one_at_a_time else [*consumers, *target, *tail])


def accepting_again(shape: Shape) -> tuple[Phase, ...] | None:
    """What makes the target accept C beside P again, before consumers are handed C. None: only a person can.

    A leaked C that the target refuses is what the emergency is for.
    """
    if shape.strategy not in SETTABLE_BESIDE or shape.purpose is Purpose.EMERGENCY:
        return None
    if shape.via:
        return (_prepare(C_THEN_P, CHECKER), *_hand_over(C_THEN_P, CHECKER))
    return (Phase(Step.SET, C_THEN_P),)


def _carry_back(shape: Shape, handed_over: Sequence[Phase]) -> tuple[End, ...]:
    if shape.first:
        return ()
    promoted = shape.strategy in KEEPS_OLD and len(handed_over) > 1
    return C_THEN_P if promoted else C


def carried(rotation: Rotation, audience: Audience) -> tuple[End, ...] | None:
    """What the slots of one audience shall carry at this point of the rotation. None: what they carried before it.

    A delivery counts once it was begun: what a neighbour handed over before that, no way back would take back again.
    """
    forward_limit = min(rotation.at, rotation.reached) if rotation.direction is Direction.FORWARD else rotation.reached
    tracks = [(rotation.phases, forward_limit)]
    if rotation.direction is Direction.BACK:
        tracks.insert(0, (rotation.back, rotation.at))
    for track, limit in tracks:
        for phase in reversed(track[: limit + 1]):
            if phase.step is Step.DELIVER and phase.audience is audience:
                return phase.carry
    return None
