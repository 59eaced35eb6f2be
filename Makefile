# Everything a contributor runs. `make` alone lists the targets.
#
# Variables: COUNT=1 runs every test anew instead of taking Go's cached results (the default where
# CI is set); FUZZ_SECONDS, SOAK_COUNT and BENCH set the length of those targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

COUNT        ?= $(if $(CI),1,)
FUZZ_SECONDS ?= 60
SOAK_COUNT   ?= 20
BENCH        ?= .

export ASSENT_REQUIRE_POSTGRES := 1

# The tests' PostgreSQL clusters are made in memory where there is room for them: to create a database is
# to create three hundred files. A server that is killed keeps what it has written there as on a disk.
export ASSENT_POSTGRES_DIR ?= $(shell free=$$(df -Pm /dev/shm 2>/dev/null | awk 'NR == 2 {print $$4}'); \
	[ "$${free:-0}" -ge 2000 ] && echo /dev/shm || echo /tmp)

# Pebble takes the zstd that is written in Go, as in the static binary. The one in C takes a machine
# with two cores a quarter of a minute to compile, anew for the race detector.
export GOFLAGS := $(GOFLAGS) -tags=pebblegozstd

.PHONY: help test build lint fuzz soak bench generate docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## the one gate: what tests need, lint, seeds of the stack and of a cluster, every test under the race detector, a fuzz minute
	@scripts/setup
	@$(MAKE) lint
	go test -vet=off -timeout 600s $(if $(COUNT),-count=$(COUNT),) ./sim/... ./check/... # all seeds, states and sites; the race detector sees some of them
	go test -vet=off -timeout 600s $(if $(COUNT),-count=$(COUNT),) -run '^TestSearchScripts$$' ./cmd/assent # they start no goroutine
	go test -race -vet=off -p 3 -timeout 600s $(if $(COUNT),-count=$(COUNT),) ./internal/crashtest ./... # the one that waits most comes first, beside the others
	@scripts/fuzz $(FUZZ_SECONDS)

build: ## build bin/assent, a static binary
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

lint: ## gofmt, go vet, staticcheck, and the syntax of the shell scripts
	@scripts/lint

fuzz: ## every fuzz target, an equal share of FUZZ_SECONDS each
	@scripts/fuzz $(FUZZ_SECONDS)

soak: ## the long searches once, then every test SOAK_COUNT times in random order under the race detector
	@scripts/setup
	ASSENT_SOAK=1 go test -count=1 -timeout 120m ./...
	go test -count=1 -timeout 60m -run TestRandomSchedules ./protocol/commit -rapid.checks=200000
	go test -race -count=$(SOAK_COUNT) -shuffle=on -timeout 120m ./...

bench: ## every benchmark that matches BENCH, with allocations
	@scripts/setup
	go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m ./...

generate: ## run the go:generate lines
	go generate ./...

docs: ## rewrite the golden files from what the code does now; read the diff before you commit it
	@scripts/golden

clean: ## remove what build, test and bench leave behind
	rm -rf bin coverage.txt
	find . -name '*.test' -type f -not -path './.git/*' -delete
