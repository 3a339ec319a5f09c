"""Writes the timelines into the examples' pages, each from a play of that very manifest.

    python -m manifests.timeline [FORM…]     all of them by default; a page is written if all of its are there

It needs docker and the images, and takes two minutes.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial

from kubelet import Event, Line, Timeline
from manifests.ground import APP, ground
from manifests.plays import AT_ONCE, EXAMPLES, FORMS, LOOK_BACK, Played, play
from rig.docker import answers
from rig.servers import NacosServer
from stage import Stage


NACOS = "2.2.4"
GROUND = (
    f"Played with one Nacos {NACOS}, consumers that follow its pushes, `SETTLE_LOOK_BACK={LOOK_BACK}s`; "
    "with a 35 s cache SETTLE takes up to 40 s."
)
BEGIN, END = "<!-- timeline:begin -->", "<!-- timeline:end -->"
PAGES = {  # what is played for each page, and what happens in it
    "01-native-sidecar": {"native": "The pod is deleted", "liveness": "The app's liveness probe fails"},
    "02-ordinary-sidecar": {"ordinary, asked first": "The pod is deleted"},
    "03-wrapper": {"wrapper": "The pod is deleted"},
    "04-signal": {"signal": "The pod is deleted. Its app runs behind a shell that keeps SIGTERM to itself"},
}
EVENTS = {
    "unhealthy": "gives the app up",
    "hook-start": "calls the hook, GET /drain",
    "hook-end": "has the answer, {detail}",
    "sigterm": "sends SIGTERM to {container}",
    "sigkill": "sends SIGKILL to {container}",
    "exit": "{container} has exited with {detail}",
    "started": "starts {container} again",
}


def rows(timeline: Timeline, until: float) -> Iterator[tuple[float, str, str]]:
    """Seconds, who, and what: from T0 to the end, what the kubelet did and what nacos-drain said."""
    entries: list[Event | Line] = [*timeline.events, *timeline.lines]
    # A line of output comes a millisecond after what it tells.
    entries.sort(key=lambda entry: (round(entry.seconds, 2), isinstance(entry, Event)))
    for entry in entries:
        if not 0 <= entry.seconds < until:
            continue
        if isinstance(entry, Event):
            if entry.name in EVENTS:
                what = EVENTS[entry.name].format(container=entry.container, detail=entry.detail)
                yield entry.seconds, "kubelet", what
        elif entry.text.startswith('{"') and (said := sentence(json.loads(entry.text))):
            yield entry.seconds, "nacos-drain", said


def sentence(line: dict[str, object]) -> str:
    """What a line of the log says here; nothing, if it is not of the story."""
    match line["event"]:
        case "drain.phase_finished":
            return f"{line['phase']:<11} {line['detail']}"
        case "drain.restored":
            return "the app is a new one: online again"
        case "run.exited":
            return "the app has exited"
        case _:
            return ""


def block(what: str, played: Played) -> str:
    """One play, for a page."""
    again = played.restart is not None
    timeline = played.restart or played.timeline
    until = timeline.at(APP, "hook-start", 1) if again else float("inf")
    told = [f"{seconds:7.2f} s  {who:<12} {said}" for seconds, who, said in rows(timeline, until)]
    if again:
        told.append(f"{timeline.at(APP, 'exit') + played.back:7.2f} s  {'Nacos':<12} lists the app")
        told.sort(key=lambda line: float(line.split()[0]))
    end = f"{played.load.requests} requests before, during and after it, {len(played.load.failures)} failed"
    return "\n".join(["```text", f"   0    s  {what}", *told, end, "```"])


def write(folder: str, text: str) -> None:
    """Put it between the markers of a folder's page; test_translations.py carries it into the Chinese one."""
    page = EXAMPLES / folder / "README.md"
    head, begin, rest = page.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin, f"{page} has no {BEGIN}"
    assert end, f"{page} has no {END}"
    page.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
    print(f"{folder}\n{text}")  # noqa: T201


async def main(chosen: Sequence[str]) -> None:
    """Play them, and write each page that all plays of are there."""
    nacos = NacosServer(NACOS)
    nacos.start()  # blocks, and only the main thread may
    try:
        async with ground(nacos) as made:
            forms = [form for page in PAGES.values() for form in page if not chosen or form in chosen]
            stage = Stage({form: partial(play, FORMS[form], made) for form in forms}, AT_ONCE)
            try:
                played = {form: await stage.result(form) for form in forms}
            finally:
                await stage.close()
    finally:
        nacos.close()
    for folder, page in PAGES.items():
        if page.keys() <= played.keys():
            write(folder, "\n\n".join([*(block(what, played[form]) for form, what in page.items()), GROUND]))


if __name__ == "__main__":
    if not answers():
        sys.exit("no docker daemon answers")
    asyncio.run(main(sys.argv[1:]))
