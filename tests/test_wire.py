"""What the kernel's counters mean: calls told from noise, and readings that may have missed one."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.settle import Call
from sidecar.traffic import Listener, Reading, Socket
from sidecar.wire import MISSED, PATIENCE, Seen, Watched, Wire


POD, PORT, GATEWAY, NODE = "10.0.0.7", 8080, "10.0.1.1", "10.0.0.1"
APP = Listener("::", PORT, 1)
MINE = frozenset({PORT})


def shown(id_: int = 1, received: int = 0, sent: int = 0, **more: Any) -> Socket:
    """A connection of the gateway's to the app; nothing new has been heard since 0 unless `more` says so."""
    facts: dict[str, Any] = {
        "heard": 0.0,
        "spoke": 0.0,
        "segments": 1 if received else 0,
        "peer": GATEWAY,
        "peer_port": 40000 + id_,
    }
    return Socket(id_, POD, PORT, received=received, sent=sent, **{**facts, **more})


@dataclass
class Watching:
    """A wire that has read once, and reads on a second apart; the kernel's count is right unless told otherwise."""

    wire: Wire = field(default_factory=Wire)
    at: float = 100.0
    opens: int = 7
    known: frozenset[int] = frozenset()
    last: Seen = field(default_factory=lambda: Seen((), doubt=False, missed=""))

    def __post_init__(self) -> None:
        self.reads()

    def reads(
        self,
        *open_: Socket,
        closed: Iterable[Socket] = (),
        uncounted: int = 0,
        ports: frozenset[int] = MINE,
        listeners: tuple[Listener, ...] = (APP,),
        **more: Any,
    ) -> Seen:
        """The next reading, and what it means. `uncounted`: accepts of which nothing is to be seen."""
        closed = tuple(closed)
        ids = {s.id for s in (*open_, *closed)}
        self.opens += len(ids - self.known) + uncounted
        self.known |= ids
        self.at += 1.0
        reading = Reading(self.at, open_, closed, listeners, (self.opens, self.opens))
        self.wire, self.last = self.wire.take(reading._replace(**more), ports)
        return self.last

    def misses(self, *open_: Socket) -> str:
        """What the next readings tell of what was not explained before."""
        told = [self.reads(*open_).missed for _ in range(MISSED)]
        assert sum(map(bool, told)) <= 1, "told once"
        return "".join(told)

    def call(self) -> Call:
        """The one caller that the newest reading showed."""
        (call,) = self.last.calls
        return call


def bytes_of(watching: Watching, came: int, went: int, *, heard: float = -0.5, spoke: float = -0.4) -> Call:
    """A connection that has been quiet, and now has moved so many bytes; the times are relative to the reading."""
    watching.reads(shown(received=500, sent=900))
    watching.reads(shown(received=500, sent=900))
    now = watching.at + 1
    watching.reads(shown(received=500 + came, sent=900 + went, segments=2, heard=now + heard, spoke=now + spoke))
    return watching.call()


# -- what is a call --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("came", "went"),
    [(35, 40), (27, 40), (45, 60), (200, 400), (200, 0), (70, 70), (5, 100)],
    ids=["bare http", "barest http", "a small unary gRPC call", "http", "unanswered", "alike, but long", "long answer"],
)
def test_a_call(came: int, went: int) -> None:
    watching = Watching()
    call = bytes_of(watching, came, went)
    assert (call.peer, call.asked) == (GATEWAY, watching.at - 0.5)
    assert call.active == watching.at - (0.4 if went else 0.5)


@pytest.mark.parametrize(
    ("came", "went"),
    [(17, 17), (17, 0), (0, 17), (34, 34), (39, 39), (46, 46), (24, 30), (1, 0)],
    ids=["PING", "a half", "ours", "two", "PING in TLS 1.3", "PING in TLS 1.2", "heartbeat", "the end of a direction"],
)
def test_no_call(came: int, went: int) -> None:
    call = bytes_of(Watching(), came, went)
    assert (call.asked, call.active, call.connections) == (None, None, 1)


def test_a_ping_whose_answer_falls_into_the_next_reading_is_no_call() -> None:
    watching = Watching()
    call = bytes_of(watching, 39, 0, heard=-0.001)
    assert call.asked == watching.at - 0.001, "39 bytes alone may be a request"
    small = Watching()
    assert bytes_of(small, 17, 0, heard=-0.001).asked is None
    small.reads(shown(received=517, sent=917, heard=small.at - 0.001, spoke=small.at + 0.001))
    assert (small.call().asked, small.call().in_flight) == (None, False)


