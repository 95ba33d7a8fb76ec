"""The kinds of value that keys of `remit.yaml` have."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainSerializer

from remit.loopback import address_fault
from remit.settings.address import Address
from remit.settings.secret import SecretRef


def _address(text: str) -> str:
    return str(Address.parse(text))


def _reference(text: str) -> str:
    SecretRef.parse(text)
    return text


def _instant(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time needs its offset from UTC, such as 2027-01-31T12:00:00Z")
    return text


def _origin(text: str) -> str:
    origin = text.removesuffix("/")
    if (fault := address_fault(origin)) is not None:
        raise ValueError(f"an address at which browsers find Remit {fault}")
    if urlsplit(origin).path:
        raise ValueError("an address at which browsers find Remit has no path")
    return origin.lower()


Listen = Annotated[str, AfterValidator(_address)]
Origin = Annotated[str, Field(pattern=r"^[!-~]{1,300}$"), AfterValidator(_origin)]
Instant = Annotated[str, AfterValidator(_instant)]
Reference = Annotated[
    str,
    AfterValidator(_reference),
    PlainSerializer(lambda text: "exec:***" if text.startswith("exec:") else text),
]
Hash = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$"), PlainSerializer(lambda _: "***", return_type=str)
]
KeyId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Subject = Annotated[str, Field(pattern=r"^[!-~]{1,256}$")]
Group = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
FilePath = Annotated[str, Field(min_length=1, max_length=4_096)]
