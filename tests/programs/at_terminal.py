"""A command that somebody sits before: it says what its terminal does to it.

python -I -S at_terminal.py
"""

import os
import signal


INTERRUPTED, HUNG_UP = 3, 4


def say(text: str) -> None:
    """Write a line at once, and whole."""
    os.write(1, f"{text}\n".encode())


def end(code: int) -> None:
    """Exit, as the signal's meaning is."""
    if code == INTERRUPTED:
        say("interrupted")
    os._exit(code)


def main() -> None:
    """Say it until Ctrl-C, or until the terminal is gone."""
    signal.signal(signal.SIGWINCH, lambda *_: say("size {1}x{0}".format(*os.get_terminal_size(0))))
    signal.signal(signal.SIGCONT, lambda *_: say("continued"))
    signal.signal(signal.SIGINT, lambda *_: end(INTERRUPTED))
    signal.signal(signal.SIGHUP, lambda *_: end(HUNG_UP))
    say(f"up {os.getpid()}")
    while True:
        signal.pause()


main()
