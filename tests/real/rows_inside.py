"""Rows of the fault table: apps that can take themselves out, scripted after what real ones were measured to do."""

import asyncio

from contract.actuators import ScriptedApp
from real.rows import NOTHING, Case, Told, describe, fault


STARTER = "nacos-deregister"
SPRING = "serviceregistry"
SPRING_ONLY = f"health,nacosdiscovery,{SPRING}"


async def drained(c: Case, app: ScriptedApp, *, road: str) -> Told:
    """A hook, and the app's end."""
    report = await c.drained()
    told = Told(report, await c.successor(), c.agree(report))
    assert (report["outcome"], told.road) == ("drained", road), c.told()
    return told


def noted(told: Told, words: str) -> None:
    """A person finds this in the report."""
    assert words in " ".join(told.report["notes"]), told.report["notes"]


@fault("nothing: the app removes itself (starter)", "scripted app")
async def removal(c: Case) -> Told:
    app = await c.start_scripted("2023.0.1", starter=True)
    told = await drained(c, app, road=STARTER)
    assert told.report["instances"][0]["residue"] == "none"
    assert told.left == NOTHING
    return told


@fault("nothing: serviceregistry, SCA 2025.1 (a removal)", "scripted app")
async def modern(c: Case) -> Told:
    app = await c.start_scripted("2025.1", endpoints=SPRING_ONLY)
    told = await drained(c, app, road=SPRING)
    assert told.report["instances"][0]["residue"] == "none"
    assert told.left == NOTHING
    return told


@fault("nothing: serviceregistry, SCA 2025.0 (registers itself again, disabled)", "scripted app")
async def again(c: Case) -> Told:
    app = await c.start_scripted("2025.0", endpoints=SPRING_ONLY)
    told = await drained(c, app, road=SPRING)
    assert told.left == NOTHING
    return told


@fault("the folk endpoint: enabled=false by the app", "scripted app", servers=("2.2.4",))
async def folk(c: Case) -> Told:
    app = await c.start_scripted("2023.0.1", deregister="folk")
    c.trigger()
    await c.released()
    record = await c.record()
    assert record is not None
    assert describe(record) == "disabled, marked as ours", "claimed"
    await c.exit()
    report = await c.final()
    told = Told(report, await c.successor(), c.agree(report))
    assert (told.road, told.left) == (STARTER, NOTHING)
    assert app.instance == c.instance
    return told


@fault("the folk endpoint on Nacos 3: the app answers 500", "scripted app", servers=("3.1.0",))
async def folk_on_three(c: Case) -> Told:
    app = await c.start_scripted("2023.0.1", deregister="folk")
    told = await drained(c, app, road="openapi")
    noted(told, STARTER)
    assert told.left == NOTHING
    return told


@fault("the app's endpoints are not exposed (404)", "scripted app")
async def closed(c: Case) -> Told:
    told = await drained(c, await c.start_scripted("2023.0.1", endpoints="nacosdiscovery"), road="openapi")
    noted(told, "management.endpoints.web.exposure.include")
    return told


@fault("the app's endpoint refuses (401)", "scripted app")
async def protected(c: Case) -> Told:
    app = await c.start_scripted("2025.1", fault=[f"{STARTER}=401", f"{SPRING}=403"])
    told = await drained(c, app, road="openapi")
    noted(told, "401")
    noted(told, "403")
    return told


@fault("the app's endpoint answers 200 and does nothing", "scripted app")
async def idle(c: Case) -> Told:
    app = await c.start_scripted("2025.1", fault=[f"{STARTER}=200", f"{SPRING}=200"])
    told = await drained(c, app, road="openapi")
    noted(told, "acknowledged, but listed 3 s later")
    assert told.proved is not None
    assert told.proved > 6
    return told


@fault("the app's endpoint hangs", "scripted app")
async def hangs(c: Case) -> Told:
    told = await drained(
        c, await c.start_scripted("2025.1", fault=[f"{STARTER}=hang", f"{SPRING}=404"]), road="openapi"
    )
    noted(told, "no answer within 3 s")
    return told


