"""Text as somebody wrote it: taken apart, and quoted again in a complaint."""

import re


_SHOWN_AT_MOST = 80  # a value is shown to be recognised; a whole file, set by mistake, is no message


def shown(text: str) -> str:
    """Quote a value: enough of it to be recognised, its control characters harmless in a log."""
    return repr(text if len(text) <= _SHOWN_AT_MOST else text[:_SHOWN_AT_MOST] + "…")


def shown_url(text: str) -> str:
    """Quote an address, unless any of it may be a credential: where one would end nobody can tell."""
    return "***" if re.search(r"[@?#]", text) else shown(text)


def entries(text: str) -> list[str]:
    """Split at commas; an entry said twice counts once, or each of its requests would be sent twice."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise ValueError("an empty list")
    return found


def word(text: str) -> str:
    """Check that nothing in a text ends it early or hides in it."""
    if not text.isprintable() or re.search(r"\s", text):
        raise ValueError("has a space or a control character in it")
    return text
