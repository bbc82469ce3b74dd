# make demo    install everything, and paint a photo
# make test    install everything, and run the tests
# make slow    run the tests that take long, which `make test` leaves out
# make docs    install everything, and build the documentation in site/; warnings are errors
# make wheel   build a wheel in dist/, install it in a fresh environment, and try it
# make processors    run the tests of numbers with the instructions of older processors
# make fuzz          run 12,000 damaged pictures, networks, states and arguments
# make fuzz-hour     run damaged inputs for an hour
# make oldest        run tests with the oldest versions of packages that pyproject.toml allows
# make newest        run the tests of pictures with the newest Pillow
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs

# tests of numbers that come from convolutions, sums and Fourier transforms
NUMERIC := $(addprefix tests/test_,$(addsuffix .py,distances folding functional inference kernels lbfgs loss_networks losses metrics networks objectives optimize optimize_targets))
OLDEST := .venv-oldest
UV := VIRTUAL_ENV=$(OLDEST) $(BIN)/uv pip install --quiet --index-strategy unsafe-best-match \
	$(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) $(if $(PIP_EXTRA_INDEX_URL),--extra-index-url $(PIP_EXTRA_INDEX_URL))

.PHONY: demo test slow docs wheel lint processors fuzz fuzz-hour oldest newest clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py

# Two processes with one thread each: the threads of one process wait for each other most of the time. The tests in a
# browser come alone, because their pages must answer in time.
BROWSER := $(wildcard tests/test_studio*.py) tests/test_export_web.py
test: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile $(addprefix --ignore=,$(BROWSER))
	$(BIN)/python -m pytest -q -m "not slow" $(BROWSER)

slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n 2 --dist loadfile $(addprefix --ignore=,$(BROWSER))
	$(BIN)/python -m pytest -q -m slow $(BROWSER)

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python tools/check_wheel.py dist/*.whl

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

# Old versions warn about things that newer ones changed, so warnings are not errors here. The oldest torch is the pinned one.
oldest: $(STAMP)
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(UV) --constraint constraints.txt torch
	$(UV) --resolution lowest-direct torch==$$($(OLDEST)/bin/python -c "import torch; print(torch.__version__)") --editable '.[dev]'
	$(OLDEST)/bin/python -m pytest -q --override-ini filterwarnings=default $(wildcard tests/test_images*.py tests/test_video*.py) $(NUMERIC)

# Gradio needs Pillow 12, so that is what the tests have. Without the studio users get the newest.
newest: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/newest 'pillow>=13'
	PYTHONPATH=$(VENV)/newest $(BIN)/python -m pytest -q $(wildcard tests/test_images*.py) tests/test_damaged_files.py

# The constraints pin every version. torch comes first: the newest one would install gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard src/perceptual/fast/*.c) src/perceptual/fast/build.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $(DOCS)

clean:
	rm -rf $(VENV) $(OLDEST) demo dist site
