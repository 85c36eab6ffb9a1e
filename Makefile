# Everything that is done with the project, in one place. `make paper` and `make test` need python3 (3.11 or newer, with venv) and make, and set up the rest.
PYTHON ?= python3
PROFILE ?= phantom
WORKERS ?= 2
INPUTS ?= 20000
RUNS ?= 20000
KILLS ?= 120

BIN := .venv/bin
# The folders of notebooks that are run, cleaned and shown: the library's source, and the pages beside it.
LESSONS := nbs howto play
# glibc would give each large activation back and fault it in again: keeping them makes training on a CPU two to four times faster.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 20000000000

.PHONY: help install paper test fuzz fuzz-guided crash determinism mutants coverage notebooks lessons export readme site bench bench-against bench-gpu lab clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

install: ## make .venv with everything below (the others do this by themselves)
	@$(PYTHON) tools/install.py

paper: install ## rerun the paper and build its site: PROFILE=phantom|sample|rsna, DATA=folder of radiographs, LIMIT=how many, SLURM=1 on a cluster
	@$(BIN)/boneage paper --profile "$(PROFILE)" $(if $(DATA),--data "$(DATA)") $(if $(LIMIT),--limit "$(LIMIT)") $(if $(SLURM),--slurm)

test: notebooks ## every check: the notebooks' own, then tests/
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

fuzz: install ## show the readers INPUTS damaged and invented files (20000), others each time
	@FUZZ_INPUTS="$(INPUTS)" FUZZ_OUT=benchmarks/fuzz.json $(BIN)/python -m pytest -q -s tests/test_fuzz.py

fuzz-guided: install ## show each reader RUNS files (20000) made by what those before them reached: benchmarks/guided.json (needs atheris, on Linux)
	@OMP_NUM_THREADS=1 $(BIN)/python tools/fuzz_guided.py --runs "$(RUNS)"

crash: install ## kill six stages KILLS times (120) and before each step of two, fill their disk, and note in benchmarks/crash.json what came of it
	@CRASH_KILLS="$(KILLS)" CRASH_RESULTS=benchmarks/crash.json OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests/test_crash.py

mutants: install ## change the library in one small place at a time and list what no check notices: benchmarks/mutants.json
	@OMP_NUM_THREADS=1 $(BIN)/python tools/mutate.py

coverage: install ## which lines of the library the notebooks and the quick tests reach: benchmarks/coverage.json
	@OMP_NUM_THREADS=1 $(BIN)/python tools/measure_coverage.py

notebooks: install ## run the checks that stand in the library's notebooks and in the pages beside it
	@for folder in $(LESSONS); do OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers $(WORKERS) $$folder || exit 1; done

export: install ## write boneage/ from nbs/, and clean the notebooks for a commit
	@$(BIN)/nbdev-export && for folder in $(LESSONS) reports; do $(BIN)/nbdev-clean --fname $$folder || exit 1; done

lessons: install ## run the library's notebooks and the pages beside it again and keep their outputs, which the site shows
	@$(BIN)/nbdev-export && for folder in $(LESSONS); do $(BIN)/nbdev-test --n-workers 1 --save $$folder && $(BIN)/nbdev-clean --fname $$folder || exit 1; done

readme: install ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/build_readme.py

site: install ## build the site from what the run of PROFILE has made so far
	@$(BIN)/python tools/build_site.py --root "work/$(PROFILE)" --out "work/$(PROFILE)/site"

bench: install ## measure the speed of every stage on this computer, and write what the site's page on speed shows (about 15 minutes)
	@$(BIN)/python benchmarks/benchmark.py

bench-against: install ## measure assessing as it is now against another REVISION, in turns
	@$(BIN)/python benchmarks/against.py "$(REVISION)"

bench-gpu: install ## measure training on this computer's GPU at the paper's size (about 3 minutes)
	@$(BIN)/python benchmarks/gpu.py

determinism: install ## do each stage twice and compare the numbers
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/determinism.py

lab: install ## open the notebooks in JupyterLab: play/ to play with, nbs/ to read and to change
	@$(BIN)/jupyter lab

clean: ## remove what is only built or cached (never work/, where runs are)
	@rm -rf build dist boneage.egg-info .pytest_cache .hypothesis .snakemake
	@find boneage $(LESSONS) reports tests tools -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
