# Two commands on a fresh machine: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test check lint types layers docs tools clean help

help:            ## this list
	@grep -E '^[a-z]+: .*##|^[a-z]+:  +##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | sort

demo: $(VENV)/ready  ## convert the sample slide
	@mkdir -p demo
	$(BIN)/wsi-ihc convert sample_slides/breast_phantom.tiff -o demo/breast_phantom_ihc.ome.tiff --overwrite
	@echo
	@echo "Open these two side by side in QuPath:"
	@echo "  $(CURDIR)/sample_slides/breast_phantom.tiff"
	@echo "  $(CURDIR)/demo/breast_phantom_ihc.ome.tiff"

test: $(VENV)/ready  ## run the tests
	$(BIN)/pytest

check: lint types layers docs test  ## everything that continuous integration runs

lint: $(VENV)/ready  ## style and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos

types: $(VENV)/ready  ## static types, strict
	$(BIN)/mypy

layers: $(VENV)/ready  ## the layers of docs/design.md
	$(BIN)/lint-imports

docs: $(VENV)/ready  ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

tools:           ## what some tests need beside Python: Java for Bio-Formats
	scripts/install_test_tools.sh

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

clean:           ## remove the environment and everything made here
	rm -rf $(VENV) demo build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
