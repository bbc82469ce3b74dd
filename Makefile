# make demo    set everything up, and paint a photograph
# make test    set everything up, and run the tests
# make processors    the tests of numbers as processors with fewer instructions run them
# make fuzz          10,000 damaged pictures, networks, states and arguments; make fuzz-hour    more of them, for an hour
# make oldest        the tests with the oldest versions of packages that pyproject.toml allows
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# tests whose numbers come out of convolutions, sums and Fourier transforms
NUMERIC := $(addprefix tests/test_,$(addsuffix .py,folding functional inference kernels lbfgs loss_networks losses metrics networks optimize))
OLDEST := .venv-oldest
UV := VIRTUAL_ENV=$(OLDEST) $(BIN)/uv pip install --quiet --index-strategy unsafe-best-match \
	$(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) $(if $(PIP_EXTRA_INDEX_URL),--extra-index-url $(PIP_EXTRA_INDEX_URL))

.PHONY: demo test lint processors fuzz fuzz-hour oldest clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP) lint
	$(BIN)/python -m pytest -q

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# PyTorch and oneDNN choose their instructions by these variables.
processors: $(STAMP)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(NUMERIC)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=4 $(BIN)/python -m pytest -q $(NUMERIC)

fuzz: $(STAMP)
	PERCEPTUAL_FUZZ=2000 $(BIN)/python -m pytest -q tests/fuzz

fuzz-hour: $(STAMP)
	PERCEPTUAL_FUZZ=3600s $(BIN)/python -m pytest -q -rP tests/fuzz

# Old versions warn of what newer ones changed, so warnings are no errors here. The oldest torch is the pinned one.
oldest: $(STAMP)
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(UV) --constraint constraints.txt torch
	$(UV) --resolution lowest-direct torch==$$($(OLDEST)/bin/python -c "import torch; print(torch.__version__)") --editable '.[dev]'
	$(OLDEST)/bin/python -m pytest -q --override-ini filterwarnings=default tests/test_images.py $(wildcard tests/test_video*.py) $(NUMERIC)

# The constraints pin every version, and torch first of all: the newest one would bring gigabytes of CUDA along.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(OLDEST) demo
