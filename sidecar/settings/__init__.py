"""Settings: variables, flags and the reference page all come from one declaration.

`declaration` is what can be set, `values` how each kind of value is written (`addresses`, `credentials` and `written`
are parts of that), `loading` how a run's own come together.
"""

from sidecar.lease import Release, Residue
from sidecar.settings.addresses import Listen
from sidecar.settings.credentials import Headers, Secret, SecretUnreadable
from sidecar.settings.declaration import (
    LogFormat,
    LogLevel,
    Method,
    NacosSettings,
    SettingDoc,
    Settings,
    describe,
    options,
)
from sidecar.settings.loading import Fault, Loaded, SettingsError, load
from sidecar.settings.values import duration, duration_text


__all__ = [
    "Fault",
    "Headers",
    "Listen",
    "Loaded",
    "LogFormat",
    "LogLevel",
    "Method",
    "NacosSettings",
    "Release",
    "Residue",
    "Secret",
    "SecretUnreadable",
    "SettingDoc",
    "Settings",
    "SettingsError",
    "describe",
    "duration",
    "duration_text",
    "load",
    "options",
]
