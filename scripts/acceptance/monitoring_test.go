// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance && monitoring

// examples/monitoring in a real Prometheus, which "make monitoring-test" makes sure is
// there.

package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	monitoringExample = "../../examples/monitoring"
	processExporter   = "prometheus-process-exporter"
)

// monitored is a Vault with the engine, under load, and a Prometheus that watches it.
type monitored struct {
	client

	dir        string // the example's files, changed for the test
	prometheus string // base URL
	reload     func()
	stopLoad   func()
}

// No alert of the example fires while all is well, and each fires when the test causes its
// problem.
func TestMonitoring(t *testing.T) {
	m := newMonitored(t)
	t.Run("rules", m.testRules)
	waitUntil(m.t, "no alert fires under load", func() bool { return len(m.firing()) == 0 && len(m.query("vault_route_read_clanmeeting__count")) == 1 })
	// Some alerts compare with an hour and a day ago; see [shortened].
	waitUntil(m.t, "there is an hour ago", func() bool { return len(m.query("sum(vault_expire_num_leases offset 1m)")) > 0 })
	waitUntil(m.t, "no alert fires under load, still", func() bool { return len(m.firing()) == 0 })

	m.brings("ClanMeetingLeasesGrow", m.takeLeases)
	m.brings("ClanMeetingServerErrors", m.breakRole())
	m.brings("ClanMeetingRateLimited", m.exceedQuota())
	m.brings("ClanMeetingSlowTokens", m.stopPlugin)
	m.brings("ClanMeetingPluginRestarts", m.killPlugin)
	m.brings("ClanMeetingPluginMemory", sync.OnceFunc(m.lowerMemoryLimit))
	t.Run("metrics", m.testMetrics)
	m.brings("ClanMeetingTokensStopped", m.stopLoad)
	require.NotContains(t, m.firing(), "ClanMeetingNoActiveVault")
	m.brings("ClanMeetingVaultSealed", sync.OnceFunc(func() { m.write("sys/seal", nil) }))
	waitUntil(m.t, "no Vault is active", func() bool { return slices.Contains(m.firing(), "ClanMeetingNoActiveVault") })
	m.brings("ClanMeetingVaultDown", m.vault.Stop)
	fired := m.names(`max by (alertname) (max_over_time(ALERTS{alertstate="firing"}[1h]))`)
	for _, alert := range m.rules() {
		require.Contains(t, fired, alert.Name)
	}
}

func newMonitored(t *testing.T) *monitored {
	t.Helper()
	for _, tool := range []string{"prometheus", "promtool", processExporter} {
		_, err := exec.LookPath(tool)
		require.NoError(t, err, "%s is needed; Debian and Ubuntu have it in the packages prometheus and prometheus-process-exporter", tool)
	}
	m := &monitored{dir: t.TempDir()}
	free, err := devvault.FreeAddrs(3)
	require.NoError(t, err)
	metrics, processes, prometheus := free[0], free[1], free[2]
	m.prometheus = "http://" + prometheus
	plugins := filepath.Join(m.dir, "plugins")
	m.copyExample(t, "vault.hcl", func(text string) string {
		// To write corrupt entries; operators don't need it.
		return "raw_storage_endpoint = true\n" + replaceOnce(t, text, "127.0.0.1:8202", metrics)
	})
	m.copyExample(t, "process-exporter.yml", func(text string) string {
		// Not the plugins of other Vaults on this machine.
		return replaceOnce(t, text, `^\S*/`, "^"+regexp.QuoteMeta(plugins)+"/")
	})
	m.copyExample(t, "alerts.yml", func(text string) string { return shortened(t, text) })
	m.copyExample(t, "prometheus.yml", func(text string) string {
		text = replaceOnce(t, text, "127.0.0.1:8202", metrics)
		text = replaceOnce(t, text, "127.0.0.1:9256", processes)
		return strings.ReplaceAll(text, "_interval: 15s", "_interval: 1s")
	})

	m.client = startMonitored(t, plugins, filepath.Join(m.dir, "vault.hcl"))
	m.start(processExporter, "-config.path="+filepath.Join(m.dir, "process-exporter.yml"), "-web.listen-address="+processes)
	process := m.start("prometheus", "--config.file="+filepath.Join(m.dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(m.dir, "data"), "--web.listen-address="+prometheus)
	m.reload = func() { require.NoError(t, process.Signal(syscall.SIGHUP)) }
	waitUntil(m.t, "Prometheus sees both", func() bool { return len(m.query("up == 1")) == 2 })
	m.load()
	return m
}

// startMonitored runs a Vault with the engine as an operator installs it: without the race
// detector, which makes it slow and large.
func startMonitored(t *testing.T, plugins, config string) client {
	t.Helper()
	buildRelease(t, filepath.Join(plugins, devvault.PluginName))
	server, err := devvault.Start(t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: plugins, Config: config})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	c := client{t, server, server.RootToken}
	c.configure(c.enable("clanmeeting"))
	c.write("clanmeeting/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true})
	return c
}

func replaceOnce(t testing.TB, text, from, to string) string {
	t.Helper()
	require.Equal(t, 1, strings.Count(text, from), from)
	return strings.Replace(text, from, to, 1)
}

func (m *monitored) copyExample(t testing.TB, name string, change func(string) string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(monitoringExample, name))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, name), []byte(change(string(text))), 0o600))
}

