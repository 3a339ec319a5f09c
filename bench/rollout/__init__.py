"""The rollout benchmark: real Nacos, real Spring Cloud Alibaba providers and gateways, and each way to stop a pod.

    PYTHONPATH=tests python -m bench.rollout        (`make bench-rollout`)

`ways` says how each release stops its pods and `cells` who calls them; `stage` has the servers, the gateways and the
pods; `load` sends the requests; `roll` replaces one replica and `outcome` judges what came of it; `results` keeps one
JSON line per repetition, and `page` and `plot` show them.
"""
