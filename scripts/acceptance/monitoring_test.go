// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance && monitoring

// examples/monitoring in a real Prometheus, which "make monitoring-test" makes sure is
// there.

package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const monitoringExample = "../../examples/monitoring/"

// monitored is a Vault with the engine, and a Prometheus that watches it.
type monitored struct {
	client

	dir        string // the example's files, changed for the test
	prometheus *os.Process
	url        string // Prometheus's
	fired      []string
}

// No alert of the example fires while all is well, and each fires when the test causes its
// problem.
func TestMonitoring(t *testing.T) {
	m := newMonitored(t)
	readme := m.example("README.md")
	commands := indented(readme)
	require.Contains(t, commands, "promtool test rules")
	reader{m.client, monitoringExample}.run(commands)

	stopLoad := m.load()
	const firing = `ALERTS{alertstate="firing"}`
	waitUntil(t, "Prometheus sees the load", func() bool { return m.series("vault_route_read_clanmeeting__count") == 1 })
	waitUntil(t, "no alert fires under load", func() bool { return m.series(firing) == 0 })
	// Some alerts compare with an hour and a day ago, of which the copy makes a minute.
	waitUntil(t, "there is an hour ago", func() bool { return m.series("sum(vault_expire_num_leases offset 1m)") > 0 })
	waitUntil(t, "no alert fires under load, still", func() bool { return m.series(firing) == 0 })

	m.brings(func() {
		for range 200 {
			m.read("clanmeeting/creds/leased", "room", "x")
		}
	}, "ClanMeetingLeasesGrow")
	m.write(fmt.Sprintf("sys/raw/logical/%s/roles/broken", m.read("sys/mounts/clanmeeting")["uuid"]), map[string]any{"value": "x"})
	m.brings(func() {
		status, _ := m.get("clanmeeting/creds/broken", "room", "x")
		require.Equal(t, http.StatusInternalServerError, status)
	}, "ClanMeetingServerErrors")
	m.write("clanmeeting/roles/limited", map[string]any{"allowed_rooms": "x"})
	m.write("sys/quotas/rate-limit/limited", map[string]any{"path": "clanmeeting/creds/limited", "rate": 1})
	m.brings(func() {
		for range 5 {
			m.get("clanmeeting/creds/limited", "room", "x")
		}
	}, "ClanMeetingRateLimited")
	m.brings(func() {
		plugin := m.plugin()
		require.NoError(t, syscall.Kill(plugin, syscall.SIGSTOP))
		time.Sleep(800 * time.Millisecond)
		require.NoError(t, syscall.Kill(plugin, syscall.SIGCONT))
	}, "ClanMeetingSlowTokens")
	m.brings(func() {
		killed := m.plugin()
		require.NoError(t, syscall.Kill(killed, syscall.SIGKILL))
		waitUntil(t, "another plugin runs", func() bool {
			plugins := children(t, m.vault.PID())
			return len(plugins) == 1 && plugins[0] != killed && running(plugins[0])
		})
		time.Sleep(2 * time.Second) // Prometheus must see it
	}, "ClanMeetingPluginRestarts")
	// The only threshold that the test can't reach, because the plugin does not grow.
	m.brings(sync.OnceFunc(func() {
		m.copyExample("alerts.yml", "200e6", "2e6")
		require.NoError(t, m.prometheus.Signal(syscall.SIGHUP))
	}), "ClanMeetingPluginMemory")
	m.testDashboard()
	m.brings(stopLoad, "ClanMeetingTokensStopped")
	m.brings(sync.OnceFunc(func() { m.write("sys/seal", nil) }), "ClanMeetingVaultSealed", "ClanMeetingNoActiveVault")
	m.brings(m.vault.Stop, "ClanMeetingVaultDown")

	alerts := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(m.example("alerts.yml"), -1)
	require.NotEmpty(t, alerts)
	for _, alert := range alerts {
		require.Contains(t, m.fired, alert[1])
		require.Contains(t, readme, "| `"+alert[1]+"` |", "the README says what to do")
	}
}

