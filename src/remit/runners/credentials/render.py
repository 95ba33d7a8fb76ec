"""Templates of credentials: `{field}` stands for what a broker gave, `{{` for a brace."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from remit.command import Placeholder, parse_template
from remit.runners.credentials.broker import BrokerFault

_FORBIDDEN = frozenset("\r\n\0")


def fields_of(template: str) -> frozenset[str]:
    """The fields that a template names.

    Raises:
        ValueError: it is not one.
    """
    return frozenset(
        part.name for part in parse_template(template) if isinstance(part, Placeholder)
    )


def render(template: str, fields: Mapping[str, str]) -> str:
    """The template with its fields filled in; what is filled in is not read as a template.

    Raises:
        BrokerFault: it names a field that was not given.
    """
    text = ""
    for part in parse_template(template):
        if isinstance(part, str):
            text += part
        elif part.name not in fields:
            raise BrokerFault(f"there is no field {part.name} in what was lent")
        else:
            text += fields[part.name]
    return text


def header_value(section: Mapping[str, Any], fields: Mapping[str, str]) -> tuple[str, list[str]]:
    """The value of an injected header, and strings made for it that are as secret as it is.

    Raises:
        BrokerFault: it cannot stand in a header.
    """
    made: list[str] = []
    if section.get("basic_user") is not None:
        user = render(section["basic_user"], fields)
        if ":" in user:
            raise BrokerFault("the name for Basic authentication has a colon")
        password = fields.get("password", fields.get("token"))
        if password is None:
            raise BrokerFault("there is neither password nor token in what was lent")
        made = [base64.b64encode(f"{user}:{password}".encode()).decode("ascii")]
        value = f"Basic {made[0]}"
    else:
        value = render(section["value"], fields)
    plain = value.isascii() and value.isprintable() and value == value.strip()
    if not value or not plain or _FORBIDDEN & set(value):
        raise BrokerFault("what was lent cannot stand in a header")
    return value, made