def test_a_small_request_that_is_answered_late_is_a_call_of_the_time_when_it_came() -> None:
    watching = Watching()
    came = watching.at + 2.5
    assert bytes_of(watching, 27, 0).in_flight, "it may be a request: wait for what comes"
    watching.reads(shown(received=527, sent=940, segments=2, heard=came, spoke=came + 5))
    assert (watching.call().asked, watching.call().active) == (came, came + 5)


def test_an_idle_connection_counts_as_a_connection_only() -> None:
    watching = Watching()
    watching.reads(shown(1), shown(2), shown(3))
    assert watching.call() == Call(GATEWAY, None, connections=3, in_flight=False)


def test_the_requests_of_all_connections_of_a_peer_are_added_up() -> None:
    watching = Watching()
    now = watching.at + 1
    watching.reads(
        shown(1, 200, 400, segments=1, heard=now - 0.9, spoke=now - 0.8),
        shown(2, 600, 900, segments=3, heard=now - 0.2, spoke=now - 0.1),
    )
    assert watching.call() == Call(GATEWAY, now - 0.2, connections=2, requests=4, active=now - 0.1)


def test_a_connection_per_request_is_a_call_though_no_reading_showed_it() -> None:
    watching = Watching()
    now = watching.at + 1
    gone = [shown(n, 200, 401, heard=now - n / 10, spoke=now - n / 10) for n in range(1, 6)]
    seen = watching.reads(closed=gone)
    assert seen.calls == (Call(GATEWAY, now - 0.1, connections=0, requests=5, active=now - 0.1),)
    assert not seen.missed


def test_what_is_pushed_is_activity_and_no_request() -> None:
    watching = Watching()
    call = bytes_of(watching, 0, 3000)
    assert (call.asked, call.active, call.in_flight) == (None, watching.at - 0.4, False)


# -- what is in flight -----------------------------------------------------------------------------------------------


def flying(watching: Watching, socket: Socket, seconds: float) -> bool:
    """Whether something is in flight so much later, if nothing more moves."""
    watching.at += seconds
    return watching.reads(socket).calls[0].in_flight


def test_a_request_without_an_answer_is_in_flight_until_it_is_answered() -> None:
    watching = Watching()
    asked = shown(received=200, segments=1, heard=watching.at + 0.5, spoke=watching.at + 0.5)
    watching.reads(asked)
    assert watching.call().in_flight
    assert flying(watching, asked, 300)
    watching.reads(asked._replace(sent=20, spoke=watching.at + 0.5))
    assert not watching.call().in_flight, "the first byte of an answer ends it, however small"


def test_a_request_right_after_an_answer_is_believed_for_a_while() -> None:
    """An HTTP/2 client's last frame looks the same: it would hold every drain until its cap."""
    watching = Watching()
    assert bytes_of(watching, 213, 500, heard=-0.400, spoke=-0.401).in_flight
    same = shown(received=713, sent=1400, segments=2, heard=watching.at - 0.4, spoke=watching.at - 0.401)
    assert flying(watching, same, PATIENCE - 2)
    assert not flying(watching, same, 2)


@pytest.mark.parametrize(("requests", "answers", "waits"), [(3, 3, False), (3, 2, True), (3, 5, False)])
def test_in_one_tick_of_the_kernels_clock_the_count_tells_whether_a_request_waits(
    requests: int, answers: int, waits: bool
) -> None:
    """A client that pauses for nothing: answer and next request bear the same time."""
    watching = Watching()
    now = watching.at + 1
    moment = {"heard": now - 0.3, "spoke": now - 0.3}
    watching.reads(shown(1, 200 * requests, 400 * answers, segments=requests, answers=answers, **moment))
    assert watching.call().in_flight is waits


@pytest.mark.parametrize("what", ["unread", "unsent"])
def test_bytes_that_wait_are_in_flight(what: str) -> None:
    watching = Watching()
    idle = shown(received=200, sent=400)
    watching.reads(idle)
    watching.reads(idle)
    assert not watching.call().in_flight
    waiting = idle._replace(unread=1) if what == "unread" else idle._replace(unsent=1)
    watching.reads(waiting)
    assert watching.call().in_flight
    watching.reads(idle)
    assert not watching.call().in_flight
    watching.reads(waiting._replace(half=True))
    assert not watching.call().in_flight, "the end of a direction is a byte too"


