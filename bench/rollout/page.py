"""bench/results/rollout.md, from the lines of rollout.jsonl: python -m bench.rollout.page"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from bench.running import ROOT
from bench.tables import RESULTS

from .cells import CELLS
from .outcome import Outcome
from .results import Key, Results
from .ways import WAYS


HEAD = """# Rolling replacement of real Spring Cloud Alibaba apps

Written by `make bench-rollout` from [rollout.jsonl](rollout.jsonl), a line per repetition. Two replicas of a provider;
a new one is up and listed, then the older one is terminated as a kubelet does it: hook, SIGTERM, SIGKILL after 120 s.
A fifth of the requests takes 300 ms. *failed* counts from 0.5 s before the termination until nobody has chosen the old
replica for 3 s (8 s where each gateway sends a request in 2 s); *hook* is the time from the termination to SIGTERM, or,
where nacos-drain is the entrypoint, until it passes that on. Several values: one per repetition. Rivals were played
once. The last call may come before the list is clean (a negative number), as pushes and lists are made together.
"""


def page(results: Results) -> str:
    """All of it, as Markdown."""
    parts = [HEAD]
    for nacos, generation in results.settings():
        parts.append(f"\n## Nacos {nacos}, Spring Cloud Alibaba {generation}\n")
        cells = [cell for cell in CELLS.values() if _keys(results, nacos, generation, cell.name)]
        for cell in cells:
            parts.append(f"\n**{cell.name}**: {cell.words}.{_watching(cell.warm_up, cell.look_back)}\n")
            parts.append("| way | requests | failed | hook, s | exit, s | last call after the clean list, s |")
            parts.append("|---|---|---|---|---|---|")
            parts += [_row(key, results.valid(key)) for key in _keys(results, nacos, generation, cell.name)]
    thrown = sum(bool(line["invalid"]) for line in results)
    parts.append(f"\nRepetitions thrown away because the machine was overloaded: {thrown}.")
    return "\n".join(parts) + "\n"


def _keys(results: Results, nacos: str, generation: str, cell: str) -> list[Key]:
    """Those that have something to show, in the order of the ways."""
    keys = [Key(nacos, generation, way, cell) for way in WAYS]
    return [key for key in keys if results.valid(key)]


def _watching(warm_up: float, look_back: float | None) -> str:
    told = "their default look-back" if look_back is None else f"SETTLE_LOOK_BACK={look_back:g}s"
    return f" nacos-drain's sidecars had {told} and at least {warm_up:g} s under this load before."


def _row(key: Key, lines: list[Outcome]) -> str:
    way = WAYS[key.way]
    words = f"**{way.words}**" if way.ours else way.words
    failed = _each(str(line["failed"]) for line in lines)
    return (
        f"| {words} | {_each(str(line['requests']) for line in lines)} | {failed} "
        f"| {_seconds(lines, 'hook')} | {_seconds(lines, 'exit')} | {_each(map(_last_call, lines))} |"
    )


def _each(values: Iterable[str]) -> str:
    return " / ".join(values)


def _seconds(lines: list[Outcome], what: str) -> str:
    return _each("-" if line[what] is None else f"{line[what]:.1f}" for line in lines)


def _last_call(line: Outcome) -> str:
    """The latest of the consumers; negative where all had stopped before Nacos' list was clean."""
    calls = [each["last_call"] for each in line["consumers"].values() if each["last_call"] is not None]
    return "-" if line["clean"] is None or not calls else f"{max(calls) - line['clean']:.1f}"


# -- parts of other pages --------------------------------------------------------------------------------------------


def summary(results: Results) -> str:
    """For the README: what failed, and how long it took, in the cells that matter most."""
    columns = [(nacos, generation, cell) for nacos, generation in results.settings() for cell in ("push", "cached")]
    heads = " | ".join(f"Nacos {nacos}, {cell}" for nacos, _, cell in columns)
    rows = [f"| | {heads} |", f"|{'---|' * (len(columns) + 1)}"]
    for way in WAYS.values():
        told = [results.valid(Key(nacos, generation, way.name, cell)) for nacos, generation, cell in columns]
        words = f"**{way.words}**" if way.ours else way.words
        rows.append(f"| {words} | {' | '.join(map(_verdict, told))} |")
    return "\n".join(rows)


def _verdict(lines: list[Outcome]) -> str:
    if not lines:
        return "-"
    failed, seconds = ([line[what] for line in lines] for what in ("failed", "exit"))
    return f"{_range(failed, '')} failed, {_range(seconds, '.1f')} s"


def _range(values: Sequence[float], form: str) -> str:
    least, most = format(min(values), form), format(max(values), form)
    return least if least == most else f"{least} to {most}"


NAMED = {
    "cached": "the default, 35 s",
    "5 s cache": "`spring.cloud.loadbalancer.cache.ttl=5s`",
    "no cache": "`spring.cloud.loadbalancer.cache.enabled=false`",
    "Nacos' own": "`spring.cloud.loadbalancer.nacos.enabled=true`",
}


def forgotten(results: Results) -> str:
    """For the gateways' teams: when each of them last called an instance that was gone."""
    lines = [line for line in results if (line["cell"], line["nacos"]) == ("forget", "2.2.4") and not line["invalid"]]
    rows = ["| | removals | median | latest |", "|---|---|---|---|"]
    for name, words in NAMED.items():
        own = [(line["consumers"][name]["last_call"], line["clean"]) for line in lines]
        calls = [last - clean for last, clean in own if last is not None and clean is not None]
        if calls:
            rows.append(f"| {words} | {len(calls)} | {median(calls):.1f} | {max(calls):.1f} |")
    return "\n".join(rows)


PARTS = {
    ROOT / "README.md": {"rollout": summary},
    ROOT / "docs/consumers.md": {"forget": forgotten},
    ROOT / "docs/consumers.zh-CN.md": {"forget": forgotten},
}


def filled(text: str, parts: Mapping[str, Callable[[Results], str]], results: Results) -> str:
    """A page with its parts written anew."""
    for name, written in parts.items():
        head, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
        _, end, tail = rest.partition(f"<!-- {name}:end -->")
        text = f"{head}{begin}{written(results)}\n{end}{tail}"
    return text


def main() -> None:
    """Write all of them."""
    results = Results(RESULTS / "rollout.jsonl")
    (RESULTS / "rollout.md").write_text(page(results))
    for path, parts in PARTS.items():
        path.write_text(filled(path.read_text(), parts, results))


if __name__ == "__main__":
    main()
