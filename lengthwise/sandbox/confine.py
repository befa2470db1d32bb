"""Takes from this process, for good, what a program under test must not have: run first thing in a fresh interpreter.

Uses the standard library alone, since it runs where nothing else may be imported. Each step needs no privilege:
limits of the kernel (rlimits), Landlock (which files; Linux 5.13), and a seccomp filter (which system calls: no
sockets, no new processes, no signals to others, no tracing, no mounts). Threads are allowed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 38, 22
SIGKILL = 9

_LANDLOCK = {"create": 444, "add_rule": 445, "restrict": 446}
"""System calls; the same numbers on all architectures."""
_RULE_PATH_BENEATH = 1
_CREATE_RULESET_VERSION = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READS = _EXECUTE | _READ_FILE | _READ_DIR
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights to files that a version of Landlock knows; later versions know no more."""
_DEVICES = 1 << 6 | 1 << 11
"""To make character and block devices, which would reach around all rights to files."""
_NET, _SCOPE = 3, 3
"""TCP bind and connect (version 4); abstract sockets and signals (version 6)."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_DENIED = {
    "x86_64": {
        "socket": 41, "connect": 42, "accept": 43, "bind": 49, "listen": 50, "socketpair": 53, "accept4": 288,
        "fork": 57, "vfork": 58, "setsid": 112, "setpgid": 109, "kill": 62, "tkill": 200, "tgkill": 234,
        "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203,
        "sched_setattr": 314, "setpriority": 141, "ioprio_set": 251, "shmget": 29, "shmat": 30, "shmctl": 31,
        "semget": 64, "semop": 65, "semctl": 66, "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71,
        "semtimedop": 220, "mq_open": 240, "mq_unlink": 241, "mknod": 133, "mknodat": 259, "pivot_root": 155,
        "chroot": 161, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169,
        "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "acct": 163, "settimeofday": 164,
        "adjtimex": 159, "clock_settime": 227, "clock_adjtime": 305, "quotactl": 179, "syslog": 103,
        "init_module": 175, "delete_module": 176, "finit_module": 313, "kexec_load": 246, "kexec_file_load": 320,
        "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "setns": 308, "perf_event_open": 298,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "bpf": 321, "userfaultfd": 323,
    },
    "aarch64": {
        "socket": 198, "connect": 203, "accept": 202, "bind": 200, "listen": 201, "socketpair": 199, "accept4": 242,
        "setsid": 157, "setpgid": 154, "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271,
        "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "sched_setattr": 274,
        "setpriority": 140, "ioprio_set": 30, "shmget": 194, "shmat": 196, "shmctl": 195, "semget": 190, "semop": 193,
        "semctl": 191, "msgget": 186, "msgsnd": 189, "msgrcv": 188, "msgctl": 187, "semtimedop": 192, "mq_open": 180,
        "mq_unlink": 181, "mknodat": 33, "pivot_root": 41, "chroot": 51, "mount": 40, "umount2": 39, "swapon": 224,
        "swapoff": 225, "reboot": 142, "sethostname": 161, "setdomainname": 162, "acct": 89, "settimeofday": 170,
        "adjtimex": 171, "clock_settime": 112, "clock_adjtime": 266, "quotactl": 60, "syslog": 116,
        "init_module": 105, "delete_module": 106, "finit_module": 273, "kexec_load": 104, "kexec_file_load": 294,
        "add_key": 217, "request_key": 218, "keyctl": 219, "unshare": 97, "setns": 268, "perf_event_open": 241,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "bpf": 280, "userfaultfd": 282,
    },
}  # fmt: skip
"""System calls by number: the network, new processes and sessions, signals to, memory and scheduling of others, what
outlives a process in the kernel, devices, the kernel's set-up."""
_DENIED_EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438,
    "mount_setattr": 442,
}  # fmt: skip
_PRCTL, _FCNTL, _PRLIMIT = (
    {"x86_64": 157, "aarch64": 167},
    {"x86_64": 72, "aarch64": 25},
    {"x86_64": 302, "aarch64": 261},
)
_SIGNALS_BY_FILES = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: who gets a signal when a file is ready, and which."""
_CLONE_THREAD = 0x10000
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)


def limit_resources(seconds: float, memory_mb: int, file_mb: int) -> None:
    """Limit CPU time, address space, file sizes and descriptors of this process."""
    mib = 1024 * 1024
    cpu = int(seconds) + 1
    for kind, value in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory_mb * mib),
        (resource.RLIMIT_FSIZE, file_mb * mib),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, 64 * mib),
    ):
        _soft, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)


def renounce_privileges() -> None:
    """Give up what set-user-id programs would give; Landlock and seccomp ask for it."""
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS is refused")


def drop_capabilities() -> None:
    """Give up what root may do and others may not.

    Raises:
        OSError: the kernel refuses.
    """
    header = struct.pack("Ii", 0x20080522, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset is refused")


def landlock_version() -> int:
    """Return the version of Landlock that the kernel has, 0 for none."""
    found = _libc.syscall(_LANDLOCK["create"], None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(0, found)


def restrict_files(readable: list[str], writable: list[str]) -> None:
    """Leave this process the given folders and files, to read or to write, and nothing else.

    Raises:
        OSError: the kernel has no Landlock, or refuses.
    """
    version = landlock_version()
    if version == 0:
        raise OSError("this kernel has no Landlock")
    rights = _RIGHTS[min(version, 5)]
    attributes = struct.pack("QQQ", rights, _NET if version >= 4 else 0, _SCOPE if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _libc.syscall(_LANDLOCK["create"], attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset is refused")
    try:
        for paths, allowed in ((readable, _READS), (writable, rights)):
            for path in paths:
                _allow_beneath(ruleset, path, allowed & rights & ~_DEVICES)
        if _libc.syscall(_LANDLOCK["restrict"], ruleset, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_restrict_self is refused")
    finally:
        os.close(ruleset)


def _allow_beneath(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):  # rights to folders are refused for a file
            rights &= _EXECUTE | _WRITE_FILE | _READ_FILE
        rule = struct.pack("=Qi", rights, opened)
        if _libc.syscall(_LANDLOCK["add_rule"], ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule is refused for {path}")
    finally:
        os.close(opened)


def restrict_calls() -> None:
    """Forbid system calls that reach other processes, the network, or the kernel's set-up.

    Raises:
        OSError: an architecture whose numbers are not known here, or the kernel refuses.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(f"no filter of system calls is known for {machine}")
    program = _filter(machine)
    buffer = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    )
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    if _libc.prctl(PR_SET_SECCOMP, 2, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "a seccomp filter is refused")


