# The one entry point: people and CI call the same targets. `make help` lists them.
#
# Everything builds in the release profile, so that lint, tests, documents and the binary
# share build scripts, macros and (all but lint and documents) the compiled dependencies. Only the
# largest tests themselves are not optimized (scripts/rustc).
# Tests are one call of cargo for the whole workspace, or the members' features would differ
# and dependencies be built once for each. The binary is built with the same features, which cargo
# does where a target with development dependencies is among what it builds: a small example is.

SHELL := /bin/bash
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BUILD := build --release --locked --workspace --bin beacon-relay --example echo
BINARY := $(TARGET_DIR)/release/beacon-relay
BENCH := $(TARGET_DIR)/release/beacon-bench
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)

# What `--version` says that the program was built from; `cargo build` alone says that it is unknown.
# From the sources of a commit comes the same program: its date is that of the commit.
export BUILD_COMMIT ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)
# Sources without a repository have no date. C compilers refuse an empty one.
ifeq ($(SOURCE_DATE_EPOCH),)
unexport SOURCE_DATE_EPOCH
else
export SOURCE_DATE_EPOCH
endif

.DEFAULT_GOAL := help
.PHONY: help setup build run test counts fuzz screenshots soak sanitize beacon-bench bench bench-peers scale lint docs book static conformance wasm deny package archives newcomer test-units man clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the tests need and this machine lacks (Debian packages, rustfmt, clippy)
	@scripts/setup

build: ## Build the binary, target/release/beacon-relay: that which `make test` has tested
	$(CARGO) $(BUILD)

run: build ## Build, then show the relay at work; ONCE=1 ends after the table
	$(BINARY) demo

# Most integration tests wait for servers and timers: three times as many as there are cores run at a
# time.
test test-units counts build beacon-bench conformance: export RUSTC_WORKSPACE_WRAPPER := $(CURDIR)/scripts/rustc
test conformance: export RUST_TEST_THREADS ?= $(shell expr 3 \* $$(nproc))
test: setup ## Every check there is: unit, integration (real Caddy and Prometheus), doc tests, counts
	$(CARGO) test --release --locked --workspace
	@out=$$($(CARGO) $(BUILD) 2>&1) || { echo "$$out" >&2; exit 1; }; \
	if grep -q Compiling <<<"$$out"; then \
		echo "$$out" >&2; echo "make build does not ship the binary that was tested" >&2; exit 1; \
	fi
	@$(MAKE) --no-print-directory counts

test-units: setup ## The unit tests and the tests of the package alone, as on machines that are not x86-64
	$(CARGO) test --release --locked --workspace --lib
	$(CARGO) test --release --locked --workspace --test it -- deploy::package

# Where setup puts gungraun-runner. A container may not switch randomized addresses off, and no
# count depends on them.
counts: export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
counts: setup ## Compare the instructions of the hot paths with benches/counts.toml; UPDATE=1 writes it
	$(CARGO) bench --locked --workspace --bench counts -- --allow-aslr --output-format=json >$(TARGET_DIR)/counts.jsonl
	@scripts/counts $(TARGET_DIR)/counts.jsonl $(if $(UPDATE),--update)

