# The commands of the README: `make demo`, `make test`, `make dist`. All set up what they need, and
# nothing is compiled: every package comes as a wheel.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CACHE ?= .cache
STAMP := $(VENV)/.installed
# A process for each core, each of which takes a gigabyte. A file's tests stay together, for they
# share what the first of them made.
PARALLEL ?= -n auto --maxprocesses 8 --dist loadscope
RUNS ?= 10
RELEASE := .venv-release
AUDIT := .venv-audit
PEERS := .venv-peers
PEERS_OPENVINO := $(PEERS)-openvino
PEERS_AUTOROUND := $(PEERS)-autoround
EXECUTIONS ?= 10000000
# Where it is set, each of the hundreds of processes that tests start would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long test-under-load fuzz fuzz-guided lint types dist speed accuracy \
  calibration peers sbom audit clean

demo: $(STAMP)
	rm -rf demo-output
	$(BIN)/phiquant demo -o demo-output

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not long"

# Everything, and properties on examples that are new each time.
test-long: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) --hypothesis-profile=new-examples

# The tests ten times in new orders, on two cores beside four busy loops: two hours.
test-under-load: $(STAMP)
	$(BIN)/python tests/under_load.py --runs $(RUNS)

# Ten million files by other hands, as mutations of sound ones, on all cores: an hour or more.
fuzz: $(STAMP)
	$(BIN)/python tests/fuzzing/fuzz.py --executions $(EXECUTIONS) \
	  --record benchmarks/results/fuzzing.md

# Fuzzing that coverage leads, against as much that it does not: twenty minutes a parser. Atheris
# comes as a wheel for Linux on x86-64.
fuzz-guided: $(STAMP)
	$(BIN)/python -m pip install --quiet atheris==3.0.0
	$(BIN)/python tests/fuzzing/guided.py --seconds 600 --record benchmarks/results/fuzzing-guided.md

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

# The same bytes from the same commit: files carry its time.
dist: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1580601600)
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

# What an installation with every extra consists of, as CycloneDX: the same bytes each time.
sbom: $(RELEASE)/.installed
	mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --of JSON --output-file dist/phiquant.cdx.json $(RELEASE)/bin/python

# Whether any of it has a known vulnerability; ends with an error too where that cannot be learnt.
audit: $(RELEASE)/.installed
	$(AUDIT)/bin/pip-audit --strict --path "$$($(RELEASE)/bin/python -c \
	  'import sysconfig; print(sysconfig.get_path("purelib"))')"

# The tools that phiquant is measured against, in an environment of their own.
peers: $(PEERS)/.installed $(PEERS_OPENVINO)/.installed $(PEERS_AUTOROUND)/.installed

speed: $(STAMP) $(PEERS)/.installed $(PEERS_OPENVINO)/.installed
	$(BIN)/python benchmarks/speed.py --peers $(PEERS)/bin/python

accuracy: $(STAMP) peers
	$(BIN)/python benchmarks/accuracy.py --peers $(PEERS)/bin/python

calibration: $(STAMP) $(PEERS)/.installed
	$(BIN)/python benchmarks/calibration.py --peers $(PEERS)/bin/python

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('phiquant needs Python 3.11 or newer') if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --only-binary :all: --constraint constraints.txt \
	  --editable ".[all]" --group dev
	touch $@

# Without phiquant itself, which no one has reported anything of to a package index.
$(RELEASE)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet cyclonedx-bom==7.5.0 pip-audit==2.10.1
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --only-binary :all: --constraint constraints.txt \
	  ".[all]"
	$(RELEASE)/bin/python -m pip uninstall --quiet --yes phiquant
	touch $@

$(PEERS)/.installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/peers/requirements.txt
	touch $@

$(PEERS_OPENVINO)/.installed: benchmarks/peers/requirements-openvino.txt
	$(PYTHON) -m venv $(PEERS_OPENVINO)
	$(PEERS_OPENVINO)/bin/python -m pip install --quiet --requirement $<
	touch $@

$(PEERS_AUTOROUND)/.installed: benchmarks/peers/requirements-autoround.txt
	$(PYTHON) -m venv $(PEERS_AUTOROUND)
	$(PEERS_AUTOROUND)/bin/python -m pip install --quiet --requirement $<
	touch $@

clean:
	rm -rf dist $(VENV) $(RELEASE) $(AUDIT) $(PEERS) $(PEERS_OPENVINO) $(PEERS_AUTOROUND) $(CACHE) demo-output
