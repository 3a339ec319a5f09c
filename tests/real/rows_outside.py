"""Rows of the fault table: apps taken out by Nacos' OpenAPI, and what can be wrong with Nacos or with them."""

import asyncio
import signal
from dataclasses import replace
from typing import Any

from real.rows import Case, Told, describe, fault, free_port
from rig.wire import Wire


async def whole(c: Case) -> Told:
    """The usual story, with nothing in its way."""
    await c.start()
    report = await c.drained()
    return Told(report, await c.successor(), c.agree(report))


async def untouched(c: Case, told: dict[str, Any]) -> Told:
    """Nothing could be written: the record stays as it was until the app exits."""
    proved = c.agree(told)
    left = f"nothing was written: {describe(await c.record())} until it exits"
    await c.exit()
    return Told(told, left, proved)


# -- nothing goes wrong ----------------------------------------------------------------------------------------------


@fault("nothing", "gRPC", "HTTP beat", "persistent")
async def nothing(c: Case) -> Told:
    told = await whole(c)
    assert (told.report["outcome"], told.road) == ("drained", "openapi")
    assert told.left == (
        "disabled, marked as ours" if c.kind == "persistent" else "nothing: the next app is listed at once"
    )
    return told


# -- Nacos refuses, fails or is not there ----------------------------------------------------------------------------


@fault("the sidecar may not write: no login", servers=("3.1.0",), NACOS_USERNAME="", NACOS_PASSWORD="")
async def forbidden(c: Case) -> Told:
    c.env |= {"GRACE_PERIOD": "14"}
    await c.start()
    c.trigger()
    told = await c.released()
    assert told["outcome"] == "unproven"
    assert "NACOS_DRAIN_NACOS_USERNAME" in str(told["notes"])
    assert c.seen[-1].listed == {c.yard.address: True}
    proved = c.agree(told)
    record = await c.record()
    await c.exit()
    return Told(await c.final(), f"nothing was written: {describe(record)} until it exits", proved)


@fault("a wrong namespace", NACOS_NAMESPACE="nowhere")
async def wrong_key(c: Case) -> Told:
    c.env |= {"GRACE_PERIOD": "14"}
    await c.listen()
    await c.register()
    await c.serve()
    await c.until(c.sees_app, "the sidecar has seen the app")
    c.trigger()
    told = await c.released()
    assert told["outcome"] == "never_seen"
    return await untouched(c, told)


@fault("Nacos cannot be reached for the whole drain")
async def refused(c: Case) -> Told:
    async with Wire(c.yard.address) as wire:
        await c.start(NACOS_SERVER_ADDR=wire.address, GRACE_PERIOD="14")
        await wire.cut()
        c.trigger()
        told = await c.released()
        assert told["outcome"] == "unproven"
        assert told["instances"][0]["nodes"][0]["view"] == "unknown"
        return await untouched(c, told)


@fault("Nacos hangs for the whole drain")
async def stalled(c: Case) -> Told:
    async with Wire(c.yard.address) as wire:
        await c.start(NACOS_SERVER_ADDR=wire.address, GRACE_PERIOD="14")
        wire.stall()
        c.trigger()
        told = await c.released()
        assert told["outcome"] == "unproven"
        return await untouched(c, told)


@fault("Nacos cannot be reached for the first 4 s")
async def back_in_time(c: Case) -> Told:
    async with Wire(c.yard.address) as wire:
        await c.start(NACOS_SERVER_ADDR=wire.address)
        await wire.cut()
        c.trigger()
        await asyncio.sleep(4)  # the fault itself lasts
        await wire.mend()
        await c.released()
        await c.exit()
        told = await c.final()
        assert told["outcome"] == "drained"
        return Told(told, await c.successor(), c.agree(told))


# -- the instance is not what it seems -------------------------------------------------------------------------------


