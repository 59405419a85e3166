# make setup  only make the environment, .venv
# make test   lint, the docs, and the tests of a few minutes
# make coverage   the same tests, and which lines they run; writes output/coverage/index.html
# make test-main DETECTRON2=/path   the same tests with another Detectron2: a folder that holds the
#             built package `detectron2`, as a clone of its main branch does after an in-place build
# make docs   build the site, docs/_build/html; warnings are errors
# make demo   train the baseline and the balanced detector; writes output/demo/report.html
# The first call sets up .venv from PyPI (about 5 GB, most of it torch); later calls are quick.

# Processes that run the tests; each takes a core and up to 2 GB.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SUITABLE := -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	if $$python $(SUITABLE) 2> /dev/null; then echo $$python; break; fi; done)

.PHONY: setup test test-slow test-main coverage demo docs lint clean distclean

setup: $(VENV)/ready

test: lint docs
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist load

# What installs v0.6 is not about the main branch.
test-main: $(VENV)/ready
	@test -f "$(DETECTRON2)/detectron2/__init__.py" || { echo "make test-main: give" \
		"DETECTRON2=/path, a folder with the package detectron2 in it" >&2; exit 1; }
	PYTHONPATH="$(abspath $(DETECTRON2))" $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) \
		--dist loadfile --ignore tests/test_install.py

coverage: $(VENV)/ready
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile \
		--cov=iou_balanced --cov-report=term:skip-covered --cov-report=html:output/coverage

demo: $(VENV)/ready
	$(BIN)/python tools/demo.py

# From nothing (-E): what is kept of a build with warnings would not warn again.
docs: $(VENV)/ready
	$(BIN)/python -m sphinx -q -E -n -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A pip that was killed can leave a package that looks installed and is not: so the file `incomplete`
# stands in .venv for as long as a set-up runs, and a set-up that finds one starts from nothing.
$(VENV)/ready: setup.py constraints.txt tools/install_detectron2.py tools/detectron2_mends.py
	@if test -e $(VENV)/incomplete; then rm -rf $(VENV); fi
	@if ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
		if ! $(or $(PYTHON),false) $(SUITABLE) 2> /dev/null; then \
			echo "make: needs Python 3.10 to 3.12 with venv: install one, or say which with" \
				"make PYTHON=/path/to/python3" >&2; exit 1; fi; \
		mkdir -p $(VENV) && touch $(VENV)/incomplete && $(PYTHON) -m venv $(VENV); fi
	@touch $(VENV)/incomplete
	@echo "Setting up $(VENV) (once; torch is large)"
	@$(PIP) install --quiet -c constraints.txt torch torchvision -e '.[dev,demo,docs]'
	@$(BIN)/python tools/install_detectron2.py --constraint constraints.txt
	@$(BIN)/python -m iou_balanced.doctor
	@rm $(VENV)/incomplete && touch $@

clean:
	rm -rf build dist docs/_build projects/*.egg-info .pytest_cache .ruff_cache
	find configs docs projects tests tools -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
