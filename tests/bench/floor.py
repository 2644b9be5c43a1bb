"""The floors, each a Python program of its own that does one thing and nothing else: `python floor.py KIND [DIR]`.

bare       prints "ready: " and sleeps.
files      watches the directories below DIR with inotify; prints a line for each file that is closed after a write.
processes  listens to the kernel's process events, as the agent does, and only counts them.
words      the same, and prints the command line of each process that executed a program, if it can still be read.

Each says `ready: ` when it is.  The files and the processes are read one by one in plain Python: no library, nothing
concluded, nothing written down.  So this is a floor for a Python program, not a product.
"""

import os
import struct
import sys


def bare() -> None:
    print("ready: ", flush=True)
    sys.stdin.read()


def files(directory: str) -> None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_CLOEXEC)
    for path, _, _ in os.walk(directory):
        library.inotify_add_watch(descriptor, os.fsencode(path), 0x8 | 0x100 | 0x80 | 0x200)
    print("ready: ", flush=True)
    event = struct.Struct("iIII")
    while True:
        data = os.read(descriptor, 1 << 16)
        place = 0
        while place < len(data):
            _, mask, _, length = event.unpack_from(data, place)
            place += event.size + length
            if mask & 0x8:
                print(os.fsdecode(data[place - length : place].rstrip(b"\0")), flush=True)


def processes(*, with_words: bool = False) -> None:
    import socket

    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 11)
    connection.bind((0, 1))
    for mask in (struct.pack("=I", 1), struct.pack("=II", 1, 0x80000002)):
        body = struct.pack("=IIIIHH", 1, 1, 0, 0, len(mask), 0) + mask
        connection.sendto(struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body, (0, 0))
    print("ready: ", flush=True)
    event = struct.Struct("=16x20xI4xQII")
    buffer = bytearray(4096)
    seen = 0
    while True:
        connection.recv_into(buffer)
        what, _at, pid, group = event.unpack_from(buffer)
        seen += pid == group
        if with_words and what == 0x2:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as stream:
                    words = stream.read()
            except OSError:  # over already
                continue
            print(words.replace(b"\n", b" "), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare"]:
            bare()
        case ["files", course]:
            files(course)
        case ["processes"]:
            processes()
        case ["words"]:
            processes(with_words=True)
