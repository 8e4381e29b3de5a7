// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// Every path describes itself whole: what vault path-help, the OpenAPI document
// and Vault's UI are made of.
func TestPathTable(t *testing.T) {
	reference, err := os.ReadFile("../docs/reference.md")
	require.NoError(t, err)
	b := newBackend(testVersion, time.Now)
	for _, path := range b.Paths {
		require.NotEmpty(t, path.HelpSynopsis, path.Pattern)
		require.NotContains(t, strings.TrimSpace(path.HelpSynopsis), "\n", "%s: one sentence", path.Pattern)
		require.Contains(t, path.HelpDescription, "$ vault ", "%s: an example", path.Pattern)
		require.Equal(t, operationPrefix, path.DisplayAttrs.OperationPrefix, path.Pattern)
		for name, field := range path.Fields {
			require.NotEmpty(t, field.Description, "%s: %s", path.Pattern, name)
			require.True(t, strings.Contains(string(reference), "`"+name+"`"), "%s: the reference lacks %s", path.Pattern, name)
		}
		for op, handler := range path.Operations {
			properties := handler.Properties()
			require.NotEmpty(t, properties.Summary, "%s: %s", path.Pattern, op)
			require.NotEmpty(t, properties.Responses, "%s: %s", path.Pattern, op)
			for _, response := range properties.Responses[http.StatusOK] {
				for name, field := range response.Fields {
					require.NotEmpty(t, field.Description, "%s: %s: %s", path.Pattern, op, name)
					require.True(t, strings.Contains(string(reference), "`"+name+"`"), "%s: the reference lacks %s", path.Pattern, name)
				}
			}
		}
	}
	require.NotEmpty(t, b.Help)
}

// What writes runs on the active node of the primary, what reads runs anywhere.
func TestForwarding(t *testing.T) {
	writes := []logical.Operation{logical.CreateOperation, logical.UpdateOperation, logical.DeleteOperation}
	for _, path := range newBackend(testVersion, time.Now).Paths {
		for op, handler := range path.Operations {
			readsOnly := slices.ContainsFunc([]string{"creds/", "check/", "verify"}, func(prefix string) bool { return strings.HasPrefix(path.Pattern, prefix) })
			want := slices.Contains(writes, op) && !readsOnly
			require.Equal(t, want, handler.Properties().ForwardPerformanceStandby, "%s: %s", path.Pattern, op)
			require.Equal(t, want, handler.Properties().ForwardPerformanceSecondary, "%s: %s", path.Pattern, op)
		}
	}
}

// The response schemas hold strictly for real answers: no field more, and every
// required one there.
func TestResponseSchemas(t *testing.T) {
	for name, prepare := range map[string]func(m *testMount){
		"plain":  func(*testMount) {},
		"domain": func(m *testMount) { m.mustWrite("config", map[string]any{fieldDomain: "meet.example.com"}) },
		"no key": func(m *testMount) {
			m.mustDelete("config")
			m.mustWrite("config", map[string]any{fieldConsumerID: testConsumer})
		},
	} {
		for title, o := range operations(t) {
			m := configured(t)
			prepare(m)
			resp, err := m.call(o.op, o.path, o.data)
			require.NoError(t, err)
			if name == "no key" && (resp.IsError() || resp == nil && o.op == logical.ReadOperation || o.op == logical.ListOperation && len(resp.Data) == 0) {
				continue // not answered, or not found, without a key
			}
			require.False(t, resp.IsError(), "%s: %s", name, title)
			path := m.inside.Route(o.path)
			require.NotNil(t, path, "%s: %s", name, title)
			schema.ValidateResponse(t, schema.GetResponseSchema(t, path, o.op), resp, true)
		}
	}
}
