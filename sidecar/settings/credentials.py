"""Secrets, and headers that hold some: read anew at each use, and shown to nobody."""

import re
from pathlib import Path


# Name and value of RFC 9110 section 5; beyond ASCII every server reads a value in an encoding of its own.
_HEADER = re.compile(r"(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*(?P<value>[!-~](?:[ \t!-~]*[!-~])?)[ \t]*")
_LINE_END = re.compile(r"\r?\n|(?:\\r)?\\n")  # also written out: an .env file has one line for each variable
_OURS = frozenset({"connection", "content-length", "expect", "transfer-encoding", "upgrade"})  # they frame the request


class SecretUnreadable(Exception):
    """A secret's file cannot be read at the moment. Names the file, never what is in it."""


class Secret:
    """A credential that shows itself to nobody by accident.

    One in a file is read anew each time: mounted secrets are rotated under us, and a file that is missing when we start
    may be there when it is needed.
    """

    __slots__ = ("_file", "_value")

    def __init__(self, value: str = "", *, file: str | None = None) -> None:
        self._value = value
        self._file = file

    def read(self) -> str:
        """Give the secret as it is now, without the one newline that editors and `echo` put behind it."""
        text = self._value if self._file is None else self._from(self._file)
        return text.removesuffix("\n").removesuffix("\r")

    @staticmethod
    def _from(file: str) -> str:
        try:
            data = Path(file).read_bytes()
        except (OSError, ValueError) as error:
            raise SecretUnreadable(unreadable(file, error)) from None
        text = data.decode(errors="replace")  # a strict decoder's exception would carry the bytes
        if "\N{REPLACEMENT CHARACTER}" in text:
            raise SecretUnreadable(f"cannot read {file}: not UTF-8 text")
        if not text.strip():
            raise SecretUnreadable(f"cannot read {file}: it is empty")  # an empty token is matched by sending none
        return text

    def __repr__(self) -> str:
        return "***"


class Headers:
    """Headers of a request, one a line. A wrong text is a ValueError; a file's content counts only when it is read."""

    __slots__ = ("_file", "_secret")

    def __init__(self, value: str = "", *, file: str | None = None) -> None:
        self._secret = Secret(value, file=file)
        self._file = file
        if file is None:
            _headers(value)

    def read(self) -> dict[str, str]:
        """Give the headers as they are now; raises SecretUnreadable for a file that is missing or wrong."""
        text = self._secret.read()
        try:
            return _headers(text)
        except ValueError as error:
            raise SecretUnreadable(f"cannot use {self._file}: {error}") from None

    def __repr__(self) -> str:
        return "***"


def _headers(text: str) -> dict[str, str]:
    """Check every line; no complaint repeats one, as what is wrong may be the secret itself."""
    found: dict[str, str] = {}
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if not line.strip(" \t\r"):
            continue
        match = _HEADER.fullmatch(line.strip(" \t"))
        if match is None:
            raise ValueError(f"line {number} is not 'Name: value' in plain ASCII")
        if match["name"].lower() in _OURS:
            raise ValueError(f"line {number} sets a header that frames the request, which is ours to do")
        if match["name"].lower() in map(str.lower, found):
            raise ValueError(f"line {number} sets a header again")
        found[match["name"]] = match["value"]
    if not found:
        raise ValueError("no header in it")
    return found


def unreadable(file: str, error: OSError | ValueError) -> str:
    """Say that a file cannot be read, and why."""
    return f"cannot read {file}: {error.strerror if isinstance(error, OSError) else 'not a usable path'}"
