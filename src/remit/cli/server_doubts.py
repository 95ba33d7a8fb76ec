"""What can hardly be meant of MCP servers: what no sandbox would find, and tools that are not there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from remit.catalog.server_spec import ServerCommandSpec, ServerSpec, Unlisted
from remit.config import Settings
from remit.servers.pins import Pinned, PinStore
from remit.settings.servers import RUNNERS_OF_PACKAGES
from remit.upstreams.secretlike import sign_of, sign_of_command
from remit.visible import shown, visible

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
_MOUNTS = Path("/mnt")


def accepted(settings: Settings) -> Mapping[str, Mapping[str, Pinned]]:
    """What was kept of the tools of each server, by server and name; nothing of one never seen."""
    store = PinStore(settings.data_dir / "servers" / "pins")
    return {spec.name: store.read(spec.name) for spec in settings.servers}


def server_doubts(settings: Settings, known: Mapping[str, Mapping[str, Pinned]]) -> Iterator[str]:
    """What is allowed of servers and can hardly be meant, a sentence each.

    Args:
        known: what was kept of each, as `accepted` gives it.
    """
    for spec in settings.servers:
        if spec.command is not None:
            found = [*_program(spec.command), *_words(spec.command), *_secrets(spec.command)]
            yield from (f"the server {spec.name}: {each}" for each in found)
        yield from _tools(spec, known.get(spec.name, {}))
    yield from _bare(settings.servers, known)


def _program(command: ServerCommandSpec) -> Iterator[str]:
    for mount in command.mounts:
        if not Path(mount.source).is_dir():
            yield f"there is no directory {visible(mount.source)}"
    program = Path(command.argv[0])
    if program.name in RUNNERS_OF_PACKAGES:
        yield (
            f"{program.name} fetches a program at each start, which no sandbox can; "
            "`remit init --import --install` installs it once"
        )
        return
    here = _here(program, command)
    if here is None:
        yield f"{visible(str(program))} is below no mount, so no run finds it"
    elif not os.access(here, os.X_OK):
        yield f"there is no program {visible(str(here))} here"
    elif not _seen(here.resolve(), command):
        yield (
            f"the program {visible(str(here))} is a link to {visible(str(here.resolve()))}, which "
            "no run finds there"
        )


def _words(command: ServerCommandSpec) -> Iterator[str]:
    """Arguments that are paths of this machine, which a server is given word by word."""
    for word in command.argv[1:]:
        path = Path(word)
        if path.is_absolute() and _here(path, command) is None and _exists(path):
            yield f"{visible(word)} is below no mount, so no run finds it"
    for name, value in command.env.items():
        if value.startswith("$"):
            yield f"{visible(name)} is taken word by word: no variable in it is replaced"


def _secrets(command: ServerCommandSpec) -> Iterator[str]:
    """The places of what looks like a secret, and nothing of it."""
    why = "looks like a secret, and command lines are in plans and records"
    for at in sign_of_command(tuple(command.argv)):
        yield f"argv[{at}] {why}; docs/credentials.md has what to do instead"
    for name, value in command.env.items():
        if sign_of(value, name=name) is not None:
            yield f"{visible(name)} {why}; docs/credentials.md has what to do instead"


def _tools(spec: ServerSpec, known: Mapping[str, Pinned]) -> Iterator[str]:
    """Tools that are written down and that the server, which was seen, has not."""
    for tool in spec.tools:
        if not known or tool.name in known:
            continue
        behind = tool.name.removeprefix(f"{spec.name if spec.prefix is None else spec.prefix}_")
        near = [behind] if behind in known else get_close_matches(tool.name, known, 1)
        more = f"; did you mean {shown(near[0])}?" if near else ""
        yield f"the server {spec.name} has no tool {shown(tool.name)}{more}"


def _bare(specs: Sequence[ServerSpec], known: Mapping[str, Mapping[str, Pinned]]) -> Iterator[str]:
    """The one case in which whose a name is does not follow from the file alone."""
    bare = [each for each in specs if each.prefix == "" and each.unlisted is Unlisted.OFFER]
    unseen = [each.name for each in bare if not known.get(each.name)]
    if len(bare) > 1 and unseen:
        yield (
            f"{', '.join(each.name for each in bare)} are servers without a prefix, and never seen "
            f"of them: {', '.join(unseen)}; a tool that two of them have is offered as that of the "
            "one that is seen first, until the other is seen; give them prefixes, or write the "
            "tool below `tools` of the one that is meant"
        )


def _here(path: Path, command: ServerCommandSpec) -> Path | None:
    """Where on this machine lies what a run finds at a path; None if it finds nothing there."""
    for mount in command.mounts:
        place = _MOUNTS / mount.name
        if path == place or path.is_relative_to(place):
            return Path(mount.source) / path.relative_to(place)
    return path if any(path.is_relative_to(each) for each in _SYSTEM) else None


def _seen(real: Path, command: ServerCommandSpec) -> bool:
    """Whether a run finds what a link leads to; one to another mount has another path there."""
    inside = [Path(mount.source).resolve() for mount in command.mounts]
    return any(real.is_relative_to(each) for each in (*map(Path, _SYSTEM), *inside))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