// shortened replaces minutes, an hour and a day in rules by short times. It changes no
// threshold.
func shortened(t testing.TB, rules string) string {
	t.Helper()
	windows := map[string]string{"[5m]": "[15s]", "[15m]": "[20s]", "offset 1h": "offset 1m", "offset 1d": "offset 1m"}
	times := regexp.MustCompile(`\[\w+\]|offset \w+|for: \w+`)
	return times.ReplaceAllStringFunc(rules, func(found string) string {
		if strings.HasPrefix(found, "for: ") {
			return "for: 1s"
		}
		require.Contains(t, windows, found)
		return windows[found]
	})
}

// start runs a program until the test ends.
func (m *monitored) start(name string, args ...string) *os.Process {
	m.t.Helper()
	log, err := os.Create(filepath.Join(m.dir, name+".log"))
	require.NoError(m.t, err)
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(m.t, cmd.Start())
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails if it has ended
		_ = cmd.Wait()
		text, err := os.ReadFile(log.Name())
		if m.t.Failed() && err == nil {
			m.t.Logf("%s:\n%.4000s", name, text)
		}
	})
	return cmd.Process
}

// load reads tokens, some 50 a second, and writes for a batch, until stopLoad.
func (m *monitored) load() {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(80 * time.Millisecond):
				}
				// Errors are expected: the test causes them.
				_, _, _ = m.vault.Call(m.t.Context(), m.token, http.MethodGet, "clanmeeting/creds/support?room=support-1", nil)
			}
		})
	}
	m.post("clanmeeting/creds/support", map[string]any{"batch_input": []map[string]any{{"room": "support-1"}}})
	m.stopLoad = sync.OnceFunc(func() { close(done); wg.Wait() })
	m.t.Cleanup(m.stopLoad)
}

