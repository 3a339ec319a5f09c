"""The client side: `drain` for exec hooks and compose, `status`, `resume` and `release` for a person.

Exit codes (contracts.md): 0 done (of `drain`: drained or nothing registered), 1 `resume` or `release` is not possible
now, 2 refused for its token, 3 any other outcome of `drain`, 4 unreachable.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from .http import Answer, Http
from .ports import Unavailable


POLL = 0.5
WATCH = 1.0
GOOD = frozenset({"drained", "nothing_registered"})
OK, REFUSED, USAGE, UNPROVEN, UNREACHABLE = 0, 1, 2, 3, 4
IMPOSSIBLE = frozenset({HTTPStatus.CONFLICT, HTTPStatus.NOT_IMPLEMENTED})
NO_SIDECAR = "that is not a nacos-drain sidecar"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Where the sidecar listens, and what it wants to see."""

    url: str
    token: str | None = None

    async def ask(self, http: Http, method: str, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """One request."""
        headers = {"User-Agent": "nacos-drain", **({"X-Drain-Token": self.token} if self.token else {})}
        return await http.request(method, self.url + path, params=query, headers=headers)


async def drain(sidecar: Sidecar, *, manual: bool, wait: bool, as_json: bool, say: Say, progress: Say) -> int:
    """Start or join a drain and stay until the app may stop."""
    http = Http()
    if wait:
        progress(f"asking {sidecar.url} for a drain; each phase is told as it ends")
    telling = asyncio.create_task(_progress(sidecar, http, progress), name="progress")
    try:
        answer = await sidecar.ask(http, "POST", "/drain", {"manual": str(int(manual)), "wait": str(int(wait))})
    except Unavailable as error:
        say(_unreachable(sidecar, error))
        return UNREACHABLE
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await http.close()
    return _concluded(answer, as_json=as_json, say=say)


def _concluded(answer: Answer, *, as_json: bool, say: Say) -> int:
    report = _object(answer)
    if answer.status == HTTPStatus.UNAUTHORIZED and "error" in report:
        say(f"{report['error']}; set NACOS_DRAIN_TOKEN to the sidecar's")
        return USAGE
    if answer.status == HTTPStatus.ACCEPTED:
        say(json.dumps(report) if as_json else f"drain {report.get('id')} is under way")
        return OK
    if answer.status != HTTPStatus.OK or "outcome" not in report:
        say(f"{NO_SIDECAR} (it answers {answer.status})")
        return UNREACHABLE
    say(json.dumps(report) if as_json else told(report))
    return OK if report.get("outcome") in GOOD else UNPROVEN


def _unreachable(sidecar: Sidecar, error: Unavailable) -> str:
    return (
        f"the sidecar at {sidecar.url} cannot be reached: {error}. Does `nacos-drain serve` run here? "
        "Else name it with --url, or set the NACOS_DRAIN_LISTEN that it has"
    )


def _object(answer: Answer) -> dict[str, Any]:
    """The answer's JSON object; an empty one where there is none."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def _progress(sidecar: Sidecar, http: Http, progress: Say) -> None:
    """Say each phase as it ends; what cannot be asked is not worth a complaint here."""
    said: set[str] = set()
    while True:
        with contextlib.suppress(Unavailable):
            report = _object(await sidecar.ask(http, "GET", "/status")).get("report") or {}
            for phase in report.get("phases", ()):
                if phase["phase"] not in said and not report.get("final"):
                    said.add(phase["phase"])
                    progress(_phase(phase))
        await asyncio.sleep(POLL)


async def act(sidecar: Sidecar, what: str, *, say: Say) -> int:
    """Ask for `resume` or `release`, and say what came of it."""
    http = Http()
    try:
        answer = await sidecar.ask(http, "POST", f"/{what}")
    except Unavailable as error:
        say(_unreachable(sidecar, error))
        return UNREACHABLE
    finally:
        await http.close()
    body = _object(answer)
    if answer.status == HTTPStatus.OK and "state" in body:
        say(f"{what}: the state is {body['state']}")
        return OK
    if answer.status == HTTPStatus.UNAUTHORIZED and "error" in body:
        say(f"{body['error']}; set NACOS_DRAIN_TOKEN to the sidecar's")
        return USAGE
    if answer.status in IMPOSSIBLE and "error" in body:
        say(str(body["error"]))
        return REFUSED
    say(f"{NO_SIDECAR} (it answers {answer.status})")
    return UNREACHABLE


async def status(sidecar: Sidecar, *, watch: bool, as_json: bool, say: Say) -> int:
    """Show what the sidecar knows, once or until interrupted."""
    http = Http()
    try:
        while True:
            try:
                answer = await sidecar.ask(http, "GET", "/status")
            except Unavailable as error:
                say(_unreachable(sidecar, error))
                return UNREACHABLE
            body = _object(answer)
            if "state" not in body:
                say(f"{NO_SIDECAR} (it answers {answer.status})")
                return UNREACHABLE
            say(json.dumps(body) if as_json else overview(body))
            if not watch:
                return OK
            await asyncio.sleep(WATCH)
    finally:
        await http.close()


def overview(body: Mapping[str, Any]) -> str:
    """The status for eyes."""
    lines = [f"state          {body['state']}{'' if body['ready'] else ' (not ready: the instance was not yet seen)'}"]
    lines += [f"app            port {body['app']['port']}, process {body['app']['pid'] or 'not visible'}"]
    out = body["state"] in {"draining", "released", "restoring"}
    for row in body["known"]:
        state = "being taken out or brought back, see below" if out else "enabled" if row["enabled"] else "DISABLED"
        lines.append(f"instance       {row['instance']} {state}")
    if body.get("registry_error"):
        lines.append(f"registry       {body['registry_error']}")
    lines += [
        f"node           {row['node']}{'' if row['required'] else ' (discovered, not yet asked)'}"
        for row in body["nodes"]
    ]
    lines += _traffic(body["traffic"])
    for row in body.get("preflight") or ():
        if row["verdict"] == "failing":
            lines += [f"preflight      {row['check']} FAILING: {row['detail']}", f"{'':15}-> {row['next_step']}"]
    if body.get("report"):
        ended = body["report"].get("ended_at")
        lines += ["", f"the last drain, ended at {ended}:" if ended else "the drain under way:", told(body["report"])]
    return "\n".join(lines)


def _traffic(traffic: Mapping[str, Any]) -> list[str]:
    """Who calls, as far as that can be seen."""
    lines = [f"traffic        {traffic['source']}{': ' + traffic['reason'] if traffic['reason'] else ''}"]
    if traffic["missed"]:
        lines.append(f"{'':15}a call may have been missed: {traffic['missed']}")
    for row in traffic["callers"]:
        rhythm = "rhythm not known" if row["rhythm_s"] is None else f"longest gap {row['rhythm_s']:.1f} s"
        lines.append(
            f"caller         {row['peer']}, {row['connections']} connections, "
            f"last seen {row['last_seen_s']:.1f} s ago, {rhythm}"
        )
    return [*lines, f"{'':15}and {traffic['omitted']} more"] if traffic["omitted"] else lines


def told(report: Mapping[str, Any]) -> str:
    """A report for eyes."""
    proof = "proved gone" if report["proved_gone"] else "NOT proved gone"
    lines = [f"{report['outcome']}, {proof} ({report['trigger']}, {report['state']})"]
    lines += [_phase(phase) for phase in report["phases"]]
    for row in report["instances"]:
        views = ", ".join(f"{node['node']} {node['view']}" for node in row["nodes"])
        lines.append(f"  {row['service']} {row['ip']}:{row['port']}  road {row['road'] or 'none'}; {views}")
    lines += [f"  still calling: {row['peer']}, last seen {row['last_seen_s']} s ago" for row in report["callers"]]
    lines += [f"  note: {note}" for note in report["notes"]]
    return "\n".join(lines)


def _phase(phase: Mapping[str, Any]) -> str:
    return f"  {phase['phase']:<11} {phase['outcome']:<8} {phase['seconds']:7.2f} s  {phase['detail']}"