def test_who_has_ended_his_direction_is_waited_for_a_while_only() -> None:
    watching = Watching()
    left = shown(received=201, segments=1, heard=watching.at + 0.5, spoke=watching.at + 0.5, half=True)
    watching.reads(left)
    assert watching.call().in_flight
    assert not flying(watching, left, PATIENCE)


def test_a_connection_older_than_us_counts_as_having_called_when_it_last_did() -> None:
    old = shown(received=9000, sent=100, heard=40.0, spoke=39.0)
    _, seen = Wire().take(Reading(100.0, (old,), (), (APP,), (7, 7)), MINE)
    assert seen.calls == (Call(GATEWAY, 40.0, active=40.0, requests=1),)
    waiting = shown(received=90, heard=40.0, spoke=40.0)
    _, seen = Wire().take(Reading(100.0, (waiting,), (), (APP,), (7, 7)), MINE)
    assert seen.calls[0].in_flight, "nothing was ever sent on it: a request has been waiting since"
    knock = shown(received=1, heard=99.0, spoke=99.0, half=True, unread=1)
    _, seen = Wire().take(Reading(100.0, (knock,), (), (APP,), (7, 7)), MINE)
    assert (seen.calls[0].asked, seen.calls[0].in_flight) == (None, False), (
        "somebody looked whether it is open, and left"
    )


# -- whose it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listener", "host", "counts"),
    [
        (Listener("::", PORT, 1), POD, True),
        (Listener("::", PORT, 1), "fd00::7", True),
        (Listener("0.0.0.0", PORT, 1), POD, True),
        (Listener("0.0.0.0", PORT, 1), "fd00::7", False),
        (Listener(POD, PORT, 1), POD, True),
        (Listener("10.0.0.8", PORT, 1), POD, False),
        (Listener("::", 9090, 1), POD, False),
    ],
)
def test_a_connection_is_the_apps_where_the_app_listens(listener: Listener, host: str, counts: bool) -> None:
    watching = Watching()
    watching.wire = Wire()
    seen = watching.reads(shown(received=200)._replace(host=host), listeners=(listener,))
    assert bool(seen.calls) is counts


def test_a_listener_that_was_closed_still_says_whose_the_connection_is() -> None:
    watching = Watching()
    assert watching.reads(shown(received=200), listeners=()).calls


def test_without_a_port_everybody_is_watched_but_us() -> None:
    watching = Watching(Wire(Watched(own=frozenset({19081}))))
    ours = shown(1, 200)._replace(port=19081, peer="10.0.2.2")
    seen = watching.reads(ours, shown(2, 200), listeners=(APP, Listener("::", 19081, 2)), ports=frozenset())
    assert [call.peer for call in seen.calls] == [GATEWAY]


def test_our_own_connections_are_no_callers() -> None:
    watching = Watching()
    loopback = shown(1, 200)._replace(host="127.0.0.1", peer="127.0.0.1", peer_port=50001)
    itself = shown(2, 200)._replace(peer=POD, peer_port=50002)
    stranger = shown(3, 200)._replace(peer="10.0.2.2", peer_port=50001)
    seen = watching.reads(loopback, itself, stranger, ours=frozenset({50001, 50002}))
    assert [call.peer for call in seen.calls] == ["10.0.2.2"]
    seen = watching.reads(loopback, closed=[itself, stranger], ours=frozenset())
    assert not [call for call in seen.calls if call.peer != "10.0.2.2"], "told at first sight, and for good"
    again = loopback._replace(id=4, received=300)
    seen = watching.reads(loopback, again, ours=frozenset())
    assert [call.peer for call in seen.calls] == ["127.0.0.1"], "its port may be somebody else's later"


def test_a_connection_that_was_a_callers_before_its_port_became_ours_stays_one() -> None:
    """Ours is told at first sight: the same port on another of the pod's addresses may be a stranger's for long."""
    watching = Watching()
    theirs = shown(1, 200)._replace(host="127.0.0.1", peer="127.0.0.1", peer_port=50001)
    ours = shown(2, 200)._replace(peer=POD, peer_port=50001)
    watching.reads(theirs, ports=frozenset({9}))  # seen, but not the app's yet
    assert [call.peer for call in watching.reads(theirs, ours, ours=frozenset({50001})).calls] == ["127.0.0.1"]
    assert [call.peer for call in watching.reads(theirs, ours).calls] == ["127.0.0.1"], "and ours stays ours"


