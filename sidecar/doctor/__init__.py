"""A rehearsal of the drain that changes nothing: what would stand in its way today, and who can help.

`checks` is what a result is, `rehearsal` asks everything once and within a bound, `findings` is what came back. Four
modules judge it, purely: `nacos`, `registered`, `pod` and `doors`. `outlook` says it to people; `preflight` does the
same inside `serve`, hardly ever.
"""
