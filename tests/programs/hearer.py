"""A command that blocks every signal and says each one that comes, by its number; so does its heir, in the same group.

    python -I -S hearer.py [--heir] [--exit SIGNAL:CODE]

It ends with FINISH, which it passes to its heir itself. What the heir has heard from anybody else is said then. A byte
on its stdin, or the end of it, ends it too where --stdin CODE is given.
"""

import argparse
import os
import signal
import threading


FINISH = signal.SIGRTMIN + 1
EVERY = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def say(text: str) -> None:
    """Write a line at once, and whole."""
    os.write(1, f"{text}\n".encode())


def heir() -> None:
    """Hear until FINISH comes from the parent; it is told when nothing else can come any more."""
    parent, heard = os.getppid(), set()
    say("heir ready")
    while (told := signal.sigwaitinfo(EVERY)).si_signo != FINISH or told.si_pid != parent:
        heard.add(told.si_signo)
    while (late := signal.sigtimedwait(EVERY, 0)) is not None:
        heard.add(late.si_signo)
    say(" ".join(["heir heard", *map(str, sorted(heard))]))
    os._exit(0)


def end_with_stdin(code: int) -> None:
    """Exit when somebody writes, or closes it."""
    os.read(0, 1)
    os._exit(code)


def main() -> None:
    """Hear until FINISH, or the signal that was named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--heir", action="store_true")
    parser.add_argument("--exit", metavar="SIGNAL:CODE", default="0:0")
    parser.add_argument("--stdin", metavar="CODE", type=int)
    options = parser.parse_args()
    last, _, code = options.exit.partition(":")
    signal.pthread_sigmask(signal.SIG_BLOCK, EVERY)
    if options.stdin is not None:
        threading.Thread(target=end_with_stdin, args=(options.stdin,), daemon=True).start()
    child = os.fork() if options.heir else 0
    if options.heir and not child:
        heir()
    say(f"ready {os.getpid()}")
    while (number := signal.sigwaitinfo(EVERY).si_signo) != FINISH:
        if number == signal.SIGCHLD:
            continue
        say(f"heard {number}")
        if number == int(last):
            os._exit(int(code))
    if child:
        os.kill(child, FINISH)
        os.waitpid(child, 0)
    say("finished")


main()
