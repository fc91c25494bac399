# GNU make. `make` alone lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build man demo events test interop test-kubernetes test-kernels lint bench bench-peer fuzz soak dist ci clean-lab

# A Debian with Rust may have it in the user's folder only; setup puts its own programs there and in .tools.
CARGO_HOME ?= $(HOME)/.cargo
export PATH := $(CURDIR)/.tools/go/bin:$(CARGO_HOME)/bin:$(PATH)

# Network namespaces and eBPF need root, so these targets say so before they spend minutes on a build.
need_root = $(if $(filter-out 0,$(shell id -u)),$(error make $@ needs root (it makes network namespaces and \
loads eBPF programs): run it with sudo -E env "PATH=$$PATH" make $@))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what builds and tests need (Debian packages, bpf-linker, lint tools, cargo-fuzz, QEMU, Go); safe to repeat
	@scripts/setup build lab lint fuzz kernels go

build: ## release build of observer, observe (also as kubectl's plugin) and the lab player
	@scripts/setup build
	cargo build --release --locked -p observer -p observer-lab
	@# By a profile of its own, which takes longer to build.
	cargo build --profile small --locked -p observe
	@ln -sf ../small/observe target/release/observe
	@ln -sf observe target/release/kubectl-observe

man: ## man pages of observe into target/man, and the pages of docs/cli anew
	@scripts/setup build
	cargo build --locked -p observe
	@rm -rf target/man docs/cli/observe*.md
	@target/debug/observe reference man target/man && target/debug/observe reference markdown docs/cli
	@echo "$$(ls target/man | wc -l) man pages in target/man: man -l target/man/observe.1"

demo: ## live flows and drops between lab pods, until Ctrl-C or for DEMO_SECONDS=N; DEMO_REPLAY=1 plays a recording
	$(if $(DEMO_REPLAY),,$(need_root))
	@# The demo's own first line says LIVE or REPLAY: what comes before it goes to standard error.
	@scripts/setup build $(if $(DEMO_REPLAY),,lab) >&2
	@cargo build --release --locked -p observer -p observe -p observer-lab
	@scripts/demo

events: ## record the lab anew into testdata/events, after a change of the recordings' format or the kernel's records
	$(need_root)
	@scripts/setup build lab
	OBSERVER_MAKE_EVENTS=$(CURDIR)/testdata/events cargo test --locked -p observer --test recording -- are_the_same

test: ## all tests, those on the real kernel included; skips are listed with their reasons
	$(need_root)
	@scripts/setup build lab
	@scripts/test

interop: ## the real hubble and hubble-relay, built from Go modules, against the daemon; the cases are counted
	$(need_root)
	@scripts/setup build lab go
	@scripts/interop

test-kubernetes: ## the daemon and deploy/ with a real Kubernetes API server, built from Go modules once, in ten minutes
	$(need_root)
	@scripts/setup build lab go
	@scripts/test-kubernetes

test-kernels: ## the daemon and a small lab in Debian's 5.10, 6.1 and 6.12, each booted in QEMU; or in KERNELS="6.1"
	$(need_root)
	@scripts/setup build lab kernels
	@scripts/test-kernels

lint: ## formatting, clippy (host and eBPF), docs, licences, shell scripts
	@scripts/setup build lint
	@scripts/lint

bench: ## the speed table: ours, the aims, and Hubble's Go code measured beside it
	$(need_root)
	@scripts/setup build lab bench go
	@scripts/bench

bench-peer: ## Hubble's own server and ours, by turns, as one table; needs two processors and Go
	@scripts/setup build lab go
	@scripts/bench-peer

fuzz: ## every kind of input from outside, fuzzed for FUZZ_SECONDS each (default 10)
	@scripts/setup build fuzz
	@scripts/fuzz

soak: ## fuzzing (FUZZ_RUNS inputs each, 10 million), then the heavy tests again and again for SOAK_SECONDS (1800)
	$(need_root)
	@scripts/setup build lab fuzz
	@scripts/soak

dist: ## static programs, man pages, completions and deploy/ as target/dist/observer-VERSION-ARCH.tar.gz, with SHA256SUMS
	@scripts/setup build
	@scripts/dist

ci: ## lint, tests, interop, Kubernetes, other kernels and fuzz, with the seconds of each part; a skipped test is a failure
	$(need_root)
	@scripts/ci

clean-lab: ## remove what a killed demo or test run left behind
	$(need_root)
	cargo run --quiet --release --locked -p observer-lab -- clean
