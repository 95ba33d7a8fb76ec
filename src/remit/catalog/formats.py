"""The formats that are really checked; any other is refused when the catalog is loaded.

JSON Schema 2020-12 makes `format` a remark unless a validator decides to check it. An operator
who writes one expects it to be checked, so here it always is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from ipaddress import IPv4Address, IPv6Address

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DATE_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def _is_date(text: str) -> bool:
    return bool(_DATE.fullmatch(text)) and _reads(date.fromisoformat, text)


def _is_date_time(text: str) -> bool:
    # Python reads at most six digits of a fraction, which do not bear on validity.
    whole = re.sub(r"\.\d+", "", text).upper()
    return bool(_DATE_TIME.fullmatch(text)) and _reads(datetime.fromisoformat, whole)


def _is_hostname(text: str) -> bool:
    return 0 < len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def _reads(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date": _is_date,
    "date-time": _is_date_time,
    "hostname": _is_hostname,
    "ipv4": lambda text: len(text) <= 15 and _reads(IPv4Address, text),
    "ipv6": lambda text: len(text) <= 45 and "%" not in text and _reads(IPv6Address, text),
    "uuid": lambda text: bool(_UUID.fullmatch(text)),
}
"""From the name of a format to the function that says whether a string is in it."""
