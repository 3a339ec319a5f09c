"""Signed requests, as Aliyun MSE wants them from who has an access key and a secret key instead of a password.

What is signed is the time, and the service where a call is about one: `<ms>@@<group>@@<name>`, else `<ms>` alone; with
HMAC-SHA1, in base64. It goes beside the call's own parameters into the query string. That is what the Java client's
HTTP half does (`NamingResourceInjector`, `NamingHttpClientProxy.callServer`); nacos-sdk-python puts the same three into
gRPC headers. Nacos' own servers do not look at it, and none that does was at hand: this has never met a real one.
"""

import hmac
import time
from base64 import b64encode
from collections.abc import Callable, Mapping

from .masking import Masking


SHORTEST_KEY = 5  # cut out of quoted messages; a shorter one is a syllable of every message
VARIABLES = "NACOS_DRAIN_NACOS_ACCESS_KEY and NACOS_DRAIN_NACOS_SECRET_KEY"

Keys = Callable[[], tuple[str, str]]


class Signing:
    """One pair of keys; without keys nothing is signed. They are read at each use: mounted late, and rotated."""

    def __init__(self, keys: Keys | None, masking: Masking) -> None:
        self._keys = keys
        self._masking = masking

    @property
    def known(self) -> bool:
        """Whether there are keys to sign with."""
        return self._keys is not None

    def parameters(self, query: Mapping[str, str]) -> dict[str, str]:
        """What to add to a query. Raises what reading the keys raises."""
        if self._keys is None:
            return {}
        access_key, secret_key = self._keys()
        self._masking.add(*([access_key] if len(access_key) >= SHORTEST_KEY else []), secret_key)
        name = query.get("serviceName", "")
        return signed(access_key, secret_key, f"{query['groupName']}@@{name}" if name else "", at=time.time())


def signed(access_key: str, secret_key: str, grouped: str, *, at: float) -> dict[str, str]:
    """The three parameters; `grouped` is `group@@name`, `at` seconds since 1970."""
    now = str(int(at * 1000))
    data = f"{now}@@{grouped}" if grouped else now
    signature = b64encode(hmac.digest(secret_key.encode(), data.encode(), "sha1")).decode()
    return {"ak": access_key, "data": data, "signature": signature}
