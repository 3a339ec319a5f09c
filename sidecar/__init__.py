"""nacos-drain: takes an app out of Nacos before it is stopped, and proves it."""

__version__ = "0.1.0"
