// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

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

// The examples for Vault Agent keep a file with a token, which is never expired, or half a
// token. The program that env.hcl runs writes the file itself. Only times and the names of
// files are changed.
func TestAgent(t *testing.T) {
	t.Parallel()
	const example, renewals = "../../examples/agent/", 3
	r := newReader(t)
	key := r.configure("clanmeeting")
	ttl, renderInterval := agentTimes()
	setUp := blocks(strings.ReplaceAll(document(t, example+"README.md"), "ttl=1m", "ttl="+ttl.String()))
	files, _, found := strings.Cut(setUp[1].commands, "vault agent ")
	require.True(t, found)
	r.run(setUp[0].commands + files)

	r.file("desk.sh", "printf %s \"$CLANMEETING_TOKEN\" > new && chmod 600 new && mv new env.hcl.token\nexec tail -f /dev/null\n")
	seen := map[string]map[string]bool{}
	for _, config := range []string{"leased.hcl", "unleased.hcl", "env.hcl"} {
		text := strings.ReplaceAll(document(t, example+config), `= "40s"`, `= "`+renderInterval.String()+`"`)
		r.file(config, strings.ReplaceAll(text, `= "host-token"`, `= "`+config+`.token"`))
		r.startAgent(config)
		seen[config] = map[string]bool{}
	}
	for start, done := time.Now(), 0; done < len(seen); time.Sleep(10 * time.Millisecond) {
		require.Less(t, time.Since(start), (renewals+2)*ttl, "%v", seen)
		done = 0
		for config, tokens := range seen {
			file := filepath.Join(r.dir, config+".token")
			info, err := os.Stat(file)
			if err != nil && len(tokens) == 0 {
				continue // not yet
			}
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode())
			token := document(t, file)
			claims := verify(t, token, &key.PublicKey)
			require.Equal(t, "front-desk", claims["room"])
			exp, err := claims["exp"].(json.Number).Int64()
			require.NoError(t, err)
			require.Less(t, time.Now(), time.Unix(exp, 0), "%s: expired after %d tokens", config, len(tokens))
			tokens[token] = true
			if len(tokens) > renewals {
				done++
			}
		}
	}
}

// startAgent runs a real Vault Agent in the folder, until the test ends.
func (r reader) startAgent(config string) {
	r.t.Helper()
	var said bytes.Buffer
	agent := r.vault.Command(context.Background(), "", "agent", "-config="+config)
	agent.Dir, agent.Stdout, agent.Stderr = r.dir, &said, &said
	require.NoError(r.t, agent.Start())
	r.t.Cleanup(func() {
		_ = agent.Process.Signal(syscall.SIGTERM)
		_ = agent.Wait() // its output says how it ended
		if r.t.Failed() {
			r.t.Logf("%s: %s", config, &said)
		}
	})
}