@fault("the app's endpoint breaks the connection", "scripted app")
async def breaks(c: Case) -> Told:
    return await drained(
        c, await c.start_scripted("2025.1", fault=[f"{STARTER}=reset", f"{SPRING}=404"]), road="openapi"
    )


@fault("the sidecar may not write, but the app removes itself", "scripted app", servers=("3.1.0",))
async def without_login(c: Case) -> Told:
    c.env |= {"NACOS_USERNAME": "", "NACOS_PASSWORD": ""}
    return await drained(c, await c.start_scripted("2025.1", endpoints=SPRING_ONLY), road=SPRING)


@fault("somebody asks for it back (POST /resume): the app registers again", "scripted app")
async def resumed(c: Case) -> Told:
    await c.start_scripted("2025.1", endpoints=SPRING_ONLY)
    return await given_back(c)


@fault("somebody asks for it back (POST /resume): the starter registers again", "scripted app")
async def resumed_by_starter(c: Case) -> Told:
    await c.start_scripted("2023.0.1", starter=True)
    return await given_back(c)


async def given_back(c: Case) -> Told:
    """A hook, and somebody who wants the instance online again."""
    c.trigger()
    await c.until(c.is_out, "it is out")
    async with c.http.post(c.url("/resume")) as answer:
        assert answer.status == 200, await answer.text()
    await c.released()
    await c.yard.observer.until(c.instance, listed=True)
    report = await c.final()
    assert report["outcome"] == "aborted"
    told = Told(report, f"nothing: listed again ({describe(await c.record())})", None)
    await c.exit()
    return told


@fault("it is asked for back where only a restart brings it back", "scripted app")
async def one_way(c: Case) -> Told:
    await c.start_scripted("2023.0.1", deregister="removal")
    c.trigger()
    await c.until(c.is_out, "it is out")
    async with c.http.post(c.url("/resume")) as answer:
        assert answer.status == 501
        assert "only a restart" in await answer.text()
    await c.released()
    await c.exit()
    report = await c.final()
    return Told(report, await c.successor(), c.agree(report))


@fault("no Nacos setting at all: the app says who it is", "scripted app", servers=("2.2.4",))
async def unnamed(c: Case) -> Told:
    c.env |= {"NACOS_SERVER_ADDR": "", "NACOS_SERVICE": "", "NACOS_IP": "", "NACOS_PORT": "", "APP_PORTS": ""}
    app = await c.start_scripted("2025.1")
    told = await drained(c, app, road=STARTER)
    assert told.left == NOTHING
    return told


@fault("registerEnabled=false: there is nothing to take out", "scripted app", servers=("2.2.4",))
async def unregistered(c: Case) -> Told:
    c.env |= {"NACOS_SERVER_ADDR": "", "NACOS_SERVICE": "", "NACOS_IP": "", "NACOS_PORT": "", "APP_PORTS": ""}
    await c.start_scripted("2025.1", register_disabled=True)
    c.trigger()
    report = await c.released()
    assert report["outcome"] == "nothing_registered"
    await c.exit()
    return Told(report, "nothing", None)


@fault("RELEASE=actuator: the app is stopped by its own endpoint", "scripted app", RELEASE="actuator")
async def shut_down(c: Case) -> Told:
    app = await c.start_scripted("2025.1", endpoints=f"{SPRING_ONLY},shutdown")
    c.trigger()
    await c.released()
    assert await app.exited() == 0
    report = await c.final()
    phases = {phase["phase"]: phase["outcome"] for phase in report["phases"]}
    assert (phases["RELEASE"], phases["AWAIT_EXIT"]) == ("met", "met")
    return Told(report, await c.successor(), c.agree(report))


@fault("the app's health says that it is down", "scripted app", CONSUMER_CACHE="35", GRACE_PERIOD="90")
async def ill(c: Case) -> Told:
    await c.start_scripted("2025.1", fault=["health=503"])
    await asyncio.sleep(1.5)  # the snapshot is old: health answers before the app is asked to leave
    c.trigger()
    report = await c.released()
    phases = {phase["phase"]: phase["detail"] for phase in report["phases"]}
    assert "says that it is down" in phases["SETTLE"], phases
    await c.exit()
    report = await c.final()
    told = Told(report, await c.successor(), c.agree(report))
    assert told.road == "openapi"
    return told
