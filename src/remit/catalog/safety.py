"""Which command templates are refused at load because a value could become more than a value.

What is refused here can be told from the template alone; what depends on the value is refused
by `remit.command.render_command`. Neither knows what a program does with its operands: a program
that reads `@file` or a URL from an operand needs a `pattern` in the schema (docs/tools.md).
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from remit.command import Placeholder, Template, parse_template
from remit.errors import Code, ConfigError
from remit.model import Command, Mount

_SHELLS = frozenset(
    ("ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh")
)
_CODE_OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(_SHELLS, "c"),
    **dict.fromkeys(("python", "pypy", "su", "runuser", "script", "flock"), "c"),
    **dict.fromkeys(("perl", "ruby"), "eE"),
    **dict.fromkeys(("node", "nodejs", "deno", "bun"), "ep"),
    **dict.fromkeys(("lua", "Rscript"), "e"),
    "php": "rBRE",
}
"""Programs, and the letters of their options whose value is a program text."""

_LONG_CODE_OPTIONS = frozenset({"--command", "--session-command", "--eval", "--print"})

_LOADER = re.compile(
    r"(LD_|DYLD_|PYTHON|PERL|RUBY|NODE_|LUA_|PHP|JAVA|JDK_|_JAVA|GIT_|BASH|MALLOC_|GLIBC_|GCONV).*"
    r"|PATH|IFS|ENV|SHELL|SHELLOPTS|PS4|PROMPT_COMMAND|CDPATH|HOME|TMPDIR|CLASSPATH|GEM_PATH|GEM_HOME"
    r"|EDITOR|VISUAL|PAGER|LESSOPEN|LESSCLOSE|MANPAGER|BROWSER|LOCPATH|NLSPATH|HOSTALIASES|RES_OPTIONS"
    r"|TERMINFO|TERMINFO_DIRS|TERMCAP|SSL_CERT_FILE|SSL_CERT_DIR|SSLKEYLOGFILE|OPENSSL_CONF"
    r"|(HTTP|HTTPS|ALL|NO)_PROXY|(http|https|all|no)_proxy|KUBECONFIG|XDG_.*"
)
"""Variables by which a loader, an interpreter or a common program finds code or configuration."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRIVATE = ("/proc", "/sys", "/dev", "/run", "/boot", "/etc")


def check_command(command: Command, scalars: frozenset[str], *, place: str) -> None:
    """Refuse a template in which a value could become an option, code, or a loader's setting.

    Args:
        command: the template.
        scalars: the arguments that are always there as one string, number or boolean.
        place: the place of the command in the file, for errors.

    Raises:
        ConfigError: `catalog_invalid`.
    """
    templates = [
        _parsed(element, scalars, f"{place}.argv[{index}]")
        for index, element in enumerate(command.argv)
    ]
    _check_program(command.argv[0], templates[0], f"{place}.argv[0]")
    for index, template in enumerate(templates):
        _check_option(template, f"{place}.argv[{index}]")
    _check_code(command.argv, templates, f"{place}.argv")
    _check_env(command, scalars, f"{place}.env")
    _check_files(command, f"{place}.files")
    check_mounts(command.mounts, f"{place}.mounts")


def check_program_path(path: str, place: str) -> None:
    """Refuse a program that is not named by a plain absolute path."""
    if not path.startswith("/") or path != os.path.normpath(path) or "\0" in path:
        raise invalid(
            "the program must be an absolute path, written plainly",
            place,
            "write where it is, such as /usr/bin/git (`command -v` finds it); PATH is not used",
        )


def _parsed(text: str, scalars: frozenset[str], place: str) -> Template:
    template = parsed_template(text, place)
    for part in template:
        if isinstance(part, Placeholder):
            check_placeholder(part, scalars, place)
    return template


def parsed_template(text: str, place: str) -> Template:
    if "\0" in text:
        raise invalid("holds a NUL character", place)
    try:
        return parse_template(text)
    except ValueError as exc:
        hint = "{name} stands for an argument; write {{ and }} for the braces themselves"
        raise invalid(str(exc), place, hint) from None


def check_placeholder(part: Placeholder, scalars: frozenset[str], place: str) -> None:
    if part.quoted:
        raise invalid("|quoted is for `consequence` only", place, f"write {{{part.name}}}")
    if part.name not in scalars:
        raise invalid(
            f"{{{part.name}}} is not a scalar argument that is always there",
            place,
            f"{nearest(part.name, scalars)}a placeholder must name a property of input_schema of "
            "type string, integer, number or boolean, or with an enum, that is required or has "
            "a default; {{ and }} are the braces themselves",
        )


