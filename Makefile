# Everything this project is built and tested with. Each target installs what it lacks; `make` alone
# lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check sandbox build requirements clean

PATTERN ?= shifted-ports
# A system Python for the virtual environment, 3.11 or later: make test PYTHON3=python3.12
PYTHON3 ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# Debian keeps haproxy where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/sbin

help: ## List the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

demo: $(INSTALLED) programs ## One full deployment under load (PATTERN=shifted-ports PROXY=nginx|haproxy BALANCER=alb|nlb|clb; PATTERN=metrics)
ifeq ($(PATTERN),metrics)
demo: PROGRAMS += docker.io
demo:
	@$(PYTHON) -m sandbox.metrics_demo
else
demo:
	@$(PYTHON) -m sandbox.demo --pattern $(PATTERN) $(if $(PROXY),--proxy $(PROXY)) \
	  $(if $(BALANCER),--balancer $(BALANCER))
endif

test: PROGRAMS += docker.io memcached
test: $(INSTALLED) programs ## All tests (ARGS="tests/unit -k weights" for some)
ifdef ARGS
	@$(PYTHON) -m pytest $(ARGS)
else
	@rm -rf build/calls
	@$(PYTHON) -m pytest --numprocesses 2 --dist worksteal --ignore tests/least_privilege
	@$(PYTHON) -m pytest tests/least_privilege
endif

check: $(INSTALLED) ## ruff, mypy, cfn-lint, sam validate --lint, the JSON Schema
	@tools/check

sandbox: PROGRAMS += $(if $(findstring docker,$(ARGS)),docker.io)
sandbox: $(INSTALLED) programs ## Everything on this machine until Ctrl-C (ARGS="--hosts 3")
	@exec $(PYTHON) -m sandbox up --pattern $(PATTERN) $(if $(PROXY),--proxy $(PROXY)) \
	  $(if $(BALANCER),--balancer $(BALANCER)) $(ARGS)

build: $(INSTALLED) ## sam build, and the size of what would be uploaded
	@tools/build

requirements: ## Pin what pyproject.toml asks for (ARGS=--upgrade for the newest)
	@tools/compile-requirements $(ARGS)

clean: ## Remove everything that the other targets make
	rm -rf $(VENV) .aws-sam build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: programs
PROGRAMS := haproxy nginx-light wrk
programs:
	@tools/install-debian-packages $(PROGRAMS)

$(INSTALLED): requirements-dev.txt
	@tools/make-venv $(PYTHON3) $(VENV) requirements-dev.txt
	@touch $@
