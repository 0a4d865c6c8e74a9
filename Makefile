# make demo · make test · make check: each sets up what it needs in .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# Two cores are assumed; set OMP_NUM_THREADS for more.
export OMP_NUM_THREADS ?= 2
# Threads that wait for each other sleep instead of spinning: on shared cores that is many times faster.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-base test-slow fuzz check rehearse install clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, then the main job on drawn surfaces: fine-tune, export, verify, bench, report"
	@echo "make test    set up, then the tests"
	@echo "make fuzz    set up, then 20 minutes of spoilt images, documents, model files, weights and folders"
	@echo "make test-base  set up, then every verb with only the wheel installed, at tested and at the least versions"
	@echo "make check   set up, then formatting, lint, types, import directions, wheel contents"
	@echo "make rehearse  set up, then one small bundle on an emulated Raspberry Pi 5 and an old x86-64; says so where that cannot be set up"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "== Setting up $(VENV): about 6 GB with PyTorch's CUDA build; 2 to 10 minutes, by the network"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	@echo "== Demo: 1,200 drawn surfaces, embedded backbone, target desktop-cpu; 4 to 11 minutes on 2 cores, offline"
	@test -d demo/surfaces || $(BIN)/edgecnn demo-data demo/surfaces
	@$(BIN)/edgecnn run demo/surfaces --model edgecnn_mobilenetv2_035 --minutes 1 --target desktop-cpu --out demo/run; \
	code=$$?; test $$code -ne 2 -a $$code -lt 4 -a -f demo/run/report.html && echo "== Demo done; the verdict's exit code is $$code (0 PASS, 1 FAIL or a variant left out, 3 INCONCLUSIVE)"

test: install
	@echo "== Tests: 8 to 16 minutes on 2 cores"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

# Tests that need nothing but the base install and pytest.
LIGHT := tests/cli/test_narrow.py tests/cli/test_terminal.py tests/bench/test_host.py tests/bench/test_stats.py tests/imaging/test_jpeg.py \
	tests/imaging/test_preparer.py tests/imaging/test_whole.py tests/judge/test_judge.py tests/test_artifact.py tests/test_profiles.py
BASE := $(VENV)-base

test-base: install
	@echo "== The base install: every verb with only the wheel (Python 3.12 and 3.13 too, where they are), then with the least versions; 1 to 4 minutes"
	rm -rf $(BASE)* dist
	$(BIN)/python -m build --wheel --outdir dist . > /dev/null
	$(PYTHON) -m venv $(BASE)
	$(BASE)/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	EDGECNN_BASE=$(abspath $(BASE))/bin/python $(BIN)/python -m pytest tests/test_base_install.py
	@set -e; for version in 3.12 3.13; do \
		found=$$(command -v python$$version >/dev/null && python$$version -c "import ensurepip, sys; print(sys.executable)" 2>/dev/null \
			|| ls $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python 2>/dev/null | tail -1); \
		if [ -z "$$found" ]; then echo "== Python $$version: NOT on this machine, so the base install was not tried with it"; continue; fi; \
		echo "== Python $$version: $$found"; \
		$$found -m venv $(BASE)-$$version; \
		$(BASE)-$$version/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl; \
		EDGECNN_BASE=$(abspath $(BASE))-$$version/bin/python $(BIN)/python -m pytest tests/test_base_install.py -k "works or doctor or alone"; \
		rm -rf $(BASE)-$$version; \
	done
	$(BASE)/bin/python -m pip install --quiet $$($(BIN)/python tests/lower_bounds.py) pytest hypothesis
	EDGECNN_BASE=$(abspath $(BASE))/bin/python $(BIN)/python -m pytest tests/test_base_install.py -k "help or doctor or works"
	$(BASE)/bin/python -m pytest $(LIGHT)
	rm -rf $(BASE)

test-slow: install
	$(BIN)/python -m pytest -m slow

fuzz: install
	@echo "== Fuzzing: 100,000 spoilt inputs, 20 minutes on 2 cores"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz.py

rehearse: install
	@echo "== Rehearsal: one small bundle on an emulated Cortex-A76, and on an x86-64 without AVX2; 2 to 5 minutes, the first time with a download"
	$(BIN)/python -m pytest tests/rehearse -m slow -rs -k "a_bundle_is_rehearsed and (raspberry-pi-5 or older_x86) or lacks or seen_as"

check: install
	@echo "== Checks: about a minute"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist . > /dev/null
	$(BIN)/check-wheel-contents dist/*.whl

clean:
	rm -rf $(VENV) $(BASE)* demo dist
