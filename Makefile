# The help lists the targets with "##", under the headings with "##@".
SHELL := /bin/sh
.DEFAULT_GOAL := help

PLUGIN   := bin/plugins/vault-plugin-secrets-clanmeeting
TOOLS    := .cache/tools

# The version that the plugin reports: make build VERSION=v1.2.3. Commands get it in their
# environment, so that neither make nor the shell expands it.
VERSION := v0.1.0-dev
export GIVEN_VERSION := $(if $(filter file,$(origin VERSION)),,$(value VERSION))
override VERSION := $(value VERSION)
export VERSION

# What signs: make build SIGNER=openssl links in OpenSSL's libcrypto, make test SIGNER=openssl
# tests with it. Empty, or go, is Go's crypto/rsa.
SIGNER ?=
export SIGNER
ifneq (,$(filter-out go openssl,$(SIGNER)))
$(error SIGNER must be openssl, or go, or empty)
endif
# The build tag of the signer.
TAG := $(filter openssl,$(SIGNER))

# The race detector is written in C: tests need a C compiler, the plugin does not. GOFLAGS is
# for the tests' own builds of the plugin.
GOTEST := CGO_ENABLED=1 $(if $(TAG),GOFLAGS="$$GOFLAGS -tags=$(TAG)") go test -race -shuffle=on -parallel=8 -timeout 30m
# For the tests of the built plugin in a real server. They don't import the plugin, so Go
# would take an old result for a new plugin. The longest ones only wait, for a cluster or an
# agent, and need no core.
ACCEPTANCE := $(GOTEST) -count=1 -parallel=16 -tags acceptance

# The server for the tests: make test VAULT=oldest uses the oldest Vault that we support,
# VAULT=newest the newest, VAULT=released the newest that HashiCorp has released. If VAULT is
# empty, it is VAULT_BIN (Vault or OpenBao), else vault on PATH, else bao on PATH, else the
# newest Vault that we support. scripts/vault.sh downloads a missing one, or builds it if the
# download site can't be reached.
export VAULT :=

# Tests for only one server write their names here when they run on the other.
NOT_RUN := $(CURDIR)/.cache/not-run

# need,COMMAND,WHY
need = @command -v $(1) >/dev/null || { echo "error: $(1) is needed: $(2)" >&2; exit 1; }

# first,FILE,WHAT,MINUTES: says so before a tool is built, because that is long and silent.
first = @test -x $(TOOLS)/$(1) || echo "Building $(2), once: $(3) minutes on two cores." >&2

need-openssl = @echo '\#include <openssl/evp.h>' | $$(go env CC) -E - >/dev/null 2>&1 || { echo "error: OpenSSL's headers are needed; in Debian and Ubuntu install libssl-dev" >&2; exit 1; }

