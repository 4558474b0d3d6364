"""The first thing that runs in the sandbox: it takes away what the program must not have, and becomes it.

``python -I -S -B inside.py CPU_SECONDS MEMORY_BYTES FILE_BYTES`` reads the program from its input.
"""

import os
import sys

FOLDER = b"/tmp"
"""Where the program stands: a file system in memory, which hides what lies there. The rest is read-only."""

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    1 << 17,
    1 << 27,
    1 << 28,
    1 << 29,
    1 << 30,
)
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CAPABILITY_VERSION = 0x20080522

SOCKETS = b"/run"
"""Where services listen, which no namespace of networks hides."""

MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 1 << 1, 1 << 2, 1 << 14, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
"""The call has this number on every architecture (Linux 5.12)."""


def limit(cpu_seconds, memory_bytes, file_bytes):
    """Set the limits of this process, which its children inherit."""
    import resource

    for name, most in (
        ("RLIMIT_CPU", cpu_seconds),
        ("RLIMIT_AS", memory_bytes),
        ("RLIMIT_FSIZE", file_bytes),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 64),
    ):
        if hasattr(resource, name):
            try:
                resource.setrlimit(getattr(resource, name), (most, most))
            except (OSError, ValueError):
                if name != "RLIMIT_NPROC":  # more may run already, of the same user
                    raise


def confine(file_bytes):
    """Move to namespaces of our own; what is mounted is read-only there, but for a folder in memory."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def call(what, *words):
        if getattr(libc, what)(*words) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"{what}: {os.strerror(error)}")

    user, group = os.getuid(), os.getgid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open("/proc/self/" + name, "w") as file:
            file.write(text)
    # The first process of the namespace takes all others with it when it ends. No signal of theirs reaches
    # it, nor can it end by one itself, so it tells how the program ended.
    told, tells = os.pipe()
    leave_to_child(told, None)
    call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    read_only = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    call("syscall", MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, read_only, ctypes.sizeof(read_only))
    flags = MS_NOSUID | MS_NODEV
    call("mount", b"tmpfs", FOLDER, b"tmpfs", flags, b"size=%d,mode=700" % file_bytes)
    if os.path.isdir(SOCKETS):
        call("mount", b"tmpfs", SOCKETS, b"tmpfs", flags, b"size=4k,nr_inodes=1")
    try:
        call("mount", b"proc", b"/proc", b"proc", flags, None)
    except OSError:  # where parts of the real one are hidden, a new one is refused
        call("mount", b"tmpfs", b"/proc", b"tmpfs", flags, b"size=4k,nr_inodes=1")
    os.chdir(FOLDER)
    leave_to_child(None, tells)
    os.close(told)
    os.close(tells)
    # Whoever makes a namespace may do all in it, such as make the rest writable again: that is given up.
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())


def leave_to_child(told, tells):
    """Go on in a child; this process waits for its end and ends alike.

    ``tells`` is where to write how the child ended, ``told`` where to read what really matters; or None.
    """
    child = os.fork()
    if child == 0:
        return
    for descriptor in range(3):  # what the child writes to is closed when the child ends
        os.close(descriptor)
    ended, status = os.wait()
    while ended != child:  # orphans come here, too
        ended, status = os.wait()
    if tells is not None:
        os.write(tells, b"%d" % status)
    if told is not None:
        status = int(os.read(told, 20) or status)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), 9)
    os._exit(os.WEXITSTATUS(status))


def main():
    """Prepare, and run the program from the input as the main module."""
    cpu_seconds, memory_bytes, file_bytes = map(int, sys.argv[1:])
    source = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    confine(file_bytes)
    limit(cpu_seconds, memory_bytes, file_bytes)
    sys.argv[:] = ["program"]
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(compile(source, "program", "exec"), names)


if __name__ == "__main__":
    main()
