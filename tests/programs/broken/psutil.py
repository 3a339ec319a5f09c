"""What stands before the real one on a path: an installation that is broken."""

raise ImportError("this psutil is broken")
