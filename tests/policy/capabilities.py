"""The capabilities file of the portable profile, made from those of a real OPA.

To write it anew: `python -m tests.policy.capabilities`.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from remit.policy.builtins import ALLOWED
from tests.plugins.machine import ROOT, opa_binary

FILE = ROOT / "src/remit/schemas/remit-rego-1.capabilities.json"
COMPILED = frozenset({"internal.print"})
"""What OPA's compiler turns the profile's own calls into."""


def capabilities() -> dict[str, Any]:
    """What OPA may use: the profile's builtins, the operators, Rego v1, and `not` as a keyword."""
    argv = [str(opa_binary()), "capabilities", "--current"]
    told = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return {
        "builtins": [
            {key: each[key] for key in ("name", "decl", "infix", "relation") if key in each}
            for each in told["builtins"]
            if each["name"] in ALLOWED | COMPILED
            or "infix" in each
            or each["name"].startswith("internal.member_")
        ],
        "future_keywords": ["not"],
        "features": ["rego_v1"],
    }


def text() -> str:
    """One builtin a line."""
    made = capabilities()
    rows = ",\n".join(
        "    " + json.dumps(each, sort_keys=True, ensure_ascii=True) for each in made["builtins"]
    )
    return (
        '{\n  "builtins": [\n' + rows + "\n  ],\n"
        f'  "features": {json.dumps(made["features"])},\n'
        f'  "future_keywords": {json.dumps(made["future_keywords"])}\n'
        "}\n"
    )


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
