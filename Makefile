# Two commands set up all they need: `make demo` runs the main job, `make test` passes the tests.
#
#   make demo [APP=DIR] [DATA=DIR] [USERS=N] [SEED=N] [KEEP=1] [FORCE=1]    JD_ENVS=DIR puts the environments elsewhere
#   make demo STORE=openmldb OPENMLDB_ZK=HOST:PORT [OPENMLDB_ZK_PATH=/openmldb]    the same over an OpenMLDB cluster

SHELL   := /bin/bash
JD_ENVS ?=## folder of the environments; empty: .envs
ENVS    := $(or $(JD_ENVS),.envs)
PYTHON  := $(ENVS)/scorer/bin/python
PYTEST  := $(PYTHON) -m pytest
# any Python makes the environments (from 3.10, which it finds): the first of these that runs
PYTHON3  = $(firstword $(foreach p,python3 python3.10 $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3.10),\
                         $(shell $(p) -c pass 2>/dev/null && echo $(p))) python3)

# What stands before a ## is the value, without a blank at its end; `make help` shows the lines.
APP     ?=## demo: the folder of an application; empty: sql/jd
DATA    ?=## demo: a folder of its tables, or of its events; empty: a generated world
USERS   ?=## demo: size of the generated world; empty: 6000
SEED    ?=## demo, chaos: of the world, of the kills; empty: 1
KEEP    ?=## demo: 1 leaves all running until Ctrl-C
FORCE   ?=## demo: 1 removes what else lies in its folder
STORE   ?=embedded## demo, simulate, chaos: embedded, or openmldb: a cluster keeps the tables
OPENMLDB_ZK ?=## demo, chaos with STORE=openmldb, bench-cluster: HOST:PORT of its ZooKeeper
OPENMLDB_ZK_PATH ?=/openmldb## the same: OpenMLDB's path in it
CLUSTER_CONTROL ?=## chaos with STORE=openmldb: a command that kills and starts its parts (docs/explanation/chaos.md)
UPGRADE ?=## lock: the packages to lift; empty: none, all: every one
ROWS    ?=## soak-engine: rows to insert; empty: 100 million
SEEDS   ?=2000## simulate: schedules; fuzz-engine: random queries
ROUNDS  ?=30## chaos: kills
INPUTS  ?=1000000## fuzz: odd inputs
MINUTES ?=60## soak: how long
PER_S   ?=300## soak: events a second
TOOL     = PYTHONPATH=.:tests $(PYTHON)

.DEFAULT_GOAL := help
.PHONY: help environments spark-environment bench-environment docs-environment docs prometheus browser lock licences demo test test-slow simulate chaos fuzz fuzz-engine soak panels lint format bench bench-check bench-record bench-engine bench-cluster \
        bench-latency bench-headers bench-start bench-scaling bench-offline bench-restart soak-engine clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo "variables, as in: make demo USERS=500 KEEP=1"
	@grep -hE '^[A-Z_0-9]+ +[?:]=.*##' $(MAKEFILE_LIST) | sed -E 's/ +[?:]=/=/' | awk -F' *## ' '{printf "  %-28s %s\n", $$1, $$2}'

environments:  ## make .envs/: two Python environments and Kafka's jars (skips what is there)
	@$(PYTHON3) -m deploy.environments

spark-environment:  ## make .envs/spark: Apache Spark with OpenMLDB's batch engine, for extract --engine spark
	@$(PYTHON3) -m deploy.environments spark

bench-environment:  ## make .envs/peers: Quix Streams and the tutorial's own way, which `make bench` measures beside ours
	@$(PYTHON3) -m deploy.environments peers

docs-environment:  ## make .envs/docs: what builds the site of docs/
	@$(PYTHON3) -m deploy.environments docs

docs: docs-environment  ## build the site of docs/ into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(ENVS)/docs/bin/python -m mkdocs build --strict

prometheus:  ## fetch Debian's Prometheus into .envs/prometheus, where it is not on PATH: `make test` needs it
	@$(PYTHON3) -m deploy.environments prometheus

browser:  ## install Debian's Chromium, where it is not on PATH (as root): `make test` needs it
	@$(PYTHON3) -m deploy.environments browser

lock:  ## make the lock files anew out of setup.cfg's roots; versions stay where they fit (UPGRADE='PACKAGE …')
	@$(PYTHON3) -m deploy.lock $(UPGRADE)

licences: environments spark-environment bench-environment docs-environment  ## write docs/reference/licences.md: the licence of every locked package
	@$(PYTHON) -m deploy.licences

