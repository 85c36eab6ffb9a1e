# Every command of the project. `make paper` and `make test` need python3 (3.11 or newer, with venv) and make,
# and install the rest.
PYTHON ?= python3
PROFILE ?= phantom
WORKERS ?= 2
INPUTS ?= 20000
KILLS ?= 120

BIN := .venv/bin
# Folders of notebooks that are run, cleaned and shown: the library's source, and the pages beside it.
LESSONS := nbs howto play
# glibc returns each large activation to the system and allocates it again. Keeping them makes training on a CPU
# two to four times faster. One arena, because what one thread frees is then there for the others.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 20000000000
export MALLOC_ARENA_MAX := 1
# Tests and lessons leave the user's cache alone.
test notebooks lessons stress: export BONEAGE_CACHE := off

.PHONY: help install paper test lint notebooks stress bench export lessons readme site lab pins clean
.DEFAULT_GOAL := help

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

install: ## install everything into .venv (the other commands do this first)
	@$(PYTHON) tools/install.py

paper: install ## rerun the paper, build its site: PROFILE=phantom|sample|rsna DATA=folder LIMIT=number SLURM=1
	@$(BIN)/boneage paper --profile "$(PROFILE)" $(if $(DATA),--data "$(DATA)") \
	  $(if $(LIMIT),--limit "$(LIMIT)") $(if $(SLURM),--slurm)

test: lint notebooks ## run every check: lint, the notebooks, tests/; NEWEST=1 takes the newest dependencies
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: install ## check the code of modules, tests, tools and notebooks with ruff
	@$(BIN)/ruff check

notebooks: install
	@for folder in $(LESSONS); do \
	  OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers $(WORKERS) $$folder || exit 1; done

stress: install ## run a long test: WHAT=fuzz|crash|slurm|determinism|coverage INPUTS=20000 KILLS=120
	@test -f "tests/stress/test_$(WHAT).py" || \
	  { echo "Choose one: make stress WHAT=fuzz|crash|slurm|determinism|coverage"; exit 2; }
	@STRESS=1 INPUTS="$(INPUTS)" KILLS="$(KILLS)" OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -q -s "tests/stress/test_$(WHAT).py"

bench: install ## measure the speed of each step; WHAT=gpu|compare REVISION=…|rehearsal (cost of a whole run)
	@$(BIN)/python "benchmarks/$(or $(WHAT),benchmark).py" $(REVISION)

export: install ## write boneage/ from nbs/, and clean the notebooks for a commit
	@$(BIN)/python tools/export.py
	@for folder in $(LESSONS) reports; do $(BIN)/nbdev-clean --fname $$folder || exit 1; done

lessons: install ## run nbs/, howto/ and play/ again and store their outputs, which the site shows
	@$(BIN)/python tools/export.py
	@for folder in $(LESSONS); do $(BIN)/nbdev-test --n-workers 1 --save $$folder && \
	  $(BIN)/nbdev-clean --fname $$folder || exit 1; done

readme: install ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/build_readme.py

site: install ## build the site from the results of PROFILE so far
	@$(BIN)/python tools/build_site.py --root "work/$(PROFILE)" --out "work/$(PROFILE)/site"

lab: install ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab

pins: install ## write requirements/, the exact versions with hashes for the container
	@$(BIN)/python tools/pin.py

clean: ## remove built and cached files (never work/, which holds the runs)
	@rm -rf build dist boneage.egg-info .pytest_cache .hypothesis .snakemake .ruff_cache
	@find boneage $(LESSONS) reports tests tools benchmarks -name __pycache__ -o -name .ipynb_checkpoints \
	  | xargs rm -rf
