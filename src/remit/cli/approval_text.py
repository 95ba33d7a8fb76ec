"""An approval as text, in the order in which it should be read.

The consequence first, then where and for whom, then exactly what would run and what a preview
showed; the agent's own words last. Everything goes through `visible`: no value can colour, move
or hide anything, and every line of foreign text is marked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from remit.canonical import short
from remit.cli.output import away, block, clock
from remit.visible import FOLDED, fold, literal, quoted, visible

_MAX_LINE = 4_000
_MAX_CLAIM = 400


def approval_text(approval: Mapping[str, Any], now_ms: int) -> str:
    """What a person must see before agreeing; `approval` is as the admin API gives it."""
    shown = approval["shown"]
    parts = [
        visible(shown["consequence"] or f"Run {shown['tool']}. Its catalog entry says no more."),
        "",
        *_facts(approval, now_ms),
        "",
        *_what_runs(shown),
        *_preview(shown),
        *_difference(shown),
        *_policy(approval),
        *_claims(shown.get("claimed") or {}),
    ]
    if any(FOLDED in part for part in parts):
        parts += ["Parts of this are folded; all of it: -o json", ""]
    agree = f"approve {visible(approval['id'])} --plan-hash {short(approval['plan_hash'])}"
    return "\n".join([*parts, f"To agree: remit approvals {agree}"])


def _facts(approval: Mapping[str, Any], now_ms: int) -> Iterator[str]:
    shown, caller = approval["shown"], approval["caller"]
    yield _line("Tool", f"{shown['tool']}  ({shown['effect']}, risk {shown['risk']})")
    yield _line("Environment", shown["environment"] or "none named")
    yield _line("Asked by", f"{caller['subject']} ({caller['kind']}), tenant {caller['tenant']}")
    if caller["chain"]:
        chain = " → ".join(f"{a['subject']} ({a['kind']})" for a in caller["chain"])
        yield _line("On behalf of", chain)
    yield _line("State", approval["state"])
    yield _line(
        "Expires", f"{clock(approval['expires_ms'])}, {away(approval['expires_ms'], now_ms)}"
    )
    yield _line("Plan hash", f"{short(approval['plan_hash'])}  (whole: {approval['plan_hash']})")


def _what_runs(shown: Mapping[str, Any]) -> Iterator[str]:
    command, runner, limits = shown["command"], shown["runner"], shown["limits"]
    upstream = shown.get("upstream")
    if upstream is not None:
        yield _line("MCP server", upstream["server"] + _at(upstream["url"]))
        yield _line("asked for", f"{upstream['tool']}, as defined by {upstream['definition']}")
    if upstream is None or command["argv"]:
        yield "What would run, exactly:"
    for element in command["argv"]:
        yield "  " + literal(element, _MAX_LINE)
    for name, value in command["env"].items():
        yield f"  with {visible(name)}={literal(value, _MAX_LINE)}"
    if command["stdin"]:
        yield "  reading " + _json(command["stdin"])
    for path, content in command["files"].items():
        yield f"  file {visible(path)}, {len(_json(content)) - 2} characters"
    for mount in command["mounts"]:
        how = "may change" if mount["writable"] else "may read"
        yield f"  {how} {literal(mount['source'])}, seen as /mnt/{visible(mount['name'])}"
    yield _line("Arguments", _json(shown["arguments"]))
    if "answers" in shown:
        yield _line("Answers", _json(shown["answers"]) + "  (from the caller's side)")
    yield _line("Runner", f"{runner['profile']} ({runner['tier']})")
    yield _line("Limits", ", ".join(f"{name} {value}" for name, value in limits.items()))
    yield _line("Network", _json(shown["egress"]) if shown["egress"] else "none")
    yield _line("Credentials", _json(shown["credentials"]) if shown["credentials"] else "none")
    if shown.get("narrowed_from"):
        yield _line("Narrowed", f"by policy, from plan {short(shown['narrowed_from'])}")
    yield ""


def _at(url: str | None) -> str:
    return "" if url is None else f", at {url}, where Remit isolates nothing"


def _preview(shown: Mapping[str, Any]) -> Iterator[str]:
    preview = shown.get("preview")
    if preview is None:
        yield "No preview is possible for this tool."
        yield ""
        return
    about = f"{preview['bytes']} bytes, digest {short(preview['digest'])}"
    if preview["bytes"]:
        yield f"Preview ({about}):"
        yield block(preview["text"].rstrip("\n"))
    else:
        yield f"Preview: it printed nothing, so it shows no change ({about})."
    if preview["truncated"]:
        yield "  The preview is longer than what is shown here."
    yield ""


def _difference(shown: Mapping[str, Any]) -> Iterator[str]:
    if shown.get("difference"):
        yield f"Changed since approval {visible(str(shown.get('changed_from')))} was asked for:"
        yield block(shown["difference"].rstrip("\n"))
        yield ""


def _policy(approval: Mapping[str, Any]) -> Iterator[str]:
    rule = approval["rule"]
    others = rule.get("also", ())
    need = f"{rule['required']} to agree{_groups(rule)}"
    need += "".join(f", and {each['required']}{_groups(each) or ' of anybody'}" for each in others)
    yield _line("Policy asks", need + (", with a reason" if rule["reason_required"] else ""))
    for reason in approval["shown"].get("reasons", []):
        yield _line("because", f"{reason['code']}: {reason['message']}")
    lacks = approval.get("missing", [])
    if lacks and approval["votes"] and approval["state"] == "pending":
        yield _line("still wants", ", ".join(f"{q['required']}{_groups(q)}" for q in lacks))
    for vote in approval["votes"]:
        said = f": {quoted(vote['reason'])}" if vote["reason"] else ""
        yield _line(vote["verdict"], f"{vote['subject']}, {clock(vote['voted_ms'])}") + said
    yield ""


def _groups(quorum: Mapping[str, Any]) -> str:
    return f" of {', '.join(quorum['groups'])}" if quorum["groups"] else ""


def _claims(claimed: Mapping[str, Any]) -> Iterator[str]:
    said = {name: value for name, value in claimed.items() if value}
    if said:
        yield "The agent says (unverified):"
        for name, value in said.items():
            yield f"  {name}: {quoted(str(value), _MAX_CLAIM)}"
        yield ""


def _line(label: str, text: str) -> str:
    return f"{label + ':':<14}{visible(fold(text, _MAX_LINE))}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, sort_keys=True)
