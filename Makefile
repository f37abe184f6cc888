# Two commands do everything on a Debian machine that has Rust, git and make: `make run` and `make test`.
SHELL := /bin/bash
DATA ?= $(CURDIR)/.demo
PORT ?= 7878
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: run stop demo test unit setup build bench openapi fuzz power-cuts faults oracle package clean

## run: install what is needed, build, start a server on a loop-image pool, show the story, leave the server up
run: setup build
	$(SUDO) DATA="$(DATA)" PORT="$(PORT)" scripts/demo.sh

## stop: end that server and take its pool down; nothing is deleted
stop:
	$(SUDO) DATA="$(DATA)" scripts/demo.sh stop

## test: every test, those that need root, BTRFS and a container runtime included
test: setup
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" scripts/test.sh

build:
	cargo build --release --locked

## bench: the figures of README.md (needs root; about ten minutes)
bench: setup
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" cargo bench --locked

## openapi: write docs/openapi.json and docs/errors.md anew
openapi:
	UPDATE_OPENAPI=1 cargo test --locked -p hoody-state-http --test http document

## fuzz: every fuzz target, ten minutes in all
fuzz: setup
	scripts/fuzz.sh 600

## power-cuts: whole servers in guests, their power cut at CUTS random instants under load
CUTS ?= 200
power-cuts: setup
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" CUTS=$(CUTS) cargo test --locked --test guests power_cuts -- --nocapture

## faults: errors of the disk at every step, a lack of descriptors, and signals to the server and the daemon of databases at FAULTS random instants
FAULTS ?= 100
faults: setup
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" HOODY_FAULTS=$(FAULTS) cargo test --locked --test faults -- --nocapture

## oracle: PAIRS random pairs of trees are compared, and each difference is applied to the old tree (ten minutes)
PAIRS ?= 1000
oracle: setup
	$(SUDO) env "PATH=$$PATH" "HOME=$$HOME" HOODY_PAIRS=$(PAIRS) cargo test --locked -p hoody-state --lib the_difference_applied -- --nocapture

## package: pack the three crates as for crates.io and build each from its package (ten minutes); nothing is uploaded
package: setup
	cargo publish --dry-run --workspace --locked

setup:
	@SUDO="$(SUDO)" scripts/setup.sh

clean: stop
	rm -rf "$(DATA)"
