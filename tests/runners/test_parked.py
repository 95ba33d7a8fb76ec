"""What a slot is told: any command and environment come out of a shell as they went in, and an
interpreter that waited is, to the program it runs, one that was started for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.runners.jail import DEFAULT_ENV
from remit.runners.parked import MAX_SCRIPT_BYTES, command, python_form, script
from tests.runners.wired import Wired, wired

pytestmark = pytest.mark.slow
SANDBOXED = pytest.mark.needs("bwrap", "userns", "cgroup")

_word = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
_raw = st.binary(max_size=20).map(
    lambda b: b.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)
_name = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True).filter(lambda n: n != "PWD")


@pytest.fixture(scope="module")
def spawner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    with wired(tmp_path_factory.mktemp("state")) as made:
        yield made


@pytest.mark.threat("T-36")
@given(st.lists(_word | _raw, max_size=5), st.dictionaries(_name, _word | _raw, max_size=4))
@pytest.mark.parametrize("plain", [True, False])
def test_no_argument_or_value_is_anything_to_the_shell_but_itself(
    plain: bool, words: list[str], env: dict[str, str]
) -> None:
    show = ("/usr/bin/python3", "-I", "-S", "-c", _SHOW)
    told = script("shell", (), (*show, *words), list(env.items()), empty=True, plain=plain)
    done = subprocess.run(
        ["/bin/sh"], input=told, env={**DEFAULT_ENV, "PWD": "/job"}, capture_output=True, check=True
    )
    whole = {**DEFAULT_ENV, **env}
    expected = [*words, *sorted(f"{name}={value}" for name, value in whole.items())]
    said = done.stdout.split(b"\0")[:-1]
    assert said == [each.encode("utf-8", "surrogateescape") for each in expected]


_SHOW = """
import sys, posix
out = [a.encode('utf-8', 'surrogateescape') for a in sys.argv[1:]]
posix.environ.pop(b'PWD', None)
posix.environ.pop(b'LC_CTYPE', None) if b'LC_CTYPE=' not in sys.argv else None
out += sorted(b'%s=%s' % pair for pair in posix.environ.items())
sys.stdout.buffer.write(b''.join(each + b'\\0' for each in out))
"""


@pytest.mark.parametrize(
    ("argv", "prefix"),
    [
        (("python3", "-c", "x"), ("python3",)),
        (("/usr/bin/python3.11", "-I", "-uB", "-m", "json.tool", "a"),
         ("/usr/bin/python3.11", "-I", "-uB")),
        (("python3", "/job/x.py"), ("python3",)),
    ],
)  # fmt: skip
def test_plain_forms_of_a_python_command_fit_a_slot(
    argv: tuple[str, ...], prefix: tuple[str, ...]
) -> None:
    form = python_form(argv)
    assert form is not None
    assert form.prefix == prefix


@pytest.mark.parametrize(
    ("argv", "env"),
    [
        (("python3",), ()),
        (("python3", "-c"), ()),
        (("python3", "-i", "-c", "x"), ()),
        (("python3", "-Wd", "-c", "x"), ()),
        (("python3", "-X", "dev", "-c", "x"), ()),
        (("python3", "-S", "x.py"), ()),
        (("python3", "archive.pyz"), ()),
        (("perl", "-c", "x"), ()),
        (("./python3", "-c", "x"), ()),
        (("python3", "-c", "x\udc80"), ()),
        (("python3", "-c", "x"), (("PYTHONPATH", "/x"),)),
        (("python3", "-c", "x"), (("LC_ALL", "C"),)),
        (("python3", "-c", "x"), (("PATH", "/job"),)),
        (("python3", "-c", "x"), (("LD_PRELOAD", "/job/x.so"),)),
    ],
)
def test_what_would_have_started_otherwise_fits_no_slot(
    argv: tuple[str, ...], env: tuple[tuple[str, str], ...]
) -> None:
    assert python_form(argv, env) is None


def test_a_slot_of_no_known_kind_or_of_other_options_is_refused() -> None:
    for kind, prefix in (("perl", ()), ("shell", ("x",)), ("python", ("python3", "-i"))):
        with pytest.raises(ValueError, match="no such kind"):
            command(kind, prefix)
    with pytest.raises(ValueError, match="interpreter"):
        script("python", ("python3",), ("python3", "-I", "-c", "x"), [], empty=True)
    with pytest.raises(ValueError, match="too long"):
        script("shell", (), ("echo", "x" * MAX_SCRIPT_BYTES), [], empty=True)
    with pytest.raises(ValueError, match="option"):
        script("shell", (), ("-x",), [], empty=True)


PROGRAMS = {
    "prints": "print('hello', 1 + 1)",
    "state": "import sys; print(sys.argv, sys.orig_argv, sys.path, sys.flags, sorted(sys.modules), "
    "sorted(globals()), __name__, __doc__, __spec__, __loader__)",
    "environment": "import os, posix; print(sorted(os.environ.items()), "
    "sorted(posix.environ.items())); os.system('env | sort')",
    "descriptors": "import os; print(os.listdir('/proc/self/fd'), os.readlink('/proc/self/fd/0'))",
    "input": "import sys; print(sys.stdin.read()); print(sys.stdin.seekable())",
    "raises": "def f():\n    return {}['missing']\nf()",
    "chained": "try:\n    1/0\nexcept ZeroDivisionError:\n    raise KeyError('x')",
    "syntax": "a = (\n",
    "exits": "import sys; sys.exit(7)",
    "exits with words": "raise SystemExit('going')",
    "interrupted": "raise KeyboardInterrupt",
    "hook": "import sys; sys.excepthook = lambda *a: print('hook', a[0], a[2].tb_lineno); 1/0",
    "atexit": "import atexit; atexit.register(print, 'late'); 1/0",
    "thread": "import threading; threading.Thread(target=lambda: print('joined')).start()",
    "last": "import sys, atexit\nclass T: pass\n"
    "atexit.register(lambda: print(sys.last_type, sys.last_traceback.tb_lineno))\n1/0",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "future": "from __future__ import annotations\ndef f(x: y): ...\nprint(f.__annotations__)",
    "warns": "import warnings; warnings.warn('w')",
}


@SANDBOXED
@pytest.mark.threat("T-36")
@pytest.mark.parametrize("options", [(), ("-I",), ("-I", "-S"), ("-u", "-E")])
@pytest.mark.parametrize("program", PROGRAMS)
def test_code_in_a_slot_says_and_ends_as_it_does_cold(
    spawner: Wired, program: str, options: tuple[str, ...]
) -> None:
    argv = ("/usr/bin/python3", *options, "-c", PROGRAMS[program], "one", "två")
    _same(spawner, argv, stdin=b"in" if program == "input" else b"")


FILES = [
    ("x.py", b"import sys, y\nprint(sys.argv, __file__, sys.path, sorted(globals()))\ny.f()\n"),
    ("y.py", b"def f():\n    raise ValueError('of y')\n"),
    ("d/__main__.py", b"import sys\nprint(sys.argv, sys.path[:1], __file__, __package__)\n1/0\n"),
]  # fmt: skip


@SANDBOXED
@pytest.mark.parametrize("options", [(), ("-I",), ("-P",)])
@pytest.mark.parametrize(
    "rest",
    [("x.py", "a"), ("./x.py",), ("/job/x.py",), ("absent.py",), ("-m", "x"), ("-m", "y", "a"),
     ("-m", "json.tool", "--help"), ("-m", "absent"), ("-m", "d")],
)  # fmt: skip
def test_files_and_modules_in_a_slot_say_and_end_as_they_do_cold(
    spawner: Wired, rest: tuple[str, ...], options: tuple[str, ...]
) -> None:
    _same(spawner, ("python3", *options, *rest), files=FILES)


def _same(spawner: Wired, argv: tuple[str, ...], *, stdin: bytes = b"", files=()) -> None:
    form = python_form(argv)
    assert form is not None
    env = [("ONE", "två words\n'"), ("B", "")]
    slot, out, _ = spawner.park("python", *form.prefix)
    warm = spawner.become(slot, out, *argv, stdin=stdin, files=files, env=env)
    from remit.runners.wire import sealed_file

    cold = spawner.run(
        *argv,
        stdin=stdin,
        env=env,
        files=[path for path, _ in files],
        fds=[sealed_file("file", data) for _, data in files],
    )
    assert warm[0] == cold[0]
    assert (warm[1]["code"], warm[1]["signal"]) == (cold[1]["code"], cold[1]["signal"])


@SANDBOXED
@pytest.mark.threat("T-36")
def test_a_command_in_a_shell_slot_sees_what_it_sees_cold(spawner: Wired) -> None:
    look = "env | sort; ls /proc/self/fd; cat; umask; ulimit -n; pwd; trap; cat /proc/$$/cmdline"
    argv = ("/bin/sh", "-c", f"echo $0 $@; {look}", "it's", "a b", "$HOME")
    env = [("A", "it's"), ("PATH", "/bin"), ("N", "a\nb")]
    slot, out, _ = spawner.park("shell")
    warm = spawner.become(slot, out, *argv, stdin=b"input", env=env)
    cold = spawner.run(*argv, stdin=b"input", env=env)
    assert warm[0] == cold[0]
    assert warm[1]["code"] == cold[1]["code"] == 0
