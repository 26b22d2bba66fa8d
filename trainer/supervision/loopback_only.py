"""Keeps every port that a training process opens on this machine's loopback interface.

TensorFlow's gRPC server listens on all interfaces, and no setting of it names an address. So the kernel stops the
process at each ``listen`` (seccomp's user notification, seccomp_unotify(2)), its supervisor binds the socket to the
interface ``lo``, and ``listen`` goes on: at no moment can another machine connect. That takes no privilege, but
Linux 5.7 on x86-64 or 64-bit ARM. Other users of this machine still reach the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

_CALLS = {"x86_64": (0xC000003E, 50, 317), "aarch64": (0xC00000B7, 201, 277)}
"""Of a processor: its name in linux/audit.h, and the numbers of ``listen`` and ``seccomp`` in asm/unistd.h."""
_PIDFD_GETFD = 438  # of every processor
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_ARCHITECTURE, _NUMBER = 4, 0  # offsets in struct seccomp_data
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000  # SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF
_SET_FILTER, _AS_FAST, _NEW_LISTENER = 1, 1 << 2, 1 << 3  # SECCOMP_SET_MODE_FILTER; _FLAG_SPEC_ALLOW, _NEW_LISTENER
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS, without which only root may set a filter
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


class LoopbackOnly:
    """Of one training process and what that starts.

    Args:
        report_line: prints a line for the user, where the system does not allow it.
    """

    def __init__(self, report_line: Callable[[str], None]):
        self._report_line = report_line
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._notices = -1
        self._has_reported = False

    def ask(self) -> None:
        """For ``preexec_fn``: has the kernel stop this child wherever it listens, until its parent lets it go on."""
        if sys.platform != "linux" or platform.machine() not in _CALLS:
            return
        architecture, listen, seccomp = _CALLS[platform.machine()]
        steps = [
            (_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 0, 3, architecture),
            (_LOAD, 0, 0, _NUMBER), (_IF_EQUAL, 0, 1, listen),
            (_RETURN, 0, 0, _NOTIFY), (_RETURN, 0, 0, _ALLOW),
        ]  # fmt: skip
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
        program = struct.pack("@HP", len(steps), ctypes.addressof(code))
        self._libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        notices = self._libc.syscall(seccomp, _SET_FILTER, _AS_FAST | _NEW_LISTENER, program)
        if notices < 0:
            self._theirs.send(os.strerror(ctypes.get_errno()).encode())
        else:
            socket.send_fds(self._theirs, [b"-"], [notices])

    def attend(self) -> None:
        """In the parent, once the child runs: lets it listen on the loopback interface, for as long as it lives."""
        try:
            words, notices, *_ = socket.recv_fds(self._ours, 200, 1)
        except BlockingIOError:
            words, notices = b"there is no seccomp here", []
        self._ours.close()
        self._theirs.close()
        if notices:
            (self._notices,) = notices
            asyncio.get_running_loop().add_reader(self._notices, self._let_listen)
        else:
            self._report_open(words.decode())

    def _let_listen(self) -> None:
        poll = select.poll()
        poll.register(self._notices)
        if poll.poll(0)[0][1] & select.POLLHUP:  # the child is gone, with all that it started
            asyncio.get_running_loop().remove_reader(self._notices)
            os.close(self._notices)
            return
        notice = bytearray(80)  # struct seccomp_notif
        with contextlib.suppress(FileNotFoundError):  # it has been killed meanwhile
            fcntl.ioctl(self._notices, _RECEIVE, notice)
            number, thread = struct.unpack_from("=QI", notice)
            (descriptor,) = struct.unpack_from("=Q", notice, 32)  # the call's first argument
            try:
                self._bind_to_loopback(thread, descriptor)
            except OSError as error:
                self._report_open(error.strerror or str(error))
            fcntl.ioctl(self._notices, _SEND, struct.pack("=QqiI", number, 0, 0, _CONTINUE))

    def _bind_to_loopback(self, thread: int, descriptor: int) -> None:
        status = Path(f"/proc/{thread}/status").read_text()
        process = os.pidfd_open(int(status.partition("\nTgid:")[2].split()[0]))
        try:
            copy = self._libc.syscall(_PIDFD_GETFD, process, ctypes.c_uint(descriptor), 0)
            if copy < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(process)
        with socket.socket(fileno=copy) as listening:
            if listening.family in (socket.AF_INET, socket.AF_INET6):
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")

    def _report_open(self, why: str) -> None:
        """Once, however many ports there are."""
        if self._has_reported:
            return
        self._has_reported = True
        self._report_line(
            f"warning: TensorFlow's ports are open to other machines, which may read and write files through them "
            f"({why}): close the ports from 10000 on to the outside, or train with --workers 1"
        )
