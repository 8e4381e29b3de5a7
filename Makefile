# Targets with "##" are those that make prints as its help.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PLUGIN   := bin/plugins/vault-plugin-secrets-clanmeeting
PACKAGES := ./...
TOOLS    := .cache/tools

# What the plugin reports as its version: make build VERSION=v1.2.3. It reaches commands in
# their environment, where neither make nor the shell looks into it.
VERSION := v0.1.0-dev
export GIVEN_VERSION := $(if $(filter file,$(origin VERSION)),,$(value VERSION))
override VERSION := $(value VERSION)
export VERSION

# What signs: make build SIGNER=openssl links in OpenSSL's libcrypto, make test SIGNER=openssl
# tests with it. Empty is Go's crypto/rsa.
SIGNER :=
export SIGNER

# The race detector is C: tests need a C compiler, the plugin does not.
# Most of what runs in parallel waits for a Vault Agent, and needs no core meanwhile.
# GOFLAGS is for the tests' own builds of the plugin.
GOTEST := CGO_ENABLED=1 $(if $(SIGNER),GOFLAGS="$$GOFLAGS -tags=$(SIGNER)") go test -race -shuffle=on -parallel=8 -timeout 30m

# Which server: make test VAULT=oldest takes the oldest Vault that we support, VAULT=newest the
# newest, VAULT=released the newest that HashiCorp has released; empty is VAULT_BIN, which may
# be Vault or OpenBao, or vault on PATH, or bao on PATH, or the newest Vault that we support.
# What is missing is downloaded, or built if the download site can't be reached:
# scripts/vault.sh.
export VAULT :=

# Tests of one server alone write their names here when they run on the other.
NOT_RUN := $(CURDIR)/.cache/not-run

# need,COMMAND,WHY
need = @command -v $(1) >/dev/null || { echo "error: $(1) is needed: $(2)" >&2; exit 1; }