def test_a_short_connection_of_our_own_is_no_caller() -> None:
    watching = Watching()
    knock = shown(1, 200)._replace(peer="127.0.0.1", peer_port=50001)
    assert not watching.reads(closed=[knock], ours=frozenset({50001})).calls
    assert not watching.last.missed, "but it explains an accepted connection"


def test_ignored_networks_are_ignored() -> None:
    watching = Watching(Wire(Watched(ignored=(ip_network("10.0.1.0/24"), ip_network("fd00::/8")))))
    seen = watching.reads(
        shown(1, 200), shown(2, 200)._replace(peer="10.0.2.2"), shown(3, 200)._replace(peer="fd00::9")
    )
    assert [call.peer for call in seen.calls] == ["10.0.2.2"]


# -- what may have been missed ---------------------------------------------------------------------------------------


def test_an_accepted_connection_that_nobody_saw_is_in_doubt_first_and_missed_then() -> None:
    watching = Watching()
    first = watching.reads(uncounted=2)
    assert (first.doubt, first.missed) == (True, "")
    for _ in range(MISSED - 2):
        assert watching.reads() == ((), True, "")
    assert watching.reads() == (
        (),
        False,
        "connections accepted but not seen (on any port): 2",
    )
    assert watching.reads() == ((), False, ""), "told once"


def test_ends_that_are_told_late_a_few_times_in_a_row_are_no_misses() -> None:
    """On a busy machine: each reading is one short, and each time it is another one."""
    watching = Watching()
    watching.reads(uncounted=1)
    for number in range(MISSED - 2):
        assert watching.reads(closed=[shown(number, 200)]).doubt
    assert not watching.reads(closed=[shown(99, 200)], uncounted=-1).doubt
    assert not watching.misses()


def test_one_that_tells_of_its_end_a_moment_later_is_explained() -> None:
    watching = Watching()
    assert watching.reads(uncounted=1).doubt
    late = watching.reads(closed=[shown(5, 200)], uncounted=-1)
    assert (late.doubt, late.missed, len(late.calls)) == (False, "", 1)


def test_connections_of_any_port_explain_what_was_accepted() -> None:
    watching = Watching()
    other = shown(5, 200)._replace(port=9999)
    seen = watching.reads(other, listeners=(APP, Listener("::", 9999, 3)))
    assert (seen.calls, seen.doubt) == ((), False)
    assert not watching.reads(other).missed


def test_outgoing_connections_explain_nothing() -> None:
    watching = Watching()
    outgoing = [shown(n, 200)._replace(port=50000 + n, peer_port=3306) for n in range(3)]
    watching.reads(closed=outgoing, uncounted=-3)
    watching.reads(uncounted=1)
    assert watching.misses()


def test_too_many_explanations_hide_no_later_miss() -> None:
    """A connection that was opened after the count was read is in the next count."""
    watching = Watching()
    watching.reads(shown(1), shown(2), uncounted=-2)
    watching.reads(shown(1), shown(2))
    watching.reads(shown(1), shown(2), uncounted=2)
    assert watching.misses(shown(1), shown(2)) == "connections accepted but not seen (on any port): 2"


def test_a_connection_opened_between_the_two_counts_is_known_then() -> None:
    watching = Watching()
    watching.reads(shown(1), opens=(7, 8))
    assert not watching.reads(shown(1), opens=(8, 8)).doubt


def test_a_listener_that_came_and_went_between_two_readings_explains_calls_of_our_own_namespace() -> None:
    """As `nacos-drain doctor` does, to try the traffic source."""
    watching = Watching()
    accepted = Socket(8, "127.0.0.1", 45001, "127.0.0.1", 45002, heard=0.0, spoke=0.0)
    opened = Socket(9, "127.0.0.1", 45002, "127.0.0.1", 45001, heard=0.0, spoke=0.0)
    watching.reads(closed=[accepted, opened], uncounted=-1)
    assert not watching.last.doubt
    assert not watching.misses()
    more = [accepted._replace(id=10, port=45003), opened._replace(id=11, peer_port=45003)]
    watching.reads(closed=more, uncounted=0)
    assert watching.misses(), "its two ends explain one connection, not the other one"


def test_a_reading_may_fall_between_the_two_ends_of_such_a_connection() -> None:
    watching = Watching()
    accepted = Socket(8, "127.0.0.1", 45001, "127.0.0.1", 45002, heard=0.0, spoke=0.0)
    opened = Socket(9, "127.0.0.1", 45002, "127.0.0.1", 45001, heard=0.0, spoke=0.0)
    assert watching.reads(closed=[accepted]).doubt, "as long as the other end has not told"
    assert not watching.reads(closed=[opened], uncounted=-1).doubt
    assert not watching.misses()
    watching.reads(uncounted=1)
    assert watching.misses(), "they explained one connection, not the next"


