# The commands of a newcomer; everything else is `.venv/bin/doit`.
VENV := .venv
SIMULATION := machine=examples/simulation/machine.yaml
DOIT := $(VENV)/bin/doit $(SIMULATION)
WORKERS ?= 4
ENGINE ?= docker

# Instances in an image belong to who builds it, since mounted folders do, unless that is root.
ifneq ($(shell id -u),0)
ARGUMENTS += --build-arg UID=$(shell id -u) --build-arg GID=$(shell id -g)
endif
# A folder with another machine.yaml and its lock.
ifdef MACHINE_FILES
ARGUMENTS += --build-arg MACHINE_FILES=$(MACHINE_FILES)
image: export MACHINE = $(MACHINE_FILES)/machine.yaml
endif

# Trust what this system trusts: behind a company's proxy uv's own certificates are not enough.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= true
endif

.PHONY: chaos demo docs dist down image image-lock test test-again test-image today lint lock

# uv, itself pinned in the lock file, installs the rest several times faster than pip.
$(VENV): $(VENV)/.installed
$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(VENV)/bin/python || python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ;]*\).*/\1/p' requirements.lock)"
	$(VENV)/bin/uv pip sync --quiet --require-hashes --python $(VENV)/bin/python requirements.lock
	$(VENV)/bin/uv pip install --quiet --no-deps --no-build-isolation --python $(VENV)/bin/python --editable .
	touch $@

demo: $(VENV)
	$(DOIT)
	$(DOIT) smoke
	$(DOIT) status
	@echo
	@echo "look further:  $(DOIT) list | info TASK | logs comfyui-gpu0 | status --json"
	@echo "stop:          make down"

down: $(VENV)
	$(DOIT) down

test: $(VENV)
	$(VENV)/bin/python -m pytest -n $(WORKERS) --maxschedchunk 1

# Those that failed, one after the other: what fails only on a crowded machine passes.
test-again: $(VENV)
	$(VENV)/bin/python -m pytest --last-failed --last-failed-no-failures none

# The main job with the newest of everything, nightly: what moved, and what no longer holds.
# COMFYUI is a repository, TORCH a choice of python.torch; default: machine.yaml's.
today: $(VENV)
	$(VENV)/bin/python -m tests.today $(if $(COMFYUI),--comfyui $(COMFYUI)) $(if $(TORCH),--torch $(TORCH)) $(TODAY)

# The image of machine.yaml and machine.lock; ENGINE may be podman or buildah, BUILD its options.
image: $(VENV)
	$(ENGINE) build --tag comfy-machine $(ARGUMENTS) $$($(VENV)/bin/doit layers --labels) $(BUILD) .

# machine.lock for the Python of the image, where that is another one than this .venv's.
image-lock:
	$(ENGINE) build --target project --tag comfy-machine:project $(ARGUMENTS) $(BUILD) .
	$(ENGINE) run --rm --user $(shell id -u):$(shell id -g) --volume "$(CURDIR)/$(MACHINE_FILES):/machine" comfy-machine:project doit lock

# What may befall a machine, on one of the simulator, nightly; CHAOS holds options, such as
# --minutes 5 --seed 1 --lane damage.
chaos: $(VENV)
	$(VENV)/bin/python -m tests.chaos $(CHAOS)

# Needs no Docker engine: root, and Debian's buildah, runc and debootstrap.
test-image: $(VENV)
	$(VENV)/bin/python -m pytest -m image tests/image

# A source distribution and a wheel of it in dist/, as their receivers build it.
dist: $(VENV)
	rm -rf dist
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv build --quiet --no-build-isolation --python $(VENV)/bin/python --out-dir dist
	@ls -1 dist/*.tar.gz dist/*.whl

# The reference pages, written from the code, and the site; a link that leads nowhere fails.
docs: $(VENV)
	PYTHONPATH=. $(VENV)/bin/python docs/generate.py
	$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky docs docs/_build
	@echo "the site: docs/_build/index.html"

lint: $(VENV)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

lock:
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header \
		--no-annotate --group dev pyproject.toml --upgrade --output-file requirements.lock
