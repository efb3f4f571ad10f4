# Everything is cargo's and these scripts' work; a target only names it. Each installs what it
# uses (as root; otherwise it prints the line that an administrator runs).

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
PONTOON = $(CARGO_TARGET_DIR)/x86_64-unknown-linux-gnu/release/pontoon

.PHONY: help build test lint demo bench soak clean

help:
	@echo 'make build   a static executable: $(PONTOON)'
	@echo 'make demo    the example, evaluated, built and released, as root and as a user'
	@echo 'make test    all tests, with reduced counts (as root)'
	@echo 'make soak    all tests, with full counts (as root)'
	@echo 'make lint    format, clippy, docs, dependencies'
	@echo 'make bench   side by side with nix-build (as root)'

build:
	scripts/install.sh build
	cargo build --locked --release

# Tests of the sandbox and of ordinary users need root, and say so where it is missing.
test:
	scripts/install.sh run
	integration/daemons/get.sh buildkit docker29 debian
	cargo test --locked

# A seed is repeated with `make soak PONTOON_SEED=…`.
soak: export PONTOON_SEED := $(or $(PONTOON_SEED),$(shell date +%s))
soak:
	@echo "seed: $(PONTOON_SEED)"
	scripts/install.sh run
	integration/daemons/get.sh buildkit docker29 debian
	PONTOON_SOAK=1 cargo test --locked --release

lint:
	scripts/install.sh lint
	scripts/lint.sh

demo: build
	scripts/install.sh run
	scripts/demo.sh $(PONTOON)

bench:
	scripts/install.sh run
	integration/daemons/get.sh buildkit
	cargo bench --locked --bench side-by-side

clean:
	cargo clean
	rm -rf demo