def test_a_connection_that_goes_without_its_last_words_is_taken_to_have_had_some() -> None:
    """One that its peer has reset while the app was at work: the kernel tells of it when the app lets go of it."""
    watching = Watching()
    watching.reads(shown(1, 200, 400))
    gone = watching.reads()
    assert (gone.doubt, gone.missed, gone.calls) == (True, "", ())
    assert watching.reads() == ((Call(GATEWAY, None, connections=0, active=watching.at),), False, "")
    for _ in range(30):
        assert watching.reads() == ((), False, "")
    watching.reads(closed=[shown(1, 400, 400, segments=2, heard=102.5, spoke=102.0)])
    assert (watching.call().asked, watching.last.missed) == (102.5, "")
    watching.reads(uncounted=1)
    assert watching.misses(), "its end explained no other accepted connection"


def test_a_connection_to_what_is_the_apps_port_no_more_is_not_missed() -> None:
    """Until the app tells who it is, every port is watched."""
    watching = Watching()
    other = shown(1, 200)._replace(port=9090)
    doors = (APP, Listener("::", 9090, 2))
    assert watching.reads(other, listeners=doors, ports=frozenset()).calls
    for _ in range(3):
        assert watching.reads(other, listeners=doors) == ((), False, "")


def test_where_nobody_ever_listened_on_the_apps_ports_callers_cannot_be_seen() -> None:
    """It is registered with the port of a proxy, or of another container's mapping."""
    watching = Watching()
    assert "on 443 here: is NACOS_DRAIN_APP_PORTS" in watching.reads(ports=frozenset({443})).missed
    assert "on 443 here" in watching.reads(ports=frozenset({443, PORT})).missed
    assert not watching.reads(ports=frozenset({PORT})).missed
    assert "on any port here" in Wire().take(Reading(1.0, opens=(7, 7)), frozenset())[1].missed


def test_a_connection_that_ends_while_the_others_are_listed_is_open_and_closed_in_one_reading() -> None:
    """The kernel lists, and then tells who has gone: 1 of 100 closing callers was in both."""
    watching = Watching()
    before = shown(1, 200, 400, heard=watching.at, spoke=watching.at)
    watching.reads(before)
    after = before._replace(received=400, sent=800, segments=2, heard=watching.at + 0.5, spoke=watching.at + 0.6)
    both = watching.reads(after, closed=[after])
    assert both.calls == (Call(GATEWAY, after.heard, connections=0, active=after.spoke),)
    assert [watching.reads().missed, watching.reads().missed, watching.last.doubt] == ["", "", False]
    short = shown(2, 200, 400, heard=watching.at, spoke=watching.at)
    assert watching.reads(short, closed=[short]).calls
    assert [watching.reads().missed, watching.reads().missed, watching.last.doubt] == ["", "", False]


def test_last_words_that_come_a_moment_later_are_heard() -> None:
    watching = Watching()
    watching.reads(shown(1, 200, 400))
    watching.reads()
    last = watching.reads(closed=[shown(1, 400, 800, segments=2, heard=watching.at, spoke=watching.at)])
    assert (last.doubt, last.missed) == (False, "")
    assert last.calls[0].asked == watching.at - 1


def test_a_source_in_trouble_may_have_missed_anything() -> None:
    assert Watching().reads(trouble="some were lost").missed == "some were lost"


def test_without_the_kernels_count_the_source_says_so_and_counting_begins_anew() -> None:
    watching = Watching()
    watching.reads(shown(1), opens=None, trouble="no count")
    assert watching.reads(shown(1)).missed == ""
    watching.reads(shown(1), uncounted=1)
    assert watching.misses(shown(1))


# -- a source without times ------------------------------------------------------------------------------------------


def test_where_only_connections_are_shown_one_that_is_there_is_a_call_of_that_moment() -> None:
    watching = Watching()
    bare = Socket(1, POD, PORT, GATEWAY, 40001)
    for _ in range(3):
        assert watching.reads(bare).calls == (Call(GATEWAY, watching.at, active=watching.at),)
    assert watching.reads(closed=[bare]).calls[0].connections == 0
    assert watching.reads().calls == ()


# -- probes ----------------------------------------------------------------------------------------------------------


