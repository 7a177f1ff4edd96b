"""What a hook raises is an answer, and says no value."""

from __future__ import annotations

from datetime import timedelta

import pytest

from vaultkeeper.access.answer import Answered, refused, unknown
from vaultkeeper.engine.guard import Redactor, ask
from vaultkeeper.errors import BackendError, ConfigurationInvalid, NotAuthorised
from vaultkeeper.model.outcome import Login, No, NotYet, Refused, Unknown
from vaultkeeper.model.secret import SecretBytes

VALUE = "vk-canary-guard"


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (refused(No.PRIVILEGE, "may not"), Refused(No.PRIVILEGE, "may not")),
        (unknown("no reply"), Unknown(Login.UNREACHABLE, "no reply")),
        (Answered(Unknown(Login.THROTTLED, "locked"), "locked"), Unknown(Login.THROTTLED, "locked")),
        (
            Answered(NotYet("is moving", timedelta(seconds=3)), "is moving"),
            Unknown(Login.UNREACHABLE, "is moving", timedelta(seconds=3)),
        ),
        (BackendError("cannot"), Refused(No.UNSUPPORTED, "k.set: cannot")),
        (ConfigurationInvalid("bad address"), Refused(No.UNSUPPORTED, "k.set: bad address")),
        (NotAuthorised("no key"), Refused(No.PRIVILEGE, "k.set: no key")),
        (ValueError(VALUE), Unknown(Login.UNREACHABLE, "k.set: ValueError")),
        (unknown(f"it said {VALUE}"), Unknown(Login.UNREACHABLE, "it said …")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_knows_the_answer_is_believed_and_any_other_has_a_meaning(
    error: Exception, answer: Refused | Unknown
) -> None:
    redactor = Redactor()
    redactor.learn({"password": SecretBytes(VALUE.encode())})

    def hook() -> None:
        raise error

    assert ask(hook, what="k.set", deadline_s=10, redactor=redactor) == answer
