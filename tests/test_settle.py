"""The quiet rule of design section 5: tables per clause, and properties over any traffic."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.settle import CROWDS, NOBODY, Call, Clause, Rule, Settle, Verdict, Waited


GATEWAY, BATCH, PROBE = "10.0.0.1", "10.0.0.2", "10.0.0.3"
TRIGGER = 1000.0  # the sidecar was born at 0
CLEAN = TRIGGER + 1
CAP = CLEAN + 40
DEFAULTS = Rule()


OLD = TRIGGER - NOBODY * 300.0  # since when a sidecar has to have watched, to know that nobody calls


def watching(*, rule: Rule = DEFAULTS, since: float = 0.0) -> Settle:
    """A sidecar that can see its callers, born at 0."""
    return Settle(since=since, rule=rule, source="netlink")


def called(settle: Settle, peer: str, *moments: float) -> Settle:
    """One request of this peer at each moment, each in a sample of its own."""
    for moment in moments:
        settle = settle.observe([Call(peer, moment)], moment)
    return settle


def every(seconds: float, last: float, *, times: int = 3) -> tuple[float, ...]:
    """Requests at this rhythm, up to the last."""
    return tuple(last - seconds * n for n in reversed(range(times)))


def steady(peer: str = GATEWAY, *, gap: float = 2.0, last: float = TRIGGER - 1) -> Settle:
    """A sidecar that knows one caller and its rhythm: it called from the start on, without a longer break."""
    return called(watching(), peer, *every(gap, last, times=int(last // gap) + 1))


def judged(settle: Settle, now: float) -> Verdict:
    """The verdict at this moment, when a sample has just shown nothing new."""
    return settle.observe(still(settle), now).verdict(CLEAN, CAP, now)


def still(settle: Settle) -> list[Call]:
    """What is under way stays so."""
    return [Call(a, None, p.connections, p.in_flight) for a, p in settle.peers.items() if p.in_flight]


def gap(settle: Settle, peer: str) -> float:
    """Its longest gap, as of the newest sample."""
    assert settle.seen_at is not None
    return settle.longest_gap(settle.peers[peer], settle.seen_at)


def outcome(verdict: Verdict) -> tuple[bool, Clause, tuple[str, ...]]:
    """What most tests are about."""
    return verdict.done, verdict.clause, tuple(caller.peer for caller in verdict.callers)


def done_at(settle: Settle, *, step: float = 0.25, start: float = CLEAN) -> float:
    """The first moment at which SETTLE may end, if nothing more is seen."""
    now = start
    while not settle.observe(still(settle), now).verdict(start, start + 40, now).done:
        now += step
    return now


# --- the rule itself


def test_nobody_in_memory_of_an_old_sidecar_leaves_at_the_floor() -> None:
    settle = watching(since=OLD).freeze(TRIGGER)
    assert judged(settle, CLEAN + 2.9).clause is Clause.WAITING
    assert judged(settle, CLEAN + 3) == Verdict(done=True, clause=Clause.FLOOR)


def test_nobody_in_memory_of_a_younger_sidecar_may_be_somebody_who_calls_rarely() -> None:
    settle = watching(since=OLD + 1)
    assert judged(settle.freeze(TRIGGER), CAP - 0.1).clause is Clause.YOUNG
    assert judged(called(settle, GATEWAY, *every(2, TRIGGER, times=1000)).freeze(TRIGGER), CAP - 0.1).done


def test_silence_counts_as_far_as_it_was_seen() -> None:
    """A verdict between two samples knows no more than the first of them."""
    settle = steady(gap=0.25, last=TRIGGER).freeze(TRIGGER).observe([], CLEAN + 2.9)
    assert settle.verdict(CLEAN, CAP, CLEAN + 3.3).clause is Clause.WAITING
    assert settle.observe([], CLEAN + 3.3).verdict(CLEAN, CAP, CLEAN + 3.3).clause is Clause.QUIET


def test_a_peer_is_waited_for_three_times_its_longest_gap_after_its_last_request() -> None:
    settle = steady(gap=2, last=TRIGGER - 1).freeze(TRIGGER)
    assert gap(settle, GATEWAY) == 2
    assert settle.peers[GATEWAY].owed == 6
    settle = called(settle, GATEWAY, CLEAN + 10)
    assert outcome(judged(settle, CLEAN + 16)) == (False, Clause.WAITING, (GATEWAY,))
    assert judged(settle, CLEAN + 16.01) == Verdict(done=True, clause=Clause.QUIET, last=Waited(GATEWAY, CLEAN + 10, 6))


def test_a_fast_peer_is_waited_for_the_quiet_time_at_least() -> None:
    settle = steady(gap=0.25, last=TRIGGER).freeze(TRIGGER)
    assert settle.peers[GATEWAY].owed == 3
    assert done_at(settle) == CLEAN + 3
    assert done_at(called(settle, GATEWAY, CLEAN + 5)) == CLEAN + 8.25


def test_each_peer_is_judged_by_its_own_rhythm_and_the_slowest_decides() -> None:
    settle = watching()
    for moment in every(0.5, TRIGGER, times=2001):
        settle = settle.observe([Call(GATEWAY, moment), *([Call(BATCH, moment)] if moment % 8 == 4 else [])], moment)
    settle = called(settle.freeze(TRIGGER), GATEWAY, CLEAN + 20)
    verdict = judged(settle, CLEAN + 19)
    assert [caller.peer for caller in verdict.callers] == [GATEWAY, BATCH], "newest first"
    assert done_at(settle) == CLEAN + 23.25


def test_the_silence_before_the_first_request_is_a_gap() -> None:
    """A peer first seen 700 s after our birth may well call every 700 s."""
    settle = called(watching(), GATEWAY, 700, 702, 704, 706).freeze(708)
    assert gap(settle, GATEWAY) == 700
    assert settle.peers[GATEWAY].owed == 2100


def test_that_silence_is_forgotten_when_the_caller_has_been_watched_for_a_look_back() -> None:
    """Callers are replaced too: a new one would be waited for until the cap as long as we live."""
    calls = [700 + 2 * n for n in range(151)]
    assert called(watching(), GATEWAY, *calls).freeze(1000).peers[GATEWAY].owed == 2100
    assert called(watching(), GATEWAY, *calls, 1001).freeze(1001).peers[GATEWAY].owed == 6


def test_a_gap_is_remembered_for_half_an_hour_at_least_and_an_hour_at_most() -> None:
    calls = [*range(0, 1800, 2), *range(1850, 6000, 2)]
    always = called(watching(), GATEWAY, *calls)
    assert always.longest_gap(always.peers[GATEWAY], 5999) == 2
    paused = called(watching(), GATEWAY, *[n for n in calls if n < 3000])
    for now, longest in ((3000, 52), (5399, 52), (5400, 0)):
        assert paused.longest_gap(paused.peers[GATEWAY], now) == longest, now


def test_the_silence_at_the_trigger_is_a_gap() -> None:
    settle = steady(gap=2, last=TRIGGER - 50).freeze(TRIGGER)
    assert settle.peers[GATEWAY].owed == 150


def test_the_cap_ends_it_whatever_is_seen_and_says_who_was_calling() -> None:
    settle = called(steady().freeze(TRIGGER), GATEWAY, CAP - 1)
    assert outcome(judged(settle, CAP)) == (True, Clause.CAP, (GATEWAY,))


def test_at_a_cap_that_comes_before_the_floor_it_ends_too() -> None:
    assert watching().freeze(TRIGGER).verdict(CLEAN, CLEAN + 1, CLEAN + 1).done


# --- what makes only the cap honest


@pytest.mark.parametrize(
    ("settle", "clause"),
    [
        pytest.param(Settle(0.0), Clause.BLIND, id="no traffic source"),
        pytest.param(
            watching().observe([], TRIGGER - 299).lost(TRIGGER - 299, "because"),
            Clause.BLIND,
            id="a call may be missed",
        ),
        pytest.param(replace(watching(), since=TRIGGER - 299), Clause.YOUNG, id="younger than the look-back"),
        pytest.param(called(watching(), BATCH, 999), Clause.RHYTHM, id="seen once"),
        pytest.param(called(watching(), BATCH, 997, 999), Clause.RHYTHM, id="seen twice"),
        pytest.param(called(watching(), BATCH, 650, 900, 999), Clause.RHYTHM, id="twice in the look-back"),
        pytest.param(called(watching(), BATCH, *every(2, 600, times=300)), Clause.RHYTHM, id="remembered only"),
        *(pytest.param(steady(crowd), Clause.RHYTHM, id=crowd) for crowd in sorted(CROWDS)),
        pytest.param(replace(steady(), nodes=frozenset({GATEWAY})), Clause.RHYTHM, id="a node or gateway"),
        pytest.param(replace(steady(), evicted_at=TRIGGER - 3599), Clause.RHYTHM, id="an eviction"),
    ],
)
def test_unknown_means_the_cap(settle: Settle, clause: Clause) -> None:
    settle = settle.freeze(TRIGGER)
    assert judged(settle, CAP - 0.1).clause is clause
    assert not judged(settle, CAP - 0.1).done
    at_the_cap = judged(settle, CAP)
    assert (at_the_cap.done, at_the_cap.clause, at_the_cap.barred) == (True, Clause.CAP, clause)
    assert not at_the_cap.callers, "nobody was calling: that is no reason to say so"
    if clause is Clause.RHYTHM and settle.evicted_at is None:
        assert next(iter(settle.peers)) in at_the_cap.why, "but who it is that nobody can know is told"


@pytest.mark.parametrize(
    "settle",
    [
        pytest.param(watching(since=OLD).lost(TRIGGER - 301, "because"), id="a gap in the reading, long ago"),
        pytest.param(replace(steady(), since=TRIGGER - 300), id="as old as the look-back"),
        pytest.param(replace(steady("127.0.0.1"), singles=frozenset({"127.0.0.1"})), id="declared single"),
        pytest.param(steady("127.0.0.9"), id="any other loopback address is a plain peer"),
        pytest.param(called(watching(), BATCH, 1.0).observe([], 1000.0 + 2602), id="forgotten after an hour"),
    ],
)
def test_known_means_less_than_the_cap(settle: Settle) -> None:
    trigger = 3610.0 if not settle.peers and settle.since == 0 and settle.unknown_at is None else TRIGGER
    settle = settle.freeze(trigger).observe([], trigger + 39)
    assert settle.verdict(trigger, trigger + 40, trigger + 39).done


def test_a_gap_in_the_reading_during_settle_means_the_cap() -> None:
    settle = steady().freeze(TRIGGER).observe([], CLEAN + 1).lost(CLEAN + 1, "because")
    assert judged(settle, CAP - 0.1).clause is Clause.BLIND


def test_a_caller_never_seen_before_that_calls_during_settle_has_no_known_rhythm() -> None:
    settle = called(watching().freeze(TRIGGER), BATCH, CLEAN + 0.5, CLEAN + 0.6, CLEAN + 0.7, CLEAN + 0.8)
    assert judged(settle, CAP - 0.1).clause is Clause.RHYTHM


# --- in flight


def test_a_request_that_is_being_answered_bars_the_end_and_its_answer_lifts_the_bar() -> None:
    settle = steady(gap=0.5, last=TRIGGER).freeze(TRIGGER)
    busy = settle.observe([Call(GATEWAY, TRIGGER, in_flight=True)], CLEAN + 10)
    assert outcome(judged(busy, CLEAN + 20)) == (False, Clause.IN_FLIGHT, (GATEWAY,))
    assert judged(busy.observe([], CLEAN + 21), CLEAN + 21).done


def test_a_stream_that_is_older_than_our_watching_bars_the_end() -> None:
    settle = watching().observe([Call(BATCH, None, in_flight=True)], 10).freeze(TRIGGER)
    settle = settle.observe([Call(BATCH, None, in_flight=True)], CLEAN + 1)
    assert judged(settle, CAP - 0.1).clause is Clause.IN_FLIGHT


def test_a_request_in_flight_is_remembered_however_long_it_lasts() -> None:
    settle = watching().observe([Call(BATCH, 1.0, in_flight=True)], 5000.0)
    assert BATCH in settle.peers
    assert BATCH not in settle.observe([], 5001.0).peers


def test_a_connection_that_only_sits_there_is_no_caller() -> None:
    settle = watching().observe([Call(BATCH, None, connections=4)], TRIGGER - 1)
    assert not settle.peers


# --- memory


def test_an_idle_connection_of_a_known_peer_shows_in_its_count_and_not_in_its_rhythm() -> None:
    before = called(watching(), BATCH, 1, 2, 3)
    after = before.observe([Call(BATCH, None, connections=2)], 4).observe([Call(BATCH, 3.0, connections=5)], 5)
    assert after.peers[BATCH].connections == 5
    assert after.peers[BATCH].recent == before.peers[BATCH].recent
    assert after.observe([], 6).peers[BATCH].connections == 0


def test_an_address_is_remembered_for_an_hour() -> None:
    settle = called(watching(), BATCH, 1.0)
    assert BATCH in settle.observe([], 3601.0).peers
    assert BATCH not in settle.observe([], 3601.1).peers


def test_more_addresses_than_can_be_kept_means_the_newest_stay_and_the_rhythms_are_unknown() -> None:
    settle = watching(rule=Rule(most_peers=3)).observe([Call(f"10.0.1.{n}", 900.0 + n) for n in range(5)], 950)
    assert set(settle.peers) == {"10.0.1.2", "10.0.1.3", "10.0.1.4"}
    assert settle.evicted_at == 950
    assert judged(settle.freeze(TRIGGER), CAP - 0.1).clause is Clause.RHYTHM


def test_an_eviction_is_forgotten_with_what_was_evicted() -> None:
    settle = watching(rule=Rule(most_peers=3)).observe([Call(f"10.0.1.{n}", 1.0) for n in range(5)], 1)
    settle = called(settle, GATEWAY, *every(2, 5000, times=500))
    assert done_at(replace(settle.freeze(TRIGGER + 4000), seen_at=5001), start=5001) < 5040


def test_the_node_is_remembered_for_ten_minutes() -> None:
    """A slow probe, or a kubelet that starts again, looks like a call."""
    settle = replace(watching(), nodes=frozenset({PROBE}))
    settle = settle.observe([Call(PROBE, 100.0), Call("127.0.0.1", 100.0)], 100)
    assert set(settle.observe([], 700).peers) == {PROBE, "127.0.0.1"}
    assert set(settle.observe([], 701).peers) == {"127.0.0.1"}
    assert set(settle.observe([Call(PROBE, None, connections=1)], 701).peers) == {PROBE, "127.0.0.1"}


def test_at_the_cap_nobody_is_said_to_call_on_the_evidence_of_long_ago() -> None:
    """The readings have failed since: that is blindness, and no caller."""
    settle = called(steady(gap=0.5, last=TRIGGER).freeze(TRIGGER), GATEWAY, CLEAN + 1)
    blind = settle.observe([Call(GATEWAY, None, in_flight=True)], CLEAN + 2).lost(CAP - 1, "the kernel does not answer")
    verdict = blind.verdict(CLEAN, CAP, CAP)
    assert (verdict.callers, verdict.barred, verdict.why) == ((), Clause.BLIND, "the kernel does not answer")


def test_where_others_are_watched_from_now_on_everybody_is_forgotten() -> None:
    settle = steady().anew(TRIGGER - 10)
    assert not settle.peers
    assert judged(called(settle, GATEWAY, TRIGGER).freeze(TRIGGER), CAP - 0.1).clause is Clause.YOUNG


def test_ten_thousand_addresses_are_kept() -> None:
    many = [Call(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 1.0) for n in range(10_000)]
    settle = watching().observe(many, 2)
    assert (len(settle.peers), settle.evicted_at) == (10_000, None)
    assert settle.observe([Call("10.9.9.9", 3.0)], 3).evicted_at == 3


def test_after_the_lease_has_ended_rhythms_are_learned_again() -> None:
    settle = called(steady(gap=2).freeze(TRIGGER), GATEWAY, TRIGGER + 30)
    assert gap(settle, GATEWAY) == 2, "frozen"
    settle = settle.thaw(TRIGGER + 50)
    assert gap(called(settle, GATEWAY, TRIGGER + 60), GATEWAY) == 2, "the drain kept it away: that is no rhythm"
    assert gap(called(settle, GATEWAY, TRIGGER + 60, TRIGGER + 75), GATEWAY) == 15


# --- what a sample can tell


def test_of_several_requests_in_one_sample_each_is_given_its_share_of_the_time() -> None:
    """At 10 requests/s the newest of a sample may be young and that of the next one old: 1.6 s between them."""
    settle = watching().observe([Call(GATEWAY, 0.5)], 1.0)
    one = settle.observe([Call(GATEWAY, 2.0, requests=1)], 2.0)
    ten = settle.observe([Call(GATEWAY, 2.0, requests=10)], 2.0)
    assert gap(one, GATEWAY) == 1.5
    assert gap(ten, GATEWAY) == pytest.approx(0.5 + 0.1), "the half second was silent for certain"


def test_a_silence_that_was_seen_is_a_gap_however_many_requests_end_it() -> None:
    settle = (
        watching().observe([Call(GATEWAY, 1.0)], 1.0).observe([], 9.0).observe([Call(GATEWAY, 9.9, requests=50)], 10.0)
    )
    assert gap(settle, GATEWAY) == pytest.approx(8.0 + 0.9 / 50)


def test_an_answer_is_no_request_but_silence_begins_after_it() -> None:
    settle = steady(gap=2, last=TRIGGER - 1).freeze(TRIGGER)
    settle = settle.observe([Call(GATEWAY, None, active=CLEAN + 5)], CLEAN + 5)
    assert settle.peers[GATEWAY].recent[-1] == TRIGGER - 1
    assert outcome(judged(settle, CLEAN + 11)) == (False, Clause.WAITING, (GATEWAY,))
    assert judged(settle, CLEAN + 11.01).done


def test_what_is_pushed_to_a_caller_has_a_rhythm_too() -> None:
    settle = steady(gap=2, last=900)
    for moment in (910, 950, TRIGGER):
        settle = settle.observe([Call(GATEWAY, None, active=moment)], moment)
    assert gap(settle, GATEWAY) == 50


def test_a_peer_that_is_only_pushed_to_has_no_known_rhythm() -> None:
    settle = watching()
    for moment in range(100, 1000, 5):
        settle = settle.observe([Call(BATCH, None, active=moment)], moment)
    assert judged(settle.freeze(TRIGGER), CAP - 0.1).clause is Clause.RHYTHM


def test_a_sample_that_is_not_explained_yet_bars_the_end_and_the_next_one_may_lift_it() -> None:
    settle = steady(gap=0.5, last=TRIGGER).freeze(TRIGGER).observe([], CLEAN + 10, doubt=True)
    assert settle.verdict(CLEAN, CAP, CLEAN + 10).clause is Clause.DOUBT
    assert judged(settle, CLEAN + 10.5).done


def test_who_was_active_last_is_told() -> None:
    settle = called(steady(gap=0.5, last=TRIGGER).freeze(TRIGGER), GATEWAY, CLEAN + 7)
    assert judged(settle, CLEAN + 10.1).last == Waited(GATEWAY, CLEAN + 7, 3)


def test_the_peers_are_counted_by_what_is_known_of_them() -> None:
    settle = called(called(steady(), BATCH, TRIGGER), "127.0.0.1", TRIGGER)
    assert settle.rhythms() == {"known": 1, "unknown": 1, "many": 1}
    assert settle.freeze(TRIGGER).rhythms() == settle.rhythms()


# --- whatever the traffic


# A short life and short memories, so that a whole one is replayed in a few milliseconds.
BORN = TRIGGER - 60
QUICK = Rule(look_back=30.0, memory=50.0)

peers = st.sampled_from([GATEWAY, BATCH, "127.0.0.1"])
halves = st.integers(0, 43 * 2).map(lambda n: TRIGGER + n / 2)
history = st.lists(st.tuples(st.integers(0, 59).map(lambda s: BORN + s), peers), max_size=20)
rhythmic = st.lists(st.tuples(st.sampled_from([1.0, 2.0, 5.0]), peers), max_size=2)
requests = st.tuples(halves, peers, st.booleans())
during = st.lists(requests, max_size=6)


def past(calls: Sequence[tuple[float, str]], rhythms: Sequence[tuple[float, str]]) -> Settle:
    """A sidecar's whole life up to the trigger."""
    regular = [(moment, peer) for gap, peer in rhythms for moment in every(gap, TRIGGER, times=int(60 // gap))]
    settle = Settle(BORN, QUICK, "netlink")
    for moment, peer in sorted([*calls, *regular]):
        settle = settle.observe([Call(peer, moment)], moment)
    return settle.freeze(TRIGGER)


def ended(settle: Settle, calls: Sequence[tuple[float, str, bool]]) -> float:
    """When SETTLE ends, sampled every half second, with these calls during it."""
    for half in range(42 * 2 + 1):
        now = TRIGGER + half / 2
        seen = [Call(peer, moment, in_flight=flying) for moment, peer, flying in calls if moment == now]
        settle = settle.observe(seen, now)
        if judged(settle, now).done:
            return now
    raise AssertionError("never")


@settings(deadline=None)  # a busy machine is no counterexample
@given(history, rhythmic, during)
@example([], [], [])
def test_it_never_ends_before_the_floor_and_always_at_the_cap(
    calls: list[tuple[float, str]], rhythms: list[tuple[float, str]], later: list[tuple[float, str, bool]]
) -> None:
    assert CLEAN + 3 <= ended(past(calls, rhythms), later) <= CAP


@settings(deadline=None)  # a busy machine is no counterexample
@given(history, rhythmic, during, requests)
@example([(BORN + s, GATEWAY) for s in range(60)], [], [], (CLEAN + 1, GATEWAY, False))
def test_one_request_more_during_settle_never_ends_it_earlier(
    calls: list[tuple[float, str]],
    rhythms: list[tuple[float, str]],
    later: list[tuple[float, str, bool]],
    more: tuple[float, str, bool],
) -> None:
    settle = past(calls, rhythms)
    # one sample shows the newest request of each peer once, in flight or not
    rest = {(moment, peer): flying for moment, peer, flying in later}
    both = {**rest, more[:2]: more[2] or rest.get(more[:2], False)}
    without = ended(settle, [(m, p, f) for (m, p), f in rest.items()])
    assert ended(settle, [(m, p, f) for (m, p), f in both.items()]) >= without


@settings(deadline=None)  # a busy machine is no counterexample
@given(history, rhythmic)
def test_it_ends_before_the_cap_only_if_every_peer_in_memory_has_shown_a_rhythm(
    calls: list[tuple[float, str]], rhythms: list[tuple[float, str]]
) -> None:
    settle = past(calls, rhythms)
    at = ended(settle, [])
    remembered = {p for m, p in calls if m > at - QUICK.memory} | {p for _, p in rhythms}
    if at < CAP:
        for peer in remembered:
            assert peer not in CROWDS
            fresh = {m for m, p in calls if p == peer and m >= TRIGGER - QUICK.look_back}
            assert len(fresh) >= 3 or peer in {p for _, p in rhythms}
            assert settle.peers[peer].owed is not None


# -- a walk ----------------------------------------------------------------------------------------------------------


class SettleMachine(RuleBasedStateMachine):
    """Samples, losses and the trigger in any order; the clock of SETTLE starts with the trigger."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.settle = Settle(since=self.now, source="wire")
        self.frozen_at: float | None = None
        self.lost_at: float | None = None
        self.strangers: set[str] = set()
        self.owed: dict[str, float | None] = {}

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0, 290.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(peers=st.sets(st.sampled_from(["10.0.0.1", "10.0.0.2", "127.0.0.1"])), complete=st.booleans())
    def a_sample_shows_calls(self, peers: set[str], complete: bool) -> None:
        if not complete:
            self.lost_at = self.now
        if self.frozen_at is not None:
            self.strangers |= peers - self.owed.keys()
        self.settle = self.settle.observe([Call(p, self.now) for p in peers], self.now)
        if not complete:
            self.settle = self.settle.lost(self.now, "because")

    @precondition(lambda self: self.frozen_at is None)
    @rule()
    def the_trigger_comes(self) -> None:
        self.settle = self.settle.freeze(self.now)
        self.frozen_at = self.now
        self.owed = {a: p.owed for a, p in self.settle.peers.items()}

    @precondition(lambda self: self.frozen_at is not None)
    @rule()
    def the_lease_ends(self) -> None:
        self.settle = self.settle.thaw(self.now)
        self.frozen_at = None
        self.strangers = set()

    @invariant()
    def nobody_is_let_go_early_and_nothing_unknown_counts_as_quiet(self) -> None:
        if self.frozen_at is None:
            return
        started, cap = self.frozen_at, self.frozen_at + 40
        verdict = self.settle.verdict(started, cap, self.now)
        assert verdict.done or self.now < cap
        if not verdict.done or self.now >= cap:
            return
        rule_ = self.settle.rule
        assert self.now >= started + rule_.floor
        age = started - 1000.0
        assert age >= rule_.look_back * (1 if self.settle.peers else NOBODY), "too young to know"
        assert self.lost_at is None or self.lost_at < started - rule_.look_back
        assert not self.strangers & self.settle.peers.keys(), "who appears after the trigger has no rhythm"
        for address, peer in self.settle.peers.items():
            owed = self.owed[address]
            assert owed is not None
            assert address != "127.0.0.1"
            assert self.now - peer.active > owed >= rule_.quiet

    @invariant()
    def rhythms_are_fixed_at_the_trigger(self) -> None:
        if self.frozen_at is not None:
            assert all(self.settle.peers[a].owed == o for a, o in self.owed.items() if a in self.settle.peers)


TestSettleMachine = SettleMachine.TestCase
TestSettleMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
