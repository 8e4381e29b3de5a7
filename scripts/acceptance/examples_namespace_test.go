// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance && examples

package acceptance

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// With VAULT_NAMESPACE, the login and the read name the namespace; without it, neither does.
// A proxy sees that, because Vault's community edition has no namespaces: it ignores the
// header.
func TestExamplesNamespace(t *testing.T) {
	target, err := url.Parse(vault.Addr)
	require.NoError(t, err)
	pass := httputil.NewSingleHostReverseProxy(target).ServeHTTP
	for _, lang := range languages() {
		t.Run(lang.name, func(t *testing.T) {
			t.Parallel()
			m := newMeetings(t, 300)
			for given, want := range map[string][]string{"VAULT_NAMESPACE=team/desk": {"team/desk"}, "VAULT_NAMESPACE=": nil} {
				var mu sync.Mutex
				var names [][]string
				proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					names = append(names, r.Header.Values("X-Vault-Namespace"))
					mu.Unlock()
					r.Header.Del("X-Vault-Namespace")
					pass(w, r)
				}))
				_, said, status := run(t, append(m.env, "VAULT_ADDR="+proxy.URL, given), lang.example, "support-1")
				proxy.Close()
				require.Zero(t, status, said)
				require.Equal(t, [][]string{want, want}, names, given)
			}
		})
	}
}
