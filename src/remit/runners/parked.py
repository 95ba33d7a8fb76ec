"""What waits in a slot, what it is told when it is claimed, and which commands it can become.

A shell slot is `sh` reading commands from a pipe: it is told its variables and one `exec`. A
Python slot is an interpreter that was started with the very options of the command, and reads
what to run; `parked_python` holds its program. Both then are the command, as if it had been
started cold, but for what docs/decisions/0036 names. Imported by both ends: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remit.runners.jail import DEFAULT_ENV, JOB_DIR
from remit.runners.parked_python import PROGRAM

MAX_SCRIPT_BYTES = 60_000
"""What is told goes into a pipe at once, which holds 64 KiB."""

SHELL = "/bin/sh"

# A shell whose exported variables are its own affair (bash, ksh, zsh) says 2; dash and ash say 1.
GREETING: Mapping[str, bytes] = {
    "shell": b'if [ "$BASH_VERSION$KSH_VERSION$ZSH_VERSION" ];then echo 2 >&8;else echo 1 >&8;fi\n'
    b"exec 8>&-\n",
    "python": b"",
}

_PYTHON = re.compile(r"(/usr/bin/|/bin/)?python3(\.[0-9]{1,2})?")
_OPTIONS = re.compile(r"-[bBdEIOPqRsSu]+")
# Variables that decide how an interpreter starts, and so cannot be told to a started one.
_AT_START = re.compile(r"PYTHON.*|LANG|LANGUAGE|LC_.*|PATH|HOME|MALLOC_.*|LD_.*|GLIBC_.*|TZ.*")
# Variables that mean something to a shell which only holds them for the command.
_OF_SHELLS = re.compile(
    r"OPTIND|LINENO|PPID|PS[0-9]|ENV|HIST.*|MAIL.*|OLDPWD|IFS|_|SHLVL|TERM|U?ID"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonForm:
    """A command that a started interpreter can become.

    `prefix` is the interpreter and its options, which the slot has to be parked with; `mode` is
    `c`, `f` or `m` (code, file, module), `subject` what follows it, `rest` the arguments.
    """

    prefix: tuple[str, ...]
    mode: str
    subject: str
    rest: tuple[str, ...]


def python_form(argv: Sequence[str], env: Sequence[tuple[str, str]] = ()) -> PythonForm | None:
    """The form of a command that is `python3 [OPTIONS] (-c CODE | -m MOD | FILE.py) ...`, or None.

    None also where the interpreter would have started differently: by a variable, or by an option
    that is not one of the plain flags.
    """
    if not argv or not _PYTHON.fullmatch(argv[0]) or not _env_fits(env):
        return None
    at = 1
    while at < len(argv) and _OPTIONS.fullmatch(argv[at]):
        at += 1
    prefix, rest = tuple(argv[:at]), argv[at:]
    if not rest:
        return None
    if rest[0] in {"-c", "-m"}:
        mode, rest = rest[0][1], rest[1:]
    elif rest[0].endswith(".py") and not rest[0].startswith("-"):
        # Where the file is put before sys.path by the file's real place, `os` has to be there.
        mode = "" if any("S" in each for each in prefix[1:]) else "f"
    else:
        return None
    if not mode or not rest or not _is_text(rest[0]):
        return None
    return PythonForm(prefix=prefix, mode=mode, subject=rest[0], rest=tuple(rest[1:]))


def _env_fits(env: Sequence[tuple[str, str]]) -> bool:
    return all(
        not _AT_START.fullmatch(name) or DEFAULT_ENV.get(name) == value for name, value in env
    )


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return bool(value)


def command(kind: str, prefix: Sequence[str]) -> tuple[str, ...]:
    """What to park.

    Raises:
        ValueError: there is no such kind, or the prefix is none of the kind.
    """
    if kind == "shell" and not prefix:
        return (SHELL,)
    if kind == "python" and python_form([*prefix, "-c", "pass"]) is not None:
        return (*prefix, "-c", PROGRAM)
    raise ValueError("there is no such kind of slot")


def script(
    kind: str,
    prefix: Sequence[str],
    argv: Sequence[str],
    env: Sequence[tuple[str, str]],
    *,
    empty: bool,
    plain: bool = True,
) -> bytes:
    """What the parked command is told, to become `argv` with this environment and no other.

    `empty` says that there is no input; `plain` that the shell exports what it is told and
    nothing else.

    Raises:
        ValueError: it cannot become this command.
    """
    whole = {**DEFAULT_ENV, **dict(env)}
    whole.pop("PWD", None)  # bubblewrap sets it to the job directory, whatever is asked
    if kind == "shell":
        told = _shell(argv, whole, empty=empty, plain=plain)
    else:
        form = python_form(argv, env)
        if form is None or form.prefix != tuple(prefix):
            raise ValueError("the slot's interpreter is not of the run's command")
        told = _python(form, argv, whole, empty=empty)
    if len(told) > MAX_SCRIPT_BYTES:
        raise ValueError("the command is too long for a slot")
    return told


def _quoted(text: str) -> bytes:
    """One word of a POSIX shell (XCU 2.2.2): between single quotes nothing means anything."""
    return b"'" + text.encode("utf-8", "surrogateescape").replace(b"'", b"'\\''") + b"'"


def _shell(argv: Sequence[str], env: Mapping[str, str], *, empty: bool, plain: bool) -> bytes:
    if argv[0].startswith("-"):
        raise ValueError("a shell would take the command for an option")
    words = b" ".join(_quoted(each) for each in argv)
    source = b"</dev/null" if empty else b"<&7"
    given = b" ".join(name.encode("ascii") + b"=" + _quoted(env[name]) for name in env)
    if plain and not any(_OF_SHELLS.fullmatch(name) for name in env):
        return b"export %s;exec %s %s 7<&-\n" % (given, words, source)
    if "=" in argv[0]:
        raise ValueError("env would take the command for a variable")
    given += b" PWD=" + _quoted(JOB_DIR)
    return b"exec env -i %s %s %s 7<&-\n" % (given, words, source)


def _python(form: PythonForm, argv: Sequence[str], env: Mapping[str, str], *, empty: bool) -> bytes:
    fields = [form.mode, "e" if empty else "", form.subject, str(len(form.rest)), *form.rest]
    fields += [str(len(argv)), *argv]
    for name, value in {**env, "PWD": JOB_DIR}.items():
        fields += [name, value]
    told = b"\0".join(each.encode("utf-8", "surrogateescape") for each in fields)
    return b"%08d" % len(told) + told
