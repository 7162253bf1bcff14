# make demo [REPO=URL-or-path]   mounts a repository (this checkout by default), looks around, unmounts
# make test                      every test, mounted for real
# make bench [ONLY="name …"]     every figure of docs/performance.md (CORPUS=dir, default /tmp/corpus)
# make lint                      format, clippy, rustdoc: warnings are errors
# Each first installs what is missing and nothing else; sudo is used where it is there and needed.

REPO ?= $(CURDIR)
CORPUS ?= /tmp/corpus
ONLY ?=

.PHONY: demo test bench lint lint-otlp build

demo:
	@scripts/install-deps.sh build demo
	@cargo build --release --locked
	@scripts/demo.sh '$(REPO)'

test:
	@scripts/install-deps.sh build demo test
	@cargo test --release --locked

bench:
	@scripts/install-deps.sh build demo test bench
	@cargo build --release --locked
	@scripts/bench.sh '$(CORPUS)' $(ONLY)

lint:
	@scripts/install-deps.sh build lint
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --release --locked --no-deps

# Apart from `lint`: the feature makes cargo compile other dependencies.
lint-otlp:
	@scripts/install-deps.sh build lint
	cargo clippy --release --locked --features otlp -- -D warnings

build:
	@scripts/install-deps.sh build
	@cargo build --release --locked
