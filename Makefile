# make demo: train, ask three counterfactuals, score them and write a page, into runs/demo (SHORT=1: a minute's version, into runs/demo-short)
# make test: the tests; make test-slow: all of them; make lint: style and types; make bench: speed, one JSON object a line
# make docs: the site, into site/; make notebook: run the notebook anew and keep what it shows

PYTHON ?= python3.11
PY = .venv/bin/python
SHORT ?=
JOBS ?= 2

ifeq ($(SHORT),)
RUN = runs/demo
TRAIN_FLAGS =
NUM = 16
EVALUATE_FLAGS =
else
RUN = runs/demo-short
TRAIN_FLAGS = --config.train.steps=40 --config.train.warmup_steps=5 --config.data.size=512 --config.data.test_size=64 \
  --config.log.every=10 --config.log.eval_every=40 --config.checkpoint.every=40
NUM = 4
EVALUATE_FLAGS = --config.evaluate.scenes=4 --config.evaluate.cycles=1 --config.evaluate.steps=5 --config.evaluate.disentangle_images=32 \
  --config.evaluate.slider_scenes=1 --config.evaluate.slider_values=3
endif

.PHONY: demo test test-slow lint bench docs notebook

.venv/.installed: requirements.lock setup.py
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet -r requirements.lock
	$(PY) -m pip install --quiet --no-deps -e .
	touch $@

demo: .venv/.installed
	$(PY) -m experiments.train --config=configs/diffusion_ae/pendulum.py:demo --workdir=$(RUN) $(TRAIN_FLAGS)
	$(PY) -m experiments.counterfactual --workdir=$(RUN) --num=$(NUM) --do=angle=20 --out=$(RUN)/do_angle
	$(PY) -m experiments.counterfactual --workdir=$(RUN) --num=$(NUM) --do=light=75 --out=$(RUN)/do_light
	$(PY) -m experiments.counterfactual --workdir=$(RUN) --num=$(NUM) --do=shadow_length=9 --out=$(RUN)/do_shadow_length
	$(PY) -m experiments.evaluate --workdir=$(RUN) $(EVALUATE_FLAGS)
	$(PY) -m experiments.report --workdir=$(RUN)

test: .venv/.installed
	$(PY) -m pytest -n $(JOBS) --dist=loadfile

test-slow: .venv/.installed
	$(PY) -m pytest -n $(JOBS) --dist=loadfile --every

lint: .venv/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

bench: .venv/.installed
	$(PY) -m experiments.benchmark --suite=unet_train
	$(PY) -m experiments.benchmark --suite=ddim

# in an environment of its own: it reads the sources and needs none of what they import
.venv-docs/.installed: docs/requirements.txt
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet -r docs/requirements.txt
	touch $@

docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

notebook: .venv/.installed
	$(PY) docs/run_notebook.py docs/from_a_config_to_a_counterfactual.ipynb
