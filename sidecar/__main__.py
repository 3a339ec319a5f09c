"""`python -m sidecar` is `nacos-drain`."""

from .cli import main


main()
