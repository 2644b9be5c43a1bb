"""Telling systemd how the service is doing (sd_notify(3), `Type=notify`).  Without systemd: silence."""

from __future__ import annotations

import os
import socket


def notify(**variables: str) -> None:
    """Send `VARIABLE=value` lines to $NOTIFY_SOCKET, e.g. `notify(READY="1", STATUS="watching")`.

    Never raises: a service manager that does not listen is no reason to stop watching.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={value}" for name, value in variables.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), address)
    except OSError:
        pass
