"""`nacos-drain`, and `python -m sidecar`.

`run` starts its command before anything else is loaded, the command line of the others included.
"""

import os
import sys


TYPE_CHECKING = False  # typing's costs 8 ms before the command of `run` is there
if TYPE_CHECKING:
    from .init import Init


def main() -> None:
    """Do what the command line says."""
    if sys.argv[1:2] != ["run"]:
        from .cli import main as others  # noqa: PLC0415

        others()
        return
    from .entrypoint import start  # noqa: PLC0415

    command = start(sys.argv[2:])
    from .init import Init  # noqa: PLC0415  the command runs by now

    code = Init(command).live(_beside)
    os._exit(code)  # the drain's thread may be in the midst of an import, which an ordinary exit does not survive


def _beside(init: "Init") -> int | None:
    from .beside import beside  # noqa: PLC0415  in the drain's thread: it takes 0.3 s, and signals go on meanwhile

    return beside(init)


if __name__ == "__main__":
    main()