// api reads an answer of Prometheus's HTTP API into data.
func (m *monitored) api(path string, data any) error {
	resp, err := http.Get(m.prometheus + "/api/v1/" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("%s: %w", raw, err)
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return nil
}

// query returns the series of an expression now; none if Prometheus does not answer.
func (m *monitored) query(expr string) []any {
	var data struct{ Result []any }
	if err := m.api("query?query="+url.QueryEscape(expr), &data); err != nil {
		m.t.Logf("%s: %v", expr, err)
	}
	return data.Result
}

// firing returns the names of the alerts that fire now.
func (m *monitored) firing() []string {
	return m.names(`ALERTS{alertstate="firing"}`)
}

func (m *monitored) names(expr string) []string {
	var names []string
	for _, series := range m.query(expr) {
		name, _ := series.(map[string]any)["metric"].(map[string]any)["alertname"].(string)
		names = append(names, name)
	}
	return names
}

// rule is an alert, as Prometheus has read it.
type rule struct{ Name, Query string }

func (m *monitored) rules() []rule {
	var data struct {
		Groups []struct{ Rules []rule }
	}
	require.NoError(m.t, m.api("rules?type=alert", &data))
	var all []rule
	for _, group := range data.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// brings does something until the alert fires. It must not fire before.
func (m *monitored) brings(alert string, cause func()) {
	m.t.Helper()
	require.NotContains(m.t, m.firing(), alert, "before it was brought about")
	waitUntil(m.t, alert+" fires", func() bool {
		cause()
		return slices.Contains(m.firing(), alert)
	})
}

// takeLeases creates leases, in the end more than the alert tolerates.
func (m *monitored) takeLeases() {
	for range 200 {
		m.read("clanmeeting/creds/leased", "room", "x")
	}
}

// breakRole makes requests for a role that is corrupt in storage.
func (m *monitored) breakRole() func() {
	uuid := m.read("sys/mounts/clanmeeting")["uuid"]
	m.write(fmt.Sprintf("sys/raw/logical/%s/roles/broken", uuid), map[string]any{"value": "x"})
	return func() {
		status, _ := m.get("clanmeeting/creds/broken", "room", "x")
		require.Equal(m.t, http.StatusInternalServerError, status)
	}
}

// exceedQuota makes requests above a limit of one a second.
func (m *monitored) exceedQuota() func() {
	m.write("clanmeeting/roles/limited", map[string]any{"allowed_rooms": "x"})
	m.write("sys/quotas/rate-limit/limited", map[string]any{"path": "clanmeeting/creds/limited", "rate": 1})
	return func() {
		for range 5 {
			m.get("clanmeeting/creds/limited", "room", "x")
		}
	}
}

func (m *monitored) plugin() int {
	m.t.Helper()
	plugins := children(m.t, m.vault.PID())
	require.Len(m.t, plugins, 1)
	return plugins[0]
}

// stopPlugin makes requests wait for the plugin for more than half a second.
func (m *monitored) stopPlugin() {
	plugin := m.plugin()
	require.NoError(m.t, syscall.Kill(plugin, syscall.SIGSTOP))
	time.Sleep(800 * time.Millisecond)
	require.NoError(m.t, syscall.Kill(plugin, syscall.SIGCONT))
}

// killPlugin ends the plugin, and waits until Vault has started another one and Prometheus
// has seen it.
func (m *monitored) killPlugin() {
	killed := m.plugin()
	require.NoError(m.t, syscall.Kill(killed, syscall.SIGKILL))
	waitUntil(m.t, "another plugin runs", func() bool {
		plugins := children(m.t, m.vault.PID())
		return len(plugins) == 1 && plugins[0] != killed && running(plugins[0])
	})
	time.Sleep(2 * time.Second)
}

// lowerMemoryLimit changes the only threshold that the test can't reach: the plugin does not
// grow.
func (m *monitored) lowerMemoryLimit() {
	m.copyExample(m.t, "alerts.yml", func(text string) string { return shortened(m.t, replaceOnce(m.t, text, "200e6", "2e6")) })
	m.reload()
}

func (m *monitored) testRules(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(monitoringExample, "README.md"))
	require.NoError(t, err)
	commands := indented(string(readme))
	require.Equal(t, 2, strings.Count(commands, "promtool "), commands)
	reader{m.client, monitoringExample}.run(commands + "promtool check config prometheus.yml\n")
	for _, alert := range m.rules() {
		require.Contains(t, string(readme), "| `"+alert.Name+"` |", "the README says what to do")
	}
}

// promWords are the words in the example's expressions that are not metrics: functions and
// operators, then labels.
var promWords = []string{
	"absent", "and", "by", "changes", "count", "ignoring", "increase", "max", "offset", "on", "or", "rate", "sum", "unless", "vector",
	"alertname", "code", "groupname", "instance", "job", "memtype", "name", "quantile",
}

// Every metric in the rules and the dashboard exists, and every panel shows something.
func (m *monitored) testMetrics(t *testing.T) {
	var metrics []string
	require.NoError(t, m.api("label/__name__/values", &metrics))
	panels := dashboardExpressions(t)
	require.Greater(t, len(panels), 15)
	expressions := slices.Clone(panels)
	for _, alert := range m.rules() {
		expressions = append(expressions, alert.Query)
	}

	quoted := regexp.MustCompile(`"[^"]*"|\[[^]]*\]|offset \w+|\b\d\w*`)
	word := regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	for _, expr := range expressions {
		for _, name := range word.FindAllString(quoted.ReplaceAllString(expr, ""), -1) {
			if !slices.Contains(promWords, name) {
				require.Contains(t, metrics, name, expr)
			}
		}
	}
	for _, expr := range panels {
		require.NotEmpty(t, m.query(expr), "no data: %s", expr)
	}
}

// dashboardExpressions returns the expressions of all panels, with Grafana's variables
// replaced.
func dashboardExpressions(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(monitoringExample, "dashboard.json"))
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(raw, &dashboard))
	var found []string
	for _, panel := range dashboard.Panels {
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			found = append(found, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"))
		}
	}
	return found
}
