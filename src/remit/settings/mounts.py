"""What no mount alone shows: a directory below one that another run may write to.

Whoever may write to a directory can put a link in the place of what lies in it, at the very moment
at which a sandbox is made of it; the run would be shown what the link names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from remit.catalog.spec import MountSpec
from remit.profile import Profile
from remit.settings.sections import Sections


def declared(sections: Sections) -> Iterator[tuple[str, MountSpec]]:
    """Every mount of a tool, a preview, a server or a profile, with its place in the file."""
    for index, spec in enumerate(sections.catalog.tools):
        commands = [("command", spec.command)]
        commands += [("preview.command", spec.preview.command)] if spec.preview else []
        for name, command in commands:
            for number, mount in enumerate(command.mounts):
                yield f"catalog.tools[{index}].{name}.mounts[{number}]", mount
    for index, server in enumerate(sections.catalog.servers):
        for number, mount in enumerate(server.command.mounts if server.command else ()):
            yield f"catalog.servers[{index}].command.mounts[{number}]", mount
    for name, profile in sections.runners.profiles.items():
        for number, mount in enumerate(profile.mounts):
            yield f"runners.profiles.{name}.mounts[{number}]", mount


def below_written(sections: Sections, profiles: Mapping[str, Profile]) -> Iterator[tuple[str, str]]:
    """The place of each mount and base that a run could replace, and the directory it lies in.

    The same directory mounted twice is no danger: a run cannot replace what it is inside of.
    """
    mounts = list(declared(sections))
    written = [Path(mount.source) for _, mount in mounts if mount.writable]
    for place, mount in mounts:
        source = Path(mount.source)
        for folder in written:
            if _within(source, folder) and source.resolve() != folder.resolve():
                yield f"{place}.source", str(folder)
                break
    for name, profile in profiles.items():
        base = profile.base.path
        for folder in written if base is not None else ():
            if _within(Path(base or ""), folder):
                yield f"runners.profiles.{name}.base.path", str(folder)
                break


def _within(path: Path, folder: Path) -> bool:
    """Whether a path is or lies below a folder, as written or after symbolic links."""
    return path.is_relative_to(folder) or path.resolve().is_relative_to(folder.resolve())
