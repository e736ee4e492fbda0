# The two commands of the README: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CACHE ?= .cache
STAMP := $(VENV)/.installed
# A process for each core, each of which takes a gigabyte; they take tests from each other.
PARALLEL ?= -n auto --maxprocesses 8 --dist worksteal
RUNS ?= 10
PEERS := .venv-peers
PEERS_OPENVINO := $(PEERS)-openvino
PEERS_AUTOROUND := $(PEERS)-autoround

# llama.cpp comes prebuilt in llama-cpp-py-sync, which on Linux needs glibc 2.38. Where that does
# not load, llama-cpp-python is compiled instead: about five minutes on two cores, once.
define llama
@$(1) $(2) >/dev/null 2>&1 || { \
  echo "The prebuilt llama.cpp does not load here; compiling llama-cpp-python (some minutes) ..."; \
  CMAKE_ARGS="-DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF" $(1) -m pip install --quiet \
    --constraint constraints.txt llama-cpp-python; }
endef

.PHONY: demo test test-long test-under-load lint types speed accuracy calibration peers clean

demo: $(STAMP)
	rm -rf demo-output
	$(BIN)/phiquant demo -o demo-output

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not long"

# Everything, and properties on examples that are new each time.
test-long: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) --hypothesis-profile=new-examples

# The tests ten times in new orders, on two cores beside four busy loops: more than an hour.
test-under-load: $(STAMP)
	$(BIN)/python tests/under_load.py --runs $(RUNS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

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
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group dev
	$(call llama,$(BIN)/python,-c "from phiquant.targets.gguf.library import library; library()")
	touch $@

$(PEERS)/.installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/peers/requirements.txt
	$(call llama,$(PEERS)/bin/python,benchmarks/peers/llama_library.py)
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
	rm -rf $(VENV) $(PEERS) $(PEERS_OPENVINO) $(PEERS_AUTOROUND) $(CACHE) demo-output
