"""The timetable as a picture, drawn from the plan itself: a picture drawn by hand would go on showing old limits.

Plain SVG with its colours in a style sheet, so that it can be read on a light and on a dark page.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sidecar.doctor.budget import PROOF
from sidecar.plan import MARGIN, Plan, fit
from sidecar.settings import Settings
from sidecar.settle import Rule


GRACE, DEFAULT_GRACE = 120, 30  # the examples', and what Kubernetes gives by itself
WIDTH, LEFT, PER_SECOND = 950, 20, 7.0
FIRST_LANE, LANE, THICK = 96, 78, 22

STYLE = """\
  <style>
    text { font: 13px system-ui, sans-serif; fill: #1f2328; }
    .small { font-size: 11px; fill: #59636e; }
    .axis { stroke: #8c959f; }
    .kill { stroke: #cf222e; stroke-dasharray: 4 3; }
    .proof { fill: #0969da; }
    .settle { fill: #1a7f37; }
    .maybe { fill: #1a7f37; opacity: 0.4; }
    .again { fill: #8250df; opacity: 0.4; }
    .stop { fill: #bf8700; }
    .margin { fill: #8c959f; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; }
      .small { fill: #9198a1; }
    }
  </style>"""


class Span(NamedTuple):
    """A part of a lane, in seconds from the trigger."""

    begin: float
    end: float
    kind: str


class Lane(NamedTuple):
    """One way in which a drain may go."""

    title: str
    spans: list[Span]
    kill: float


LEGEND = {
    "proof": "DEREGISTER and VERIFY",
    "settle": "SETTLE",
    "maybe": "SETTLE, while callers call",
    "again": "SETTLE again, were it listed again",
    "stop": "the app stops",
    "margin": "margin",
}


def usual(plan: Plan, rule: Rule) -> Lane:
    """What is to be expected where Nacos is well."""
    least, most = PROOF + rule.floor, PROOF + plan.settle
    stop = plan.app_stop
    title = (
        f"Grace period {plan.grace_period:g} s, as a rule: the app hears SIGTERM after {least:g} to {most:g} s, "
        "and the rest of the grace period is not used"
    )
    spans = [
        Span(0, PROOF, "proof"),
        Span(PROOF, least, "settle"),
        Span(least, most, "maybe"),
        Span(most, most + stop, "stop"),
    ]
    return Lane(title, spans, plan.grace_period)


def latest(plan: Plan) -> Lane:
    """Every limit used up."""
    settled = plan.proof + plan.settle
    title = f"Grace period {plan.grace_period:g} s, at the latest: the hook is answered after {plan.budget:g} s"
    if plan.settle < plan.cap:
        title += f", and SETTLE gets {plan.settle:g} s of {plan.cap:g} s"
    spans = [
        Span(0, plan.proof, "proof"),
        Span(plan.proof, settled, "settle"),
        Span(settled, plan.budget, "again"),
        Span(plan.budget, plan.budget + plan.app_stop, "stop"),
        Span(plan.budget + plan.app_stop, plan.budget + plan.app_stop + MARGIN, "margin"),
    ]
    return Lane(title, [span for span in spans if span.end > span.begin], plan.grace_period)


def picture() -> str:
    """The examples' grace period in both ways, and Kubernetes' own."""
    settings = Settings()
    plans = [fit(grace, settings.app_stop, settings.consumer_cache) for grace in (GRACE, DEFAULT_GRACE)]
    lanes = [usual(plans[0], settings.settle_rule), latest(plans[0]), latest(plans[1])]
    height = FIRST_LANE + LANE * (len(lanes) - 1) + THICK + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "  <title>A drain on a time axis: the phases and their limits</title>",
        STYLE,
        *_legend(),
    ]
    for number, lane in enumerate(lanes):
        parts += _lane(lane, FIRST_LANE + LANE * number)
    return "\n".join([*parts, "</svg>", ""])


def _x(seconds: float) -> str:
    return f"{LEFT + seconds * PER_SECOND:g}"


def _legend() -> Iterator[str]:
    for number, (kind, words) in enumerate(LEGEND.items()):
        x, y = LEFT + number % 3 * 300, 14 + number // 3 * 22
        yield f'  <rect class="{kind}" x="{x}" y="{y}" width="14" height="14"/>'
        yield f'  <text x="{x + 20}" y="{y + 12}">{words}</text>'


def _lane(lane: Lane, top: int) -> Iterator[str]:
    yield f'  <text x="{LEFT}" y="{top - 8}">{lane.title}</text>'
    for span in lane.spans:
        width = f"{(span.end - span.begin) * PER_SECOND:g}"
        yield f'  <rect class="{span.kind}" x="{_x(span.begin)}" y="{top}" width="{width}" height="{THICK}"/>'
        if span.end < lane.kill:
            x, y = _x(span.end), top + THICK + 14
            yield f'  <text class="small" text-anchor="middle" x="{x}" y="{y}">{span.end:g}</text>'
    bottom, kill = top + THICK, _x(lane.kill)
    yield f'  <line class="axis" x1="{LEFT}" y1="{bottom}" x2="{kill}" y2="{bottom}"/>'
    yield f'  <line class="kill" x1="{kill}" y1="{top - 4}" x2="{kill}" y2="{bottom + 4}"/>'
    yield f'  <text class="small" x="{float(kill) + 6:g}" y="{top + 15}">{lane.kill:g} s: SIGKILL</text>'
