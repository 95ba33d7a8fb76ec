"""`remit serve` takes a changed policy at a signal, and says in its status what it did not take."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.cli.serving import Serving, configure, serving

pytestmark = pytest.mark.slow


def status(gateway: Serving, home: Path) -> Mapping[str, Any]:
    admin = gateway.until("serving")["admin"].removeprefix("http://")
    token = (home / ".remit/keys/operator.token").read_text().strip()
    connection = HTTPConnection(admin, timeout=9)
    connection.request("GET", "/v1/status", headers={"authorization": f"Bearer {token}"})
    found: Mapping[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


@pytest.mark.threat("T-10", "T-28")
def test_hangup_has_policy_looked_at_and_a_bad_one_does_not_end_the_gateway(home: Path) -> None:
    policy = home / "policy" / "remit.rego"
    good = policy.read_text()
    with serving(configure(home, policy={"reload_s": 0})) as gateway:
        before = status(gateway, home)
        assert before["policy_problem"] is None
        assert before["policy_layers"] == [
            {"name": "policy", "revision": before["policy_revision"]}
        ]
        policy.write_text(good + "\n# another revision\n")
        gateway.process.send_signal(signal.SIGHUP)
        switched = gateway.until("policy_switched")
        after = status(gateway, home)
        assert after["policy_revision"] == switched["revision"] != before["policy_revision"]
        policy.write_text("package remit\nnot rego")
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.until("policy_refused")["level"] == "error"
        told = status(gateway, home)
        assert told["policy_revision"] == after["policy_revision"]
        assert "remit.rego:2" in told["policy_problem"]
        assert gateway.process.poll() is None
        policy.write_text(good)
        gateway.process.send_signal(signal.SIGHUP)
        gateway.until("policy_switched", revision=before["policy_revision"])
        assert status(gateway, home)["policy_problem"] is None


def test_directory_is_looked_at_without_being_told(home: Path) -> None:
    with serving(configure(home, policy={"reload_s": 1})) as gateway:
        gateway.until("serving")
        with (home / "policy" / "remit.rego").open("a") as policy:
            policy.write("\n# another revision\n")
        gateway.until("policy_switched", layer="policy")
