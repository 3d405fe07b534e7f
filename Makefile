# TalkForge. Everything happens in .venv/ and the user's cache folder; nothing of the system is changed.
.DEFAULT_GOAL := help
.PHONY: help setup assets eval test lint bench clean

PYTHON ?= $(firstword $(shell command -v python3.11 python3 2>/dev/null))
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := .venv/.setup-done
# make eval FAIL_IF='copy/fvd>100 warp/av_sync<0.3'   (docs/ci.md)
GATES = $(foreach gate,$(FAIL_IF),--fail-if '$(gate)')
OPENCV := opencv-python opencv-contrib-python opencv-python-headless opencv-contrib-python-headless

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(STAMP) assets ## environment in .venv/, one headless OpenCV, weights and samples of preset ci

$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name it with: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv .venv
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@# Packages ask for OpenCV builds that need libGL and overwrite each other; exactly the headless one stays.
	$(PIP) uninstall --quiet --yes $(OPENCV) 2>/dev/null
	$(PIP) install --quiet --constraint constraints.txt --no-deps opencv-contrib-python-headless
	$(BIN)/python -c 'import cv2, mediapipe'
	@touch $@

assets: $(STAMP)
	@$(BIN)/talkforge weights pull --preset ci >/dev/null
	@$(BIN)/talkforge weights pull --preset ci --samples >/dev/null

eval: setup ## score three built-in methods on sample clips of a talking person; results in runs/eval/
	$(BIN)/talkforge benchmark --real samples --methods copy,warp,still --out runs/eval $(GATES)

test: setup ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(STAMP) ## ruff and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: setup ## side-by-side costs, as ratios within one run
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

clean: ## remove the environment and runs/eval (the cache of weights stays)
	rm -rf .venv runs/eval build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
