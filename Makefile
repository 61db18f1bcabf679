# Every target works from a clean clone; each installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODEL ?= demo/models/tabular
PORT ?= 8501
IMAGES := image/cpu image/gpu image/tpu

.PHONY: setup serve test test/slow test/libtpu test/clients test/beam check bench soak protos lock lock/arm64 clean help $(IMAGES) $(IMAGES:%=test/%)

help:            ## this list
	@grep -hE '^[^[:space:]#.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^[$$][^ ]+ //; s/:.*##/\t/'

setup: $(STAMP) demo/models/.built   ## .venv with the tfopt command, and the trained demo models

$(STAMP): pyproject.toml requirements/no-deps.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[cpu,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/no-deps.txt
	@touch $@

demo/models/.built: $(STAMP) $(wildcard demo/*.py)
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python -m demo.build --out demo/models
	@touch $@

serve: setup     ## serve a small real model on PORT and print a curl line that works (MODEL=demo/models/digits, FLAGS=...)
	$(BIN)/python -m demo.serve --model $(MODEL) --port $(PORT) $(FLAGS)

# A process per core of a small machine; a file's tests stay together, because they share plans and servers.
PROCESSES ?= 2
test: setup      ## the whole suite, in PROCESSES=2 processes
	$(BIN)/pytest -q -n $(PROCESSES) --dist loadfile --no-loadscope-reorder -m 'not slow and not image'

test/slow: setup ## the suites that take minutes
	$(BIN)/pytest -q -m slow

test/libtpu: setup ## what compiles for TPUs ahead of time, large models too; installs libtpu
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[ahead]'
	$(BIN)/pytest -q -m libtpu

test/clients: setup .clients/kserve/.installed .clients/vertex/.installed ## KServe's and Vertex AI's own Python clients against a server
	$(BIN)/pytest -q -m slow tests/real_clients

.clients/%/.installed: requirements/clients/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# An environment of its own: Beam takes no protobuf 7 and no numpy 2.5.
BEAM := .venv-beam
$(BEAM)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BEAM)
	$(BEAM)/bin/pip install --quiet --disable-pip-version-check -e '.[beam,cpu]' pytest hypothesis
	@touch $@

test/beam: setup $(BEAM)/.installed ## Apache Beam's DirectRunner with our ModelHandler; installs Beam into .venv-beam
	$(BEAM)/bin/pytest -q tests/beam

check: $(STAMP)  ## ruff, mypy --strict on the policy modules, import contracts, hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(POLICY)
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile.* deploy/*/Dockerfile

bench: setup     ## ratios between variants, in process and over the wire; writes benchmarks/results/
	$(BIN)/python -m benchmarks

MINUTES ?= 30
soak: setup      ## mixed traffic while versions roll, models come and go and workers are killed (MINUTES=30)
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

protos: $(STAMP) ## regenerate the descriptor set and the list of operations from the installed packages
	$(BIN)/python protos/extract.py
	$(BIN)/python optimizer/extract_ops.py

lock: $(STAMP)   ## renew every images/DEVICE/*.txt: all dependencies by hash, for Python 3.13 on x86-64, without host names
	$(BIN)/python images/lock.py

lock/arm64: $(STAMP) ## ask the package index which packages of the locks have wheels for arm64 (images/arm64.txt)
	$(BIN)/python images/arm64.py

$(IMAGES): image/%: ## build the image of a device: image/cpu, image/gpu, image/tpu (LOCK=tf-2.20 or litert, BASE=...)
	$(PYTHON) images/build.py $* $(if $(LOCK),--lock=$(LOCK))

$(IMAGES:%=test/%): test/image/%: setup ## run the tests of a device's image against the image that image/DEVICE built
	$(BIN)/pytest -q -m image tests/images --device=$* $(if $(LOCK),--lock=$(LOCK))

clean:           ## everything that make made
	rm -rf $(VENV) $(BEAM) .clients demo/models benchmarks/models tests/.models build *.egg-info

# The modules that hold policy: pure, typed strictly.
POLICY := \
  benchmarks/interleave.py \
  benchmarks/load/job.py \
  benchmarks/load/pace.py \
  benchmarks/stats.py \
  benchmarks/table.py \
  $(wildcard optimizer/tfopt_optimizer/*.py optimizer/tfopt_optimizer/engines/*.py optimizer/tfopt_optimizer/tpu/*.py optimizer/tfopt_optimizer/doctor/*.py optimizer/tfopt_optimizer/page/*.py optimizer/tfopt_optimizer/passes/*.py optimizer/tfopt_optimizer/split/*.py) \
  client/tfopt_client \
  protos/tfopt_protos/dtypes.py \
  protos/tfopt_protos/messages.py \
  protos/tfopt_protos/tensors.py \
  warmup/tfopt_warmup/recording.py \
  warmup/tfopt_warmup/records.py \
  warmup/tfopt_warmup/replay.py \
  warmup/tfopt_warmup/signatures.py \
  warmup/tfopt_warmup/synthesize.py \
  warmup/tfopt_warmup/tfrecord.py \
  warmup/tfopt_warmup/cli.py \
  server/tfopt_server/argv.py \
  server/tfopt_server/beam \
  server/tfopt_server/batching.py \
  server/tfopt_server/batching_parameters.py \
  server/tfopt_server/checkup.py \
  server/tfopt_server/config_board.py \
  server/tfopt_server/converted.py \
  server/tfopt_server/dataplane.py \
  server/tfopt_server/devices.py \
  server/tfopt_server/executor.py \
  server/tfopt_server/improving.py \
  server/tfopt_server/inference.py \
  server/tfopt_server/instruments.py \
  server/tfopt_server/lanes.py \
  server/tfopt_server/lifecycle.py \
  server/tfopt_server/layers.py \
  server/tfopt_server/loading.py \
  server/tfopt_server/metrics.py \
  server/tfopt_server/metrics_share.py \
  server/tfopt_server/model_config.py \
  server/tfopt_server/plane.py \
  server/tfopt_server/predict_message.py \
  server/tfopt_server/preparing.py \
  server/tfopt_server/recording.py \
  server/tfopt_server/registry.py \
  server/tfopt_server/reload_calls.py \
  server/tfopt_server/reloading.py \
  server/tfopt_server/repository.py \
  server/tfopt_server/response_cache.py \
  server/tfopt_server/rows.py \
  server/tfopt_server/running.py \
  server/tfopt_server/samples.py \
  server/tfopt_server/tasks.py \
  server/tfopt_server/tracing.py \
  server/tfopt_server/warming.py \
  server/tfopt_server/flags.py \
  server/tfopt_server/health.py \
  server/tfopt_server/http.py \
  server/tfopt_server/logs.py \
  server/tfopt_server/session_config.py \
  server/tfopt_server/settings.py \
  server/tfopt_server/storage \
  server/tfopt_server/uris.py \
  server/tfopt_server/process \
  server/tfopt_server/commands \
  server/tfopt_server/explaining.py \
  server/tfopt_server/shapley.py \
  server/tfopt_server/faces.py \
  server/tfopt_server/rest \
  server/tfopt_server/rpc \
  server/tfopt_server/errors.py
