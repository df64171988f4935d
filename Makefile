# The two commands are `make run` and `make test`; both install what they need on a fresh Debian machine.
.PHONY: run test build dashboard deps test-deps check bench bench-compare audit clean help

CARGO ?= cargo
# What `make run` needs beside Rust; Node comes only where there is none.
RUN_PACKAGES  := gcc libc6-dev make ca-certificates curl
NODE_PACKAGES := nodejs npm
# The machine in which the containers' tests see the other version of cgroups.
VM_PACKAGES   := qemu-system-x86 linux-image-cloud-amd64 e2fsprogs binutils
# What the tests and benches need beside that: real peers and a real browser.
TEST_PACKAGES := nginx-light chromium runc crun busybox-static containernetworking-plugins iptables docker-registry skopeo umoci openssl

help: ## Show this.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: deps dashboard ## Start a whole cluster with the dashboard on http://127.0.0.1:5050.
	$(CARGO) run --release --bin divvy -- dev $(ARGS)

build: deps dashboard ## Build the binary with the dashboard in it.
	$(CARGO) build --release --bin divvy

test: deps test-deps dashboard check ## Run everything: lints, unit, property, simulation, container, cluster and browser tests.
	$(CARGO) build --workspace --bins --examples
	$(CARGO) test --workspace --all-targets --no-fail-fast
	$(CARGO) test --workspace --doc
	cd tests/dashboard && npm ci --no-audit --no-fund --loglevel=error && npm test

check: ## Formatting and lints; changes nothing.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

dashboard: master/dashboard/dist/index.html ## Build the dashboard, where it has changed.

master/dashboard/dist/index.html: $(shell find master/dashboard -path '*/node_modules' -prune -o -path '*/dist' -prune -o -type f -print 2>/dev/null)
	@command -v npm >/dev/null || $(MAKE) packages PACKAGES="$(NODE_PACKAGES)"
	cd master/dashboard && npm ci --no-audit --no-fund --loglevel=error && npm run build
	touch $@

bench: deps test-deps ## Measure, beside peers; prints tables and writes target/bench/*.json.
	$(CARGO) bench --bench allocator --bench launch --bench wire

bench-compare: ## Measure the allocator as it was at the commit BASE, then as it is here, and compare: BASE=HEAD~10.
	@test -n "$(BASE)" || { echo "which commit? make bench-compare BASE=HEAD~10"; exit 1; }
	git worktree add --force --detach target/bench-base $(BASE)
	cd target/bench-base && CARGO_TARGET_DIR=$(CURDIR)/target $(CARGO) bench --bench allocator -- $(ARGS)
	$(CARGO) bench --bench allocator -- --compare $(CURDIR)/target/bench-base/target/bench/allocator.json $(ARGS)
	git worktree remove --force target/bench-base

audit: ## Check licences and sources of the dependencies.
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources

deps:
	@$(MAKE) --no-print-directory packages PACKAGES="$(RUN_PACKAGES)"
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: see https://rustup.rs (1.90 or newer)"; exit 1; }

test-deps:
	@$(MAKE) --no-print-directory packages PACKAGES="$(TEST_PACKAGES) $(VM_PACKAGES)"

# Installs those of PACKAGES that are missing, where apt is there; says what is missing otherwise.
packages:
	@missing=""; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] && exit 0; \
	command -v apt-get >/dev/null || { echo "install first:$$missing"; exit 1; }; \
	echo "installing$$missing"; export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null

clean: ## Remove what was built.
	$(CARGO) clean
	rm -rf master/dashboard/dist master/dashboard/node_modules tests/dashboard/node_modules
