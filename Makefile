# `make book` and `make test` need nothing but this folder and Python 3.11 or newer.
PROFILE ?= standard
VENV    ?= .venv
BIN     := $(VENV)/bin
# Where pyenv manages Pythons, python3.13 runs only while that version is selected: select them all.
export PYENV_VERSION := $(or $(PYENV_VERSION),$(shell pyenv versions --bare 2>/dev/null | sort -rV | paste -sd:))
RUN     := PYENV_VERSION=$(PYENV_VERSION)
# The Python that the environment has, else the first one that is new enough.
PYTHON  ?= $(shell for p in $(BIN)/python python3.11 python3.12 python3.13 python3 python; do \
             $(RUN) $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VERSION := $(shell $(RUN) "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# Two sets of versions are tested: the last ones that Python 3.11 can have, and the newest.
CONSTRAINTS := constraints$(if $(filter 3.11,$(VERSION)),,-newest).txt
PIP     := $(BIN)/python -m pip --disable-pip-version-check
STAMP   := $(VENV)/.installed-$(VERSION)
EXTRAS  := atlas,book,peers,search,test,velocity
COURSE  := $(VENV)-course

.DEFAULT_GOAL := help
.PHONY: help install book results notebooks pdf slides assignments links lint test test-all bench constraints clean

help:          ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv with the package and everything the book and the tests need

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "SplicedVAE needs Python 3.11 or newer; $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1)." >&2; \
	  echo "Install one, or name one: make book PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $$("$(PYTHON)" --version)"; "$(PYTHON)" -m venv $(VENV); }
	@$(BIN)/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' || { \
	  echo "$(VENV) holds $$($(BIN)/python --version), and $(PYTHON) is Python $(VERSION)." >&2; \
	  echo "Keep both: add VENV=.venv-$(VERSION)" >&2; exit 1; }
	@echo "Installing PyTorch, then the other packages (a few minutes the first time)"
	@# PyTorch first: with it in place, no other package can pull in a second build of it.
	@$(PIP) install --quiet --no-compile --constraint $(CONSTRAINTS) torch
	@$(PIP) install --quiet --no-compile --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@# pip would compile the modules one by one; a few hold syntax of other Pythons.
	@$(BIN)/python -m compileall -qq -j 0 $$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])') || true
	@touch $@

book: $(STAMP) ## fit, execute the chapters, build the book (PROFILE=smoke|standard|full)
	@$(BIN)/python book/tools/build.py book --profile $(PROFILE)

results: $(STAMP) ## only the fits that the chapters share
	@$(BIN)/python book/tools/build.py results --profile $(PROFILE)

notebooks: $(STAMP) ## write book/*.ipynb anew from book/*.py
	@$(BIN)/python book/tools/build.py notebooks

pdf: $(STAMP) ## print the book that was built as one PDF (needs Chromium or Chrome)
	@$(BIN)/python book/tools/pdf.py

slides: $(STAMP) ## slides of the chapters of the book that was built
	@$(BIN)/python book/tools/slides.py

# otter-grader can't be installed beside cellrank: its environment is laid over the other one.
$(COURSE)/.installed: $(STAMP) requirements-course.txt
	@$(BIN)/python -m venv --without-pip $(COURSE)
	@$(BIN)/python -c 'import site; print("import site; site.addsitedir(%r)" % site.getsitepackages()[0])' \
	  > $$($(COURSE)/bin/python -c 'import site; print(site.getsitepackages()[0])')/below.pth
	@$(PIP) --python $(COURSE) install --quiet --no-deps --requirement requirements-course.txt
	@touch $@

assignments: $(COURSE)/.installed ## write the course's assignments and check their grading
	@$(COURSE)/bin/python book/tools/course.py

links: $(STAMP) ## ask for every external link of the book that was built
	@$(BIN)/jupyter-book build _build/executed --path-output . --builder linkcheck

lint: $(STAMP) ## check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

test: $(STAMP) ## run the tests of the package and of the chapters' code
	@$(BIN)/python -m pytest -n logical --dist loadfile --durations 20 -m "not publishing"

test-all: test ## then those of the pages, the course, Colab and crashes
	@$(BIN)/python -m pytest -n logical --dist loadfile --durations 20 -m publishing

bench: $(STAMP) ## measure speed and memory, as a table
	@$(BIN)/python benchmarks/run.py

constraints:   ## resolve the newest versions anew, for the PYTHON that is named (3.11 or 3.13)
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf $$tmp' EXIT; "$(PYTHON)" -m venv $$tmp; \
	sed -n 's/^#: *\([^ ]*\).*/\1/p' $(CONSTRAINTS) > $$tmp/caps; \
	for what in torch '.[$(EXTRAS)]'; do \
	  $$tmp/bin/python -m pip install --quiet --constraint $$tmp/caps "$$what"; done; \
	{ grep '^#' $(CONSTRAINTS); \
	  $$tmp/bin/python -m pip freeze --exclude splicedvae | sed 's/+cpu$$//' | \
	  grep -vE '^(nvidia|cuda|triton)'; } > $$tmp/new; \
	cp $$tmp/new $(CONSTRAINTS)

clean:         ## remove everything that was built, but not the environment
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis dist
