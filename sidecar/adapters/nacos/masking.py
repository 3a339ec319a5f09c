"""Our credentials in other people's texts: a proxy's error page may echo the request that it did not like.

A server's own words are the best help there is, so they are quoted; what we sent is cut out of them first, in every
spelling in which it may come back.
"""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from functools import lru_cache
from html import escape


MASK = "***"
SHORTEST = 4  # of a base64 piece: a shorter one is in every text
MOST_SECRETS = 8  # a late answer may hold the token before the last, not one of last month
DEFAULT_USER = "nacos"  # known to everybody; masked, it would take the package names out of Nacos' own messages


class Masking:
    """What must not be quoted."""

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def add(self, *secrets: str) -> None:
        """Never show these again."""
        new = [secret for secret in secrets if secret and secret != DEFAULT_USER]
        self._secrets = [*(old for old in self._secrets if old not in new), *new][-MOST_SECRETS:]

    def __call__(self, text: str, *passing: str) -> str:
        """The text without them, and without those of one request. The longest first: one may be part of another."""
        for secret in sorted({*self._secrets, *filter(None, passing)}, key=len, reverse=True):
            text = _pattern(secret).sub(MASK, text)
        return text


@lru_cache(maxsize=MOST_SECRETS)
def _pattern(secret: str) -> re.Pattern[str]:
    """Every spelling of a secret."""
    return re.compile("|".join(("".join(map(_char, secret)), *_in_base64(secret))), re.IGNORECASE)


def _char(char: str) -> str:
    """One character as it is, or URL-encoded by anybody's rules, or escaped for JSON or HTML."""
    forms = {char, "".join(f"%{byte:02x}" for byte in char.encode()), escape(char), json.dumps(char)[1:-1]}
    if char == " ":
        forms.add("+")
    return f"(?:{'|'.join(map(re.escape, sorted(forms, key=len, reverse=True)))})"


def _in_base64(secret: str) -> Iterator[str]:
    """The piece of a base64 text that only the secret determines, wherever in the encoded text it stands."""
    for before in range(3):
        padded = bytes(before) + secret.encode()
        first, last = -(-before * 8 // 6), len(padded) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            piece = encode(padded).decode()[first:last]
            if len(piece) >= SHORTEST:
                yield re.escape(piece)
