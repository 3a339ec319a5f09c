"""Rows of the fault table: containers that are restarted in place, the app's and the sidecar's.

After a liveness restart the app is back on its address, with no signal to us: within a minute it would be born disabled
for good (nacos-measured.md section 4). Each row ends with the app listed, at most 3 s after it registered; where the
sidecar restarts too, at most 3 s after it has held its breath (it might be asked for the rest of a drain).
"""

import asyncio
from dataclasses import replace

from real.rows import Case, Kind, Told, describe, fault
from real.rows_inside import SPRING_ONLY


KINDS: tuple[Kind, ...] = ("gRPC", "HTTP beat", "persistent", "gRPC batch")


async def reborn(c: Case, after: float, *, swept: bool = True, scripted: str = "") -> Told:
    """The app exits when the hook is answered, and registers again on its address so much later."""
    if scripted:
        await c.start_scripted(scripted, endpoints=SPRING_ONLY)
        c.instance = replace(c.instance, weight=1.0)
    else:
        await c.start()
    c.trigger()
    await c.released()
    until = c.answered
    await c.exit()
    c.second_life = True
    if swept:
        await asyncio.sleep(after)
    await c.listen()
    await c.register()
    registered = asyncio.get_running_loop().time()
    listed = await c.yard.observer.until(c.instance, listed=True, within=20)
    assert listed - registered < 3, f"{listed - registered:.1f} s"
    record = await c.record()
    assert record is not None
    assert describe(record) == "enabled, unmarked"
    assert record.weight == c.instance.weight
    report = await c.final()
    proved = c.agree(report, until=until)
    left = f"nothing: listed {max(0.0, listed - registered):.1f} s after it registered"
    await c.exit()
    return Told(report, left, proved)


@fault("the app's container restarts at once", *KINDS)
async def at_once(c: Case) -> Told:
    return await reborn(c, 0, swept=False)


@fault("the app's container is back after 5 s", *KINDS)
async def five(c: Case) -> Told:
    return await reborn(c, 5)


@fault("the app's container is back after 5 s; it had removed itself", "scripted app")
async def five_removed(c: Case) -> Told:
    return await reborn(c, 5, scripted="2025.1")


@fault("the app's container is back after 5 s; it had disabled itself", "scripted app", servers=("2.2.4",))
async def five_disabled(c: Case) -> Told:
    return await reborn(c, 5, scripted="2023.0.1")


@fault("the app's container is back after 30 s; it had removed itself", "scripted app", soak=True)
async def thirty_removed(c: Case) -> Told:
    return await reborn(c, 30, scripted="2025.1")


@fault("the app's container is back after 70 s; it had removed itself", "scripted app", soak=True)
async def seventy_removed(c: Case) -> Told:
    return await reborn(c, 70, scripted="2025.1")


@fault("the app's container is back after 30 s; it had disabled itself", "scripted app", servers=("2.2.4",), soak=True)
async def thirty_disabled(c: Case) -> Told:
    return await reborn(c, 30, scripted="2023.0.1")


@fault("the app's container is back after 70 s; it had disabled itself", "scripted app", servers=("2.2.4",), soak=True)
async def seventy_disabled(c: Case) -> Told:
    return await reborn(c, 70, scripted="2023.0.1")


@fault("the app's container is back after 30 s", *KINDS, soak=True)
async def thirty(c: Case) -> Told:
    return await reborn(c, 30)


@fault("the app's container is back after 70 s", *KINDS, soak=True)
async def seventy(c: Case) -> Told:
    return await reborn(c, 70)


@fault("both containers restart at once, the sidecar without a word", *KINDS)
async def both(c: Case) -> Told:
    await c.start()
    c.trigger()
    told = await c.released()
    until = c.answered
    await c.kill_sidecar()
    await c.exit()
    await c.listen()
    await c.register()
    await c.serve()
    await c.until(c.answers, "the new sidecar answers")  # how long a busy machine takes to start it is not the question
    begun = asyncio.get_running_loop().time()
    listed = await c.yard.observer.until(c.instance, listed=True, within=20)
    assert listed - begun < 9, f"{listed - begun:.1f} s"  # 3 s of held breath, two reads, a write, and a busy machine
    assert describe(await c.record()) == "enabled, unmarked"
    proved = c.agree(told, until=until)
    await c.exit()
    return Told(told, f"nothing: listed {listed - begun:.1f} s after the new sidecar's start", proved)


