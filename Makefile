# make demo: draws faces, prepares, trains, generates, on the CPU.  make test: ruff, mypy, pytest.
# make bench [PEER=DIR] [ROUNDS=3]: measures speed and memory, beside a peer's where there is a checkout.
# make test-page: the page of explore.py in a headless Chromium, which must be on the PATH.
# make test-faults: all that a run must survive, for some minutes.
# All make .venv if it is missing and need only Python 3.11+, make and pip.

PYTHON ?= python3
VENV := .venv/bin
OUT ?= demo/out
ROUNDS ?= 1

.PHONY: demo test test-page test-faults bench clean

demo: .venv/runtime
	$(VENV)/python demo/draw_faces.py $(OUT)/photos --size 96
	$(VENV)/python prepare_data.py $(OUT)/photos $(OUT)/faces.lmdb --overwrite
	$(VENV)/python train.py $(OUT)/faces.lmdb --out $(OUT)/run --max_size 32 \
	    --hours 0.12 --width 0.125 --batch 8 --r1_gamma 5 --sample_every 200
	$(VENV)/python generate.py $(OUT)/run --progress

test: .venv/development
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy *.py common ops data checkpoints sampling outputs metrics training web demo/draw_faces.py
	$(VENV)/mypy -p benchmarks -p experiments
	$(VENV)/pytest

bench: .venv/runtime
	for what in train_step growth prepare generate explore startup memory; do \
	    $(VENV)/python -m benchmarks.$$what --rounds $(ROUNDS) $(if $(PEER),--peer $(PEER)) || exit 1; echo; done

test-page: .venv/page
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	    { echo "make test-page: no Chromium on the PATH; such as: apt-get install chromium"; exit 1; }
	$(VENV)/pytest -rs tests/test_explore.py tests/test_studio.py

test-faults: .venv/development
	RETRATO_EXAMPLES=100 RETRATO_DAMAGES=3000 $(VENV)/pytest -m "slow or not slow"

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
