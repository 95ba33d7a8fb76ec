"""Threat T-01: a gateway whose account or files are not its own says so wherever it is trusted."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from remit import app
from remit.account import readable_by_others, why_shared, writable_by_others
from remit.clock import SystemClock
from remit.config import Settings, load
from remit.doors.wire import RECEIPT, result_of
from remit.errors import Unverified
from remit.ledger.checkpoint import VerifierKey
from remit.ledger.receipt import open_receipt
from remit.ledger.signer import FileSigner
from remit.ledger.sqlite import SqliteLedger
from remit.model import Frozen, Reply
from tests.runners.fixtures import reachable

__all__ = ["reachable"]

pytestmark = pytest.mark.threat("T-01")


def account(name: str, uid: int, shell: str) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", "/", shell))


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/sbin/nologin", "/bin/false"])
def test_system_account_that_cannot_log_in_counts_as_the_gateways_own(shell: str) -> None:
    assert why_shared(990, account("remit", 990, shell)) is None


@pytest.mark.parametrize(
    ("uid", "entry", "why"),
    [
        (1000, account("dana", 1000, "/bin/bash"), "people log in"),
        (990, account("remit", 990, ""), "people log in"),
        (990, account("remit", 990, "/opt/notnologin"), "people log in"),
        (65534, account("nobody", 65534, "/usr/sbin/nologin"), "other programs"),
        (0, account("root", 0, "/usr/sbin/nologin"), "root"),
        (12345, None, "no account"),
    ],
)
def test_account_that_others_may_be_is_named_with_the_reason(
    uid: int, entry: pwd.struct_passwd | None, why: str
) -> None:
    assert why in str(why_shared(uid, entry))


def test_file_counts_as_readable_only_where_others_can_reach_it(reachable: Path) -> None:
    key = reachable / "key"
    key.write_text("x")
    for mode, readable, writable in ((0o600, 0, 0), (0o640, 1, 0), (0o604, 1, 0), (0o622, 0, 1)):
        key.chmod(mode)
        assert len(readable_by_others([key])) == readable
        assert len(writable_by_others([key])) == writable
    key.chmod(0o644)
    reachable.chmod(0o700)
    assert readable_by_others([key]) == ()


@pytest.fixture
def settings(home: Path) -> Settings:
    return load(home / "remit.yaml", environ={})


def test_gateway_of_an_account_of_its_own_is_not_called_unsafe(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "same_user", lambda: None)
    assert app.unsafe(settings) == ()


def test_operators_token_that_another_account_owns_makes_the_gateway_unsafe(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "same_user", lambda: None)
    if os.geteuid() == 0:
        os.chown(settings.operator_token_file, 4_000_000, -1)
    else:
        monkeypatch.setattr("remit.account.os.geteuid", lambda: 4_000_000)
    assert app.unsafe(settings) == ("unsafe_same_user",)


def test_unsafe_is_named_once_where_it_is_acknowledged(settings: Settings) -> None:
    path = settings.file
    path.write_text(path.read_text() + "\n")
    acknowledged = load(path, environ={"REMIT_IDENTITY__UNSAFE_SAME_USER": "true"})
    assert app.unsafe(acknowledged) == ("unsafe_same_user",)


@pytest.mark.anyio
async def test_receipt_says_what_was_unsafe_and_still_verifies(settings: Settings) -> None:
    signer = FileSigner.load(settings.key_file)
    ledger = SqliteLedger.open(
        settings.ledger_path, signer=signer, gateway="gw", clock=SystemClock()
    )
    try:
        await ledger.freeze(True, operator="olga", reason="test", now_ms=0)
        reply = Reply(
            content=Frozen(b"[]"),
            structured=None,
            is_error=False,
            decision={"code": "ok"},
            receipt=await ledger.receipt(0),
            unsafe=("unsafe_same_user",),
        )
    finally:
        await ledger.aclose()
    given = result_of(reply, "2026-07-28")["_meta"][RECEIPT]
    key = VerifierKey.parse(signer.verifier_key)
    assert given["unsafe"] == ["unsafe_same_user"]
    assert open_receipt(given, key).index == 0
    with pytest.raises(Unverified):
        open_receipt(given | {"unsafe": "no list"}, key)
