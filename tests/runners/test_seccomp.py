"""The filter, run by a small interpreter of classic BPF, for machines that are not here too."""

from __future__ import annotations

import struct

import pytest

from remit.runners.seccomp import (
    AARCH64,
    ARCHITECTURES,
    NEWEST_KNOWN,
    X86_64,
    Architecture,
    program,
)

pytestmark = pytest.mark.threat("T-16")

KILL, ALLOW, EPERM, ENOSYS, NO_FAMILY = 0x80000000, 0x7FFF0000, 0x50001, 0x50026, 0x50061
both = pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: arch.name)


def judge(arch: Architecture, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter returns for one system call."""
    values = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, arch.audit if audit is None else audit, 0, *values)
    code = list(struct.iter_unpack("=HBBI", program(arch)))
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x06:
                return int(k)
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x45:
                at += if_true if accumulator & k else if_false
            case _:
                raise AssertionError(hex(operation))


@both
def test_every_call_is_answered_and_only_the_named_are_refused(arch: Architecture) -> None:
    refused = {number for number in range(NEWEST_KNOWN + 1) if judge(arch, number) == EPERM}
    assert refused == set(arch.refused.values())
    assert len(arch.refused) == len(refused)
    others = {judge(arch, number) for number in range(NEWEST_KNOWN + 1)} - {EPERM}
    assert others == {ALLOW, ENOSYS, NO_FAMILY}
    assert [n for n in range(NEWEST_KNOWN + 1) if judge(arch, n) == ENOSYS] == [435]


@both
def test_calls_newer_than_the_list_do_not_exist(arch: Architecture) -> None:
    assert {judge(arch, number) for number in (NEWEST_KNOWN + 1, 1000, 0x3FFFFFFF)} == {ENOSYS}


def test_the_x32_abi_kills() -> None:
    assert {judge(X86_64, number) for number in (0x40000000, 0x40000027, 0xFFFFFFFF)} == {KILL}


@both
def test_another_architecture_kills_whatever_it_calls(arch: Architecture) -> None:
    others = {each.audit for each in ARCHITECTURES.values()} - {arch.audit} | {0x40000003, 0}
    assert {judge(arch, n, audit=audit) for audit in others for n in (0, 39, 435)} == {KILL}


@both
def test_a_clone_may_make_threads_and_children_but_no_namespace(arch: Architecture) -> None:
    thread, child = 0x3D0F00, 17
    assert judge(arch, arch.clone, thread) == judge(arch, arch.clone, child) == ALLOW
    for bit in (7, 17, 25, 26, 27, 28, 29, 30):
        assert judge(arch, arch.clone, 1 << bit | child) == EPERM


@both
def test_the_high_half_of_an_argument_hides_nothing(arch: Architecture) -> None:
    high = 1 << 32
    assert judge(arch, arch.ioctl, 0, high | 0x5412) == EPERM
    assert judge(arch, arch.socket, high | 17, 3) == NO_FAMILY
    assert judge(arch, arch.clone, high | 0x10000000) == EPERM


@both
def test_sockets_are_local_or_of_the_internet(arch: Architecture) -> None:
    allowed = {f for f in range(64) if judge(arch, arch.socket, f, 1, 0) == ALLOW}
    assert allowed == {1, 2, 10, 16}
    assert {judge(arch, arch.socket, 16, 3, protocol) for protocol in range(1, 32)} == {NO_FAMILY}


@both
def test_jumps_stay_inside_the_program(arch: Architecture) -> None:
    code = list(struct.iter_unpack("=HBBI", program(arch)))
    assert len(code) < 4096
    for at, (operation, if_true, if_false, _) in enumerate(code):
        if operation in {0x15, 0x35, 0x45}:
            assert at + 1 + max(if_true, if_false) < len(code)
    assert code[-1][0] == 0x06