.PHONY: help
help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: go
go:
	$(call need,go,1.26 or newer; see https://go.dev/doc/install)
	@go list -m >/dev/null || { echo "error: Go 1.26 or newer is needed, this is $$(go env GOVERSION); see https://go.dev/doc/install" >&2; exit 1; }

.PHONY: cc
cc: go
	$(call need,$$(go env CC),a C compiler runs the race detector in the tests; Debian and Ubuntu have it as gcc with libc6-dev)

.PHONY: build
build: go ## Build the plugin into bin/plugins; SIGNER=openssl makes it sign three times as fast, and needs libssl-dev
	@mkdir -p $(dir $(PLUGIN))
	scripts/build.sh $(PLUGIN)

.PHONY: release
release: ## What operators download, into dist: make release VERSION=v1.2.3; RELEASE_SIGNING_KEY signs it; SIGNER=go or openssl builds less
	@scripts/release.sh "$$GIVEN_VERSION" "$$SIGNER"

.PHONY: release-test
release-test: cc ## Two releases for all systems, compared; the second compiles everything anew: 10 to 40 minutes
	$(GOTEST) -count=1 -timeout 60m -v -run '^TestRelease$$' ./scripts/release -all

.PHONY: vault
vault: go ## Make sure there is a Vault: VAULT_BIN, PATH, downloaded, or built once; print its path
	@scripts/vault.sh

# demo and dev are built and run, not "go run": that would not pass a signal on.
.PHONY: demo
demo: build ## From a private key to a verified host token, in a Vault in dev mode
	@vault=$$(scripts/vault.sh) && go build -o bin/demo ./scripts/demo && exec bin/demo -vault "$$vault" -plugin-dir $(dir $(PLUGIN))

.PHONY: dev
dev: build ## A Vault in dev mode with the engine mounted, until Ctrl-C
	@vault=$$(scripts/vault.sh) && go build -o bin/demo ./scripts/demo && exec bin/demo -stay -vault "$$vault" -plugin-dir $(dir $(PLUGIN))

.PHONY: picture
picture: build ## Draw .github/start.svg anew from the README's first minute
	@vault=$$(scripts/vault.sh) && go run ./scripts/picture -vault "$$vault" -plugin-dir $(dir $(PLUGIN)) -out .github/start.svg

.PHONY: unit
unit: cc ## The unit tests: a minute, no Vault
	$(GOTEST) ./backend/...
	$(if $(SIGNER),@$(MAKE) --no-print-directory leaks)

.PHONY: leaks
leaks: cc ## Whether OpenSSL's keys are freed, by LeakSanitizer; on Linux, with gcc or clang and libssl-dev
	CGO_ENABLED=1 go test -count=1 -asan -tags openssl -run '^TestSigners' ./backend/internal/rsakey

.PHONY: microbench
microbench: go ## Benchmarks in process: what a token costs beside the bare signature
	go test -run '^$$' -bench . -benchmem ./backend

.PHONY: bench
bench: go ## What a token costs in a real Vault, beside its peers: ten minutes at the most
	@scripts/bench.sh

.PHONY: scale
scale: go ## What 100,000 roles cost
	@scripts/bench.sh -scale

.PHONY: pairs
pairs: go ## Which of the builds of the engine in VARIANTS is faster
	@test -d "$(VARIANTS)" || { echo "error: set VARIANTS to a folder with two builds or more" >&2; exit 1; }
	@scripts/bench.sh -pairs -plugin-dir $(VARIANTS) -rounds 30 -slice 500ms

.PHONY: soak
soak: go ## All kinds of requests on all cores for SOAK, by default ten minutes; fails if the plugin grows
	@scripts/bench.sh -soak $(or $(SOAK),10m)

.PHONY: fuzz
fuzz: go ## Every fuzz target for FUZZTIME, by default 30 seconds each
	@scripts/fuzz.sh

.PHONY: fixture
fixture: go ## For a release: keep what VERSION writes to storage, for the tests of later ones
	@test -n "$$GIVEN_VERSION" || { echo "error: say which release: make fixture VERSION=v1.2.3" >&2; exit 1; }
	go test -count=1 ./backend -run '^TestStorageOfReleases$$' -write-storage="$$VERSION"

.PHONY: cluster-test
cluster-test: cc ## A cluster of three servers that lose a node, lose a plugin, are upgraded and stopped; prints how long
	@vault=$$(scripts/vault.sh) && VAULT_BIN="$$vault" $(GOTEST) -count=1 -v -run '^(TestCluster.*|TestPluginEndsWithItsVault)$$' ./cmd/...

.PHONY: partition-test
partition-test: cc ## Three nodes that are cut off from each other or suspended: six minutes on Linux; prints what each did meanwhile
	@vault=$$(scripts/vault.sh) && cd scripts/partition && VAULT_BIN="$$vault" $(GOTEST) -count=1 -v . $(if $(PARTITION),-args $(PARTITION))

.PHONY: examples
examples: cc ## The examples of five languages in a real Vault, their tokens verified by each language's library
	@scripts/examples.sh

.PHONY: monitoring-test
monitoring-test: cc ## Every alert of examples/monitoring brought about, in a real Prometheus
	$(call need,prometheus,Debian and Ubuntu have it in the package prometheus)
	$(call need,promtool,Debian and Ubuntu have it in the package prometheus)
	$(call need,prometheus-process-exporter,Debian and Ubuntu have it in the package of this name)
	@vault=$$(scripts/vault.sh) && VAULT_BIN="$$vault" $(GOTEST) -count=1 -v -tags monitoring -run '^TestMonitoring$$' ./cmd/...

.PHONY: kubernetes-test
kubernetes-test: cc ## examples/kubernetes with a real Kubernetes API and External Secrets, which are built once
	@vault=$$(scripts/vault.sh) && dirs=$$(scripts/kubernetes.sh) && VAULT_BIN="$$vault" KUBERNETES_DIRS="$$dirs" $(GOTEST) -count=1 -v -tags kubernetes -run '^TestKubernetes$$' ./cmd/...

.PHONY: test
test: cc ## All tests, the acceptance tests in a real server included; lists at the end what was not run
	cd scripts/vault-download && $(GOTEST) ./...
	@mkdir -p .cache && : >$(NOT_RUN) && vault=$$(scripts/vault.sh) && VAULT_BIN="$$vault" NOT_RUN=$(NOT_RUN) $(GOTEST) $(PACKAGES); \
		status=$$?; cat $(NOT_RUN); exit $$status
	@cd scripts/partition && $(GOTEST) -short .

.PHONY: tools
tools: go
	@mkdir -p $(TOOLS)
	@cd scripts/tools && go build -o ../../$(TOOLS)/ tool

.PHONY: hooks
hooks: ## Have git check what is committed: .githooks/pre-commit
	@hooks=$$(git rev-parse --git-path hooks) && mkdir -p "$$hooks" && install -m 0755 .githooks/pre-commit "$$hooks/pre-commit"

.PHONY: lint
lint: tools ## golangci-lint, gofumpt included
	$(TOOLS)/golangci-lint run
	$(if $(SIGNER),$(TOOLS)/golangci-lint run --build-tags $(SIGNER) ./backend/internal/rsakey)
	cd scripts/vault-download && ../../$(TOOLS)/golangci-lint run
	cd scripts/partition && ../../$(TOOLS)/golangci-lint run

.PHONY: fmt
fmt: tools ## Format the code with gofumpt
	$(TOOLS)/gofumpt -w backend cmd scripts

.PHONY: vet
vet: go ## go vet, and that the plugin builds for the other systems
	go vet -tags examples,kubernetes,monitoring$(SIGNER:%=,%) $(PACKAGES)
	cd scripts/vault-download && go vet ./...
	cd scripts/partition && go vet .
	GOOS=darwin CGO_ENABLED=0 go build -o /dev/null ./cmd/...
	GOOS=windows CGO_ENABLED=0 go build -o /dev/null ./cmd/...

.PHONY: vulncheck
vulncheck: tools ## Known vulnerabilities that the code reaches; says "not checked" where the database is out of reach
	@scripts/vulncheck.sh $(TOOLS)/govulncheck

.PHONY: ci
ci: lint vet test ## What must pass before a change lands
