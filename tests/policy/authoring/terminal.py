"""A policy in a directory, and `remit policy` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from remit.cli.policy import policy

IMPORTS = "import future.keywords.not\nimport rego.v1\n"

WHOLE = f"""package remit

{IMPORTS}
default decision := {{
	"schema": "remit.decision/1",
	"decision": "deny",
	"reasons": [{{"code": "no_rule", "message": "No rule allows this."}}],
}}

decision := {{
	"schema": "remit.decision/1",
	"decision": "allow",
	"reasons": [{{"code": "granted", "message": "A group of yours may."}}],
}} if {{
	granted
	input.arguments.replicas < 5
}}

granted if {{
	some group in input.caller.groups
	group in data.groups
}}

visible := {{}}
"""
"""A small policy that is right in every way."""

QUESTION = {"caller": {"groups": ["ops"]}, "arguments": {"replicas": 3}}


def run(*words: str | Path, given: Any = None) -> Result:
    text = given if given is None or isinstance(given, str) else json.dumps(given)
    return CliRunner().invoke(policy, [str(word) for word in words], input=text)


def written(folder: Path, **files: str) -> Path:
    """A policy directory with `WHOLE`, its data, and these files: `more_rego` is `more.rego`."""
    folder.mkdir(exist_ok=True)
    (folder / "policy.rego").write_text(WHOLE, "utf-8")
    (folder / "data.json").write_text('{"groups": ["ops"]}', "utf-8")
    for name, text in files.items():
        (folder / name.replace("_rego", ".rego")).write_text(text, "utf-8")
    return folder
