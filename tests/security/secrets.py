"""Secrets that cannot be mistaken for anything else, and a search for them in whatever form they were written."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import quote

#: stands in every piece of a secret, so that a secret that was cut in the middle is found as well
MARK = "K4nary"


def secret(name: str, *, separators: str = "@/%#?:'\"\\&= ") -> str:
    """A password with each of the characters that something stumbles over, and with text that is not ASCII."""
    pieces = "".join(f"{separator}{MARK}{number}" for number, separator in enumerate(separators))
    return f"{MARK}{name}{pieces}-grün-λ"


def found(data: bytes | str, *secrets: str) -> list[str]:
    """Each form of a secret, or of a piece of one, that the data holds, with what surrounds it."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    hits = [text[max(0, hit.start() - 60) : hit.end() + 20] for hit in re.finditer(MARK, text, re.IGNORECASE)]
    wide = [] if isinstance(data, str) else [form for form in _wide() if form in data]
    return [*hits, *map(repr, wide), *(form for one in secrets for form in _whole(one) if form in text)]


def _wide() -> Iterator[bytes]:
    yield MARK.encode("utf-16-le")
    yield MARK.encode("utf-16-be")


def _whole(one: str) -> Iterator[str]:
    """Forms in which the mark does not show."""
    raw = one.encode()
    yield raw.hex()
    yield "".join(f"%{byte:02X}" for byte in raw)
    yield "".join(f"\\x{byte:02x}" for byte in raw)
    yield json.dumps("".join(f"\\u{ord(character):04x}" for character in one))[1:-1]
    yield quote(one[::-1], safe="")
    for offset in range(3):  # wherever in a longer text it begins
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            padded = encode(b"x" * offset + raw).decode()
            yield padded[4 if offset else 0 : -4][:40]
