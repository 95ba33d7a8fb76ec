"""The filter, run by a small interpreter of classic BPF, for machines that are not here too."""

from __future__ import annotations

import pytest

from remit.runners.seccomp import (
    AARCH64,
    ARCHITECTURES,
    REFUSED_IOCTLS,
    X86_64,
    Architecture,
    program,
    program_of_modes,
)
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
    decoded,
    verdict,
)

pytestmark = pytest.mark.threat("T-16")

both = pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: arch.name)
TREE = {each.name: decoded(program(each)) for each in ARCHITECTURES.values()}

DANGEROUS = """
ptrace 101 117; process_vm_readv 310 270; process_vm_writev 311 271; kcmp 312 272; mount 165 40;
umount2 166 39; pivot_root 155 41; chroot 161 51; unshare 272 97; setns 308 268; add_key 248 217;
request_key 249 218; keyctl 250 219; bpf 321 280; perf_event_open 298 241; userfaultfd 323 282;
kexec_load 246 104; init_module 175 105; finit_module 313 273; delete_module 176 106;
kexec_file_load 320 294; reboot 169 142; swapon 167 224; swapoff 168 225; quotactl 179 60;
syslog 103 116; acct 163 89; name_to_handle_at 303 264; open_by_handle_at 304 265;
fanotify_init 300 262; iopl 172 -; ioperm 173 -; modify_ldt 154 -; vmsplice 278 75;
settimeofday 164 170; clock_settime 227 112; adjtimex 159 171; remap_file_pages 216 234;
sethostname 170 161; io_uring_setup 425 425; io_uring_enter 426 426; io_uring_register 427 427;
open_tree 428 428; move_mount 429 429; fsopen 430 430; fsconfig 431 431; fsmount 432 432;
fspick 433 433; pidfd_getfd 438 438; process_madvise 440 440; mount_setattr 442 442;
quotactl_fd 443 443; memfd_secret 447 447; statmount 457 457; listmount 458 458
"""
"""Name, number on x86_64, number on aarch64; written down apart from the table."""


