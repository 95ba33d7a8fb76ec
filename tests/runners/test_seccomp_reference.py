"""The filter against libseccomp: the same rules said to the library, both programs simulated.

The rules below are written again, from the documents and not from `remit.runners.seccomp`'s code;
numbers come from the library's own tables.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterable, Iterator

import pytest

from remit.runners.seccomp import ARCHITECTURES, Architecture, program
from remit.runners.syscalls import NEWEST_KNOWN
from tests.runners.bpf import (
    ALLOW,
    AS_IF_DONE,
    ENOSYS,
    EPERM,
    JUDGED,
    KILL,
    NO_FAMILY,
    NO_MEMORY,
    NO_PROTOCOL,
    Code,
    decoded,
    verdict,
)

pytestmark = [pytest.mark.threat("T-16"), pytest.mark.needs("libseccomp")]

ACT_BADARCH = 2  # SCMP_FLTATR_ACT_BADARCH
MASKED, NOT_EQUAL = 7, 1  # SCMP_CMP_MASKED_EQ, SCMP_CMP_NE
LOW = 0xFFFFFFFF
NAMESPACES = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
NEWEST_OF_LIBRARY = 450
"""libseccomp 2.5.4's newest number; later ones it is not asked about."""

OTHERWISE = {"ioctl", "setrlimit", "prlimit64"}
"""Said to the library by what is refused of them."""


Rule = tuple[int, str, tuple[tuple[int, int, int, int], ...]]


class Comparison(ctypes.Structure):  # struct scmp_arg_cmp
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def low(index: int, value: int, mask: int = LOW) -> tuple[int, int, int, int]:
    return index, MASKED, mask, value


def library() -> ctypes.CDLL:
    found = ctypes.CDLL("libseccomp.so.2")
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    for name in ("seccomp_arch_add", "seccomp_arch_remove"):
        getattr(found, name).argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    found.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(Comparison),
    ]
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    found.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    return found


def rules(arch: Architecture) -> Iterator[Rule]:
    """What the documentation says, in the library's terms; an answer is an action of it."""
    for name in sorted(arch.numbers.keys() - JUDGED):
        yield ALLOW, name, ()
    for name in ("clone3", "openat2", "io_setup"):
        yield ENOSYS, name, ()
    modes = {"chmod": 1, "fchmod": 1, "creat": 1, "mknod": 1, "fchmodat": 2, "mknodat": 2}
    for name, index in modes.items():
        if name in arch.numbers:
            yield ALLOW, name, (low(index, 0, 0o6000),)
    for name, index in (("open", 1), ("openat", 2)):
        if name in arch.numbers:
            yield ALLOW, name, (low(index, 0, 0o100 | 0o20000000),)
            yield ALLOW, name, (low(index + 1, 0, 0o6000),)
    for name, index, flag in (("mmap", 3, 0x40000), ("memfd_create", 1, 4), ("shmget", 2, 0o4000)):
        yield ALLOW, name, (low(index, 0, flag),)
    yield ALLOW, "clone", (low(0, 0, sum(NAMESPACES)),)
    yield ALLOW, "socketpair", (low(0, 1),)
    yield ALLOW, "personality", (low(0, 0),)
    yield ALLOW, "personality", (low(0, LOW),)
    yield ALLOW, "socket", (low(0, 1),)
    for family, protocols in ((2, (0, 1, 6, 17)), (10, (0, 6, 17, 58)), (16, (0,))):
        for protocol in protocols:
            yield ALLOW, "socket", (low(0, family), low(2, protocol))


def refused(arch: Architecture) -> Iterator[Rule]:
    """What is allowed but for some values is said to the library the other way round."""
    for request in (0x5412, 0x541C, 0x5423):
        yield EPERM, "ioctl", (low(1, request),)
    yield AS_IF_DONE, "setrlimit", (low(0, 4),)
    yield AS_IF_DONE, "prlimit64", (low(1, 4), (2, NOT_EQUAL, 0, 0))


def compiled(arch: Architecture, said: Iterable[Rule], default: int) -> Code:
    """Rules as libseccomp compiles them; `default` where none fits."""
    lib = library()
    context = lib.seccomp_init(default)
    try:
        assert lib.seccomp_attr_set(context, ACT_BADARCH, KILL) == 0
        lib.seccomp_arch_add(context, arch.audit)
        for other in ARCHITECTURES.values():
            if other is not arch:
                lib.seccomp_arch_remove(context, other.audit)
        for action, name, comparisons in said:
            _add(lib, context, action, name, comparisons)
        with tempfile.TemporaryFile() as file:
            assert lib.seccomp_export_bpf(context, file.fileno()) == 0
            return decoded(os.pread(file.fileno(), 1 << 20, 0))
    finally:
        lib.seccomp_release(context)


