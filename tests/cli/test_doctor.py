"""`remit doctor` on this machine, and on machines that really lack something."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from remit.cli.doctor import installation, machine
from remit.cli.doctor.command import enable, ending
from remit.cli.output import Exit
from remit.runners.basedigest import digest
from remit.runners.check import Check
from tests.cli.conftest import Remit
from tests.runners.fixtures import reachable

pytestmark = pytest.mark.slow

__all__ = ["reachable"]

REMIT = [sys.executable, "-m", "remit"]

NO_USER_NAMESPACES = "echo 0 >/proc/sys/user/max_user_namespaces"
NO_CGROUPS = "mount -t tmpfs -o ro none /sys/fs/cgroup"


def lines(out: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(out)["checks"]}


def on_a_machine_where(broken: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Remit in a namespace of its own in which something of the kernel is taken away."""
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount",
         "sh", "-c", f'{broken} && exec "$@"', "sh", *REMIT, *words],
        cwd=cwd, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


# ------------------------------------------------------------------------- what is lacking: for real


@pytest.mark.needs("userns")
def test_doctor_without_user_namespaces_prints_the_one_command_and_ends_3(tmp_path: Path) -> None:
    ended = on_a_machine_where(NO_USER_NAMESPACES, "doctor", cwd=tmp_path)
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout.splitlines()[-1] == (
        "This enables it: sudo sysctl -w user.max_user_namespaces=15000"
    )
    assert "fail    user namespaces" in ended.stdout
    assert ended.stderr == ""


@pytest.mark.slow
@pytest.mark.needs("userns", "git")
def test_demo_without_user_namespaces_shows_the_path_up_to_the_runner_and_ends_3(
    tmp_path: Path,
) -> None:
    ended = on_a_machine_where(NO_USER_NAMESPACES, "demo", cwd=tmp_path)
    assert ended.returncode == 3, ended.stderr
    assert "it is policy that refused" in ended.stdout
    assert "it is refused, not run without one" in ended.stdout
    assert "This enables it: sudo sysctl -w user.max_user_namespaces=15000" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "NOT SO" not in ended.stdout


@pytest.mark.needs("userns", "bwrap")
def test_doctor_without_cgroups_names_what_delegates_them_and_ends_3(tmp_path: Path) -> None:
    ended = on_a_machine_where(NO_CGROUPS, "doctor", "-o", "json", cwd=tmp_path)
    found = lines(ended.stdout)
    assert ended.returncode == 3, ended.stderr
    assert found["user namespaces"]["status"] == "ok"
    assert found["cgroups"]["status"] == "fail"
    assert json.loads(ended.stdout)["enable"] == found["cgroups"]["fix"] is not None


@pytest.mark.slow
@pytest.mark.needs("userns", "bwrap", "git")
def test_demo_without_cgroups_refuses_to_run_degraded_and_ends_3(tmp_path: Path) -> None:
    ended = on_a_machine_where(NO_CGROUPS, "demo", cwd=tmp_path)
    assert ended.returncode == 3, ended.stderr
    assert "it is refused, not run without one" in ended.stdout
    assert "This enables it:" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.needs("userns", "bwrap")
def test_limits_by_rlimits_alone_are_a_warning_only_where_they_were_chosen(home: Path) -> None:
    path = home / "remit.yaml"
    chosen = path.read_text() + "\nrunners:\n  sandbox:\n    unsafe_degraded: true\n"
    path.write_text(chosen.replace("runners: {}\n", ""))
    ended = on_a_machine_where(NO_CGROUPS, "doctor", "-o", "json", cwd=home)
    found = lines(ended.stdout)
    assert (ended.returncode, found["sandbox"]["status"]) == (0, "warn"), ended.stdout


def test_bubblewrap_that_is_not_there_is_named_with_its_package(home: Path, remit: Remit) -> None:
    path = home / "remit.yaml"
    path.write_text(path.read_text() + "\nrunners:\n  sandbox:\n    bwrap: /nonexistent/bwrap\n")
    ended = remit("doctor")
    assert ended.code == 3
    assert "fail    bubblewrap" in ended.out
    assert "bubblewrap" in ended.out.splitlines()[-1]


# ------------------------------------------------------------------------------- runner profiles


def _with_profiles(home: Path, profiles: str) -> None:
    path = home / "remit.yaml"
    path.write_text(path.read_text().replace("runners: {}\n", "") + f"\nrunners:\n{profiles}")


@pytest.mark.threat("T-16")
@pytest.mark.needs("userns", "bwrap", "cgroup", "runsc")
def test_each_profile_has_a_block_with_its_own_escape_checks(home: Path, remit: Remit) -> None:
    _with_profiles(
        home, "  profiles:\n    strong: {runner: gvisor}\n    small: {limits: {pids: 50}}\n"
    )
    ended = remit("doctor", "-o", "json")
    found = lines(ended.out)
    assert ended.code == 0, ended.out
    assert found["profile strong"]["found"].startswith("gvisor, ")
    assert found["profile small"]["found"].startswith("sandbox, ")
    for name in ("sandbox", "small", "strong"):
        assert found[f"profile {name}"]["status"] == "ok"
        assert found[f"{name}: host_files"]["status"] == "ok"
        assert found[f"{name}: leaves_nothing"]["status"] == "ok"
    assert "small: kernel_doors" in found
    assert "strong: kernel_doors" not in found


