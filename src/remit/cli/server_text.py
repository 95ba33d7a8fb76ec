"""MCP servers and their tools as text: what a person must see before accepting a definition.

What a server says of its tools is shown line by line, marked as its own, and nothing in it can colour,
move or hide anything; why it looks odd stands above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remit.canonical import digest_of, short
from remit.cli.output import block, clock
from remit.visible import visible

Json = Mapping[str, Any]

SET_DOMAIN = "remit.accepted-together/1"


def set_digest(tools: Sequence[Json]) -> str:
    """The digest over several definitions that are accepted together."""
    return digest_of(SET_DOMAIN, sorted([tool["name"], tool["digest"]] for tool in tools))


def difference_text(seen: Json) -> str:
    """One tool, why it is not offered, what looks odd, and what differs."""
    return "\n".join(_difference(seen))


def _difference(seen: Json) -> Iterator[str]:
    tool = seen["tool"]
    why = f": {tool['why']}" if tool["why"] else ""
    yield visible(f"{tool['server']} {tool['name']}  {tool['state']}{why}")
    yield visible(f"  agents call it:  {tool['offered_as']}")
    yield f"  accepted:        {tool['accepted'] or 'nothing yet'}"
    if tool["digest"] is not None and tool["digest"] != tool["accepted"]:
        yield f"  seen last:       {tool['digest']}"
    if tool["suspicions"]:
        yield "  look twice at:"
        for sign in tool["suspicions"]:
            yield visible(f"    {sign['sign']} in {sign['place'] or 'the tool'}: {sign['excerpt']}")
    for part in seen["differences"]:
        if tool["accepted"] is None:
            yield visible(f"  {part['part']}, as the server says:")
        yield block(part["diff"])
    if not seen["differences"] and tool["digest"] is not None:
        yield "  nothing in its definition differs from what was accepted"
    if tool["waits"]:
        yield f"To accept it: remit tools pin {_named(tool)} --digest {tool['digest']}"


def _named(tool: Json) -> str:
    return visible(f"{tool['server']} {tool['name']}")


def together_text(server: str, waiting: Sequence[Json]) -> str:
    """How everything that waits of one server is accepted at once."""
    return (
        f"To accept all {len(waiting)} of {visible(server)}: "
        f"remit tools pin {visible(server)} --all --digest {set_digest(waiting)}"
    )


def server_rows(servers: Sequence[Json]) -> list[dict[str, Any]]:
    """Each server with the numbers of its tools."""
    return [
        {
            **{name: value for name, value in server.items() if name != "tools"},
            "tools": len(server["tools"]),
            "offered": sum(each["state"] == "offered" for each in server["tools"]),
            "waiting": sum(each["waits"] for each in server["tools"]),
        }
        for server in servers
    ]


SERVER_COLUMNS = {
    "NAME": lambda row: str(row["name"]),
    "HEALTH": lambda row: str(row["health"]),
    "CALLS": lambda row: str(row["calls"] or "-"),
    "TRANSPORT": lambda row: str(row["transport"]),
    "REVISION": lambda row: str(row["revision"] or "-"),
    "SESSION": lambda row: str(row["session"]),
    "MODE": lambda row: str(row["mode"]),
    "OFFERED": lambda row: f"{row['offered']} of {row['tools']}",
    "WAITING": lambda row: str(row["waiting"]),
    "ANSWERED": lambda row: clock(row["seen_ms"]),
}


def notes_of(rows: Sequence[Json]) -> list[str]:
    """What a table has no room for: why a server is not well, and what to do next."""
    said = [visible(f"{row['name']}: {row['why']}") for row in rows if row["why"]]
    said += [
        visible(f"{row['name']}: calls fail ({row['fault'] or 'no code'})")
        + ("; none is let through for a while" if row["calls"] == "down" else "")
        for row in rows
        if row["calls"] in ("failing", "down")
    ]
    shadow = [visible(str(row["name"])) for row in rows if row["mode"] == "shadow"]
    if shadow:
        said.append(f"not enforced, mode shadow: {', '.join(shadow)}")
    if any(row["waiting"] for row in rows):
        said.append("tools wait for a decision: remit tools diff")
    return said


def held_rows(servers: Sequence[Json]) -> list[dict[str, Any]]:
    """The tools of servers that are not offered, as rows beside those that are."""
    return [
        {
            "name": tool["offered_as"],
            "state": tool["state"],
            "server": tool["server"],
            "tool": tool["name"],
            "why": tool["why"],
            "definition": tool["digest"],
            "accepted": tool["accepted"],
        }
        for server in servers
        for tool in server["tools"]
        if tool["state"] != "offered"
    ]


def offered_rows(tools: Sequence[Json]) -> list[dict[str, Any]]:
    """The tools of the catalog, each with its state and whose it is."""
    rows = []
    for tool in tools:
        upstream = tool.get("upstream") or {}
        rows.append({**tool, "state": "offered", "server": upstream.get("server")})
    return rows


TOOL_COLUMNS = {
    "NAME": lambda row: str(row["name"]),
    "STATE": lambda row: str(row["state"]),
    "SERVER": lambda row: str(row["server"] or "-"),
    "EFFECT": lambda row: str(row.get("effect", "-")),
    "RISK": lambda row: str(row.get("risk", "-")),
    "ENVIRONMENTS": lambda row: ", ".join(row.get("environment", {}).get("names", ())) or "-",
    "PREVIEW": lambda row: "yes" if row.get("preview") else "no",
    "DIGEST": lambda row: short(row.get("digest") or "-"),
}
