"""Servers that remit.yaml takes from a publisher's `server.json`: what each becomes.

Only files are read: nothing is fetched, installed or started. Every word of the document is its
publisher's; answers, mounts and credentials are the operator's, and none of them comes from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from remit.catalog.server_spec import DefinitionSpec, ServerCommandSpec, ServerSpec
from remit.catalog.spec import CredentialSpec, MountSpec
from remit.errors import Code, ConfigError
from remit.settings.profiles import Add
from remit.settings.sections import Sections
from remit.upstreams.definition_text import MAX_JSON
from remit.upstreams.forms import Answer, Form, NoAnswer
from remit.upstreams.found import FoundServer, Kind, Source, Value
from remit.upstreams.http_header import header_fault, shown_as
from remit.upstreams.installed import ENVIRONMENTS, Installed, Record, read_record
from remit.upstreams.launcher import Launch, launch_of
from remit.upstreams.refused import refused
from remit.upstreams.secretlike import shown
from remit.upstreams.server_json import Published, read_server_json
from remit.upstreams.ways import refuse_plain_address, refuse_what_is_not_installed

PLACEHOLDER = "put-in-by-remit"
"""What a server finds in a variable whose secret the egress proxy puts into its requests."""

_SCHEME = "credential"
_HOST = ("/usr", "/bin")
_OWN = ("command", "url", "sse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """The sections with each definition's command or address put in.

    `notes` are what an operator should know; `origins` names the document of each place that one
    gave.
    """

    sections: Sections
    notes: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)


def expanded(sections: Sections, base: Path, add: Add) -> Expanded:
    """Read every definition; one that cannot be taken is a problem, and stays as it is.

    Args:
        base: the directory that paths are beside.
        add: takes each problem.
    """
    servers, notes, origins = list[ServerSpec](), list[str](), dict[str, str]()
    for number, spec in enumerate(sections.catalog.servers):
        place = f"catalog.servers[{number}]"
        found = spec
        if spec.definition is not None:
            try:
                found, said = _expanded(spec, spec.definition, base, sections)
                notes += said
                origins |= {
                    f"{place}.{key}": spec.definition.file for key in _OWN if getattr(found, key)
                }
            except ConfigError as error:
                where = "" if error.place is None else f" ({error.place})"
                hint = error.hint or "docs/servers.md says what a definition takes"
                add(f"{place}.definition", f"cannot be taken: {error.message}{where}", hint)
        servers.append(found)
    catalog = sections.catalog.model_copy(update={"servers": servers})
    return Expanded(
        sections=sections.model_copy(update={"catalog": catalog}),
        notes=tuple(notes),
        origins=origins,
    )


def package_of(spec: ServerSpec, base: Path) -> tuple[Launch, Path, Record | None] | None:
    """The package that a server's definition names, where it is to stand, and what stands there.

    None where it names none. No answers are needed for it.

    Raises:
        ConfigError: the definition cannot be taken.
    """
    if spec.definition is None:
        return None
    server = _way(spec, spec.definition, base)
    if server.kind is not Kind.STDIO:
        return None
    directory = base / ENVIRONMENTS / spec.name
    return _launch(server), directory, read_record(directory)


def _expanded(
    spec: ServerSpec, definition: DefinitionSpec, base: Path, sections: Sections
) -> tuple[ServerSpec, list[str]]:
    for key in _OWN:
        if key in spec.model_fields_set:
            raise _fault(
                f"the server has `{key}` beside it",
                "write one of definition, command and url; a definition says how it is reached",
            )
    server = _way(spec, definition, base)
    if spec.authorization is not None:
        own = {"authorization", spec.header.partition(":")[0].lower()}
        kept = {k: one for k, one in server.headers.items() if k.lower() not in own}
        server = replace(server, headers=kept)
    server = _answered(server, definition.answers)
    refuse_plain_address(server)
    draft = _Draft(spec=spec, definition=definition, server=server, sections=sections)
    update = draft.program(base) if server.kind is Kind.STDIO else draft.address()
    return spec.model_copy(update=update), draft.notes


# --------------------------------------------------------------------------- what the document says


def _published(definition: DefinitionSpec, base: Path) -> Published:
    path = base / definition.file
    try:
        if not path.is_file() or path.stat().st_size > MAX_JSON:
            raise _fault(
                f"{shown(definition.file)} is no file of at most {MAX_JSON >> 20} MiB",
                "write the server.json beside remit.yaml, and its path here",
            )
        data = path.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        hint = "let the gateway's user read it"
        raise _fault(f"{shown(definition.file)}: {error.strerror}", hint) from None
    except UnicodeDecodeError:
        raise _fault(f"{shown(definition.file)} is not UTF-8", "save it as UTF-8") from None
    if definition.sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise _fault(
            f"{shown(definition.file)} is not the file that `sha256` names",
            "look at what changed in it; then write the digest that sha256sum prints",
        )
    return read_server_json(text, path=definition.file)


def _way(spec: ServerSpec, definition: DefinitionSpec, base: Path) -> FoundServer:
    """The one way of the document that is taken, with nothing answered yet."""
    published = _published(definition, base)
    wanted = [
        (part, number)
        for part, number in (("packages", definition.package), ("remotes", definition.remote))
        if number is not None
    ]
    if len(wanted) > 1:
        raise _fault("both `package` and `remote` are written", "keep one of the two")
    several = len(published.choices) + len(published.faults) > 1
    if not wanted and several:
        ways = ", ".join(_named(one) for one in published.choices)
        hint = f"write one of: {ways}" if ways else "use another document"
        raise _fault("the document has several ways to have the server", hint)
    if not wanted:
        if not published.choices:
            raise published.faults[0]
        (server,) = published.choices
    else:
        server = _numbered(published, *wanted[0])
    refuse_what_is_not_installed(server, chosen=bool(wanted), choose="package: N")
    return replace(server, name=spec.name)


def _numbered(published: Published, part: str, number: int) -> FoundServer:
    end = f"/{part}/{number - 1}"
    for one in published.choices:
        if one.place.pointer.endswith(end):
            return one
    for fault in published.faults:
        if f"{end}/" in f"{fault.place}/":
            raise fault
    ways = ", ".join(_named(one) for one in published.choices) or "none"
    raise _fault(
        f"the document has no {part.removesuffix('s')} of the number {number}",
        f"they are counted from 1; it has: {ways}",
    )


def _named(server: FoundServer) -> str:
    """How a way is written in remit.yaml, with what it is."""
    _, part, number = server.place.pointer.rsplit("/", 2)
    one = server.package
    what = f"{one.registry} {shown(one.identifier, 100)}" if one else server.kind.value
    return f"`{part.removesuffix('s')}: {int(number) + 1}` ({what})"


def _answered(server: FoundServer, given: Mapping[str, str]) -> FoundServer:
    form = Form(server, _kept, other_way="`package` or `remote`")
    answers = dict[str, Answer]()
    for name, text in given.items():
        question = form.questions.get(name)
        if question is None:
            asked = ", ".join(f"`{shown(each)}`" for each in form.questions) or "nothing"
            raise _fault(f"the document asks nothing of the name {shown(name)}", f"it asks {asked}")
        answers[name] = form.checked(question, text)
    missing = form.missing(answers)
    if missing:
        lines = ", ".join(
            f"{shown(one.name)}: {f'{_SCHEME}:HANDLE' if one.name in form.secret else 'VALUE'}"
            for one in missing
        )
        raise _fault("answers lack to what it asks", f"write answers: {{{lines}}}")
    return form.filled(answers)


def _kept(text: str) -> Answer | NoAnswer:
    """A secret stands in `runners.credentials`, and is named by its handle there."""
    scheme, _, handle = text.partition(":")
    if scheme == _SCHEME and handle:
        return Answer(text=handle, source=Source.CREDENTIAL)
    return NoAnswer(
        why="is a secret, which is named by its handle alone",
        hint=f"describe it under runners.credentials, and write {_SCHEME}:HANDLE",
    )


def _launch(server: FoundServer) -> Launch:
    assert server.command is not None, "a package is started by a command"
    launch = launch_of(server, [server.command.text, *(arg.text for arg in server.args)])
    assert launch is not None, "the command that is made for a package fetches it"
    return replace(launch, sha256=server.package.sha256 if server.package else None)


# --------------------------------------------------------------------- what it becomes in remit.yaml


@dataclass(slots=True, kw_only=True)
class _Draft:
    spec: ServerSpec
    definition: DefinitionSpec
    server: FoundServer
    sections: Sections
    notes: list[str] = field(default_factory=list)

    def address(self) -> dict[str, Any]:
        if self.definition.mounts:
            raise _fault("mounts are for a package", "leave them out: it runs elsewhere")
        assert self.server.url is not None, "what is no program has an address"
        update: dict[str, Any] = {"url": self._plain("/url", self.server.url)}
        if self.server.kind is Kind.SSE:
            update["sse"] = True
        for header, one in self.server.headers.items():
            if header.lower() == "authorization" or one.sign is not None or one.references:
                if self.spec.authorization is not None or "authorization" in update:
                    raise refused(
                        self.server,
                        f"/headers/{shown(header)}",
                        "has a second secret, and Remit shows a server one",
                        "write its `url` yourself, with the one that it cannot do without",
                    )
                update |= self._shown(header, one)
            else:
                self.notes.append(
                    f"the server {self.spec.name}: its definition names the header "
                    f"{shown(header)}, which Remit does not send"
                )
        return update

    def _shown(self, header: str, one: Value) -> dict[str, Any]:
        """In which header a server is shown which credential."""
        part, end = f"/headers/{shown(header)}", one.references[0].text if one.references else ""
        before = one.text.removesuffix(end) if end else ""
        handle = self._handle(part, one, before)
        form = shown_as(header, before)
        if (fault := header_fault(form)) is not None:
            raise refused(
                self.server, part, f"has a secret that {fault}", "write its `url` yourself"
            )
        return {"authorization": handle, "header": form}

    def program(self, base: Path) -> dict[str, Any]:
        installed = _standing(_launch(self.server), base / ENVIRONMENTS / self.spec.name)
        launch = _launch(self.server)
        words = [self._plain(f"/args/{n}", one) for n, one in enumerate(self.server.args)]
        credentials = list(self.spec.credentials)
        env = dict[str, str]()
        for variable, one in self.server.env.items():
            part = f"/env/{shown(variable)}"
            if not one.references:
                env[variable] = self._plain(part, one)
                continue
            handle = self._handle(part, one, "")
            if handle not in {each.ref for each in credentials}:
                credentials.append(CredentialSpec(ref=handle))
            if getattr(self.sections.runners.credentials[handle], "inject", None):
                env[variable] = PLACEHOLDER
        if self.spec.name in {each.name for each in self.definition.mounts}:
            raise _fault(
                f"the mount {self.spec.name} has the server's name, at which its package is seen",
                "give the mount another name",
            )
        here = MountSpec(name=self.spec.name, source=str(installed.directory))
        command = ServerCommandSpec(
            argv=[*installed.words(f"/mnt/{self.spec.name}"), *words[launch.rest - 1 :]],
            env=env,
            mounts=[here, *self.definition.mounts],
        )
        return {"command": command, "credentials": credentials}

    def _plain(self, part: str, one: Value) -> str:
        if one.sign is not None or one.references:
            raise refused(
                self.server,
                part,
                "has what looks like a secret where Remit cannot keep one",
                "choose another way to have it, or write its `command` yourself",
            )
        return one.text

    def _handle(self, part: str, one: Value, before: str) -> str:
        """The handle that a value stands for, with nothing beside it but a scheme's name."""
        reference = one.references[0] if len(one.references) == 1 else None
        rest = one.text.replace(reference.text, "", 1) if reference else one.text
        if reference is None or rest.strip().lower() != before.strip().lower():
            raise refused(
                self.server,
                part,
                "has a secret that is put together of several parts, or that its publisher wrote",
                "choose another way to have it, or write its `command` or `url` yourself",
            )
        if reference.name not in self.sections.runners.credentials:
            known = ", ".join(self.sections.runners.credentials) or "none"
            raise _fault(
                f"an answer names the credential {shown(reference.name)}, which is not there",
                f"describe it under runners.credentials; there are: {known}",
            )
        return reference.name


def _standing(launch: Launch, directory: Path) -> Installed:
    """What was installed for a definition, if it is what the definition names now."""
    record = read_record(directory)
    if record is None:
        raise _fault(f"{launch} is not installed", "install it once: remit init --install")
    same = (record.kind, record.package, record.asked) == (
        launch.kind, launch.package, launch.version
    )  # fmt: skip
    if not same or (launch.sha256 is not None and launch.sha256 != record.sha256):
        raise _fault(
            f"{launch} is not what stands in {ENVIRONMENTS}/{directory.name}",
            f"remove {directory}, then: remit init --install",
        )
    program = None if record.program is None else Path(record.program)
    if program is not None and not any(program.is_relative_to(each) for each in _HOST):
        raise _fault(
            f"the program that starts it is {program}, which no sandbox has",
            "install the system's own Node.js; or write the server's `command` and mounts",
        )
    return Installed(
        directory=directory, version=record.version, program=program, start=record.start
    )


def _fault(message: str, hint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message, hint=hint)
