"""A command that leaves orphans, and lives on until its stdin ends.

    python -I -S orphans.py [--brief COUNT] [--lasting group|daemon] [--deaf]

Brief ones exit at once, as orphans. A lasting one stays in our group, or makes a session of its own as a daemon does;
when it hears TERM it tidies up for a while, or not at all when it is deaf.
"""

import argparse
import os
import signal
import time


HEARD = {signal.SIGTERM, signal.SIGRTMAX}
TIDYING = 0.3  # seconds


def say(text: str) -> None:
    """Write a line at once, and whole."""
    os.write(1, f"{text}\n".encode())


def make_orphans(count: int) -> None:
    """Fork a child that forks them all, and exits before they can be waited for."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    for _ in range(count):
        if not os.fork():
            break
    os._exit(0)


def last(*, daemon: bool, deaf: bool) -> None:
    """Be one that stays."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(read)
        os.waitpid(child, 0)
        os.close(write)  # from here on it is an orphan
        return
    if daemon:
        os.setsid()
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    os.close(write)
    os.read(read, 1)
    say(f"orphan {os.getpid()} of {os.getppid()}")
    while (number := signal.sigwait(HEARD)) != signal.SIGTERM or deaf:
        say("orphan is there" if number != signal.SIGTERM else "orphan told")
    say("orphan told")
    time.sleep(TIDYING)
    say("orphan done")
    os._exit(0)


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--brief", type=int, default=0)
    parser.add_argument("--lasting", choices=["group", "daemon"])
    parser.add_argument("--deaf", action="store_true")
    options = parser.parse_args()
    make_orphans(options.brief)
    if options.lasting:
        last(daemon=options.lasting == "daemon", deaf=options.deaf)
    say("made")
    os.read(0, 1)


main()