@fault("an operator has disabled it before", "gRPC", "HTTP beat", "persistent")
async def spared(c: Case) -> Told:
    await c.listen()
    await c.register()
    await c.yard.observer.until(c.instance, listed=True)
    await c.yard.operator.set_enabled(c.instance, enabled=False)
    await c.yard.observer.until(c.instance, listed=False)
    await c.serve()
    await c.ready()
    c.trigger()
    await c.released()
    record = await c.record()
    assert record is not None
    assert describe(record) == "disabled, unmarked"
    await c.exit()
    told = await c.final()
    assert "disabled by somebody else" in str(told["notes"])
    return Told(told, "the operator's own record: disabled, unmarked", c.agree(told))


@fault("an operator enables it in the middle of the drain")
async def enabled_again(c: Case) -> Told:
    await c.start()
    c.expects_return = True
    c.trigger()
    await c.until(c.is_out, "it is out")
    await c.yard.operator.set_enabled(c.instance, enabled=True)
    await c.released()
    assert not await c.yard.observer.is_listed(c.instance)
    await c.exit()
    told = await c.final()
    assert told["outcome"] == "drained"
    assert "listed again" in str(told["notes"])
    return Told(told, await c.successor(), c.agree(told))


@fault("a canary's weight changes while we watch")
async def canary(c: Case) -> Told:
    await c.start()
    c.instance = replace(c.instance, weight=9.0)
    await c.yard.operator.set_enabled(c.instance, enabled=True)
    await c.until(c.weighs_nine, "the weight is changed")
    await asyncio.sleep(1.5)  # what the sidecar has seen a second ago it does not read again before it writes
    c.trigger()
    await c.released()
    record = await c.record()
    assert record is not None
    assert (record.enabled, record.weight) == (False, 9.0)
    async with c.http.post(c.url("/resume")) as answer:
        assert answer.status == 200
    await c.yard.observer.until(c.instance, listed=True)
    record = await c.record()
    assert record is not None
    assert record.weight == 9.0
    told = await c.final()
    await c.exit()
    return Told(told, "nothing: given back with the new weight", c.agree(told, until=c.answered))


@fault("its beats have stopped: Nacos lists it as unhealthy", "HTTP beat", CONSUMER_CACHE="35", GRACE_PERIOD="90")
async def unhealthy(c: Case) -> Told:
    await c.start()
    await c.registered.silence()
    await c.until(c.is_unhealthy, "Nacos calls it unhealthy", within=40)
    c.trigger()
    told = await c.released()
    phases = {phase["phase"]: phase["outcome"] for phase in told["phases"]}
    assert phases["SETTLE"] == "skipped"
    await c.exit()
    told = await c.final()
    return Told(told, await c.successor(), c.agree(told))


# -- the app ---------------------------------------------------------------------------------------------------------


@fault("the app is killed in the middle of the drain")
async def vanished(c: Case) -> Told:
    await c.start()
    c.trigger()
    await c.until(c.is_out, "it is out")
    before = asyncio.get_running_loop().time()
    await c.exit()
    told = await c.released()
    assert c.answered - before < 2.5, "a hook whose app is gone is answered at once"
    told = await c.final()
    assert told["proved_gone"] is True
    return Told(told, await c.successor(), c.agree(told))


@fault("the app hangs at the trigger", CONSUMER_CACHE="35", GRACE_PERIOD="90")
async def hung(c: Case) -> Told:
    await c.start()
    assert c.app is not None
    await c.fill()  # a full queue of connections that nobody accepts
    c.app.send_signal(signal.SIGSTOP)
    c.trigger()
    told = await c.released()
    phases = {phase["phase"]: phase["detail"] for phase in told["phases"]}
    assert phases["SETTLE"] == "the app is hung"
    await c.exit()
    told = await c.final()
    return Told(told, await c.successor(), c.agree(told))


# -- the lease -------------------------------------------------------------------------------------------------------


@fault("a false alarm: nobody stops the app", GRACE_PERIOD="14")
async def false_alarm(c: Case) -> Told:
    await c.start()
    c.trigger()
    await c.released()
    until = c.answered
    await c.yard.observer.until(c.instance, listed=True, within=30)
    record = await c.record()
    assert record is not None
    assert record.weight == 3.0
    told = await c.final()
    assert told["outcome"] == "lease_expired"
    proved = c.agree(told, until=until)
    left = f"nothing: listed again ({describe(record)})"
    await c.exit()
    return Told(told, left, proved)