.PHONY: help
help: ## Print this help
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: go
go:
	$(call need,go,1.26 or newer; see https://go.dev/doc/install)
	@go list -m >/dev/null || { echo "error: Go 1.26 or newer is needed, this is $$(go env GOVERSION); see https://go.dev/doc/install" >&2; exit 1; }

.PHONY: cc
cc: go
	$(call need,$$(go env CC),the race detector in the tests needs a C compiler; in Debian and Ubuntu install gcc and libc6-dev)
	$(if $(TAG),$(need-openssl))

##@ Use

.PHONY: build
build: go ## Build the plugin into bin/plugins; SIGNER=openssl makes the faster one, which needs libssl-dev
	@test -x $(PLUGIN) || echo "Building the plugin. The first time this takes 1 to 4 minutes on two cores, because Vault's SDK is large." >&2
	@mkdir -p $(dir $(PLUGIN))
	scripts/build.sh $(PLUGIN)

.PHONY: vault
vault: go ## Find a Vault (VAULT_BIN, PATH), or download or build one, and print its path
	@scripts/vault.sh

# demo and dev don't use "go run", which would not forward signals.
.PHONY: demo
demo: build ## Show the way from a private key to a verified host token, in a Vault in dev mode
	@vault=$$(scripts/vault.sh) && (cd scripts && go build -o ../bin/demo ./demo) && exec bin/demo -vault "$$vault" -plugin-dir $(dir $(PLUGIN))

.PHONY: dev
dev: build ## Run a Vault in dev mode with the engine mounted, until Ctrl-C
	@vault=$$(scripts/vault.sh) && (cd scripts && go build -o ../bin/demo ./demo) && exec bin/demo -stay -vault "$$vault" -plugin-dir $(dir $(PLUGIN))

##@ Test

.PHONY: unit
unit: cc ## Run the unit tests: a minute, no Vault
	$(GOTEST) ./...
	$(if $(TAG),@$(MAKE) --no-print-directory leaks)

# Whether OpenSSL's keys are freed, by LeakSanitizer; on Linux, with gcc or clang.
.PHONY: leaks
leaks: cc
	$(need-openssl)
	CGO_ENABLED=1 go test -count=1 -asan -tags openssl -run '^TestKeys' ./backend/internal/rsakey

.PHONY: fuzz
fuzz: go ## Run every fuzz target for FUZZTIME (default 30s)
	@scripts/fuzz.sh

.PHONY: cluster-test
cluster-test: cc ## Kill, upgrade, cut off and suspend nodes of a cluster, and print what each did: ten minutes, on Linux
	@vault=$$(scripts/vault.sh) && cd scripts && VAULT_BIN="$$vault" $(ACCEPTANCE) -v -run '^(TestCluster.*|TestPluginEndsWithItsVault)$$' ./acceptance $(if $(CLUSTER),-args $(CLUSTER))

.PHONY: examples
examples: cc ## Run the examples in five languages, and verify their tokens with a library of each language
	@scripts/examples.sh

.PHONY: web-test
web-test: build ## Click through examples/web in Chromium, with a real Vault: three minutes
	@scripts/web-test.sh

.PHONY: monitoring-test
monitoring-test: cc ## Make every alert of examples/monitoring fire, in a real Prometheus
	$(call need,prometheus,in Debian and Ubuntu install the package prometheus)
	$(call need,promtool,in Debian and Ubuntu install the package prometheus)
	$(call need,prometheus-process-exporter,in Debian and Ubuntu install the package of this name)
	@vault=$$(scripts/vault.sh) && cd scripts && VAULT_BIN="$$vault" $(ACCEPTANCE),monitoring -v -run '^TestMonitoring$$' ./acceptance

.PHONY: kubernetes-test
kubernetes-test: go ## Run examples/kubernetes with a real Kubernetes API and External Secrets
	@vault=$$(scripts/vault.sh) && dirs=$$(scripts/kubernetes.sh) && cd scripts/kubernetes && VAULT_BIN="$$vault" KUBERNETES_DIRS="$$dirs" go test -count=1 -timeout 30m -v .

.PHONY: test
test: unit ## Run all tests, also those in a real server; lists at the end what was not run
	cd scripts/modules/vault-download && $(GOTEST) ./...
	@mkdir -p .cache && : >$(NOT_RUN) && vault=$$(scripts/vault.sh) && cd scripts && VAULT_BIN="$$vault" NOT_RUN=$(NOT_RUN) $(ACCEPTANCE) -short ./...; \
		status=$$?; cat $(NOT_RUN); exit $$status

.PHONY: tools
tools: go ## Build the linters, in the versions that scripts/modules pins
	$(call first,golangci-lint,the linters,8)
	@mkdir -p $(TOOLS)
	@for module in tools actionlint; do (cd scripts/modules/$$module && go build -o ../../../$(TOOLS)/ tool) || exit; done

.PHONY: hooks
hooks: ## Install .githooks/pre-commit, which checks every commit
	@hooks=$$(git rev-parse --git-path hooks) && mkdir -p "$$hooks" && install -m 0755 .githooks/pre-commit "$$hooks/pre-commit"
	@test -x $(TOOLS)/golangci-lint || echo "The first commit of Go code builds the linters, which takes 8 minutes on two cores. \"make tools\" does it now."

.PHONY: lint
lint: tools ## Run golangci-lint, with gofumpt, and actionlint
	$(TOOLS)/actionlint
	$(TOOLS)/golangci-lint run
	$(if $(TAG),$(TOOLS)/golangci-lint run --build-tags $(TAG) ./backend/internal/rsakey)
	cd scripts/modules/vault-download && ../../../$(TOOLS)/golangci-lint run
	cd scripts && ../$(TOOLS)/golangci-lint run
	cd scripts/kubernetes && ../../$(TOOLS)/golangci-lint run

.PHONY: fmt
fmt: tools ## Format the code with gofumpt
	$(TOOLS)/golangci-lint fmt

.PHONY: vet
vet: go ## Run go vet, and build the plugin for the other systems
	go vet $(TAG:%=-tags %) ./...
	cd scripts && go vet -tags acceptance,examples,monitoring ./...
	cd scripts/modules/vault-download && go vet ./...
	GOOS=darwin CGO_ENABLED=0 go build -o /dev/null ./cmd/...
	GOOS=windows CGO_ENABLED=0 go build -o /dev/null ./cmd/...

.PHONY: vulncheck
vulncheck: tools ## Look for known vulnerabilities that the code reaches
	@scripts/vulncheck.sh $(TOOLS)/govulncheck

.PHONY: ci
ci: lint vet test ## Run everything that a change must pass

##@ Measure

.PHONY: microbench
microbench: go ## Measure in one process what a token costs, compared with a bare signature
	go test $(TAG:%=-tags %) -run '^$$' -bench . -benchmem ./backend

.PHONY: bench
bench: go ## Measure what a token costs in a real Vault, compared with its peers: up to ten minutes
	@scripts/bench.sh

.PHONY: pairs
pairs: go ## Compare the speed of the engine's builds in the folder VARIANTS
	@set -- "$(VARIANTS)"/$(notdir $(PLUGIN))-*; test -x "$$2" || { echo "error: set VARIANTS to a folder with two or more builds, named $(notdir $(PLUGIN))-something" >&2; exit 1; }
	@scripts/bench.sh -pairs -plugin-dir $(VARIANTS) -rounds 30 -slice 500ms

.PHONY: soak
soak: go ## Run all kinds of requests on all cores for SOAK (default 10m); fails if the plugin grows
	@scripts/bench.sh -soak $(or $(SOAK),10m)

##@ Release

.PHONY: fixture
fixture: go ## Store what VERSION writes to storage, for the tests of later versions
	@test -n "$$GIVEN_VERSION" || { echo "error: name the release: make fixture VERSION=v1.2.3" >&2; exit 1; }
	go test -count=1 ./backend -run '^TestStorageOfReleases$$' -write-storage="$$VERSION"

.PHONY: goreleaser
goreleaser: go
	$(call first,goreleaser,goreleaser,3 to 10)
	@cd scripts/modules/goreleaser && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o ../../../$(TOOLS)/ tool

.PHONY: release
release: goreleaser ## Build into dist what a release has: of the tag of this commit, or a snapshot
	PATH="$(CURDIR)/$(TOOLS):$$PATH" goreleaser release --clean $$(git describe --tags --exact-match >/dev/null 2>&1 || echo --snapshot)

.PHONY: release-test
release-test: goreleaser ## Build a release twice, the second time with nothing compiled before, and compare: 10 minutes
	$(call need,unzip,in Debian and Ubuntu install the package unzip)
	@PATH="$(CURDIR)/$(TOOLS):$$PATH" scripts/release-test.sh