def judge(arch: Architecture, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter returns for one system call."""
    return verdict(TREE[arch.name], arch.audit if audit is None else audit, number, arguments)


@both
def test_what_the_table_names_is_allowed_and_all_else_is_refused(arch: Architecture) -> None:
    named = {arch.numbers[name] for name in arch.numbers.keys() - JUDGED}
    judged = {arch.numbers[name] for name in JUDGED & arch.numbers.keys()}
    known = range(NEWEST_KNOWN + 1)
    assert {number for number in known if judge(arch, number) == ALLOW} - judged == named
    others = set(known) - named - judged
    assert {judge(arch, number) for number in others} == {EPERM}


@both
def test_what_reaches_deep_into_the_kernel_is_refused_whatever_it_asks(arch: Architecture) -> None:
    rows = [row.split() for row in DANGEROUS.replace("\n", "").split(";")]
    column = ["x86_64", "aarch64"].index(arch.name) + 1
    dangerous = {row[0]: int(row[column]) for row in rows if row[column] != "-"}
    assert not dangerous.keys() & arch.numbers.keys()
    for number in dangerous.values():
        assert {judge(arch, number, value, value) for value in (0, 1, 2**64 - 1)} == {EPERM}


@both
def test_calls_newer_than_the_table_do_not_exist(arch: Architecture) -> None:
    assert {judge(arch, number) for number in (NEWEST_KNOWN + 1, 1000, 0x3FFFFFFF)} == {ENOSYS}


def test_the_x32_abi_kills() -> None:
    assert {judge(X86_64, number) for number in (0x40000000, 0x40000027, 0xFFFFFFFF)} == {KILL}


@both
def test_another_architecture_kills_whatever_it_calls(arch: Architecture) -> None:
    others = {each.audit for each in ARCHITECTURES.values()} - {arch.audit} | {0x40000003, 0}
    assert {judge(arch, n, audit=audit) for audit in others for n in (0, 39, 435)} == {KILL}


@both
def test_a_clone_may_make_threads_and_children_but_no_namespace(arch: Architecture) -> None:
    thread, child, clone = 0x3D0F00, 17, arch.numbers["clone"]
    assert judge(arch, clone, thread) == judge(arch, clone, child) == ALLOW
    for bit in (7, 17, 25, 26, 27, 28, 29, 30):
        assert judge(arch, clone, 1 << bit | child) == EPERM
    assert judge(arch, arch.numbers["clone3"], thread) == ENOSYS


@both
def test_the_high_half_of_an_argument_hides_nothing(arch: Architecture) -> None:
    high, numbers = 1 << 32, arch.numbers
    assert judge(arch, numbers["ioctl"], 0, high | 0x5412) == EPERM
    assert judge(arch, numbers["socket"], high | 17, 3) == NO_FAMILY
    assert judge(arch, numbers["socket"], high | 2, 1, high | 132) == NO_PROTOCOL
    assert judge(arch, numbers["clone"], high | 0x10000000) == EPERM
    assert judge(arch, numbers["personality"], high | 0x40000) == EPERM


@both
def test_a_terminal_is_given_no_input_and_no_line_discipline(arch: Architecture) -> None:
    ioctl = arch.numbers["ioctl"]
    assert {judge(arch, ioctl, 0, each) for each in (0x5412, 0x541C, 0x5423)} == {EPERM}
    assert set(REFUSED_IOCTLS) == {0x5412, 0x541C, 0x5423}
    assert {judge(arch, ioctl, 0, each) for each in (0x5401, 0x5413, 0x541B)} == {ALLOW}


@both
def test_a_personality_may_be_asked_for_but_no_protection_turned_off(arch: Architecture) -> None:
    call = arch.numbers["personality"]
    assert judge(arch, call, 0) == judge(arch, call, 0xFFFFFFFF) == ALLOW
    for value in (0x0040000, 0x0400000, 0x0100000, 0x20000, 8):  # randomisation, READ_IMPLIES_EXEC
        assert judge(arch, call, value) == EPERM


@both
def test_sockets_are_local_or_of_the_internet(arch: Architecture) -> None:
    socket = arch.numbers["socket"]
    assert {f for f in range(64) if judge(arch, socket, f, 1, 0) == ALLOW} == {1, 2, 10, 16}
    assert {judge(arch, socket, 16, 3, protocol) for protocol in range(1, 32)} == {NO_FAMILY}
    spoken = {f: {p for p in range(512) if judge(arch, socket, f, 1, p) == ALLOW} for f in (2, 10)}
    assert spoken == {2: {0, 1, 6, 17}, 10: {0, 6, 17, 58}}
    assert judge(arch, socket, 2, 1, 132) == NO_PROTOCOL
    pair = arch.numbers["socketpair"]
    assert [f for f in range(64) if judge(arch, pair, f, 1, 0) == ALLOW] == [1]


@both
def test_no_file_is_made_or_changed_to_act_as_its_owner(arch: Architecture) -> None:
    numbers, high = arch.numbers, 1 << 32
    modes = {"fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "mknodat": 2, "chmod": 1, "creat": 1}
    for name, at in modes.items():
        for mode in (0o4755, 0o2755, 0o6000, high | 0o4000):
            if name in numbers:
                assert judge(arch, numbers[name], *(0,) * at, mode) == EPERM, name
                assert judge(arch, numbers[name], *(0,) * at, mode & 0o1777) == ALLOW, name
    for making in (0o100, 0o20200000, 0o1101, high | 0o100):
        assert judge(arch, numbers["openat"], 3, 0, making, 0o4755) == EPERM
        assert judge(arch, numbers["openat"], 3, 0, making, 0o1777) == ALLOW
    assert judge(arch, numbers["openat"], 3, 0, 2, 0o4755) == ALLOW  # no file is made: no mode
    assert judge(arch, numbers["openat2"], 3, 0, 0, 24) == ENOSYS


@both
def test_what_no_group_counts_or_all_share_is_not_given(arch: Architecture) -> None:
    numbers = arch.numbers
    assert judge(arch, numbers["mmap"], 0, 1 << 21, 3, 0x40022) == NO_MEMORY
    assert judge(arch, numbers["mmap"], 0, 1 << 21, 3, 0x22) == ALLOW
    assert judge(arch, numbers["memfd_create"], 0, 5) == NO_MEMORY
    assert judge(arch, numbers["shmget"], 0, 1 << 21, 0o5600) == NO_MEMORY
    assert judge(arch, numbers["io_setup"], 1) == ENOSYS


@both
def test_the_limit_on_core_files_can_be_asked_for_and_stays(arch: Architecture) -> None:
    numbers = arch.numbers
    assert judge(arch, numbers["setrlimit"], 4, 1000) == AS_IF_DONE
    assert judge(arch, numbers["setrlimit"], 7, 1000) == ALLOW
    for pointer in (1000, 1 << 32):
        assert judge(arch, numbers["prlimit64"], 0, 4, pointer) == AS_IF_DONE
        assert judge(arch, numbers["prlimit64"], 0, 7, pointer) == ALLOW
    assert judge(arch, numbers["prlimit64"], 0, 4, 0, 1000) == ALLOW


@both
def test_jumps_stay_inside_the_program(arch: Architecture) -> None:
    code = TREE[arch.name]
    assert len(code) < 4096
    for at, (operation, if_true, if_false, distance) in enumerate(code):
        if operation in {0x15, 0x35, 0x45}:
            assert at + 1 + max(if_true, if_false) < len(code)
        if operation == 0x05:
            assert at + 1 + distance < len(code)
    assert code[-1][0] == 0x06


def test_numbers_from_424_on_are_the_same_everywhere() -> None:
    common = X86_64.numbers.keys() & AARCH64.numbers.keys()
    assert len(common) > 200
    for name in common:
        if max(X86_64.numbers[name], AARCH64.numbers[name]) >= 424:
            assert X86_64.numbers[name] == AARCH64.numbers[name], name


@both
def test_the_filter_beside_another_refuses_set_id_files_and_nothing_else(
    arch: Architecture,
) -> None:
    code, numbers = decoded(program_of_modes(arch)), arch.numbers

    def given(number: int, *arguments: int) -> int:
        return verdict(code, arch.audit, number, arguments)

    assert given(numbers["fchmodat"], 3, 0, 0o4755) == EPERM
    assert given(numbers["openat"], 3, 0, 0o101, 0o2755) == EPERM
    refusing = {number for number in range(NEWEST_KNOWN + 40) if given(number) != ALLOW}
    assert refusing == {numbers["openat2"]}
    assert verdict(code, 0x40000003, 15) == EPERM