@fault("somebody asks for it back (POST /resume)", "gRPC", "HTTP beat", "persistent")
async def resumed(c: Case) -> Told:
    await c.start()
    c.trigger()
    await c.until(c.is_out, "it is out")
    asked = asyncio.get_running_loop().time()
    async with c.http.post(c.url("/resume")) as answer:
        assert answer.status == 200
    await c.released()
    back = await c.yard.observer.until(c.instance, listed=True)
    told = await c.final()
    assert told["outcome"] == "aborted"
    left = f"nothing: listed again {back - asked:.1f} s after it was asked for"
    await c.exit()
    return Told(told, left, c.agree(told, until=asked))


@fault("only the sidecar is stopped (Kubernetes)", GRACE_PERIOD="14")
async def sidecar_alone(c: Case) -> Told:
    await c.start()
    assert c.sidecar is not None
    c.watch()
    c.sidecar.terminate()
    await c.sidecar.wait()
    c.answered = asyncio.get_running_loop().time()
    await c.yard.observer.until(c.instance, listed=True)
    report = next(line for line in reversed(c.log) if line["event"] == "drain.finished")
    proved = c.agree(report, until=c.started + 8)  # it is given back 3 s before the grace period of 14 s ends
    left = f"nothing: listed again ({describe(await c.record())})"
    await c.exit()
    return Told(report, left, proved)


@fault("somebody is in a hurry (POST /release)", CONSUMER_CACHE="35", GRACE_PERIOD="90")
async def hurried(c: Case) -> Told:
    await c.start()
    c.trigger()
    await c.until(c.is_verified, "it is proved")
    async with c.http.post(c.url("/release")) as answer:
        assert answer.status == 200
    await c.released(within=2)
    await c.exit()
    told = await c.final()
    assert told["outcome"] == "drained"
    return Told(told, await c.successor(), c.agree(told))


@fault("the hook's caller hangs up, and a second one joins")
async def joined(c: Case) -> Told:
    await c.start()
    c.trigger()
    await c.until(c.is_out, "it is out")
    assert c.hook is not None
    c.hook.cancel()
    started, first = c.started, (await c.status())["report"]["id"]
    c.trigger()
    c.started = started
    report = await c.released()
    assert report["id"] == first, "one drain"
    await c.exit()
    told = await c.final()
    return Told(told, await c.successor(), c.agree(told))


@fault("the app crashes, and nobody asks for a drain")
async def crashed(c: Case) -> Told:
    """Never enabled=false: the restarted container would be born disabled."""
    await c.start()
    c.started = asyncio.get_running_loop().time()
    await c.exit()
    await c.listen()
    await c.register()
    listed = await c.yard.observer.until(c.instance, listed=True, within=3)
    assert (await c.status())["state"] == "armed"
    c.answered = listed
    await c.exit()
    return Told({"instances": [], "outcome": "no drain", "phases": []}, await c.successor(), None)


@fault("the sidecar is stopped first (compose): its exit is the release")
async def stopped_first(c: Case) -> Told:
    await c.start(KUBERNETES="no")
    assert c.sidecar is not None
    c.watch()
    c.sidecar.terminate()
    assert await c.sidecar.wait() == 0
    c.answered = asyncio.get_running_loop().time()
    report = next(line for line in reversed(c.log) if line["event"] == "drain.finished")
    assert report["proved_gone"] is True
    assert await c.is_out()
    proved, record = c.agree(report, until=c.answered), await c.record()
    await c.exit()
    return Told(report, f"{describe(record)}: it expires a minute after the app's end", proved)


@fault("Dubbo's QoS port is closed")
async def without_qos(c: Case) -> Told:
    await c.start(DUBBO_QOS=f"127.0.0.1:{free_port()}")
    report = await c.drained()
    told = Told(report, await c.successor(), c.agree(report))
    assert (told.road, report["outcome"]) == ("openapi", "drained")
    assert "qos" in " ".join(report["notes"]).lower()
    return told
