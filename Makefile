# make demo: install, export, answer three spoken questions.  make test: install and run every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := $(wildcard $(shell git ls-files --cached --others --exclude-standard 2>/dev/null -- '*.py' '*.pyi' '*.cpp' '*.hpp' '*.txt' '*.cmake' '*.in' pyproject.toml | grep -v '^tests/'))

.PHONY: demo test lint clean

demo: out/demo/bundle/manifest.json
	@for question in docs/questions/*.wav; do \
		name=$$(basename "$$question" .wav); \
		printf '\n> %s\n' "$$(echo $$name | tr - ' ')"; \
		$(BIN)/facrt run out/demo/bundle "$$question" --out "out/demo/$$name.wav" --max-steps 60 || exit; \
		cp "out/demo/$$name.wav" out/demo/answer.wav; \
	done
	@printf '\nThe answers are in out/demo/, the last one also as answer.wav\n'

out/demo/bundle/manifest.json: $(VENV)/.export
	$(BIN)/facrt export nano --out out/demo/bundle

test: $(VENV)/.test
	$(BIN)/cmake -S . -B build/tests -G Ninja -DCMAKE_MAKE_PROGRAM="$(CURDIR)/$(BIN)/ninja" -DFACRT_BUILD_TESTS=ON
	$(BIN)/cmake --build build/tests
	$(BIN)/ctest --test-dir build/tests --output-on-failure
	$(BIN)/python -m pytest

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
	$(PIP) install -q -c constraints.txt '.[export,test]'
	@touch $(VENV)/.export $@

$(VENV)/.dev: $(BIN)/python constraints.txt $(SOURCES)
	$(PIP) install -q -c constraints.txt '.[export,test,dev]'
	@touch $(VENV)/.export $(VENV)/.test $@