def _filter(machine: str) -> list[tuple[int, int, int, int]]:
    """Return a program of the Berkeley packet filter: (code, instructions to skip if true, if false, constant)."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, _ARCHITECTURES[machine]),
        (answer, 0, 0, _KILL),
        (load, 0, 0, 0),  # the number of the call
    ]
    if machine == "x86_64":  # calls of its 32-bit form have other numbers
        program += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, _ERRNO | _ENOSYS)]
    program += [
        (equal, 0, 1, _CLONE3),  # its flags lie in memory, where no filter sees them: libc goes on with clone
        (answer, 0, 0, _ERRNO | _ENOSYS),
        (equal, 0, 4, _CLONE[machine]),
        (load, 0, 0, 16),  # the first argument, its lower half
        (any_bit, 1, 0, _CLONE_THREAD),
        (answer, 0, 0, _ERRNO | _EPERM),
        (answer, 0, 0, _ALLOW),
    ]
    deny = (answer, 0, 0, _ERRNO | _EPERM)
    first, second = (load, 0, 0, 16), (load, 0, 0, 24)  # the lower halves of the first two arguments
    program += [
        (equal, 0, 4, _PRCTL[machine]),  # not to outlive the parent after all
        *(first, (equal, 0, 1, PR_SET_PDEATHSIG), deny, (answer, 0, 0, _ALLOW)),
        (equal, 0, 4, _PRLIMIT[machine]),  # limits of this process alone
        *(first, (equal, 1, 0, 0), deny, (answer, 0, 0, _ALLOW)),
        (equal, 0, 3 + len(_SIGNALS_BY_FILES), _FCNTL[machine]),
        second,
        *((equal, len(_SIGNALS_BY_FILES) - i, 0, value) for i, value in enumerate(_SIGNALS_BY_FILES)),
        *((answer, 0, 0, _ALLOW), deny),
    ]
    for number in (*_DENIED[machine].values(), *_DENIED_EVERYWHERE.values()):
        program += [(equal, 0, 1, number), (answer, 0, 0, _ERRNO | _EPERM)]
    return [*program, (answer, 0, 0, _ALLOW)]
