"""`/metrics`, `/healthz` and `/readyz` of a gateway that really serves, and really breaks."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from remit.errors import Code
from tests.cli.serving import Serving, configure, serving
from tests.doors.serving import call_body, modern_headers
from tests.telemetry.test_logs import ALLOW

pytestmark = pytest.mark.slow


class Gateway:
    """A serving gateway, its three open pages, and calls by its agent."""

    def __init__(self, process: Serving, home: Path) -> None:
        at = process.until("serving")
        self.process = process
        self.mcp = at["mcp"]
        self._admin = at["admin"].removeprefix("http://")
        self._token = (home / ".remit/keys/agent.token").read_text().strip()

    def get(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection(self._admin, timeout=20)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def ready(self) -> tuple[int, str]:
        return self.get("/readyz")

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        _, text = self.get("/metrics")
        return [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def call(self, *names: str, **arguments: Any) -> list[Any]:
        async def all_of_them() -> list[Any]:
            async with httpx2.AsyncClient(timeout=20) as client:
                return [
                    (
                        await client.post(
                            self.mcp,
                            headers=modern_headers("tools/call", name, key=self._token),
                            json=call_body(name, arguments),
                        )
                    ).json()
                    for name in names
                ]

        return anyio.run(all_of_them)

    def workers(self) -> list[int]:
        """The gateway's policy workers."""
        pid = self.process.process.pid
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        return [child for child in children if b"worker" in _command(child)]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.fixture
def gateway(home: Path) -> Iterator[Gateway]:
    with serving(configure(home)) as process:
        yield Gateway(process, home)


def eventually(check: Callable[[], bool], *, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


# --------------------------------------------------------------------------------------- metrics


@pytest.mark.threat("T-05")
@pytest.mark.threat("T-26")
def test_labels_are_bounded_whatever_names_are_called(gateway: Gateway) -> None:
    gateway.call("read_status", *[f"CALLERSWORD_{n}" for n in range(30)], environment="CALLERSWORD")
    samples = gateway.samples()
    assert "CALLERSWORD" not in gateway.get("/metrics")[1]
    values: dict[str, set[str]] = {}
    for _, labels, _ in samples:
        for name, value in labels.items():
            values.setdefault(name, set()).add(value)
    assert values["tool"] <= {"read_status", "restart_service", "apply_infra", "unknown"}
    assert values["code"] <= {code.value for code in Code} | {"ok"}
    assert set(values) <= {"tool", "verdict", "code", "stage", "le", "ending", "state"}


def test_counters_count_what_happened(gateway: Gateway) -> None:
    gateway.call("no_such_tool", "no_such_tool")
    gateway.call("restart_service", service="ledger-db", environment="production")
    found = {
        (name, tuple(sorted(labels.items()))): value for name, labels, value in gateway.samples()
    }
    assert found["remit_refusals_total", (("code", "unknown_tool"),)] == 2
    unknown = (("code", "unknown_tool"), ("tool", "unknown"), ("verdict", "error"))
    assert found["remit_calls_total", unknown] == 2
    assert found["remit_stage_seconds_count", (("stage", "authenticate"),)] == 3
    assert ("remit_runs_in_flight", ()) in found


@pytest.mark.threat("T-12")
def test_decision_that_policy_could_not_give_is_counted_as_a_fault(home: Path) -> None:
    (home / "policy/remit_test.rego").unlink()
    (home / "policy/remit.rego").write_text(ALLOW.replace('"allow"', '"perhaps"'))
    with serving(configure(home)) as process:
        gateway = Gateway(process, home)
        gateway.call("read_status", environment="staging")
        faults = [s for s in gateway.samples() if s[0] == "remit_policy_faults_total"]
    assert [(labels["code"], value) for name, labels, value in faults] == [
        ("policy_bad_decision", 1)
    ]


# ---------------------------------------------------------------------------------------- health


@pytest.mark.needs("bwrap", "userns", "cgroup")
def test_healthy_gateway_is_ready(gateway: Gateway) -> None:
    assert gateway.get("/healthz") == (200, '{"ok":true}')
    assert gateway.ready() == (200, '{"ready":true,"reasons":[]}')


def test_without_a_runner_it_is_alive_and_not_ready(home: Path) -> None:
    config = configure(home, runners={"sandbox": {"bwrap": "/nonexistent/bwrap"}})
    with serving(config) as process:
        gateway = Gateway(process, home)
        assert gateway.get("/healthz")[0] == 200
        status, why = gateway.ready()
        assert process.until("no_runner")["hint"]
    assert (status, "runner: does not hold here: bubblewrap" in why) == (503, True)


@pytest.mark.needs("bwrap", "userns", "cgroup")
@pytest.mark.threat("T-27")
def test_policy_workers_that_hang_make_it_not_ready_until_new_ones_answer(
    gateway: Gateway,
) -> None:
    workers = gateway.workers()
    assert len(workers) >= 2  # one that answers, one that stands by
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: "policy: " in gateway.ready()[1], within_s=15)
    assert gateway.ready()[0] == 503
    assert eventually(lambda: gateway.ready()[0] == 200, within_s=30)
    assert set(gateway.workers()).isdisjoint(workers)


@pytest.mark.needs("bwrap", "userns", "cgroup")
@pytest.mark.threat("T-27")
def test_policy_workers_that_were_killed_are_replaced_and_calls_go_on(gateway: Gateway) -> None:
    workers = gateway.workers()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: gateway.ready()[0] == 200, within_s=30)

    def answered() -> bool:
        (reply,) = gateway.call("restart_service", service="none", environment="production")
        machine = reply.get("result", {}).get("_meta", {}).get("dev.remit/decision", {})
        return bool(machine.get("code") == "policy_denied")

    assert eventually(answered, within_s=15)
    assert set(gateway.workers()).isdisjoint(workers)


@pytest.mark.needs("bwrap", "userns", "cgroup")
@pytest.mark.threat("T-14")
def test_ledger_that_cannot_be_written_makes_it_not_ready_and_nothing_runs(
    gateway: Gateway,
) -> None:
    assert gateway.ready()[0] == 200
    pid = gateway.process.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    (reply,) = gateway.call("read_status", environment="staging")
    assert "result" not in reply or reply["result"]["isError"] is True
    status, why = gateway.ready()
    assert (status, "ledger: " in why) == (503, True)
    assert gateway.get("/healthz")[0] == 200