func newMonitored(t *testing.T) *monitored {
	t.Helper()
	m := &monitored{client: client{t: t}, dir: t.TempDir()}
	free, err := devvault.FreeAddrs(3)
	require.NoError(t, err)
	metrics, processes, prometheus := free[0], free[1], free[2]
	m.url = "http://" + prometheus
	plugins := filepath.Join(m.dir, "plugins")
	// To write corrupt entries; operators don't need it.
	m.copyExample("vault.hcl", "127.0.0.1:8202", metrics, `listener "tcp"`, "raw_storage_endpoint = true\nlistener \"tcp\"")
	// Not the plugins of other Vaults on this machine.
	m.copyExample("process-exporter.yml", `^\S*/`, "^"+regexp.QuoteMeta(plugins)+"/")
	m.copyExample("prometheus.yml", "127.0.0.1:8202", metrics, "127.0.0.1:9256", processes, "_interval: 15s", "_interval: 1s")
	m.copyExample("alerts.yml")

	// As an operator installs it: the race detector would make the plugin slow and large.
	buildRelease(t, filepath.Join(plugins, devvault.PluginName))
	server, err := devvault.Start(t.Context(), devvault.Options{
		VaultBin: os.Getenv("VAULT_BIN"), PluginDir: plugins, Config: filepath.Join(m.dir, "vault.hcl"),
	})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	m.client = client{t, server, server.RootToken}
	m.configure(m.enable("clanmeeting"))
	m.write("clanmeeting/roles/leased", map[string]any{"allowed_rooms": "*", "generate_lease": true})

	m.start("prometheus-process-exporter", "-config.path="+filepath.Join(m.dir, "process-exporter.yml"), "-web.listen-address="+processes)
	m.prometheus = m.start("prometheus", "--config.file="+filepath.Join(m.dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(m.dir, "data"), "--web.listen-address="+prometheus)
	waitUntil(t, "Prometheus is ready", func() bool {
		resp, err := http.Get(m.url + "/-/ready")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
	waitUntil(t, "Prometheus sees both", func() bool { return m.series("up == 1") == 2 })
	return m
}

// example returns a file of the example.
func (m *monitored) example(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(monitoringExample + name)
	require.NoError(m.t, err)
	return string(text)
}

// copyExample copies a file with some texts replaced. In rules it also replaces minutes, an
// hour and a day by short times, and no threshold.
func (m *monitored) copyExample(name string, replacements ...string) {
	m.t.Helper()
	text := strings.NewReplacer(append(replacements,
		"[5m]", "[15s]", "[15m]", "[20s]", "offset 1h", "offset 1m", "offset 1d", "offset 1m",
	)...).Replace(m.example(name))
	text = regexp.MustCompile(`for: \w+`).ReplaceAllString(text, "for: 1s")
	require.NoError(m.t, os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600))
}

// start runs a program until the test ends.
func (m *monitored) start(name string, args ...string) *os.Process {
	m.t.Helper()
	var said bytes.Buffer
	cmd := exec.CommandContext(m.t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(m.t, cmd.Start())
	m.t.Cleanup(func() {
		_ = cmd.Wait() // the test's context has killed it
		if m.t.Failed() {
			m.t.Logf("%s:\n%.4000s", name, &said)
		}
	})
	return cmd.Process
}

// load writes for a batch, and reads tokens, up to 50 a second, until stop.
func (m *monitored) load() (stop func()) {
	m.post("clanmeeting/creds/support", map[string]any{"batch_input": []map[string]any{{"room": "support-1"}}})
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			// Errors are expected: the test causes them.
			_, _, _ = m.vault.Call(ctx, m.token, http.MethodGet, "clanmeeting/creds/support?room=support-1", nil)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	m.t.Cleanup(stop)
	return stop
}

// series returns how many series an expression has now.
func (m *monitored) series(expr string) int {
	m.t.Helper()
	resp, err := http.Get(m.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	require.NoError(m.t, err)
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []any }
	}
	require.NoError(m.t, json.NewDecoder(resp.Body).Decode(&answer))
	require.Empty(m.t, answer.Error, expr)
	return len(answer.Data.Result)
}

// brings does something until the alerts fire, none of which fires before.
func (m *monitored) brings(cause func(), alerts ...string) {
	m.t.Helper()
	firing := fmt.Sprintf(`count by (alertname) (ALERTS{alertstate="firing", alertname=~"%s"})`, strings.Join(alerts, "|"))
	require.Zero(m.t, m.series(firing), "%v: before it was brought about", alerts)
	waitUntil(m.t, fmt.Sprint(alerts), func() bool {
		cause()
		return m.series(firing) == len(alerts)
	})
	m.fired = append(m.fired, alerts...)
}

// plugin returns the ID of the plugin's process.
func (m *monitored) plugin() int {
	m.t.Helper()
	plugins := children(m.t, m.vault.PID())
	require.Len(m.t, plugins, 1)
	return plugins[0]
}

// testDashboard looks whether every panel of the dashboard shows something, and whether each
// of its selectors finds something: "or vector(0)" would hide that.
func (m *monitored) testDashboard() {
	m.t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(m.t, json.Unmarshal([]byte(m.example("dashboard.json")), &dashboard))
	require.NotEmpty(m.t, dashboard.Panels)
	selector := regexp.MustCompile(`\w+{[^}]*}`)
	for _, panel := range dashboard.Panels {
		require.NotEmpty(m.t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "1m")
			for _, shown := range append(selector.FindAllString(expr, -1), expr) {
				require.NotZero(m.t, m.series(shown), "no data: %s", shown)
			}
		}
	}
}
