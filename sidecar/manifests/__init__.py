"""`check` and `inject`: what a manifest will do when its pod is stopped, and how to write it right.

`documents` reads, `pods` knows what a pod is made of, the rules (`rules` lists them) look at one pod each, `checking`
performs them and `telling` prints. Needs the extra `manifests`; nothing of `serve` imports it.
"""
