"""Many instances of one service in one pod, and services of a thousand hosts: what they cost a node, and us."""

import asyncio
import json
import time

import pytest
from contract.shop import APP, IP, SHOP, Called, Client, pair, requests

from sidecar.adapters.nacos.answers import listed
from sidecar.adapters.nacos.dialects import THREE, TWO
from sidecar.adapters.nacos.sharing import TOGETHER, Sharing
from sidecar.http import Answer
from sidecar.ports import Unavailable
from sidecar.registration import Record, Service


LIST = "instance/list"


@pytest.mark.parametrize("call", [Client.read, Client.look])
async def test_the_same_question_at_the_same_moment_is_one_request(call: Called) -> None:
    async with pair() as (double, nacos):
        del double.log[:], nacos.counted[:]
        assert await asyncio.gather(*(call(nacos) for _ in range(300))) == [(Record(APP),)] * 300
        assert requests(double, LIST) == len(nacos.counted) == 1
        await call(nacos)
        assert requests(double, LIST) == 2


async def test_another_question_is_another_request() -> None:
    async with pair() as (double, nacos):
        del double.log[:]
        await asyncio.gather(
            nacos.read(),
            nacos.look(),
            nacos.nacos.read(nacos.node, SHOP, [IP], fresh=True),
            nacos.nacos.read(nacos.node, SHOP, [IP], fresh=True),
            nacos.nacos.read(nacos.node, SHOP, [IP, "10.9.0.2"], fresh=False),
            nacos.nacos.read(nacos.node, Service("other"), [IP], fresh=False),
        )
        assert requests(double, LIST) == 6


async def test_who_asks_a_moment_later_gets_a_later_answer() -> None:
    """An answer that was on its way before a write says nothing about it."""
    async with pair() as (double, nacos):
        double.faults.set("slow", LIST, seconds=4 * TOGETHER)
        first = asyncio.ensure_future(nacos.read())
        await asyncio.sleep(2 * TOGETHER)
        del double.log[:]
        second = asyncio.ensure_future(nacos.read())
        assert await first == await second == (Record(APP),)
        assert requests(double, LIST) == 1


async def test_who_gives_up_takes_nobody_along() -> None:
    async with pair() as (double, nacos):
        del double.log[:]
        double.faults.set("slow", LIST, seconds=0.2)
        asked = [asyncio.ensure_future(nacos.read()) for _ in range(3)]
        while not double.log:  # noqa: ASYNC110  a list has no events
            await asyncio.sleep(0.01)
        asked[0].cancel()  # the one that sent the request
        asked[2].cancel()
        assert await asked[1] == (Record(APP),)
        assert requests(double, LIST) == 1
        assert asked[0].cancelled()
        assert asked[2].cancelled()


async def test_when_all_have_given_up_the_request_ends() -> None:
    """Else one that hangs would hold its place among the sixteen for ever."""
    async with pair() as (double, nacos):
        double.faults.set("hang", LIST)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await asyncio.gather(nacos.read(), nacos.read())
        double.faults.clear()
        async with asyncio.timeout(2):
            assert await nacos.read() == (Record(APP),)
        assert nacos.counted[-2][2] == "unanswered"


async def test_a_failure_is_everybodys() -> None:
    async with pair() as (double, nacos):
        del double.log[:]
        double.faults.set("unavailable")
        told = await asyncio.gather(*(nacos.read() for _ in range(5)), return_exceptions=True)
        assert [type(each) for each in told] == [Unavailable] * 5
        assert requests(double, LIST) == 1


async def test_nothing_is_kept_of_what_was_asked() -> None:
    share = Sharing()

    async def answer() -> int:
        await asyncio.sleep(0)
        return 1

    assert await asyncio.gather(*(share(n % 3, answer) for n in range(9))) == [1] * 9
    assert not share._asked


# -- a service of a thousand hosts


def hosts(count: int) -> list[dict[str, object]]:
    """What a list of 2.x and 3.x holds, about 500 bytes each."""
    return [
        {
            "instanceId": f"10.1.{n // 250}.{n % 250}#8080#DEFAULT#DEFAULT_GROUP@@shop",
            "ip": f"10.1.{n // 250}.{n % 250}",
            "port": 8080,
            "weight": 1.0,
            "healthy": True,
            "enabled": True,
            "ephemeral": True,
            "clusterName": "DEFAULT",
            "serviceName": "DEFAULT_GROUP@@shop",
            "metadata": {"preserved.register.source": "SPRING_CLOUD", "version": "1.2.3", "zone": "cn-hangzhou-h"},
            "instanceHeartBeatInterval": 5000,
            "instanceHeartBeatTimeOut": 15000,
            "ipDeleteTimeout": 30000,
        }
        for n in range(count)
    ]


def costs(answer: Answer, address: str, *, times: int) -> float:
    """Seconds of this process's time per list."""
    start = time.process_time()
    for _ in range(times):
        listed(answer, THREE, "data", SHOP, [address])
    return (time.process_time() - start) / times


def test_a_thousand_hosts_cost_little() -> None:
    """A round has 250 ms. Without us, which is what a proof mostly reads, it is a search and no parsing."""
    body = json.dumps({"code": 0, "message": "success", "data": hosts(1000)}, separators=(",", ":")).encode()
    answer = Answer(200, body)
    assert len(body) > 390_000
    assert listed(answer, THREE, "data", SHOP, ["10.9.0.1"]) == ()
    (ours,) = listed(answer, THREE, "data", SHOP, ["10.1.3.7"])
    assert ours.instance.address == "10.1.3.7:8080"
    assert costs(answer, "10.9.0.1", times=50) < 0.01
    assert costs(answer, "10.1.3.7", times=5) < 0.1
    assert costs(answer, "fd00::7", times=5) < 0.1
    assert listed(Answer(200, b'{"hosts":[]}'), TWO, "hosts", SHOP, ["10.9.0.1"]) == ()
