# make demo: draws faces, prepares, trains and generates, on the CPU, in minutes.
# make test: ruff, mypy and the quick tests, in two minutes.  make test-all: the slow tests.
# make test-page: all tests of the page, in a headless Chromium, which must be on the PATH.
# make bench [PEER=DIR] [ROUNDS=3]: measures speed and memory, also a peer's in a checkout.
# All make .venv if it is missing and need only Python 3.11+, make and pip.

PYTHON ?= python3
VENV := .venv/bin
OUT ?= demo/out
ROUNDS ?= 1

.PHONY: demo test test-all test-page bench clean

demo: .venv/runtime
	$(VENV)/python demo/draw_faces.py $(OUT)/photos --size 96
	$(VENV)/python prepare_data.py $(OUT)/photos $(OUT)/faces.lmdb --overwrite
	$(VENV)/python train.py $(OUT)/faces.lmdb --out $(OUT)/run --max_size 32 \
	    --hours 0.12 --width 0.125 --batch 8 --r1_gamma 5 --sample_every 200
	$(VENV)/python generate.py $(OUT)/run --progress

test: .venv/development
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/pytest -n 2

test-all: .venv/development
	$(VENV)/pytest -n 2 -m slow

bench: .venv/runtime
	for what in train_step growth prepare generate explore startup memory; do \
	    $(VENV)/python -m benchmarks.$$what --rounds $(ROUNDS) $(if $(PEER),--peer $(PEER)) || exit 1; echo; done

test-page: .venv/page
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	    { echo "make test-page: no Chromium on the PATH; such as: apt-get install chromium"; exit 1; }
	$(VENV)/pytest -rs -m "slow or not slow" tests/web tests/scripts/test_explore.py

.venv/runtime: requirements.txt
	test -x $(VENV)/python || $(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/development: requirements-dev.txt .venv/runtime
	$(VENV)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

.venv/page: requirements-page.txt requirements-explore.txt .venv/development
	$(VENV)/python -m pip install --quiet --disable-pip-version-check -r requirements-page.txt
	$(VENV)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt # Pillow
	touch $@

clean:
	rm -rf $(OUT)
