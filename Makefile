# `make help` lists the targets. Each sets up what it needs; nothing needs to be run before it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Extra arguments for the test runner, such as: make test TESTS=spec
TESTS ?=
# Where `make install` installs.
PREFIX ?= /usr/local
# A built program to install or to package, instead of building one.
PROGRAM ?=
# Where packages go.
PACKAGES ?= target/packages
# The names of the figures to measure; all of them without any, see docs/performance.md.
BENCH ?=
# What is run here does not depend on the configuration of who runs it.
export VMRUN_CONFIG =
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
BUILT_PROGRAM = $(or $(PROGRAM),$(TARGET)/release/vmrun)
# A packager's build says of which commit it is; see build.rs.
BUILT = $(if $(PROGRAM),@true,$(CARGO) build --release --locked --target-dir $(TARGET))
SCRIPTS := .ci/run $(wildcard tests/*/*.sh examples/*.sh examples/slurm/*.sbatch examples/*/*.sh tools/*.sh benches/*.sh python/*.sh)

# What the tests and the demo are told about the guest and about Python with its clients.
GUEST = export VMRUN_TEST_GUEST="$$(tests/guest/build.sh)/guest"
# The guests of other architectures, where their QEMU is installed.
GUESTS = for arch in aarch64 s390x riscv64; do \
	if command -v qemu-system-$$arch > /dev/null; then \
		if folder=$$(tests/guest/build.sh $$arch); then export "VMRUN_TEST_GUEST_$${arch^^}=$$folder/guest"; \
		else echo "test: skipped the guest of $$arch: Debian's archive does not give what it is made of"; fi; \
	fi; \
	done
# The Debian guest, for what needs systemd, sshd or cloud-init.
DEBIAN = export VMRUN_TEST_GUEST_DEBIAN="$$(tests/guest-debian/build.sh)"
# Which preconditions of tests hold here: those that lack one are reported as ignored.
HAVE = export VMRUN_TEST_HAVE="$$(tests/setup/have.sh)"
PYTHON = export VMRUN_TEST_PYTHON="$$(tests/setup/python.sh)" VMRUN_TEST_PYTHON_PACKAGE="$$(tests/setup/python-package.sh)"

# What depends on QEMU: the integration tests, which start the one that is first in PATH.
QEMU_TESTS = --test it

# What has a short form in `make test` and a long one in `make soak`.
LONG = adopt:: attack::good_clients faults::a_qemu_that_stands_still

.PHONY: help demo test test-debian test-qemu test-qemus test-slurm test-wheel wheel python lint reference install uninstall deb rpm static setup setup-all guest guest-debian bench bench-setup fuzz soak clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|'

demo: guest ## build vmrun and watch it change a running VM
	$(CARGO) build --release --locked --target-dir $(TARGET)
	@$(GUEST); export PATH="$(TARGET)/release:$$PATH"; examples/demo.sh

test: guest ## run the whole test suite (TESTS=… passes arguments on)
	@$(GUEST); $(GUESTS); $(PYTHON); $(HAVE); \
	if $(CARGO) nextest --version > /dev/null 2>&1; then \
		echo "$(CARGO) nextest run"; $(CARGO) nextest run --locked --no-tests=pass $(TESTS); \
	else \
		echo "$(CARGO) test"; $(CARGO) test --locked --all-targets $(TESTS); \
	fi
	@$(if $(TESTS),true,$(CARGO) test --locked --doc)

test-debian: guest guest-debian ## the tests that need a Debian guest with systemd, sshd and cloud-init
	@$(GUEST); $(GUESTS); $(DEBIAN); $(PYTHON); $(HAVE); \
	if $(CARGO) nextest --version > /dev/null 2>&1; then \
		$(CARGO) nextest run --locked --no-fail-fast --run-ignored only $(or $(TESTS),--test it -E 'test(/^debian::/)'); \
	else \
		$(CARGO) test --locked --no-fail-fast $(or $(TESTS),--test it -- --ignored debian::); \
	fi

test-qemu: guest ## the tests that start QEMU, with another program: QEMU=…/qemu-system-x86_64 (see tests/setup/qemu.sh)
	@test -x "$(QEMU)" || { echo "test-qemu: QEMU='$(QEMU)' is no program"; exit 2; }
	@echo "with $$($(QEMU) --version | head -n 1)"
	@$(GUEST); $(GUESTS); $(PYTHON); $(HAVE); export PATH="$(abspath $(dir $(QEMU))):$$PATH"; \
	if $(CARGO) nextest --version > /dev/null 2>&1; then \
		$(CARGO) nextest run --locked --no-tests=pass --no-fail-fast $(or $(TESTS),$(QEMU_TESTS)); \
	else \
		$(CARGO) test --locked --no-fail-fast $(or $(TESTS),$(QEMU_TESTS)); \
	fi

test-qemus: ## the same with QEMU 10 and 11, fetched from Debian
	@for suite in trixie sid; do \
		folder=$$(tests/setup/qemu.sh $$suite) || \
			{ echo "test-qemus: skipped the QEMU of $$suite: Debian's archive does not give it"; continue; }; \
		$(MAKE) --no-print-directory test-qemu QEMU="$$folder/qemu-system-x86_64" TESTS="$(TESTS)"; \
	done

reference: ## make docs/reference/ anew, from what --help is made from, and of the Python package what follows from it
	$(CARGO) build --locked --target-dir $(TARGET)
	@vmrun="$(TARGET)/debug/vmrun"; "$$vmrun" manual --markdown --list | while read -r page; do \
		"$$vmrun" manual --markdown "$$page" > "docs/reference/$$page.md"; done
	@python3 -B python/generate

python: ## make the generated parts of the Python package anew, from the protocol and the reference
	@python3 -B python/generate

wheel: ## build the Python wheel with the program, as target/wheels/vmrun-*.whl
	@TARGET=$(TARGET) python/build-wheel.sh

test-slurm: guest ## run examples/slurm on a Slurm of three nodes on this machine (as root)
	@tests/setup/install.sh slurm
	$(CARGO) build --locked --target-dir $(TARGET)
	@$(GUEST); VMRUN="$(TARGET)/debug/vmrun" GUEST="$$VMRUN_TEST_GUEST" tests/slurm/run.sh

test-wheel: guest wheel ## install the wheel into a new environment, and run the Python tests with its program
	@$(GUEST); python/test-wheel.sh $(TARGET)/wheels/vmrun-*.whl

install: ## install the program, man pages, completions, systemd units, examples (PREFIX=/usr/local, DESTDIR=, PROGRAM=a built one)
	$(BUILT)
	@PROGRAM="$(BUILT_PROGRAM)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" examples/packages/install.sh install

uninstall: ## remove exactly what `make install` has installed (PREFIX=/usr/local, DESTDIR=)
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" examples/packages/install.sh uninstall

deb: ## build a Debian package, as target/packages/vmrun_*.deb (PROGRAM=a built one)
	$(BUILT)
	@PROGRAM="$(BUILT_PROGRAM)" examples/packages/deb.sh "$(PACKAGES)"

rpm: ## build an RPM, as target/packages/*/vmrun-*.rpm (PROGRAM=a built one)
	$(BUILT)
	@rpmbuild -bb --quiet --nodeps --build-in-place --define "_rpmdir $(abspath $(PACKAGES))" \
		--define "program $(abspath $(BUILT_PROGRAM))" examples/packages/vmrun.spec
	@ls "$(PACKAGES)"/*/vmrun-*.rpm

static: ## build a program that needs no library of the system, as target/static/vmrun
	@CARGO="$(CARGO)" examples/packages/static.sh "$(TARGET)"

lint: setup ## formatting, clippy, documentation, licences, shell scripts
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --locked --quiet
	@if $(CARGO) deny --version > /dev/null 2>&1; then \
		echo "$(CARGO) deny"; $(CARGO) fetch --locked --quiet; $(CARGO) deny --offline check bans licenses sources; \
	else echo "lint: skipped the dependencies' licences: cargo-deny is not installed"; fi
	@if command -v shellcheck > /dev/null; then \
		echo "shellcheck"; shellcheck $(SCRIPTS); \
		shellcheck --shell=dash --exclude=SC1091 $$(find tests/guest/rootfs -type f); \
	else echo "lint: skipped the shell scripts: shellcheck is not installed"; fi

setup: ## install QEMU and what else is missing
	@tests/setup/install.sh

setup-all: setup ## install also the QEMUs of other architectures, whose tests `make test` then runs
	@tests/setup/install.sh aarch64 s390x riscv64

guest: setup ## build the small Linux guest of the tests as target/guest
	@folder=$$(tests/guest/build.sh); mkdir -p target; ln -sfn "$$folder" target/guest

guest-debian: ## build the Debian guest of the tests as target/guest-debian
	@tests/setup/install.sh debian
	@folder=$$(tests/guest-debian/build.sh); mkdir -p target; ln -sfn "$$folder" target/guest-debian

bench-setup: guest ## install what the benchmarks compare with: libvirt
	@benches/setup.sh

bench: bench-setup ## measure vmrun beside QEMU, libvirt and linuxkit's command line (BENCH="ctl boot" measures only these)
	@$(GUEST); $(CARGO) bench --locked --bench peers -- $(BENCH)

fuzz: setup ## run each parser's fuzzer for SECONDS=60, two at a time (JOBS=2)
	@TARGET=$(TARGET) tests/fuzz/run.sh $(or $(SECONDS),60) $(or $(JOBS),2)

soak: guest ## lives and deaths of VMs at random, for SECONDS=3600, from SEED=… or one that is printed; then the long tests
	@$(GUEST); $(PYTHON); export VMRUN_SOAK_SECONDS=$(or $(SECONDS),3600) $(if $(SEED),VMRUN_SEED=$(SEED)); \
	$(CARGO) test --locked --release --test it -- soak:: --nocapture
	@$(GUEST); $(PYTHON); export VMRUN_SOAK=1; \
	$(CARGO) test --locked --release --test it -- $(LONG) --include-ignored --nocapture --test-threads=1

clean: ## remove what was built; the guest's cache stays
	$(CARGO) clean