@fault("the sidecar is killed in SETTLE and nobody asks again", *KINDS)
async def forgotten(c: Case) -> Told:
    await c.start()
    c.trigger()
    await c.until(c.is_out, "it is out")
    await c.until(c.is_verified, "it is proved")
    told = (await c.status())["report"]
    until = asyncio.get_running_loop().time()
    await c.kill_sidecar()
    await c.serve()
    await c.yard.observer.until(c.instance, listed=True, within=20)
    c.answered = asyncio.get_running_loop().time()
    assert describe(await c.record()) == "enabled, unmarked"
    left = f"nothing: listed again {c.answered - until:.1f} s after the sidecar died"
    proved = c.agree(told, until=until)
    await c.exit()
    return Told(told, left, proved)


async def drained_on(c: Case) -> Told:
    """Another sidecar starts, and the hook comes again: it drains on."""
    await c.serve()
    await c.until(c.answers, "the new sidecar answers")
    c.trigger()
    await c.released()
    assert await c.is_out()
    await c.exit()
    told = await c.final()
    assert told["outcome"] == "drained", c.told()
    return Told(told, await c.successor(), c.agree(told))


@fault("the sidecar is killed in DEREGISTER and the hook comes again", "gRPC", "HTTP beat")
async def asked_early(c: Case) -> Told:
    """At once after the trigger: nobody knows whether the write has landed."""
    await c.start()
    c.trigger()
    await c.until(c.is_draining, "a drain is under way")
    await c.kill_sidecar()
    return await drained_on(c)


@fault("the sidecar is killed after the release, and the app exits", "gRPC", "HTTP beat")
async def killed_late(c: Case) -> Told:
    """Nobody sweeps: the mark in the record is what tells the next sidecar, should the app be back within a minute."""
    await c.start()
    c.trigger()
    told = await c.released()
    proved = c.agree(told, until=c.answered)
    await c.kill_sidecar()
    await c.exit()
    await c.listen()
    await c.register()
    record = await c.record()
    assert describe(record) == "disabled, marked as ours", "born disabled"
    await c.serve()
    await c.yard.observer.until(c.instance, listed=True, within=20)
    left = f"nothing: the next sidecar enabled it again ({describe(await c.record())})"
    await c.exit()
    return Told(told, left, proved)


@fault("the sidecar is killed in SETTLE and the hook comes again", "gRPC", "HTTP beat", "persistent")
async def asked_again(c: Case) -> Told:
    await c.start()
    c.trigger()
    await c.until(c.is_verified, "it is proved")
    await c.kill_sidecar()
    assert c.hook is not None
    await asyncio.gather(c.hook, return_exceptions=True)
    return await drained_on(c)


@fault("an operator disables it during the restart", "gRPC", "HTTP beat")
async def operators(c: Case) -> Told:
    """What an operator has taken out stays out, whoever restarts."""
    await c.start()
    await c.yard.operator.set_enabled(c.instance, enabled=False)
    await c.until(c.is_out, "it is out")
    await asyncio.sleep(1.5)  # what the sidecar has seen a second ago it does not read again before it writes
    c.trigger()
    told = await c.released()
    proved = c.agree(told, until=c.answered)
    await c.exit()
    await c.listen()
    await c.register()
    await c.kill_sidecar()
    await c.serve()
    await c.ready()
    await asyncio.sleep(5)  # longer than a new sidecar holds its breath
    record = await c.record()
    assert record is not None
    assert describe(record) == "disabled, unmarked"
    await c.exit()
    return Told(told, "the operator's own record: disabled, unmarked", proved)
