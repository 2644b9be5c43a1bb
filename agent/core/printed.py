"""What a program printed, cut to a length: a long text keeps its head and its tail.

Where the bytes lie (a file, memory) is the caller's: it gives a function that reads them.  So the middle of a huge
output is never read.  Bytes become text as node makes it of them: UTF-8, what can't be decoded becomes U+FFFD.

Known to be weak: a cut falls between two characters, but may fall into an escape sequence for a colour.
"""

from __future__ import annotations

from collections.abc import Callable

from .events import Captured

#: So much of each stream is kept, in bytes.  A failing test of LearnPack's courses prints 2 to 13 KB.
OUTPUT_BYTES = 256 * 1024

_LEAST_LEADS = ((0xF0, 4), (0xE0, 3), (0xC0, 2))  # the first byte of a character, and how long it is


def captured(read: Callable[[int, int], bytes], size: int, limit: int) -> Captured | None:
    """The `size` bytes that `read(offset, length)` gives, with at most about `limit` of them as text: all, or the first
    half and the last.  None where `read` gives less than it was asked for: the output is not what it was."""
    if size <= limit:
        data = read(0, size) if size else b""
        return Captured(_text(data), size) if len(data) == size else None
    half = limit // 2
    head, tail = read(0, limit - half), read(size - half, half) if half else b""
    if (len(head), len(tail)) != (limit - half, half):
        return None
    head, tail = _without_cut_end(head), _without_cut_start(tail)
    left_out = size - len(head) - len(tail)
    return Captured(f"{_text(head)}\n… {left_out} bytes left out …\n{_text(tail)}", size, whole=False)


def shortened(text: str, limit: int = OUTPUT_BYTES) -> str:
    """A text, cut in the same way where it has more than `limit` bytes in UTF-8."""
    if len(text) <= limit // 4:  # no need to count
        return text
    data = text.encode("utf-8", "replace")
    cut = captured(lambda offset, length: data[offset : offset + length], len(data), limit)
    return text if cut is None or cut.whole else cut.text


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _without_cut_end(data: bytes) -> bytes:
    """Without the beginning of a character whose rest was cut off."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            length = next((length for least, length in _LEAST_LEADS if byte >= least), 1)
            return data[:-back] if length > back else data
    return data


def _without_cut_start(data: bytes) -> bytes:
    """Without the rest of a character whose beginning was cut off."""
    start = 0
    while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]
