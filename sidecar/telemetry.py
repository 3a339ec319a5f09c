"""One record, three voices: log lines, metrics, the termination message.

Everything here is derived from two states of the drain, before and after a step; nothing here decides. Event names,
their fields and the metrics are public (contracts.md): a change needs a CHANGELOG line.
"""

import json
import logging
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

from . import removal, wishes
from .drain import Drain
from .lease import Lease, Port, State
from .report import phases, shrunk
from .traffic import SOURCES


TERMINATION_LOG = Path("/dev/termination-log")
TERMINATION_BYTES = 4096  # Kubernetes keeps no more

IDENTIFY = (
    "let the app show nacos-deregister of our starter, or nacosdiscovery (NACOS_DRAIN_ACTUATOR_URL says where), or set "
    "NACOS_DRAIN_NACOS_SERVER_ADDR and NACOS_DRAIN_NACOS_SERVICE"
)
WELL = {"ok": 1.0, "warning": 1.0, "failing": 0.0, "unknown": math.nan}  # as nacos_drain_preflight shows a verdict

Report = Callable[[Lease], dict[str, object] | None]


def configure(file: TextIO, *, console: bool, level: str) -> None:
    """Log there: JSON lines, or coloured ones for a person."""
    steps: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    voice: structlog.typing.Processor
    voice = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*steps, voice],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=file),
        cache_logger_on_first_use=True,
    )
    logging.getLogger().handlers = [_Libraries()]


class _Libraries(logging.Handler):
    """What libraries log, in our form; without their tracebacks, which repeat what a client sent: a token perhaps."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say what and where."""
        error, trace = record.exc_info[1:] if record.exc_info else (None, None)
        frames = traceback.extract_tb(trace)
        structlog.get_logger().log(
            record.levelno,
            "library",
            logger=record.name,
            message=record.getMessage(),
            error=None if error is None else type(error).__name__,
            at=f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None,
        )


