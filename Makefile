# Everything starts here: `make demo` or `make test` on a machine with git, make and Python does the whole set-up.
PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# On Linux the default wheel of torch brings gigabytes of CUDA. Without an NVIDIA GPU the CPU build is taken, from
# PyTorch's public CPU index when it answers within five seconds, otherwise whatever the configured index gives.
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: demo test test-slow test-all check bench oracles mutants gold trl soak clean
demo: .venv/ready
	.venv/bin/palate demo --run runs/kitchen

# In two processes, each on its part of the cores (tests/tests_cores.py); whichever has nothing left takes from the other.
# Three on two cores take longer: each makes for itself what its tests share.
PYTEST := .venv/bin/python -m pytest --numprocesses 2 --dist worksteal
test: .venv/ready
	$(PYTEST) -m "not slow and not soak"

test-slow: .venv/ready
	$(PYTEST) -m "slow and not soak"

# Both at once, which is quicker: nobody waits for the end of the first.
test-all: .venv/ready
	$(PYTEST) -m "not soak"

check: .venv/ready
	.venv/bin/ruff format --check palate tests
	.venv/bin/ruff check palate tests
	.venv/bin/mypy

# Minutes to an hour, alone on the machine (docs/performance.md): make bench, or make bench TEXT=input.txt (tiny Shakespeare).
BENCH := -m palate.cli bench
bench: .venv-trl/ready
	for name in train generate cost; do .venv/bin/python $(BENCH) $$name --json benchmarks/$$name.json || exit 1; done
	for name in ppo reward; do .venv-trl/bin/python $(BENCH) $$name --json benchmarks/$$name.json || exit 1; done
	if [ -n "$(TEXT)" ]; then .venv/bin/python $(BENCH) shakespeare $(TEXT) --json benchmarks/shakespeare.json; fi
	.venv/bin/python $(BENCH) docs

# Tiny Shakespeare against nanoGPT, minutes long: make oracles TEXT=input.txt (docs/pretrain.md).
oracles: .venv/ready
	.venv/bin/python tests/oracles/tiny_shakespeare.py $(TEXT)

# TRL's objectives beside ours (docs/objectives.md). Its environment reads the packages of .venv and adds TRL to them.
trl: .venv-trl/ready
	TRL_EXPERIMENTAL_SILENCE=1 .venv-trl/bin/python tests/oracles/trl_agrees.py

# Gold attacked and the panel's noise measured on finished kitchen runs: make gold RUNS=runs/kitchen (docs/gold.md).
gold: .venv/ready
	.venv/bin/python tests/soak/attacks.py $(RUNS)
	.venv/bin/python tests/soak/ceiling.py $(RUNS)

# Deliberate faults, each of which a named test must notice (docs/mutants.md).
mutants: .venv/ready
	.venv/bin/python tests/mutants/hunt.py

# kill -9 and full disks at every stage (docs/reliability.md), the second needs root and is skipped without; thirty
# people at one studio that is killed (docs/studio.md); and the tests of several processes and of compiled blocks that
# are too long for every change.
soak: .venv/ready
	.venv/bin/python tests/soak/kills.py
	.venv/bin/python tests/soak/disk.py
	.venv/bin/python tests/soak/studio.py
	.venv/bin/python -m pytest -m soak

# Never touches feedback.sqlite: people's work outlives runs.
clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache runs/*/

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Palate needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	@index=""; if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && \
	  .venv/bin/python -c 'import urllib.request as u; u.urlopen("$(TORCH_CPU)/torch/", timeout=5)' 2>/dev/null; \
	  then index="--index-url $(TORCH_CPU) --extra-index-url https://pypi.org/simple"; fi; \
	  .venv/bin/pip install -q $$index -c constraints.txt torch
	.venv/bin/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

.venv-trl/ready: .venv/ready
	.venv/bin/python -m venv .venv-trl
	@echo "import site; site.addsitedir('$$(.venv/bin/python -c 'import site; print(site.getsitepackages()[0])')')" \
	  > "$$(.venv-trl/bin/python -c 'import site; print(site.getsitepackages()[0])')/palate_environment.pth"
	.venv-trl/bin/pip install -q -c constraints.txt trl==1.9.2 requests  # which TRL imports but does not name
	@touch $@