@pytest.mark.needs("userns", "bwrap", "cgroup")
def test_a_profile_whose_promise_cannot_be_kept_fails_alone(home: Path, remit: Remit) -> None:
    _with_profiles(
        home, "  gvisor: {runsc: /nonexistent/runsc}\n  profiles: {strong: {runner: gvisor}}\n"
    )
    ended = remit("doctor", "-o", "json")
    found = lines(ended.out)
    assert ended.code == 1, ended.out
    assert found["gvisor"]["status"] == found["profile strong"]["status"] == "fail"
    assert "runsc" in found["profile strong"]["found"]
    assert found["profile strong"]["fix"]
    assert found["profile sandbox"]["status"] == "ok"


def test_the_digest_of_a_base_is_what_the_configuration_wants(tmp_path: Path, remit: Remit) -> None:
    base = tmp_path / "base"
    (base / "bin").mkdir(parents=True)
    (base / "bin/tool").write_text("tool")
    ended = remit("doctor", "--digest", base)
    assert (ended.code, ended.out) == (0, digest(str(base)) + "\n")
    assert (
        json.loads(remit("doctor", "-o", "json", "--digest", base).out)["digest"]
        == ended.out.strip()
    )
    (base / "bin/tool").write_text("other")
    assert remit("doctor", "--digest", base).out != ended.out
    assert remit("doctor", "--digest", "/dev/null").code == 2
    assert remit("doctor", "--digest", tmp_path / "none").code == 2


# ----------------------------------------------------------------------------- this machine, as it is


@pytest.mark.needs("userns", "bwrap", "cgroup")
def test_doctor_finds_a_new_installation_well_and_leaves_nothing(home: Path, remit: Remit) -> None:
    before = sorted(home.rglob("*"))
    ended = remit("doctor", "-o", "json")
    document = json.loads(ended.out)
    assert ended.code == 0, ended.out
    assert (document["ok"], document["enable"]) == (True, None)
    assert {check["status"] for check in document["checks"]} <= {"ok", "warn"}
    found = [name for name in lines(ended.out) if not name.startswith("sandbox:")]
    assert found == [
        "python", "configuration", "file modes", "rules", "same user", "direct servers",
        "policy engine",
        "bubblewrap", "user namespaces", "cgroups", "sandbox", "user of runs", "disk",
        "user of processes", "gvisor", "profile sandbox", "fsync", "clock",
    ]  # fmt: skip
    assert sorted(home.rglob("*")) == before


@pytest.mark.threat("T-01")
@pytest.mark.parametrize("name", ["keys/operator.token", "keys/log.key", "."])
def test_key_or_data_open_to_others_fails_with_the_command_that_closes_it(
    home: Path, remit: Remit, name: str
) -> None:
    path = home / ".remit" / name
    path.chmod(path.stat().st_mode | 0o044)
    found = lines(remit("doctor", "-o", "json").out)["file modes"]
    assert found["status"] == "fail"
    subprocess.run(["sh", "-c", found["fix"]], check=True)
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert lines(remit("doctor", "-o", "json").out)["file modes"]["status"] == "ok"


@pytest.mark.threat("T-01")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may give a directory away")
def test_secret_of_runs_that_everybody_may_read_fails_with_the_command_that_closes_it(
    home: Path, remit: Remit
) -> None:
    secret = home / "token"
    secret.write_text("x")
    secret.chmod(0o644)
    section = {"broker": "static", "secret": f"file:{secret}", "file": {"name": "t"}}
    path = home / "remit.yaml"
    path.write_text(
        path.read_text() + f"\nrunners: {json.dumps({'credentials': {'t': section}})}\n"
    )
    found = {each["name"]: each for each in json.loads(remit("doctor", "-o", "json").out)["checks"]}
    assert found["secrets of runs"]["status"] == "fail"
    assert found["secrets of runs"]["fix"] == f"chmod 0600 {secret}"
    secret.chmod(0o600)
    found = {each["name"]: each for each in json.loads(remit("doctor", "-o", "json").out)["checks"]}
    assert found["secrets of runs"]["status"] == "ok"


def test_doctor_of_another_account_sends_the_reader_to_the_right_one(
    home: Path, remit: Remit
) -> None:
    os.chown(home / ".remit", 4_000_000, -1)
    found = lines(remit("doctor", "-o", "json").out)["file modes"]
    assert found["status"] == "unknown"
    assert found["fix"] == f"sudo -u #4000000 remit --config {home}/remit.yaml doctor"