class Metrics:
    """The metrics of contracts.md, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs; a second series per counter asked by nobody

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self.state = gauge("nacos_drain_state", "1 for the state the lease is in", "state")
        self.drains = counter("nacos_drain_drains", "Drains by their outcome at the release", "trigger", "outcome")
        self.phase = gauge("nacos_drain_phase_seconds", "How long each phase of the last drain took", "phase")
        self.requests = counter("nacos_drain_registry_requests", "Requests to Nacos", "node", "op", "result")
        self.listed = gauge("nacos_drain_listed", "Whether this node lists us to consumers; NaN: unknown", "node")
        self.source = gauge("nacos_drain_traffic_source", "1 for the source in use", "source")
        self.peers = gauge("nacos_drain_peers", "Callers that are remembered, by what is known of them", "rhythm")
        self.restores = counter("nacos_drain_restores", "Instances put online again", "reason")
        self.preflight = gauge("nacos_drain_preflight", "1 when a check is well, 0 failing; NaN: unknown", "check")
        self.refusals = counter("nacos_drain_auth_failures", "Requests to acting paths that were not authorised")

    def request(self, node: str, op: str, result: str) -> None:
        """Count a request to Nacos."""
        self.requests.labels(node, op, result).inc()

    def callers(self, rhythms: Mapping[str, int]) -> None:
        """Tell how many are remembered. Counted when somebody asks: there may be thousands, and a sample a second."""
        for rhythm, count in rhythms.items():
            self.peers.labels(rhythm).set(count)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class Voices:
    """Tells what happened, step by step."""

    def __init__(self, metrics: Metrics, report: Report, *, termination_log: Path | None = TERMINATION_LOG) -> None:
        self._log = structlog.get_logger()
        self._metrics = metrics
        self._report = report
        self._termination_log = termination_log
        self._told: set[tuple[str, str]] = set()  # of this drain: phase and outcome
        self._identity: object = None  # as told
        self._unidentified = ""
        self._unknown = False  # whether callers may have been missed, as told

    def __call__(self, before: Drain, after: Drain, event: wishes.Event, now: float) -> None:
        """Observe one step."""
        self._tell_registry(before, after, event)
        self._tell_identity(after)
        old, new = before.lease, after.lease
        if new is not None and (old is None or old.id != new.id):
            self._started(new)
        if new is not None and (new is not old or after.state is not State.ARMED):
            self._tell_drain(old if old is not None and old.id == new.id else None, new, after, now)
        if after.restoring != before.restoring:
            self._tell_restores(before, after)
        if after.state is not before.state or before.peeks == 0:
            for state in State:
                self._metrics.state.labels(state.value).set(state is after.state)
            for source in SOURCES:
                self._metrics.source.labels(source).set(source == after.settle.source)
        if isinstance(event, wishes.Sampled | wishes.Failed):
            self._tell_traffic(after, now)

    def _tell_traffic(self, after: Drain, now: float) -> None:
        """When callers may have been missed, and when none may any more: not each time, but as the rule sees it."""
        settle = after.settle
        unknown = settle.incomplete(now)
        if self._unknown and not unknown:
            self._log.info("traffic.known")
            self._unknown = False
        elif unknown and not self._unknown and settle.missed and after.app.port is Port.OPEN:
            self._log.warning("traffic.unknown", error=settle.missed, look_back_s=settle.rule.look_back)
            self._unknown = True

    # -- a drain ---------------------------------------------------------------------------------------------------

    def _started(self, lease: Lease) -> None:
        self._told.clear()
        self._metrics.phase.clear()
        plan = lease.plan
        self._log.info(
            "drain.started",
            id=lease.id,
            trigger=lease.trigger.value,
            instances=[str(r.instance) for r in lease.removals],
            deadline_s=plan.budget,
            settle_cap_s=plan.cap,
        )

    def _tell_drain(self, old: Lease | None, new: Lease, after: Drain, now: float) -> None:
        for phase in phases(new, after.rules.release, now):
            said = (phase.phase.value, phase.outcome.value)
            if said not in self._told:  # a phase is told again when later evidence changes its outcome
                self._told.add(said)
                self._metrics.phase.labels(phase.phase.value).set(phase.seconds)
                self._log.info("drain.phase_finished", id=new.id, **phase.as_json())
        if new.released_at is not None and (old is None or old.released_at is None):
            self._metrics.drains.labels(new.trigger.value, new.outcome.value).inc()
            self._conclude("drain.released", new)
        if new.final_at is not None and (old is None or old.final_at is None):
            if new.released_at is None:  # given back before that, or never counted
                self._metrics.drains.labels(new.trigger.value, new.outcome.value).inc()
            self._conclude("drain.finished", new)
        elif new.forced is not None and (old is None or old.forced is None):
            self._leave_word(
                self._report(new)
            )  # a late change of the outcome: the line was written, the report was not final

    def _conclude(self, event: str, lease: Lease) -> None:
        """The lines that have to stand alone: a dying pod is rarely asked again."""
        told = self._report(lease)
        if told is None:
            return
        level = self._log.info if lease.outcome.value in {"drained", "nothing_registered"} else self._log.warning
        level(event, **{k: v for k, v in told.items() if k not in {"schema", "plan"}})
        self._leave_word(told)

    def _leave_word(self, told: dict[str, object] | None) -> None:
        if told is not None and self._termination_log is not None and self._termination_log.exists():
            try:
                self._termination_log.write_text(json.dumps(shrunk(told, TERMINATION_BYTES)))
            except OSError as error:
                self._log.debug("termination_log.failed", error=error.strerror)

    def _tell_restores(self, before: Drain, after: Drain) -> None:
        ended = {r.instance for r in before.restoring if r.ending is not None}
        for r in after.restoring:
            if r.ending is None or r.instance in ended:
                continue
            if r.ending == "online" and r.enabled_at is not None:
                self._metrics.restores.labels(after.restore_reason).inc()
            self._log.info(
                "drain.restored", instance=str(r.instance), reason=after.restore_reason, result=r.ending, error=r.error
            )

    # -- the registry ----------------------------------------------------------------------------------------------

    def _tell_registry(self, before: Drain, after: Drain, event: wishes.Event) -> None:
        match event:
            case wishes.Surveyed(_, records, node):
                self._metrics.listed.labels(node).set(any(r.enabled for r in after.claim(records)))
                if before.trouble:
                    self._log.info("registry.available")
                if after.known.keys() - before.known.keys():
                    self._log.info(
                        "registry.seen",
                        instances=[
                            {"instance": str(i), "enabled": k.record.enabled, "weight": k.record.weight}
                            for i, k in after.known.items()
                        ],
                    )
                if after.ambiguous and not before.ambiguous:
                    self._log.error(
                        "registry.ambiguous",
                        instances=[str(i) for i in after.ambiguous],
                        next_step="several instances on this address: set NACOS_DRAIN_APP_PORTS to the app's own",
                    )
            case wishes.Failed(wishes.Survey(_, turn), error):
                if before.nodes:
                    self._metrics.listed.labels(before.nodes[turn % len(before.nodes)][0]).set(math.nan)
                if error != before.trouble:
                    self._log.warning("registry.unavailable", error=error)
            case removal.Found(removal.Read(_, node)) | removal.Failed(removal.Read(_, node)):
                self._metrics.listed.labels(node).set(_listed(after, node))
            case _:
                pass
        if after.ready and not before.ready:
            self._log.info("registry.ready")

    def _tell_identity(self, after: Drain) -> None:
        """Who the app is by its own word, once; and why it does not say, when that changes."""
        told = after.identity
        if told is not None and told != self._identity and (told.instance is not None or not told.registers):
            self._identity = told
            key = told.instance
            self._log.info(
                "registry.identified",
                service=key.service.name if key else None,
                group=key.service.group if key else None,
                namespace=(key.service.namespace or "public") if key else None,
                ip=key.ip if key else None,
                port=key.port if key else None,
                registers=told.registers,
                source=told.source,
            )
        why = after.unidentified
        if why != self._unidentified and (not why or after.app.port is not Port.CLOSED):  # else there is nobody to ask
            self._unidentified = why
            if why:
                self._log.warning("registry.unidentified", error=why, next_step=IDENTIFY)


class Rehearsals:
    """Tells what the preflight checks have shown: in the metrics always, in the log what is new."""

    def __init__(self, metrics: Metrics) -> None:
        self._log = structlog.get_logger()
        self._metrics = metrics
        self._said: dict[str, tuple[str | None, str | None]] = {}
        self._well = False

    def __call__(self, rows: Sequence[Mapping[str, str | None]], bad: bool) -> None:  # noqa: FBT001  there are no other arguments
        """Hear of a run; `bad`: something is wrong that is not just asked later."""
        for row in rows:
            name, verdict = str(row["check"]), str(row["verdict"])
            self._metrics.preflight.labels(name).set(WELL[verdict])
            said, self._said[name] = self._said.get(name), (verdict, row["detail"])
            if self._said[name] != said and verdict in {"failing", "warning"}:
                self._log.log(
                    logging.ERROR if verdict == "failing" else logging.WARNING,
                    f"preflight.{verdict}",
                    name=name,
                    detail=row["detail"],
                    next_step=row["next_step"],
                )
        if not bad and not self._well:
            self._well = True
            counts = {word: sum(row["verdict"] == word for row in rows) for word in ("ok", "warning", "unknown")}
            self._log.info("preflight.ok", **counts)


def _listed(drain: Drain, node: str) -> float:
    """1 when this node lists any instance of ours, NaN when it may, 0 when it does not."""
    views = {n.present for r in (drain.lease.removals if drain.lease else ()) for n in r.nodes if n.name == node}
    return 1.0 if True in views else math.nan if None in views else 0.0
