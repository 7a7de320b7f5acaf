# `make help` lists what there is. Nothing needs to be prepared: what is missing is installed by scripts/install-needs.

# What `make demo` runs on. SERVER: prosody or ejabberd. DOOR: plugin or alias. CLIENTS: multiend, the reference client, or
# slixmpp. DATABASE: sqlite or postgres.
SERVER ?= prosody
DOOR ?= plugin
CLIENTS ?= multiend
DATABASE ?= sqlite
# What `make bench-peers` does less, or otherwise: see benches/peers/main.rs.
PEERS ?=
# Not empty: `make demo` leaves everything running and prints the addresses.
KEEP ?=
# How long each fuzz target runs: briefly in `make test`, longer in `make fuzz`.
fuzz-briefly: FUZZ_SECONDS ?= 10
fuzz: FUZZ_SECONDS ?= 60
# Tests with servers of their own are heavy, and waiting tests are not: as many threads as cores, within reason.
RUST_TEST_THREADS ?= $(shell cores=$$(nproc); echo $$((cores > 4 ? 4 : cores)))
export RUST_TEST_THREADS

# The built demonstration. `cargo run` would build half of its dependencies again: for one package it selects other features.
TARGET_DIR = $(shell cargo metadata --locked --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
DEMO = "$(TARGET_DIR)/debug/examples/demo"

.DEFAULT_GOAL := help
.PHONY: help demo test fmt-check clippy plugins debian-13 monitoring dashboards chart packaging deb unit interop bench bench-peers fuzz fuzz-briefly

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## The whole job between four devices (CLIENTS=slixmpp, SERVER=ejabberd, DOOR=alias, DATABASE=postgres, KEEP=1)
	@scripts/install-needs cc $(SERVER) $(if $(filter postgres,$(DATABASE)),postgresql)
	cargo build --locked -p multiend -p multiend-client --bins --examples
	@$(DEMO) --server $(SERVER) --door $(DOOR) --clients $(CLIENTS) --database $(DATABASE) $(if $(KEEP),--keep)

test: fmt-check clippy plugins monitoring chart packaging unit debian-13 interop fuzz-briefly ## Everything that must hold before a change is merged
	@echo 'make test: all is well'

fmt-check: ## Formatting
	@scripts/install-needs rust-tools
	cargo fmt --all --check

clippy: ## Lints
	@scripts/install-needs cc rust-tools
	cargo clippy --locked --workspace --all-targets -- -D warnings

unit: ## All tests: unit, property, contract, end-to-end, documentation
	@scripts/install-needs cc prosody prosody-modules prosody-sql postgresql ejabberd ejabberd-sql prometheus profanity
	cargo test --locked --workspace --all-targets
	cargo test --locked --workspace --doc

plugins: ## Syntax of the server plugins, that for ejabberd compiled; luacheck as well, where it is installed
	@scripts/install-needs prosody ejabberd
	@out=$$(mktemp -d) && plugins/ejabberd/compile "$$out"; status=$$?; rm -rf "$$out"; exit $$status
	@for file in plugins/prosody/*.lua plugins/prosody/mod_multiend/*.lua; do luac5.4 -p "$$file" || exit 1; done
	@if command -v luacheck >/dev/null; then luacheck --quiet plugins/prosody; fi

debian-13: ## The plugins on Prosody 13.0 and ejabberd 24.12 of Debian 13; says so where these cannot be had
	@scripts/install-needs cc postgresql
	@scripts/debian-13 "$(TARGET_DIR)/debian-13" cargo test --locked -p multiend --test plugin_prosody --test plugin_ejabberd

monitoring: ## The alert rules, each with a case that fires and one that does not
	@scripts/install-needs prometheus python3
	monitoring/dashboards.py --check
	promtool check rules monitoring/alerts.yml
	promtool test rules monitoring/alerts.test.yml

dashboards: ## Write monitoring/dashboards from monitoring/dashboards.py
	@scripts/install-needs python3
	monitoring/dashboards.py

chart: ## The Helm chart, rendered by Helm and held to Kubernetes' schemas
	charts/tests/run.sh

packaging: ## What the Debian package and the image are made from
	packaging/check

deb: ## The Debian package, in target/debian
	@scripts/install-needs cc cargo-deb
	cargo deb --locked --package multiend
	packaging/check --deb "$$(ls -t target/debian/multiend_*.deb | head -n 1)"

interop: ## The crypto crate against Twomemo, Oldmemo and libsignal-client
	crypto/tests/interop/run.sh

bench: ## Benchmarks; figures go to target/bench
	@scripts/install-needs cc prosody postgresql python3
	cargo bench --locked --workspace
	@scripts/bench-table

bench-peers: ## What archiving costs Prosody and ejabberd: with the plugin, with their own archives, with none
	@scripts/install-needs cc prosody prosody-sql ejabberd postgresql python3
	cargo bench --locked -p multiend --bench peers -- --peers $(PEERS)
	@scripts/bench-table

fuzz: ## Each fuzz target for FUZZ_SECONDS=60
	scripts/fuzz $(FUZZ_SECONDS)

fuzz-briefly: ## The same for FUZZ_SECONDS=10
	scripts/fuzz $(FUZZ_SECONDS)
