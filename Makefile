# Every target sets itself up. The first two are all that a new user needs.
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet -c constraints.txt
PYTHON ?= python3
SEED ?= 0
PRESET ?= two_rooms
RUN ?= runs/$(PRESET)__seed$(SEED)

.PHONY: help run test test-slow lint docs bench install clean

help:
	@echo "make run        train $(PRESET), evaluate it, show what it imagines, make a report"
	@echo "make test       the tests (minutes)"
	@echo "make test-slow  learning results, with seeds and intervals (hours)"
	@echo "make lint       ruff, codespell and pyright"
	@echo "make docs       the documentation as a site: site/index.html"
	@echo "make bench      one JSON line per measurement"
	@echo "make install    $(VENV) with all that the others need"

# torch first: any other order may let pip fetch a second, much larger build.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) -e '.[docs]'
	touch $@

install: $(VENV)/installed

run: install
	$(PY) run_agent.py train $(PRESET) --seed $(SEED) --out $(RUN)
	$(PY) run_agent.py evaluate $(RUN)
	$(PY) run_agent.py imagine $(RUN)
	$(PY) run_agent.py report $(RUN)
	@echo; echo "in a browser: $(RUN)/report.html   pictures: $(RUN)/imagination/   curves: $(VENV)/bin/tensorboard --logdir $(RUN)"

test: install
	AMI_CHECK_SHAPES=1 $(PY) -m pytest -m 'not slow' -n 2 --dist loadfile --durations 15 --cov --cov-fail-under 95

test-slow: install
	$(PY) -m pytest -m slow --timeout 14400

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/codespell
	$(VENV)/bin/pyright

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --clean
	@echo "in a browser: site/index.html"

bench: install
	$(PY) -m benchmarks.bench

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .coverage site *.egg-info
