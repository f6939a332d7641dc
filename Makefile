# Run `make` for the list of targets.

# Programs that scripts/setup.sh fetched; those on PATH come first.
export PATH := $(PATH):$(CURDIR)/.feedmill/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-edited up clean-demo bench test check containers alerts advisories fmt

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install what the demo needs and is missing (Debian, Ubuntu)
	@scripts/setup.sh demo

demo: ## import the demo feeds into a private Redis and MongoDB; run it twice
	@scripts/demo.sh

demo-edited: ## the demo with one item edited: exactly 1 changed
	@scripts/demo-edited.sh

up: .env ## the demo, and then stay up and print the addresses
	@scripts/demo.sh stay

# The token by which containers reach each other, for docker-compose.yml: made once, readable to you alone.
.env:
	@(umask 077; printf 'FEEDMILL_TOKEN=%s\n' "$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >$@)
	@echo '.env has a new random token'

clean-demo: ## forget what the demo imported
	@scripts/clean-demo.sh

bench: ## the queue beside the bare commands and BullMQ, and with 1,000,000 jobs waiting (BENCH_JOBS, BENCH_WAITING)
	@scripts/bench.sh

test: ## everything CI runs: set-up, make check, all tests
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory check
	cargo test --locked --doc --quiet
	cargo build --locked --examples --quiet
	cargo nextest run --locked --all-targets
	cargo nextest run --locked --features otlp -E 'test(/^traces::/)'

# The documentation is built with the private items, so a link to one leads somewhere.
check: ## formatting, lints, documentation, licences of dependencies
	cargo fmt --check
	cargo clippy --locked --all-targets --quiet -- -D warnings
	cargo clippy --locked --lib --bins --features otlp --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --locked --no-deps --document-private-items --quiet
	cargo deny --locked check bans licenses sources
	@$(MAKE) --no-print-directory advisories
	@$(MAKE) --no-print-directory containers
	@$(MAKE) --no-print-directory alerts
	@if command -v shellcheck >/dev/null; then echo shellcheck; shellcheck scripts/*.sh tests/it/support/*.sh .ci/run; fi

# docker-compose reads its file without a container engine.
containers:
	@if command -v docker-compose >/dev/null; \
	then echo 'docker-compose config'; FEEDMILL_TOKEN=x docker-compose --file docker-compose.yml config --quiet; \
	else echo 'containers: docker-compose.yml not checked, docker-compose is not installed here'; fi

# Prometheus reads its own files: configuration, alerts, and the tests that say when each alert fires.
alerts:
	@if command -v promtool >/dev/null; \
	then echo 'promtool check config, check rules, test rules'; \
	    promtool check config --syntax-only prometheus/prometheus.yml >/dev/null && \
	    promtool check rules prometheus/alerts.yml >/dev/null && promtool test rules prometheus/alerts_test.yml >/dev/null; \
	else echo 'alerts: prometheus/ not checked, promtool is not installed here'; fi

# The database of advisories is a repository on another host: where it cannot be reached, that is no failure of ours.
advisories:
	@if cargo deny --locked --log-level off fetch db >/dev/null 2>&1; \
	then echo 'cargo deny check advisories'; cargo deny --locked --offline check advisories; \
	else echo 'advisories: not checked, their database cannot be reached from here'; fi

fmt: ## format the code
	cargo fmt
