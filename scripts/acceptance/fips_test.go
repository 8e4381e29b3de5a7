// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// What docs/security.md says about Go's FIPS 140-3 mode.
func TestFIPS(t *testing.T) {
	t.Parallel()
	sum := root(t).read("sys/mounts/" + enable(t))["running_sha256"]
	for _, mode := range []string{"on", "only"} {
		t.Run(mode, func(t *testing.T) {
			name := "fips-" + mode
			root(t).write("sys/plugins/catalog/secret/"+name, map[string]any{
				"command": devvault.PluginName, "sha256": sum, "env": []string{"GODEBUG=fips140=" + mode},
			})
			mount := unique(t)
			root(t).write("sys/mounts/"+mount, map[string]any{"type": name})
			t.Cleanup(func() {
				root(t).call(http.MethodDelete, "sys/mounts/"+mount, nil)
				root(t).call(http.MethodDelete, "sys/plugins/catalog/secret/"+name, nil)
			})
			root(t).write(mount+"/config", map[string]any{"consumer_id": "acme"})
			root(t).write(mount+"/roles/any", map[string]any{"allowed_rooms": "*"})
			for _, bits := range []int{2048, 3072, 4096} {
				status, answer := root(t).post(mount+"/keys/generate", map[string]any{"key_bits": bits})
				require.Equal(t, http.StatusOK, status, "%d: %s", bits, answer.Errors())
				root(t).write(mount+"/config", map[string]any{"active_key": answer.Data()["version"]})
				signs(t, mount)
				for form, key := range keyForms(t, fmt.Sprintf("rsa_keygen_bits:%d", bits)) {
					status, answer := root(t).post(mount+"/config", map[string]any{"private_key": key})
					require.Less(t, status, http.StatusBadRequest, "%d %s: %s", bits, form, answer.Errors())
					signs(t, mount)
				}
			}
			for _, unusual := range []string{"rsa_keygen_pubexp:3", "rsa_keygen_primes:3"} {
				status, _ := root(t).post(mount+"/config", map[string]any{"private_key": keyForms(t, unusual)["PKCS#8"]})
				if mode == "only" {
					require.Equal(t, http.StatusBadRequest, status, unusual)
					continue
				}
				require.Less(t, status, http.StatusBadRequest, unusual)
				signs(t, mount)
			}
		})
	}
}

// signs checks that a mount makes a token, and that its verify accepts it.
func signs(t *testing.T, mount string) {
	t.Helper()
	token := root(t).read(mount+"/creds/any", "room", "a")["token"]
	status, answer := root(t).post(mount+"/verify", map[string]any{"token": token})
	require.Equal(t, http.StatusOK, status, answer.Errors())
	require.Equal(t, true, answer.Data()["valid"])
}

// keyForms returns a new key as PKCS#8 and PKCS#1, by openssl, and as OpenSSH, by
// ssh-keygen.
func keyForms(t *testing.T, option string) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.pem")
	forms := map[string]string{}
	for _, form := range []struct {
		name    string
		command []string
	}{
		{"PKCS#8", []string{"openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", option, "-out", file}},
		{"PKCS#1", []string{"openssl", "rsa", "-traditional", "-in", file, "-out", file}},
		{"OpenSSH", []string{"ssh-keygen", "-q", "-p", "-P", "", "-N", "", "-f", file}},
	} {
		out, err := exec.Command(form.command[0], form.command[1:]...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		forms[form.name] = string(raw)
	}
	return forms
}
