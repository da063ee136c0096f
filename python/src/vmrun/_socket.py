"""Connects to a socket whose path may be longer than the kernel's address of one."""

from __future__ import annotations

import os
import socket

# sun_path, without the zero at its end
LONGEST = 107


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if len(os.fsencode(path)) <= LONGEST:
            connection.connect(path)
        else:
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
            finally:
                os.close(folder)
    except BaseException:
        connection.close()
        raise
    return connection