def _check_program(text: str, template: Template, place: str) -> None:
    if any(isinstance(part, Placeholder) for part in template):
        raise invalid("the program may not hold a placeholder", place, "write one tool for each")
    check_program_path(template[0] if template and isinstance(template[0], str) else text, place)


def _check_option(template: Template, place: str) -> None:
    if len(template) < 2 or not isinstance(template[0], str):
        return
    if template[0].startswith("-") and "=" not in template[0]:
        raise invalid(
            "a value stands directly behind an option's name and could change which option it is",
            place,
            "write --option={name}, or the option and {name} as two elements",
        )


def _check_code(argv: tuple[str, ...], templates: list[Template], place: str) -> None:
    """Refuse placeholders in what a shell or interpreter would read as program text."""
    letters = ""
    code_at: int | None = None
    for index, (element, template) in enumerate(zip(argv, templates, strict=True)):
        holds = any(isinstance(part, Placeholder) for part in template)
        whole = len(template) == 1 and holds
        attached = holds and isinstance(template[0], str) and _is_code_option(template[0], letters)
        after = code_at is not None and holds and (index <= code_at or not whole)
        if after or attached:
            raise invalid(
                "a value stands where a shell or interpreter reads program text",
                f"{place}[{index}]",
                "write the text without placeholders and pass each value as an argument of its "
                "own after it: sh -c 'exec prog \"$1\"' sh {name}",
            )
        if not holds:
            letters += _CODE_OPTIONS.get(_program(element), "")
            if code_at is None and _is_code_option(element, letters):
                code_at = index + 1


def _program(element: str) -> str:
    name = os.path.basename(element)
    return re.sub(r"[0-9.]+$", "", name) or name


def _is_code_option(element: str, letters: str) -> bool:
    if letters and element.partition("=")[0] in _LONG_CODE_OPTIONS:
        return True
    is_short = element.startswith("-") and not element.startswith("--")
    return is_short and any(letter in letters for letter in element[1:])


def _check_env(command: Command, scalars: frozenset[str], place: str) -> None:
    for name, value in command.env:
        here = f"{place}.{name}"
        if not _VARIABLE.fullmatch(name):
            raise invalid("not the name of an environment variable", here)
        if name.startswith("REMIT_"):
            raise invalid("names beginning with REMIT_ are Remit's own", here)
        template = _parsed(value, scalars, here)
        if _LOADER.fullmatch(name) and any(isinstance(part, Placeholder) for part in template):
            raise invalid(
                "a value may not set a variable by which programs find code or configuration",
                here,
                "write the variable without placeholders, or pass the value as an argument",
            )


def _check_files(command: Command, place: str) -> None:
    seen: set[str] = set()
    for index, file in enumerate(command.files):
        here = f"{place}[{index}]"
        check_job_path(file.path, here)
        if file.path in seen:
            raise invalid("the same path twice", here)
        if file.arguments and file.content:
            raise invalid("either `content` or `arguments: true`, not both", here)
        seen.add(file.path)
    for path in seen:
        if any(other.startswith(path + "/") for other in seen):
            raise invalid("one file's path is another's directory", place)


def check_job_path(path: str, place: str) -> None:
    """Refuse a path that is not plainly inside the job directory."""
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise invalid(
            "the path must be relative to the job directory, without . or ..", place, "write a/b"
        )


def check_mounts(mounts: tuple[Mount, ...], place: str) -> None:
    """Refuse a mount whose name or source could be read in two ways, or would undo the sandbox."""
    names: set[str] = set()
    for index, mount in enumerate(mounts):
        here = f"{place}[{index}]"
        if mount.name in names:
            raise invalid("the same name twice", here)
        names.add(mount.name)
        source = mount.source
        if not source.startswith("/") or source != os.path.normpath(source) or "\0" in source:
            raise invalid("the source must be an absolute path, written plainly", here)
        if source == "/" or any(f"{source}/".startswith(f"{each}/") for each in _PRIVATE):
            raise invalid(
                "this directory would undo the sandbox", here, "mount only what the command needs"
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean X? `, or nothing."""
    near = get_close_matches(name, sorted(known), 1)
    return f"did you mean {near[0]}? " if near else ""


def invalid(message: str, place: str, hint: str | None = None) -> ConfigError:
    return ConfigError(Code.CATALOG_INVALID, message, place=place, hint=hint)