def probed(watching: Watching, seconds: int) -> None:
    """The kubelet asks every ten seconds for so long."""
    for second in range(seconds):
        probe = []
        if second % 10 == 0:
            heard = watching.at + 0.5
            probe = [shown(1000 + second, 130, 250, peer=NODE, heard=heard, spoke=heard)]
        watching.reads(closed=probe)


def test_the_probes_of_the_node_are_no_calls() -> None:
    watching = Watching(Wire(Watched(nodes=frozenset({NODE}))))
    probed(watching, 120)
    assert (watching.last.calls, watching.last.doubt) == ((), False)


def test_the_same_from_anybody_else_is_calls() -> None:
    watching = Watching(Wire(Watched(nodes=frozenset({"10.9.9.9"}))))
    heard = watching.at + 0.5
    assert watching.reads(closed=[shown(1, 130, 250, peer=NODE, heard=heard, spoke=heard)]).calls


def test_a_call_among_the_probes_of_the_node_is_a_call() -> None:
    watching = Watching(Wire(Watched(nodes=frozenset({NODE}))))
    probed(watching, 120)
    heard = watching.at + 0.5
    seen = watching.reads(closed=[shown(1, 5000, 250, peer=NODE, heard=heard, spoke=heard)])
    assert [(call.peer, call.asked) for call in seen.calls] == [(NODE, heard)]


def test_a_connection_that_the_node_keeps_is_a_caller() -> None:
    watching = Watching(Wire(Watched(nodes=frozenset({NODE}))))
    kept = shown(1, 200, 400, peer=NODE, heard=watching.at + 0.5, spoke=watching.at + 0.6)
    for _ in range(2):
        seen = watching.reads(kept)
        assert (seen.calls, seen.doubt) == ((), True), "its end would tell that it was a probe"
    seen = watching.reads(kept)
    assert [(call.peer, call.asked) for call in seen.calls] == [(NODE, kept.heard)]
    assert watching.reads(kept).calls[0].asked is None, "told once"
    later = kept._replace(received=400, sent=800, segments=2, heard=watching.at + 0.1, spoke=watching.at + 0.2)
    assert watching.reads(closed=[later]).calls[0].asked == later.heard


def test_a_tcp_probe_is_nobody() -> None:
    watching = Watching(Wire(Watched(nodes=frozenset({NODE}))))
    seen = watching.reads(closed=[shown(1, 1, 1, peer=NODE)])
    assert (seen.calls, seen.doubt, seen.missed) == ((), False, "")
    assert not watching.wire.probes


# -- whatever comes --------------------------------------------------------------------------------------------------

moves = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 300), st.floats(0, 0.9), st.floats(0, 0.9)), min_size=1, max_size=12
)


@settings(deadline=None)  # a busy machine is no counterexample
@given(moves)
def test_every_byte_beyond_a_heartbeat_is_heard_of(moves: list[tuple[int, int, float, float]]) -> None:
    """However requests and answers fall on the readings: nobody who sends more than a heartbeat stays silent."""
    watching = Watching()
    received = sent = 0
    heard = spoke = 0.0
    for came, went, before, ago in moves:
        now = watching.at + 1
        received, sent = received + came, sent + went
        heard, spoke = (now - before if came else heard), (now - ago if went else spoke)
        watching.reads(shown(received=received, sent=sent, heard=heard, spoke=spoke, segments=received))
        call = watching.call()
        if came > 64 or (came and went > 64):
            assert call.asked == heard
        if came > 64 and not went:
            assert call.in_flight
        if call.asked is not None:
            assert call.asked <= now


@settings(deadline=None)
@given(st.lists(st.sampled_from(["open", "close", "short", "miss", "nothing"]), max_size=30))
def test_no_miss_goes_untold_and_nothing_else_is_called_one(steps: list[str]) -> None:
    """However what is opened, closed and never shown comes after another."""
    watching = Watching()
    alive: list[Socket] = []
    misses = told = 0
    for number, step in enumerate([*steps, *["nothing"] * MISSED]):
        closed: list[Socket] = []
        if step == "open":
            alive.append(shown(number + 1))
        if step == "close" and alive:
            closed.append(alive.pop())
        if step == "short":
            closed.append(shown(number + 1))
        missed = watching.reads(*alive, closed=closed, uncounted=step == "miss").missed
        misses += step == "miss"
        told += int(missed.split()[-1]) if missed else 0
        assert told <= misses
        assert told == misses or watching.last.doubt, "until then it bars the end"
    assert told == misses
