"""A secret stays one, and a row of a code table says what it says."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from collections.abc import Callable

import msgspec
import orjson
import pytest

from harvester.model import MASK, App, CodeRule, Dataset, Kind, Reply, Secret, Signed

WORD = "hunter2-made-up"


@pytest.mark.parametrize(
    "rendered",
    [repr, str, format, ascii, "{}".format, "{!r}".format, "{!s:>40}".format, lambda secret: f"{secret:^40}",
     lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - one of the renderings
     lambda secret: f"{[secret]} {(secret,)} {({'a': secret})}",
     lambda secret: str(Exception(secret)), lambda secret: repr(Exception(secret))],
)  # fmt: skip
def test_every_rendering_is_a_mask(rendered: Callable[[object], str]) -> None:
    """Whoever prints it, on its own or inside something else."""
    text = rendered(Secret(WORD))
    assert WORD not in text
    assert MASK in text


def test_the_mask_is_as_long_for_every_secret() -> None:
    """Its length says nothing of what it stands for."""
    assert str(Secret("")) == str(Secret("x" * 99))


def test_values_that_hold_one_mask_it() -> None:
    """The app, and the dataset that refers to it."""
    app = App(name="a", platform="p", url="u", id="i", secret=Secret(WORD), rate_limit=1)
    assert WORD not in repr(app) + repr(Dataset(name="d", app=app))
    assert app.secret.reveal() == WORD


def test_a_traceback_with_locals_masks_it() -> None:
    """As crash reporters print them."""

    def fail(secret: Secret) -> None:
        raise ValueError(f"cannot use {secret!r}")

    try:
        fail(Secret(WORD))
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        assert "secret = Secret(" in shown
        # The line of this test that calls `fail` is part of the traceback, the word itself is not.
        assert WORD not in shown


@pytest.mark.parametrize(
    "leave",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        orjson.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        msgspec.to_builtins,
        vars,
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_it_cannot_be_taken_out_of_the_process(leave: Callable[[object], object], *, wrapped: bool) -> None:
    """Neither pickled, copied nor encoded, on its own or inside a structure."""
    secret = Secret(WORD)
    with pytest.raises(TypeError):
        leave({"secret": [secret]} if wrapped and leave not in {copy.copy, vars} else secret)


def test_a_code_rule_passes_on_all_it_says() -> None:
    """Nothing is lost between the table and the verdict."""
    rule = CodeRule(kind=Kind.AGAIN, meaning="ours", hint="do", concerns="app", about="address", tries=3)
    got = rule.verdict("7", "theirs")
    assert (got.code, got.text) == ("7", "theirs")
    for field in ("kind", "meaning", "hint", "concerns", "about", "tries"):
        assert getattr(got, field) == getattr(rule, field)
    assert (got.then, got.retry_after, got.quarantine) == ("open", "", False)


@pytest.mark.parametrize("value", [Reply(200, {}, b""), Signed("u", {}, b"")])
def test_values_are_frozen(value: object) -> None:
    """What passes between the parts is not changed on the way."""
    with pytest.raises(AttributeError):
        value.body = b"x"  # type: ignore[attr-defined]  # the point of the test