ifeq ($(STORE),openmldb)
DEMO_STORE = --zk '$(or $(OPENMLDB_ZK),$(error STORE=openmldb needs OPENMLDB_ZK=HOST:PORT))' --zk-path '$(OPENMLDB_ZK_PATH)'
else ifneq ($(STORE),embedded)
$(error STORE is $(STORE): embedded or openmldb)
endif

demo: environments  ## the whole job on real parts: history, training, Triton, Kafka, scores; then stops it all
	@exec $(PYTHON) -m deploy.demo $(if $(APP),--app '$(APP)') $(if $(DATA),--data '$(DATA)') $(if $(USERS),--users $(USERS)) $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep) $(if $(FORCE),--force) $(DEMO_STORE)

test: prometheus browser environments docs-environment lint  ## every check that CI runs
	$(PYTEST) --numprocesses 3 --dist loadfile

test-slow: environments spark-environment  ## what takes long: Spark beside the embedded engine, long outages
	$(PYTEST) -m slow --timeout 1800

lint: environments  ## ruff and mypy --strict
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: environments  ## let ruff rewrite
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

simulate: environments  ## seeded schedules of faults over the real loop, many a minute (SEEDS)
	$(TOOL) -m simulation.simulator --seeds $(SEEDS) --store $(STORE)

chaos: environments  ## kills everything in turn on real parts, then recomputes every score (ROUNDS, SEED)
	$(TOOL) -m rigs.chaos --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(if $(filter openmldb,$(STORE)),\
	  --zk $(OPENMLDB_ZK) --zk-path $(OPENMLDB_ZK_PATH) $(if $(CLUSTER_CONTROL),--cluster-control "$(CLUSTER_CONTROL)"))

fuzz: environments  ## odd inputs to the decoders and the configuration (INPUTS)
	$(TOOL) -m rigs.fuzz --inputs $(INPUTS)

soak: environments  ## an hour of even traffic: memory, handles and latency stay flat (MINUTES, PER_S)
	$(TOOL) -m rigs.soak --minutes $(MINUTES) --per-s $(PER_S)

panels: environments prometheus  ## draw every panel of the Grafana dashboard from a run of three minutes, into build/panels
	$(TOOL) -m rigs.panels

bench: environments  ## events/s beside a raw transactional echo, both ceilings and, after bench-environment, the peers
	$(PYTHON) -m benchmarks.pipeline --json build/bench.json

bench-cluster: environments  ## one scorer over a real OpenMLDB cluster, beside what the cluster does by itself
	$(PYTHON) -m benchmarks.cluster --zk $(OPENMLDB_ZK) --zk-path $(OPENMLDB_ZK_PATH)

bench-check: bench  ## and whether its ratios are within 15 % of the recorded run's (benchmarks/recorded.json)
	$(PYTHON) -m benchmarks.ratios build/bench.json

bench-record: bench  ## and record its ratios for bench-check
	$(PYTHON) -m benchmarks.ratios build/bench.json --record

bench-latency: environments  ## from the producer's call to a subscriber, beside a raw echo and, after bench-environment, Quix Streams
	$(PYTHON) -m benchmarks.latency --json build/latency.json --plot build/latency.svg

bench-headers: environments  ## publishing scores with CloudEvents in headers, in the value, and without any
	$(PYTHON) -m benchmarks.headers --json build/headers.json

bench-engine: environments  ## the embedded engine: requests/s, inserts/s, cold and warm start
	$(PYTHON) -m benchmarks.engine

bench-offline: environments  ## the offline query over 1 M requests and 10 M actions: time and memory are linear
	$(PYTHON) -m benchmarks.offline

fuzz-engine: environments  ## random queries beside OpenMLDB's own engine, after `make spark-environment` (SEEDS=N)
	$(TOOL) tests/engine/test_engine_openmldb.py --from 20000 --count $(SEEDS) --shrink
	$(TOOL) tests/engine/test_engine_openmldb.py --from 20000 --count $$(( $(SEEDS) / 10 )) --shrink --over-aggregates

soak-engine: environments  ## endless inserts into tables with a time to live: memory must stay (ROWS=N)
	$(PYTHON) -m benchmarks.memory $(if $(ROWS),--rows $(ROWS))

bench-scaling: environments  ## workers × partitions, what an event costs each part, and what a million events/s need
	$(PYTHON) -m benchmarks.scaling --json build/scaling.json

bench-start: environments  ## from a scorer's start to its first committed score; what compiling all kernels costs
	$(PYTHON) -m benchmarks.start --json build/start.json

bench-restart: environments  ## restart with 1 M and 10 M rows of state: from a snapshot, and from the log
	$(PYTHON) -m benchmarks.restart

clean:  ## remove what the demo made (not the environments)
	rm -rf build/demo
