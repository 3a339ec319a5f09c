"""What a preStop hook does, as far as it can be read: the requests it makes and the seconds it sleeps."""

import re
import shlex
from dataclasses import dataclass
from functools import cached_property

from sidecar.manifests.places import Place


HANDLERS = ("exec", "httpGet", "sleep", "tcpSocket")
SHELLS = ("sh", "bash", "ash", "dash", "zsh", "ksh")

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SLEEP = re.compile(r"(?:^|[\s;&|({])(?:/(?:usr/)?bin/)?sleep\s+([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)(?=$|[\s;&|)}])")
_SLEEPS = re.compile(r"(?:^|[\s;&|({/])sleep\s")
_FETCH = re.compile(r"(?:^|[\s;&|({/])(?:curl|wget|http|https)\s")
_URL = re.compile(r"https?://[^\s'\"`;|&)]+(?:&[^\s'\"`;|&)]+)*")
_SECRETS = re.compile(r"(//)[^/@]*(@)|((?:password|token|secret|key)=)[^&]*()", re.IGNORECASE)
_POSTS = re.compile(
    r"-X\s*['\"]?(?:POST|PUT|DELETE)|--request[ =]['\"]?(?:POST|PUT|DELETE)|--post-|\s-d\s|\s--data|--method[ =]"
)
_FAILS = re.compile(r"\s-[a-zA-Z]*f[a-zA-Z]*\b|--fail")


@dataclass(frozen=True)
class Hook:
    """A container's preStop."""

    place: Place

    @property
    def there(self) -> bool:
        """Whether there is one."""
        return self.place.there

    @property
    def handlers(self) -> list[str]:
        """Which ones are written, known or not."""
        return list(self.place.fields)

    @property
    def http(self) -> Place:
        """Its httpGet."""
        return self.place["httpGet"]

    @property
    def path(self) -> str:
        """What httpGet asks for, without its query; kubelets before 1.26 put a slash in front."""
        return "/" + self.http["path"].text.partition("?")[0].lstrip("/")

    @cached_property
    def script(self) -> str:
        """What exec runs, as one line of shell."""
        return script(self.place.at("exec", "command").words)

    @property
    def urls(self) -> list[str]:
        """What its script asks, without what may be a secret in it."""
        found = _URL.findall(self.script) if _FETCH.search(self.script) else []
        return [_SECRETS.sub(lambda found: f"{found[1] or found[3]}…{found[2] or ''}", url) for url in found]

    @property
    def posts(self) -> bool:
        """Whether its script does more than GET."""
        return bool(_POSTS.search(self.script))

    @property
    def fails(self) -> bool:
        """Whether its curl fails for a 404."""
        return bool(_FAILS.search(self.script)) or "wget" in self.script

    @property
    def sleeps(self) -> float:
        """The seconds that it sleeps at least: 0 where it does not, or where nobody can tell."""
        if (asked := self.place.at("sleep", "seconds").number) is not None:
            return asked
        return sum(float(amount) * _UNITS[unit] for amount, unit in _SLEEP.findall(self.script))

    @property
    def unclear(self) -> bool:
        """Whether it sleeps for as long as a variable says."""
        return bool(_SLEEPS.search(self.script)) and not _SLEEP.search(self.script)


def script(words: list[str]) -> str:
    """A command as a line of shell: that of `sh -c` itself, else its words."""
    return shell(words) or " ".join(words)


def shell(words: list[str]) -> str:
    """The script of `sh -c SCRIPT`; empty when it is no shell's. After an init, too."""
    rest = list(words)
    while rest and rest[0].rpartition("/")[2] in {"tini", "dumb-init", "env", "--", "-g"}:
        rest.pop(0)
    if not rest or rest[0].rpartition("/")[2] not in SHELLS:
        return ""
    for index, word in enumerate(rest[1:-1], start=1):
        if re.fullmatch(r"-[a-z]*c[a-z]*", word):
            return rest[index + 1]
    return ""


def last_program(line: str) -> str:
    """What a shell's line runs last, without its arguments: those may hold a password."""
    command = re.split(r"&&|\|\||[;|\n]", line.strip().rstrip(";"))[-1].split()
    return next((word for word in command if "=" not in word), "a command")


def takes_over(line: str) -> bool:
    """Whether a shell's line hands SIGTERM to what it starts: by `exec`, or by a trap of its own."""
    last = re.split(r"&&|\|\||[;\n]", line.strip().rstrip(";"))[-1].strip()
    try:
        first = shlex.split(last, comments=True)[:1]
    except ValueError:  # a quote is open: the split has cut one in two
        first = []
    return first == ["exec"] or bool(re.search(r"(^|[;&|\n])\s*exec\s", line)) or bool(re.search(r"\btrap\s", line))
