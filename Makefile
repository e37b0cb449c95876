# `make book` and `make test` need nothing but this folder and Python 3.11 or newer.
PROFILE ?= standard
PYTHON  ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
             $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV    ?= .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check
STAMP   := $(VENV)/.installed
EXTRAS  := atlas,book,search,test,velocity
COURSE  := $(VENV)-course

.DEFAULT_GOAL := help
.PHONY: help install book results notebooks pdf assignments links lint test constraints clean

help:          ## list the targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv with the package and everything the book and the tests need

$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "SplicedVAE needs Python 3.11 or newer; $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1)." >&2; \
	  echo "Install one, or name one: make book PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $$("$(PYTHON)" --version)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "Installing PyTorch, then the other packages (a few minutes the first time)"
	@# PyTorch first: with it in place, no other package can pull in a second build of it.
	@$(PIP) install --quiet --constraint constraints.txt torch
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

book: $(STAMP) ## fit, execute the chapters, build the book (PROFILE=smoke|standard|full)
	@$(BIN)/python book/build.py book --profile $(PROFILE)

results: $(STAMP) ## only the fits that the chapters share
	@$(BIN)/python book/build.py results --profile $(PROFILE)

notebooks: $(STAMP) ## write book/*.ipynb anew from book/*.py
	@$(BIN)/python book/build.py notebooks

pdf: $(STAMP) ## print the book that was built as one PDF (needs Chromium or Chrome)
	@$(BIN)/python book/pdf.py

# otter-grader can't be installed beside cellrank: its environment is laid over the other one.
$(COURSE)/.installed: $(STAMP) requirements-course.txt
	@$(BIN)/python -m venv --without-pip $(COURSE)
	@$(BIN)/python -c 'import site; print("import site; site.addsitedir(%r)" % site.getsitepackages()[0])' \
	  > $$($(COURSE)/bin/python -c 'import site; print(site.getsitepackages()[0])')/below.pth
	@$(PIP) --python $(COURSE) install --quiet --no-deps --requirement requirements-course.txt
	@touch $@

assignments: $(COURSE)/.installed ## write the course's assignments and check their grading
	@$(COURSE)/bin/python book/course.py

links: $(STAMP) ## ask for every external link of the book that was built
	@$(BIN)/jupyter-book build _build/executed --path-output . --builder linkcheck

lint: $(STAMP) ## check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

test: $(STAMP) ## run every test, the slow ones too
	@$(BIN)/python -m pytest -n logical --dist loadfile --durations 20

constraints:   ## resolve the newest versions anew into constraints.txt (with the oldest Python)
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf $$tmp' EXIT; "$(PYTHON)" -m venv $$tmp; \
	sed -n 's/^#: *\([^ ]*\).*/\1/p' constraints.txt > $$tmp/caps; \
	for what in torch '.[$(EXTRAS)]'; do \
	  $$tmp/bin/python -m pip install --quiet --constraint $$tmp/caps "$$what"; done; \
	{ grep -E '^#|;' constraints.txt; \
	  $$tmp/bin/python -m pip freeze --exclude splicedvae | sed 's/+cpu$$//'; } > $$tmp/new; \
	cp $$tmp/new constraints.txt

clean:         ## remove everything that was built, but not the environment
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis dist
