// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// The agent's examples. Only the mount and the times are changed: short times show several
// renewals soon.
const agentRenewals = 3

// agentTimes returns the life of a token, and how long an agent without a lease waits
// before it reads again. With Vault they are a fifth of the examples' times. OpenBao's
// agent ignores lease_renewal_threshold and may read again when only 5 % of a lease is
// left. Of 12 s, that is less than the second to which a token's end is rounded.
func agentTimes() (ttl, renderInterval time.Duration) {
	if vault.Kind == devvault.OpenBao {
		return 40 * time.Second, 27 * time.Second
	}
	return 12 * time.Second, 8 * time.Second
}

// agentApp returns a folder with the examples, and with the login of an application that
// may read tokens of their roles.
func agentApp(t *testing.T) (dir string, key *rsa.PublicKey) {
	t.Helper()
	mount, key := configured(t)
	ttl, renderInterval := agentTimes()
	for role, leased := range map[string]bool{"desk": false, "desk-leased": true} {
		root(t).write(mount+"/roles/"+role, map[string]any{
			"allowed_rooms": "front-desk", "default_room": "front-desk", "ttl": ttl.String(), "generate_lease": leased,
		})
	}
	root(t).write("sys/policies/acl/"+mount, map[string]any{"policy": `path "` + mount + `/creds/*" { capabilities = ["read"] }`})
	root(t).write("sys/auth/"+mount, map[string]any{"type": "approle"})
	t.Cleanup(func() { root(t).call(http.MethodDelete, "sys/auth/"+mount, nil) })
	app := "auth/" + mount + "/role/desk"
	root(t).write(app, map[string]any{"token_policies": mount, "token_no_default_policy": true})

	dir = t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("role-id", root(t).read(app + "/role-id")["role_id"].(string))
	write("secret-id", root(t).write(app+"/secret-id", nil).Data()["secret_id"].(string))
	for _, file := range []string{"../../examples/agent/leased.hcl", "../../examples/agent/unleased.hcl", "../../examples/agent/env.hcl", "testdata/agent/desk.sh"} {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		write(filepath.Base(file), strings.NewReplacer(
			"clanmeeting/creds/", mount+"/creds/",
			`static_secret_render_interval = "40s"`, fmt.Sprintf("static_secret_render_interval = %q", renderInterval),
			`type = "approle"`, "type = \"approle\"\n    mount_path = \"auth/"+mount+`"`,
		).Replace(string(raw)))
	}
	return dir, key
}

// startAgent runs a real Vault Agent with one of the examples, and returns its output.
func startAgent(t *testing.T, dir, config string) *os.File {
	t.Helper()
	out, in, err := os.Pipe()
	require.NoError(t, err)
	var said bytes.Buffer
	agent := vault.Command(context.Background(), "", "agent", "-config="+config)
	agent.Dir, agent.Stdout, agent.Stderr = dir, in, &said
	require.NoError(t, agent.Start())
	require.NoError(t, in.Close())
	t.Cleanup(func() {
		_ = agent.Process.Signal(syscall.SIGTERM)
		_ = agent.Wait() // its output says how it ended
		_ = out.Close()
		if t.Failed() {
			t.Logf("%s", &said)
		}
	})
	return out
}

func expirationOf(t *testing.T, token string, key *rsa.PublicKey) time.Time {
	t.Helper()
	claims := verify(t, token, key)
	require.Equal(t, "front-desk", claims["room"])
	exp, err := claims["exp"].(json.Number).Int64()
	require.NoError(t, err)
	return time.Unix(exp, 0)
}

// The file that the agent writes never holds an expired token, or half of one.
func TestAgentKeepsAFile(t *testing.T) {
	t.Parallel()
	for _, config := range []string{"leased.hcl", "unleased.hcl"} {
		t.Run(config, func(t *testing.T) {
			t.Parallel()
			dir, key := agentApp(t)
			startAgent(t, dir, config)
			file := filepath.Join(dir, "host-token")
			require.Eventually(t, func() bool { _, err := os.Stat(file); return err == nil }, 30*time.Second, 10*time.Millisecond)
			info, err := os.Stat(file)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode())

			ttl, _ := agentTimes()
			tokens := map[string]time.Time{}
			for start := time.Now(); len(tokens) <= agentRenewals; time.Sleep(10 * time.Millisecond) {
				require.Less(t, time.Since(start), (agentRenewals+2)*ttl, "only %d tokens", len(tokens))
				raw, err := os.ReadFile(file)
				require.NoError(t, err)
				token := string(raw)
				if _, seen := tokens[token]; !seen {
					tokens[token] = expirationOf(t, token, key)
				}
				require.Less(t, time.Now(), tokens[token], "expired after %d tokens", len(tokens))
			}
		})
	}
}

// The program that the agent runs gets a new token before the last one has expired.
func TestAgentRunsAProgram(t *testing.T) {
	t.Parallel()
	dir, key := agentApp(t)
	stdout := startAgent(t, dir, "env.hcl")
	ttl, _ := agentTimes()
	require.NoError(t, stdout.SetReadDeadline(time.Now().Add((agentRenewals+2)*ttl)))
	expires := time.Now().Add((agentRenewals + 2) * ttl)
	seen := 0
	for lines := bufio.NewScanner(stdout); seen <= agentRenewals; {
		require.True(t, lines.Scan(), "the agent said no more after %d tokens: %v", seen, lines.Err())
		if line := lines.Text(); strings.Count(line, ".") == 2 && strings.HasPrefix(line, "eyJ") {
			require.Less(t, time.Now(), expires, "the last token had expired")
			expires = expirationOf(t, line, key)
			seen++
		}
	}
}