@pytest.mark.threat("T-01")
def test_policy_that_others_may_change_fails_with_the_command_that_closes_it(
    reachable: Path, remit: Remit
) -> None:
    assert remit("init", reachable / "home").code == 0
    config = reachable / "home" / "remit.yaml"
    settings = installation.configuration(config)[0]
    assert settings is not None
    assert [line.status for line in installation.files(settings)] == ["ok", "ok"]
    (reachable / "home" / "policy").chmod(0o777)
    config.chmod(0o666)
    _, rules = installation.files(settings)
    assert rules.status == "fail"
    subprocess.run(["sh", "-c", str(rules.fix)], check=True)
    assert installation.files(settings)[1].status == "ok"


@pytest.mark.threat("T-01")
def test_same_user_is_said_with_the_command_that_makes_an_account(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "same_user", lambda: "it runs as dana")
    found = installation.account(None)
    assert (found.status, "unsafe_same_user: it runs as dana" in found.found) == ("warn", True)
    assert str(found.fix).startswith("sudo useradd --system")
    assert "/usr/sbin/nologin" in str(found.fix)


def test_broken_configuration_fails_with_its_line(home: Path, remit: Remit) -> None:
    path = home / "remit.yaml"
    path.write_text(path.read_text().replace("listen:", "lisen:"))
    ended = remit("doctor", "-o", "json")
    found = lines(ended.out)["configuration"]
    assert found["status"] == "fail"
    assert "remit.yaml:7: unknown key server.lisen" in found["found"]
    assert "did you mean listen?" in found["fix"]


def test_configuration_named_but_missing_fails(home: Path, remit: Remit) -> None:
    ended = remit("--config", "other.yaml", "doctor", "-o", "json")
    assert lines(ended.out)["configuration"]["status"] == "fail"


def test_policy_that_does_not_load_fails_with_file_and_line(home: Path, remit: Remit) -> None:
    (home / "policy/remit.rego").write_text("package remit\n\nimport rego.v1\n\nallow if {\n")
    found = lines(remit("doctor", "-o", "json").out)["policy engine"]
    assert found["status"] == "fail"
    assert "remit.rego:" in found["found"]


# ------------------------------------------------------------------------------------- what lines say


def test_slow_flush_is_a_warning_and_a_directory_that_cannot_be_written_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "file_system", lambda _path: "ext4")
    monkeypatch.setattr(machine, "_append", lambda _where: [0.006] * 9)
    slow = machine.durable_write(tmp_path)
    assert (slow.status, "6.00 ms" in slow.found) == ("warn", True)
    monkeypatch.setattr(machine, "_append", lambda _where: [0.001] * 8 + [1.0])
    assert machine.durable_write(tmp_path).status == "ok"

    def refused(_where: Path) -> list[float]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine, "_append", refused)
    assert machine.durable_write(tmp_path / "not" / "there").status == "unknown"


@pytest.mark.parametrize(("kind", "status"), [("nfs4", "fail"), ("tmpfs", "warn")])
def test_file_system_that_keeps_nothing_safe_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, status: str
) -> None:
    monkeypatch.setattr(machine, "file_system", lambda _path: kind)
    assert machine.durable_write(tmp_path).status == status


@pytest.mark.parametrize(
    ("kept", "status"), [(True, "ok"), (False, "warn"), (None, "ok")]
)  # fmt: skip
def test_clock_that_nothing_keeps_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, kept: bool | None, status: str
) -> None:
    monkeypatch.setattr(machine, "kernel_keeps_time", lambda: kept)
    assert machine.clock().status == status


def test_clock_that_was_never_set_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.cli.doctor.machine.time.time", lambda: 1000.0)
    assert machine.clock().status == "fail"


@pytest.mark.parametrize(
    ("statuses", "exit_code"),
    [
        ({"clock": "warn", "sandbox": "ok"}, Exit.YES),
        ({"configuration": "fail", "sandbox": "ok"}, Exit.NO),
        ({"fsync": "unknown", "sandbox": "ok"}, Exit.UNKNOWN),
        ({"fsync": "unknown", "configuration": "fail"}, Exit.NO),
        ({"configuration": "fail", "sandbox": "fail"}, Exit.UNKNOWN),
        ({"sandbox": "unknown"}, Exit.UNKNOWN),
    ],
)
def test_exit_code_says_whether_tools_can_run_then_whether_all_is_well(
    statuses: dict[str, str], exit_code: Exit
) -> None:
    assert ending(_checks(statuses)) is exit_code


def test_command_that_enables_tools_is_that_of_the_first_cause() -> None:
    checks = _checks({"sandbox": "fail", "user namespaces": "fail", "clock": "fail"})
    assert enable(checks) == "fix user namespaces"
    assert enable(_checks({"sandbox": "warn", "clock": "fail"})) is None


def _checks(statuses: dict[str, str]) -> Sequence[Check]:
    return [Check(name=n, status=s, found="", fix=f"fix {n}") for n, s in statuses.items()]
