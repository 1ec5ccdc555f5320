# make demo: install, export, answer three spoken questions.  make test: install and run every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := $(wildcard $(shell git ls-files --cached --others --exclude-standard 2>/dev/null -- '*.py' '*.pyi' '*.cpp' '*.hpp' '*.c' '*.h' '*.map' '*.txt' '*.cmake' '*.in' pyproject.toml | grep -v '^tests/'))

.PHONY: demo test test-cpp test-aarch64 sanitize wheel-aarch64 emulate-aarch64 lint clean

demo: out/demo/bundle/manifest.json
	@for name in when-does-the-library-open-on-monday what-is-seven-plus-eight turn-on-the-kitchen-lamp; do \
		printf '\n> %s (spoken)\n' "$$(echo "$$name" | tr - ' ')"; \
		$(BIN)/facrt run out/demo/bundle "docs/questions/$$name.wav" --out "out/demo/$$name.wav" --max-steps 80 || exit; \
		cp "out/demo/$$name.wav" out/demo/answer.wav; \
	done
	@printf '\nThe answers are in out/demo/, the last one also as answer.wav\n'

out/demo/bundle/manifest.json: $(VENV)/.export
	$(BIN)/facrt export nano --precision int8 --out out/demo/bundle

test: test-cpp test-aarch64
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

CONFIGURE := $(BIN)/cmake -S . -G Ninja -DCMAKE_MAKE_PROGRAM="$(CURDIR)/$(BIN)/ninja" -DFACRT_BUILD_TESTS=ON

test-cpp: $(VENV)/.test
	$(CONFIGURE) -B build/tests
	$(BIN)/cmake --build build/tests
	$(BIN)/ctest --test-dir build/tests --output-on-failure

# the C++ tests on aarch64, cross-compiled and emulated
test-aarch64: $(VENV)/.test
	@if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; then \
		set -ex; \
		$(CONFIGURE) -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE="$(CURDIR)/cpp_ext/cmake/aarch64-linux-gnu.cmake"; \
		$(BIN)/cmake --build build/aarch64; \
		$(BIN)/ctest --test-dir build/aarch64 --output-on-failure --parallel 2; \
	else \
		echo "aarch64 is not tested: apt-get install g++-aarch64-linux-gnu qemu-user brings the compiler and the emulator"; \
	fi

# the C++ tests under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer
sanitize: $(VENV)/.test
	@set -ex; for kind in address,undefined thread; do \
		$(CONFIGURE) -B build/$$kind -DCMAKE_BUILD_TYPE=RelWithDebInfo \
			-DCMAKE_CXX_FLAGS="-fsanitize=$$kind -fno-sanitize-recover=all"; \
		$(BIN)/cmake --build build/$$kind; \
		$(BIN)/ctest --test-dir build/$$kind --output-on-failure; \
	done

# wheels for JetPack 6 (Python 3.10) and 7 (3.12), cross-compiled and checked: docs/JETSON.md
WHEEL_PYTHONS ?= $(PYTHON)
wheel-aarch64:
	$(PYTHON) deploy/wheel_aarch64.py --out dist --python $(WHEEL_PYTHONS)

# the wheel itself, under an emulated Python on Debian: a spoken question, the same ids as here
emulate-aarch64: out/demo/bundle/manifest.json
	$(PYTHON) deploy/emulate_aarch64.py --bundle out/demo/bundle --question docs/questions/turn-on-the-kitchen-lamp.wav

lint: $(VENV)/.dev
	$(BIN)/pre-commit run --all-files

clean:
	rm -rf $(VENV) build out

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade pip

# each level installs the package as a wheel, so that a file missing from the wheel is noticed
$(VENV)/.export: $(BIN)/python constraints.txt $(SOURCES)
	$(PIP) install -q -c constraints.txt '.[export]'
	@touch $@

$(VENV)/.test: $(BIN)/python constraints.txt $(SOURCES)
	$(PIP) install -q -c constraints.txt '.[export,test,judge,rtx]'
	@touch $(VENV)/.export $@

$(VENV)/.dev: $(BIN)/python constraints.txt $(SOURCES)
	$(PIP) install -q -c constraints.txt '.[export,test,judge,rtx,dev]'
	@touch $(VENV)/.export $(VENV)/.test $@