def _add(
    lib: ctypes.CDLL, context: int, action: int, name: str, comparisons: tuple[tuple[int, ...], ...]
) -> None:
    number = lib.seccomp_syscall_resolve_name(name.encode())
    if number == -1:
        return  # newer than the library
    given = (Comparison * max(1, len(comparisons)))(*(Comparison(*each) for each in comparisons))
    failed = lib.seccomp_rule_add_array(context, action, number, len(comparisons), given)
    assert failed == 0, (name, failed)


both = pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=lambda arch: arch.name)


def softened(found: int) -> int:
    """The library was told one way to refuse; ours also says what is missing."""
    return EPERM if found in {NO_FAMILY, NO_PROTOCOL, NO_MEMORY} else found


def values() -> Iterator[tuple[int, ...]]:
    """Arguments that matter to some rule, their neighbours, and the same with the upper half set."""
    interesting = {0o4755, 0o2000, 0o1777, 0o100, 0o101, 0o20200000, 0x40022, 4, 5, 7}
    interesting |= {0, 1, 2, 3, 8, 10, 16, 17, 58, 132, 262, 0x40000, 0x20008, LOW, LOW - 1}
    interesting |= {0x5401, 0x5411, 0x5412, 0x5413, 0x541C, 0x5422, 0x5423, *NAMESPACES, 0x3D0F00}
    high = {value | 1 << 32 for value in interesting} | {value | 0xFFFF << 48 for value in (0, 1)}
    for value in sorted(interesting | high):
        yield (value, 0, 0)
        yield (0, value, 0)
        for other in (0, 4, 0o6755, 0o40, 0x40000, 1 << 32):
            yield (0, other, value)
            yield (0, value, other)
            yield (0, 0, value, other)
            yield (0, 0, other, value)
        for family in (1, 2, 10, 16, 17, 40, 1 << 32 | 2):
            yield (family, 1, value)


@both
def test_each_call_gets_the_answer_that_libseccomp_would_give(arch: Architecture) -> None:
    ours, theirs = decoded(program(arch)), compiled(arch, rules(arch), EPERM)
    others = compiled(arch, refused(arch), ALLOW)
    numbers = {arch.numbers[name]: name for name in JUDGED & arch.numbers.keys()}
    for number in range(NEWEST_OF_LIBRARY + 1):
        reference = others if numbers.get(number) in OTHERWISE else theirs
        asked = values() if number in numbers else iter([(), (1, 1, 1), (2**64 - 1,) * 6])
        for arguments in asked:
            mine = softened(verdict(ours, arch.audit, number, arguments))
            assert mine == verdict(reference, arch.audit, number, arguments), (number, arguments)


@both
def test_foreign_architectures_and_x32_get_the_librarys_answer(arch: Architecture) -> None:
    ours, theirs = decoded(program(arch)), compiled(arch, rules(arch), EPERM)
    for audit in (0, 0x40000003, 0x40000028, *(each.audit for each in ARCHITECTURES.values())):
        for number in (0, 59, 101):
            assert verdict(ours, audit, number) == verdict(theirs, audit, number)
    if arch.x32:  # -1, which the library lets a tracer use, kills here too: a run has no tracer
        assert verdict(ours, arch.audit, LOW) == KILL
        for number in (0x40000000, 0x40000001, 0x400001FF, LOW - 1):
            assert verdict(ours, arch.audit, number) == verdict(theirs, arch.audit, number) == KILL


@both
def test_the_numbers_of_the_table_are_those_of_the_library(arch: Architecture) -> None:
    lib = library()
    known = 0
    for name, number in arch.numbers.items():
        if number <= NEWEST_OF_LIBRARY:
            assert lib.seccomp_syscall_resolve_name_arch(arch.audit, name.encode()) == number, name
            known += 1
    assert known > 230


@both
def test_no_call_is_missing_on_one_architecture_alone_without_the_library_saying_so(
    arch: Architecture,
) -> None:
    lib = library()
    everywhere = {name for each in ARCHITECTURES.values() for name in each.numbers}
    for name in everywhere - arch.numbers.keys():
        assert lib.seccomp_syscall_resolve_name_arch(arch.audit, name.encode()) < 0, name


def test_the_table_goes_further_than_the_library_by_little() -> None:
    assert NEWEST_KNOWN - NEWEST_OF_LIBRARY < 32
