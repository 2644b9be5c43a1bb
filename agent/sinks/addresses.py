"""Names, addresses and the connections to them: what may be reached, and how long that may take.

A private address is refused at the address itself, however it was spelled, so a name that changes its mind doesn't
help.  Looking up a name has no time-out of its own in Python, so it is done beside.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, cast

#: Like `socket.getaddrinfo(host, port, family, kind)`.
Resolve = Callable[[str, int, int, int], list[Any]]

_IPV6_UNICAST, _NAT64 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("64:ff9b::/96")
#: They answer to machines of one cloud only, at addresses that look public (Azure's wire server, Oracle's metadata;
#: Python knows that 192.0.0.0/24 is not global since 3.11.10).
_OF_CLOUDS = tuple(ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24"))


class PrivateAddressError(Exception):
    """It leads to an address that a course's URL may not reach."""

    def __init__(self) -> None:
        super().__init__("it leads to a private address, which a course's URL may not reach")


def is_public(address: str) -> bool:
    """Whether everybody could reach it; an address within an address (IPv4 in IPv6) is what counts."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour
        if inside is None and found in _NAT64:
            inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inside is None:
            return found.is_global and found in _IPV6_UNICAST
        found = inside
    return found.is_global and not found.is_multicast and not any(found in network for network in _OF_CLOUDS)


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine, by its text."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        found = ipaddress.ip_address(host)
        return (getattr(found, "ipv4_mapped", None) or found).is_loopback
    return False


def connected(resolve: Resolve, host: str, port: int, *, private: bool, within_s: float, all_s: float) -> socket.socket:
    """A connection to the first address that may be reached and answers; each may take `within_s`, all of them and the
    look-up `all_s`.  Raises OSError, PrivateAddressError."""
    until = monotonic() + all_s
    failure: OSError | PrivateAddressError = socket.gaierror(socket.EAI_NONAME, "its name has no address")
    for family, kind, protocol, _, address in _addresses(resolve, host, port, min(within_s, all_s)):
        if not private and not is_public(str(address[0])):
            failure = PrivateAddressError()
            continue
        connection = socket.socket(family, kind, protocol)
        try:
            if (left := until - monotonic()) <= 0:
                raise TimeoutError
            connection.settimeout(min(within_s, left))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def refuse_private(resolve: Resolve, host: str, port: int, within_s: float) -> None:
    """Raises PrivateAddressError.  For what a proxy would reach for us: a name that is not known here is its affair."""
    with suppress(socket.gaierror):
        found = _addresses(resolve, host, port, within_s)
        if not all(is_public(str(address[0])) for *_, address in found):
            raise PrivateAddressError


def _addresses(resolve: Resolve, host: str, port: int, within_s: float) -> list[Any]:
    """What getaddrinfo finds, in this time.  Raises socket.gaierror."""
    found: list[Any] = []

    def look() -> None:
        # UnicodeError: a label of more than 63 characters, or none between two dots.
        with suppress(OSError, UnicodeError):
            found.append(resolve(host, port, 0, socket.SOCK_STREAM))

    thread = threading.Thread(target=look, name="look-up", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread can be had now
        look()
    else:
        thread.join(within_s)
    if not found:
        raise socket.gaierror(socket.EAI_AGAIN, "its name can't be resolved")
    return cast("list[Any]", found[0])
