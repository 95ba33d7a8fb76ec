"""From the sections of runner profiles to `Profile` values, and what cannot be told of one alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from remit.addresses import (
    METADATA_NAMES,
    Reach,
    is_address,
    plain_host,
    reach,
    split_authority,
)
from remit.catalog.reaching import egress
from remit.catalog.safety import check_mounts
from remit.catalog.spec import EgressSpec
from remit.errors import Code, ConfigError
from remit.model import Effect, EgressRule, Mount, Tool
from remit.profile import DEFAULT, BaseKind, BaseSystem, Ceilings, Profile, RunnerKind, Tls, Warm
from remit.settings.runners import BaseSection, ProfileSection, RunnersSection

Add = Callable[[str, str, str], None]
"""Takes a problem: its place, what is wrong, and what to do."""


def is_metadata(host: str) -> bool:
    """Whether a host is a metadata service, or an address that no setting opens."""
    return host in METADATA_NAMES or (is_address(host) and reach(host) is Reach.NEVER)


def read_profiles(section: RunnersSection, base: Path, add: Add) -> Mapping[str, Profile]:
    """The operator's profiles by name, and `sandbox` among them.

    Args:
        base: the directory that relative paths are beside.
    """
    sections = {DEFAULT: ProfileSection(), **section.profiles}
    return {name: _profile(name, each, base, add) for name, each in sorted(sections.items())}


def _profile(name: str, section: ProfileSection, base: Path, add: Add) -> Profile:
    place = f"runners.profiles.{name}"
    mounts = tuple(
        Mount(name=each.name, source=each.source, writable=each.writable) for each in section.mounts
    )
    _checked(lambda: check_mounts(mounts, "mounts"), place, add)
    rules = None if section.egress is None else _egress(section.egress, place, add)
    if section.tls is Tls.PASSTHROUGH and any(_inside_tls(rule) for rule in rules or ()):
        add(
            f"{place}.egress",
            "has rules with methods or paths, which cannot be held where TLS passes through",
            "write `tls: terminate`, or hosts and ports alone",
        )
    if section.runner is RunnerKind.GVISOR and (section.warm.shell or section.warm.python):
        add(f"{place}.warm", "is of gVisor, which keeps no slot", "leave `warm` out")
    return Profile(
        name=name,
        runner=section.runner,
        base=_base(section.base, f"{place}.base", base, add),
        mounts=mounts,
        ceilings=Ceilings(**section.limits.model_dump()),
        io_mb_per_s=section.io_mb_per_s,
        egress=rules,
        tls=section.tls,
        warm=Warm(**section.warm.model_dump()),
    )


def _base(section: BaseSection, place: str, base: Path, add: Add) -> BaseSystem:
    given = section.path is not None, section.digest is not None
    if section.kind is BaseKind.HOST and any(given):
        add(place, "has a path or digest, and the host's own system has neither", "leave them out")
    if section.kind is not BaseKind.HOST and not all(given):
        add(
            place,
            f"is of kind {section.kind.value} and needs both path and digest",
            "`remit doctor --digest PATH` prints the digest",
        )
    path = None if section.path is None else os.path.normpath(base / section.path)
    return BaseSystem(kind=section.kind, path=path, digest=section.digest)


def _egress(specs: Sequence[EgressSpec], place: str, add: Add) -> tuple[EgressRule, ...]:
    found: tuple[EgressRule, ...] = ()

    def read() -> None:
        nonlocal found
        found = egress(specs)

    _checked(read, place, add)
    return found


def _checked(check: Callable[[], None], place: str, add: Add) -> None:
    try:
        check()
    except ConfigError as error:
        add(
            f"{place}.{error.place}",
            error.message,
            error.hint or "docs/configuration.md says what it takes",
        )


def _inside_tls(rule: EgressRule) -> bool:
    return rule.methods is not None or rule.path_prefix is not None


def check_egress(section: RunnersSection, add: Add) -> None:
    """Check the destinations that every run's way out goes by."""
    for name in ("internal", "unsafe_plain"):
        for index, text in enumerate(getattr(section.egress, name)):
            place = f"runners.egress.{name}[{index}]"
            found = split_authority(text)
            if found is None or not plain_host(found[0]) or text != text.lower():
                add(
                    place,
                    "is not one exact host and port",
                    "write host:port, the host in lower case, without a wildcard",
                )
            elif is_metadata(found[0]):
                add(
                    place,
                    "is a metadata service or a link-local address, which is never opened",
                    "take it out; to give runs an identity, lend them a credential",
                )


def check_tools(tools: Sequence[Tool], profiles: Mapping[str, Profile]) -> list[ConfigError]:
    """What is wrong between tools and their profiles; places are inside `catalog.tools`."""
    problems: list[ConfigError] = []
    for tool in tools:
        profile = profiles.get(tool.runner)
        if profile is None:
            known = ", ".join(sorted(profiles))
            problems.append(
                _wrong(tool, "names a runner profile that is not there", f"there are: {known}")
            )
            continue
        problems += _mounts(tool, profile)
        if profile.tls is Tls.PASSTHROUGH and any(map(_inside_tls, tool.egress)):
            problems.append(
                _wrong(
                    tool,
                    f"has egress rules with methods or paths, and in the profile {profile.name} "
                    "TLS passes through",
                    "write `tls: terminate` for the profile, or hosts and ports alone",
                )
            )
    return problems


def _mounts(tool: Tool, profile: Profile) -> list[ConfigError]:
    problems = []
    commands = [tool.command, *([tool.preview.command] if tool.preview else [])]
    own = {mount.name for command in commands for mount in command.mounts}
    if own & {mount.name for mount in profile.mounts}:
        why = f"has a mount of the same name as one of the profile {profile.name}"
        problems.append(_wrong(tool, why, "give one of them another name"))
    writable = any(mount.writable for mount in profile.mounts)
    if writable and (tool.effect is Effect.READ or tool.preview is not None):
        what = "only reads" if tool.effect is Effect.READ else "has a preview"
        why = f"{what}, and every run of the profile {profile.name} could write to its mounts"
        problems.append(_wrong(tool, why, "use a profile without writable mounts for it"))
    return problems


def _wrong(tool: Tool, why: str, hint: str) -> ConfigError:
    return ConfigError(
        Code.CATALOG_INVALID, f"the tool {tool.name} {why}", place=tool.name, hint=hint
    )
