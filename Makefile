# Everything that is done with the project, in one place. `make paper` and `make test` need python3 (3.11 or newer, with venv) and make, and set up the rest.
PYTHON ?= python3
PROFILE ?= phantom
WORKERS ?= 2
INPUTS ?= 20000

BIN := .venv/bin
# glibc would give each large activation back and fault it in again: keeping them makes training on a CPU two to four times faster.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 20000000000

.PHONY: help install paper test fuzz mutants coverage notebooks lessons export readme site bench lab clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: ## make .venv with everything below (the others do this by themselves)
	@$(PYTHON) tools/install.py

paper: install ## rerun the paper and build its site: PROFILE=phantom|sample|rsna, DATA=folder of radiographs, LIMIT=how many, SLURM=1 on a cluster
	@$(BIN)/boneage paper --profile "$(PROFILE)" $(if $(DATA),--data "$(DATA)") $(if $(LIMIT),--limit "$(LIMIT)") $(if $(SLURM),--slurm)

test: notebooks ## every check: the notebooks' own, then tests/
	@$(BIN)/python -m pytest

fuzz: install ## show the readers INPUTS damaged and invented files (20000), others each time
	@FUZZ_INPUTS="$(INPUTS)" $(BIN)/python -m pytest -q -s tests/test_fuzz.py

mutants: install ## change the library in one small place at a time and list what no check notices: benchmarks/mutants.json
	@OMP_NUM_THREADS=1 $(BIN)/python tools/mutate.py

coverage: install ## which lines of the library the notebooks and the quick tests reach: benchmarks/coverage.json
	@OMP_NUM_THREADS=1 $(BIN)/python tools/measure_coverage.py

notebooks: install ## run the checks that stand in the library's notebooks and in the how-to pages
	@OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers $(WORKERS) nbs && OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers $(WORKERS) howto

export: install ## write boneage/ from nbs/, and clean the notebooks for a commit
	@$(BIN)/nbdev-export && $(BIN)/nbdev-clean --fname nbs && $(BIN)/nbdev-clean --fname reports && $(BIN)/nbdev-clean --fname howto

lessons: install ## run the library's notebooks and the how-to pages again and keep their outputs, which the site shows
	@$(BIN)/nbdev-export && for folder in nbs howto; do $(BIN)/nbdev-test --n-workers 1 --save $$folder && $(BIN)/nbdev-clean --fname $$folder || exit 1; done

readme: install ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/build_readme.py

site: install ## build the site from what the run of PROFILE has made so far
	@$(BIN)/python tools/build_site.py --root "work/$(PROFILE)" --out "work/$(PROFILE)/site"

bench: install ## measure the speed of assessing and training on this computer
	@for file in benchmarks/*.py; do echo "$$file"; $(BIN)/python "$$file" || exit 1; done

lab: install ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab nbs

clean: ## remove what is only built or cached (never work/, where runs are)
	@rm -rf build dist boneage.egg-info .pytest_cache .hypothesis .snakemake
	@find boneage nbs howto reports tests tools -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