screenshots: ## The pictures of the status page, docs/page (6 min)
	@scripts/setup optipng=optipng
	$(CARGO) test --release --locked --test it -- --ignored page::screenshots
	optipng -quiet -strip all docs/page/*.png

soak: setup ## The long runs: every ignored test whose name begins with soak_
	$(CARGO) test --release --locked --workspace -- --ignored --test-threads=1 soak_

fuzz: ## Fuzz codecs, presence and configuration, TIME seconds (60) each target; findings go to fuzz/artifacts
	@CARGO=$(CARGO) scripts/fuzz $(or $(TIME),60)

sanitize: ## The unsafe code of net/ under AddressSanitizer (x86-64)
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address $(CARGO) test --locked --target x86_64-unknown-linux-gnu --lib -- net::udp net::inherited

beacon-bench: ## Build the load generator and the relay, target/release/beacon-bench
	$(CARGO) $(BUILD) --bin beacon-bench

bench: setup beacon-bench ## Measure relay, floor and public peers in one run; writes docs/PERFORMANCE.md (55 min)
	$(BENCH) --rows $(TARGET_DIR)/bench.jsonl
	set -o pipefail; $(MAKE) --no-print-directory bench-peers JSON=1 | tee $(TARGET_DIR)/bench-peers.jsonl
	scripts/performance $(TARGET_DIR)/bench.jsonl $(TARGET_DIR)/bench-peers.jsonl

bench-peers: beacon-bench ## Public relays compared with ours (installs coturn); JSON=1 for machines, ARGS for options
	@scripts/setup turnserver=coturn
	@# Its lock file follows what the relay's own crates need, which it builds as well.
	$(CARGO) build --release --manifest-path crates/bench/peers/Cargo.toml --target-dir $(TARGET_DIR)/peers
	@$(TARGET_DIR)/peers/release/beacon-relay-peers --beacon-bench $(BENCH) $(if $(JSON),--json) $(ARGS)

scale: CLUSTERS := 16 64 128
scale: setup beacon-bench ## Real relays without peers, and simulated clusters (20 min); writes docs/SCALE.md
	$(BENCH) --scenario links --rows $(TARGET_DIR)/links.jsonl
	for relays in $(CLUSTERS); do $(BENCH) --scenario scale --relays $$relays --rows $(TARGET_DIR)/scale-$$relays.jsonl || exit; done
	scripts/scale docs/SCALE.md $(TARGET_DIR)/links.jsonl $(CLUSTERS:%=$(TARGET_DIR)/scale-%.jsonl)

lint: ## Formatting and clippy, warnings denied; whether the fuzz targets compile
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO) check --locked --manifest-path fuzz/Cargo.toml --target-dir $(TARGET_DIR)/fuzz

docs: ## Build the documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps --document-private-items

book: ## Build the documents as a book, target/book, and check its links (installs mdBook from PyPI)
	scripts/book $(TARGET_DIR)/book

static: ## Static binaries for x86-64 and ARM, each shown at work (zig, qemu-user)
	@scripts/setup readelf=binutils pip3=python3-pip qemu-aarch64=qemu-user qemu-x86_64=qemu-user
	scripts/static

conformance: setup static ## The tests of all protocols against the static binary (root)
	tests/conformance $(TARGET_DIR)/$(shell uname -m)-unknown-linux-musl/release/beacon-relay

wasm: ## Build the codecs for wasm32, the proof that they need no system
	rustup target add wasm32-unknown-unknown
	$(CARGO) build --locked --package beacon-wire --target wasm32-unknown-unknown

deny: ## Licences, bans, sources, advisories (installs cargo-deny, needs the network; not in .ci/run)
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --locked check

package: build ## Make a Debian package, target/package/beacon-relay_VERSION_ARCHITECTURE.deb
	scripts/package $(BINARY) $(TARGET_DIR)/package

archives: static ## The archives of a release with their symbols and bills of materials, target/archives
	@scripts/setup aarch64-linux-gnu-objcopy=binutils-aarch64-linux-gnu objcopy=binutils
	scripts/archive $(TARGET_DIR)/x86_64-unknown-linux-musl/release/beacon-relay x86_64 $(TARGET_DIR)/archives
	OBJCOPY=aarch64-linux-gnu-objcopy STRIP=aarch64-linux-gnu-strip \
		scripts/archive $(TARGET_DIR)/aarch64-unknown-linux-musl/release/beacon-relay aarch64 $(TARGET_DIR)/archives
	scripts/sbom x86_64-unknown-linux-musl >$(TARGET_DIR)/archives/beacon-relay-$(VERSION)-linux-x86_64.cdx.json
	scripts/sbom aarch64-unknown-linux-musl >$(TARGET_DIR)/archives/beacon-relay-$(VERSION)-linux-aarch64.cdx.json

newcomer: ## README's first commands in a bare Debian, from the archive (root; debootstrap)
	@scripts/setup debootstrap=debootstrap
	tests/newcomer $(TARGET_DIR)/archives/beacon-relay-$(VERSION)-linux-$(shell uname -m).tar.gz $(TARGET_DIR)/newcomer

man: build ## Write the manual's pages to target/man
	$(BINARY) man $(TARGET_DIR)/man

clean: ## Remove what was built
	$(CARGO) clean
