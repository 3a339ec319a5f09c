"""What an app's application.yml and bootstrap.yml make of it, in the profiles that are active in its pod.

As Spring Boot does it: a later file, a profile's file, a variable and an argument each replace what is said of the same
property before them, lists as a whole. What a config server or the Nacos config adds is in none of these files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath

from sidecar.manifests.documents import Document, Unreadable, read
from sidecar.manifests.places import Place


_FILE = re.compile(r"(?P<kind>application|bootstrap)(?:-(?P<profile>[\w.-]+?))?\.ya?ml")
_PLACEHOLDER = re.compile(r"\$\{([^${}:]+)(?::([^${}]*))?\}")
_DURATION = re.compile(r"(?:PT)?([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h)?", re.IGNORECASE)
_MILLISECONDS = {"ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}
_ARGUMENT = re.compile(r"(?:^|\s)(?:--|-D)([\w.-]+)=('[^']*'|\"[^\"]*\"|[^\s'\"]+)")
_OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "JAVA_OPTS")
_MOST = 10  # placeholders within placeholders


@dataclass(frozen=True)
class Property:
    """What is said of a property, by one who says it. `text` is None where only the cluster knows."""

    text: str | None
    origin: str
    document: Document | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Source:
    """One document of one file."""

    document: Document
    bootstrap: bool
    profile: str  # by the file's name; empty for one that always counts

    @cached_property
    def properties(self) -> dict[str, Place]:
        """Its properties by their canonical names: `a: {b-c: 1}` and `a.bC: 1` are the same to Spring."""
        return dict(_flat(self.document.root, ""))

    @property
    def condition(self) -> str:
        """The profiles it is for, as its text says."""
        for key in ("springconfigactivateonprofile", "springprofiles"):
            if (place := self.properties.get(key)) is not None:
                return _text(place)
        return ""

    def counts(self, profiles: tuple[str, ...]) -> bool:
        """Whether it has a say in these profiles."""
        if self.profile and self.profile not in profiles:
            return False
        return not self.condition or any(
            all((term.strip().lstrip("!") in profiles) is not term.strip().startswith("!") for term in way.split("&"))
            for way in re.split(r"[,|]", self.condition)
        )


@dataclass(frozen=True)
class Application:
    """The files of one app: those of a folder, or of a ConfigMap."""

    where: str
    sources: tuple[Source, ...]
    config: str = ""  # the ConfigMap's name

    @property
    def name(self) -> str:
        """What it calls itself; empty when it does not."""
        for each in self.sources:
            if (place := each.properties.get("springapplicationname")) is not None and not each.profile:
                return _text(place)
        return ""


@dataclass(frozen=True)
class Properties:
    """The properties of an app in its pod."""

    application: Application
    variables: Mapping[str, str | None]  # of the container; None: from a Secret, say
    command: str

    @cached_property
    def _outside(self) -> dict[str, Property]:
        """What the pod says: variables, and over them arguments."""
        found = {_canonical(name): Property(text, f"the variable {name}") for name, text in self.variables.items()}
        lines = [*(self.variables.get(name) or "" for name in _OPTIONS), self.command]
        for line in lines:
            for name, text in _ARGUMENT.findall(line):
                found[_canonical(name)] = Property(text.strip("'\""), f"the argument {name}")
        return found

    @cached_property
    def profiles(self) -> tuple[str, ...]:
        """Those that are active; `default` where none is."""
        told = self._outside.get("springprofilesactive")
        text = told.text if told is not None else None
        if told is None:
            for each in self.application.sources:
                place = each.properties.get("springprofilesactive")
                if place is not None and not each.profile and not each.condition:
                    text = self._resolved(_text(place))
        return tuple(part.strip() for part in (text or "").split(",") if part.strip()) or ("default",)

    @cached_property
    def sources(self) -> list[Source]:
        """Those that count, the last has the last word."""
        counting = [each for each in self.application.sources if each.counts(self.profiles)]
        order = {name: index for index, name in enumerate(self.profiles)}
        return sorted(counting, key=lambda each: (not each.bootstrap, order.get(each.profile, -1)))

    def told(self, key: str) -> list[Property]:
        """All that is said of a property, the last word first."""
        name = _canonical(key)
        found = [self._outside[name]] if name in self._outside else []
        for each in reversed(self.sources):
            if (place := each.properties.get(name)) is not None:
                line = each.document.line(place.path)
                origin = f"{PurePath(each.document.file).name}:{line}"
                found.append(Property(self._resolved(_text(place)), origin, each.document, place))
        return found

    def get(self, key: str) -> Property | None:
        """The last word on a property; None where nobody says anything."""
        return next(iter(self.told(key)), None)

    def _resolved(self, text: str, depth: int = 0) -> str | None:
        """A text with its placeholders filled in; None where one of them is not known here."""
        unknown = False

        def fill(match: re.Match[str]) -> str:
            nonlocal unknown
            known = self._outside.get(_canonical(match[1]))
            if known is not None and known.text is not None:
                return known.text
            if known is None and match[2] is not None:
                return match[2]
            unknown = True
            return ""

        filled = _PLACEHOLDER.sub(fill, text)
        if unknown or depth > _MOST:
            return None
        return self._resolved(filled, depth + 1) if _PLACEHOLDER.search(text) else filled


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]", "", name).lower()


def _flat(place: Place, prefix: str) -> Iterator[tuple[str, Place]]:
    for key in place.fields:
        name = prefix + _canonical(key)
        if place[key].fields:
            yield from _flat(place[key], name)
        else:
            yield name, place[key]


def _text(place: Place) -> str:
    """A value as Spring sees it: a list is its parts with commas."""
    if isinstance(place.value, list):
        return ",".join(place.words)
    if isinstance(place.value, bool):
        return str(place.value).lower()
    return "" if place.value is None else str(place.value)


def milliseconds(text: str) -> float | None:
    """A duration as Spring reads it: 30s, PT30S, or milliseconds; None for what it would refuse."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _MILLISECONDS[(match[2] or "ms").lower()] if match else None


# -- finding them --------------------------------------------------------------------------------------------------


def source(document: Document) -> Source | None:
    """A document as a part of an app's configuration; None when its file is none."""
    match = _FILE.fullmatch(PurePath(document.file).name)
    if match is None or document.root["apiVersion"].there:
        return None
    return Source(document, match["kind"] == "bootstrap", match["profile"] or "")


def applications(sources: list[Source]) -> list[Application]:
    """One for each folder."""
    folders: dict[str, list[Source]] = {}
    for each in sources:
        folders.setdefault(str(PurePath(each.document.file).parent), []).append(each)
    return [Application(folder, tuple(found)) for folder, found in folders.items()]


def within(config: Place, document: Document) -> Application | None:
    """What a ConfigMap has of an application.yml.

    Raises Unreadable where it is none.
    """
    found: list[Source] = []
    for name, text in config["data"].fields.items():
        match = _FILE.fullmatch(name)
        if match is None or not isinstance(text, str):
            continue
        line = document.line(config["data"][name].path)
        try:
            inside = read(text.encode(errors="replace"), name)
        except Unreadable as error:
            at = line + (error.line or 0)
            raise Unreadable(document.file, at, f"{name} in this ConfigMap: {error.why}") from None
        for each in inside:
            told = replace(each, file=document.file, offset=line)
            found.append(Source(told, match["kind"] == "bootstrap", match["profile"] or ""))
    name = config.at("metadata", "name").text
    return Application(f"ConfigMap {name}", tuple(found), name) if found else None
