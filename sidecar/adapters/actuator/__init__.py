"""Spring Boot's actuator: what the app says of itself, and its own way out of Nacos and back.

What is translated here, and why it takes care (rollout-baseline.md section 3):
- A 200 is the app's word and no proof: the same call is a removal, an `enabled=false` or nothing at all, by version.
- No content type is not the same as any: without a body none is sent, or Spring answers 415.
- 404 is an endpoint that is not exposed, a wrong name, a wrong base path or the wrong one of two ports.
- The answer of `nacosdiscovery` holds the app's passwords in clear, so no body is ever quoted.
Each call is made once; when, and how often, is the core's business.
"""

from .client import Deregister, SpringActuator


__all__ = ["Deregister", "SpringActuator"]
