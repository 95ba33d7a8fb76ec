"""What the log's entry of an outcome says of a run, in lines that a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from remit.cli.output import clock
from remit.visible import visible

RECORDED = ("runner", "traffic", "loans", "destruction")
"""The parts of the entry that are shown."""

Json = Mapping[str, Any]


def recorded(entry: Json) -> Iterator[str]:
    """Lines like those of `remit runs show`, of what is there."""
    parts = {"runner": _runner, "traffic": _traffic, "destruction": _destruction}
    for name, lines in parts.items():
        if entry.get(name):
            yield from map(visible, lines(entry[name]))
    for loan in entry.get("loans") or ():
        yield visible(_loan(loan))


def _row(name: str, text: str) -> str:
    return f"{name + ':':<18}{text}"


def _runner(runner: Json) -> Iterator[str]:
    shown = f"{runner.get('name')} {runner.get('version')}, tier {runner.get('tier')}"
    slot = f", {runner['slot']}" if runner.get("slot") else ""
    yield _row("ran in", f"{runner.get('profile')} ({shown}){slot}")
    if runner.get("server"):
        yield _row("server", str(runner["server"]) + _spoken(runner))


def _spoken(runner: Json) -> str:
    facts = [f"MCP {runner['revision']}"] if runner.get("revision") else []
    if runner.get("session"):
        age_s = int(runner.get("session_age_ms", 0)) / 1000
        facts.append(f"in session {runner['session']}, {age_s:.1f} s old")
    return f" ({', '.join(facts)})" if facts else ""


def _traffic(traffic: Json) -> Iterator[str]:
    for each in traffic.get("connections") or ():
        facts = [f"{each.get('sent', 0)} B sent", f"{each.get('received', 0)} B received"]
        if each.get("requests"):
            facts.insert(0, f"requests {each['requests']}")
        if each.get("injected"):
            facts.append("injected " + ", ".join(each["injected"]))
        if each.get("echoed"):
            facts.append("sent a secret back, which was blanked")
        where = f"{each.get('host')}:{each.get('port')}"
        if each.get("refused"):
            yield _row("refused", f"{where}, {each['refused']}")
        else:
            yield _row("reached", f"{where} ({each.get('kind')}), {', '.join(facts)}")
    if traffic.get("more"):
        yield _row("reached", f"{traffic['more']} connections more, not told one by one")


def _loan(loan: Json) -> str:
    way = f"{loan.get('ref')} from {loan.get('broker')}, by {loan.get('delivered')}"
    end = "revoked" if loan.get("revoked") else "not revoked"
    if loan.get("expires_ms") and not loan.get("revoked"):
        end += f", ends at {clock(loan['expires_ms'])}"
    note = f": {loan['note']}" if loan.get("note") else ""
    return _row("credential", f"{way}, {end}{note}")


def _destruction(seen: Json) -> Iterator[str]:
    session = seen.get("session")
    if session:
        why = f"is ended: {session['ended']}" if session.get("ended") else "goes on"
        yield _row("destroyed", f"nothing for this call alone: session {session.get('id')} {why}")
        return
    left = {
        "processes": seen.get("processes_left"),
        "mounts": seen.get("mounts_left"),
        "credentials": seen.get("credentials_left"),
        "control group": int(not seen.get("cgroup_removed")),
        "directory": int(not seen.get("directory_removed")),
        "way out": int(not seen.get("proxy_closed")),
    }
    found = [f"{name} {count}" for name, count in left.items() if count]
    whole = (
        "nothing is left" if seen.get("complete") else "LEFT: " + (", ".join(found) or "unknown")
    )
    yield _row("destroyed", f"{whole}, after {seen.get('took_us', 0) / 1000:.1f} ms")
