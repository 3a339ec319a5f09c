"""Settings: variables, flags and the reference page all come from one declaration.

`declaration` is what can be set, `values` how each kind of value is written, `loading` how a run's own come together.
"""

from sidecar.lease import Release, Residue
from sidecar.settings.declaration import (
    LogFormat,
    LogLevel,
    NacosSettings,
    SettingDoc,
    Settings,
    describe,
    options,
)
from sidecar.settings.loading import Fault, Loaded, SettingsError, load
from sidecar.settings.values import Listen, Secret, SecretUnreadable, duration, duration_text


__all__ = [
    "Fault",
    "Listen",
    "Loaded",
    "LogFormat",
    "LogLevel",
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
