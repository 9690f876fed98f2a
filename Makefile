PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
NEWEST := .venv-newest
# Python compiles what is imported; to compile all that is installed takes two minutes
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
# a name, for a comma cannot stand in a `call`
EXTRAS := test,docs

CORPUS ?= ../shared/corpus
RUN := runs/minilm_cpu_words
TRAINING_PARTS := commonvoice tanaka books-fiction wikipedia-simple wikipedia-misc wikipedia-good gov-18f gum-pud \
	web-ewt us-presidential-speeches books-nonfiction opensource-guide xquad
HELD_OUT_PARTS := tanaka commonvoice wikipedia-simple books-fiction wikipedia-misc gov-18f web-ewt world-factbook

# a file's tests share what they load, so they stay in one process; those with slow tests come first (tests/conftest.py)
IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder

# the bytecode of what is imported is kept: each process would compile torch and transformers anew, twelve CPU seconds
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo ladder results space test suite test-fast test-oldest test-newest docs checkpoint sync settings lint types format clean

demo: $(STAMP)
	$(BIN)/embinv demo
	$(BIN)/embinv demo --preset thorough --feedback encoder

# every figure, table and plot of README, model card and docs, from the JSON of results
results: $(STAMP)
	$(BIN)/python experiments/results.py

# the README's picture and demo, by the released checkpoint
ladder: $(STAMP)
	$(BIN)/python experiments/gap_picture.py
	$(BIN)/python experiments/ladder.py
	$(BIN)/python experiments/results.py

space: $(STAMP)
	$(BIN)/python space/app.py

# mypy has one process, so it works beside the tests
test: $(STAMP) lint
	$(MAKE) --jobs 2 types suite

suite: $(STAMP)
	$(BIN)/python -m pytest $(IN_TWO)

# without what takes more than about five seconds each
test-fast: $(STAMP) lint types
	$(BIN)/python -m pytest $(IN_TWO) -m "not slow"

# the tests with the oldest versions that pyproject.toml allows, in an environment of their own
test-oldest:
	test -d $(OLDEST) || $(PYTHON) -m venv $(OLDEST)
	$(call install,$(OLDEST),constraints-oldest.txt,test)
	$(OLDEST)/bin/python -m pytest $(IN_TWO)

# the tests with the newest versions, of another Python if one likes: make test-newest PYTHON=python3.14
test-newest:
	test -d $(NEWEST) || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python $(PIP) --upgrade --upgrade-strategy eager -e '.[test]'
	$(NEWEST)/bin/python -m pytest $(IN_TWO)

# the site, in site/; a link to nothing is an error, and nothing is downloaded
docs: $(STAMP) settings
	$(BIN)/python docs/_build/picture.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# from raw text to an evaluated checkpoint in $(RUN)/best; killed and called again, it goes on where it was
checkpoint: $(STAMP)
	$(BIN)/embinv prepare $(TRAINING_PARTS:%=$(CORPUS)/en/%.txt.xz) --out data/minilm_16 --length 16 --max-tokens 15 \
		--share 0.42 --shard-size 20000 --validation-share 0.005
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml train.py configs/minilm_cpu.yaml
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml train.py configs/minilm_cpu_32.yaml
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml train.py configs/minilm_cpu_surrogate.yaml
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml train.py configs/minilm_cpu_words.yaml \
		--init-from runs/minilm_cpu_surrogate/best
	$(BIN)/embinv prepare $(TRAINING_PARTS:%=$(CORPUS)/en/%.txt.xz) --out data/minilm_32 --length 32 --max-tokens 31 \
		--share 0.12 --validation-share 0.005
	$(BIN)/embinv calibrate data/minilm_16 data/minilm_32 --model $(RUN)/best --int8 --search-limit 96 \
		--feedback encoder surrogate
	for tokens in 15 31; do \
		$(BIN)/embinv evaluate $(HELD_OUT_PARTS:%=$(CORPUS)/heldout/en/%.txt) --max-tokens $$tokens --limit 125 \
			--training-pairs data/minilm_$$((tokens + 1)) --model $(RUN)/best --out $(RUN)/evaluation_$$tokens.json \
			--plots $(RUN)/plots_$$tokens || exit 1; done

# the code that travels with the released checkpoint, copied anew from the package
sync:
	rm -f checkpoints/embinv-minilm/*.py
	cp modeling_embinv/*_embinv.py checkpoints/embinv-minilm/

# docs/reference/settings.md, from the table of settings
settings: $(STAMP)
	$(BIN)/python docs/_build/settings_page.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch comes first, by its pinned version: a CPU build serves everything but training at scale. pip knows where the
# machine keeps one; uv installs the rest in a fifth of pip's time, and pip does if uv cannot
define install
$(1)/bin/python $(PIP) "torch==$$(sed -n 's/^torch==//p' $(2))" uv
$(1)/bin/uv pip install --quiet --python $(1)/bin/python -c $(2) -e '.[$(3)]' \
	|| $(1)/bin/python $(PIP) -c $(2) -e '.[$(3)]'
endef

$(STAMP): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(call install,$(VENV),constraints.txt,$(EXTRAS))
	touch $@

# runs and prepared data stay: they are hours of work
clean:
	rm -rf $(VENV) $(OLDEST) $(NEWEST) site
