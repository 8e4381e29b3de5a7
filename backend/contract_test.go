// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// Every path has a complete description, for vault path-help, the OpenAPI document and
// Vault's UI.
func TestPathTable(t *testing.T) {
	reference, err := os.ReadFile("../docs/reference.md")
	require.NoError(t, err)
	b := newTestMount(t).inside
	for _, path := range b.Paths {
		require.Regexp(t, `^[A-Z][^.\n]+\.$`, path.HelpSynopsis, "%s: one sentence", path.Pattern)
		requireFits(t, path.HelpSynopsis, helpIndent, path.Pattern)
		prefix, _ := regexp.MustCompile(path.Pattern).LiteralPrefix()
		requireExample(t, path.HelpDescription, prefix)
		requireFits(t, path.HelpDescription, 0, path.Pattern)
		require.Equal(t, operationPrefix, path.DisplayAttrs.OperationPrefix, path.Pattern)
		for name, field := range path.Fields {
			require.NotEmpty(t, field.Description, "%s: %s", path.Pattern, name)
			requireFits(t, field.Description, helpIndent, path.Pattern+": "+name)
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
	requireExample(t, b.Help, "creds/")
	requireFits(t, b.Help, 0, "the root")
}

// helpIndent is how far vault path-help indents the description of a field, and each
// synopsis in the list of paths.
const helpIndent = 8

// requireFits checks that a text fits into 80 columns. path-help does not break lines.
func requireFits(t *testing.T, text string, indent int, what string) {
	t.Helper()
	for _, line := range strings.Split(text, "\n") {
		require.LessOrEqual(t, indent+len(line), 80, "%s: %q", what, line)
	}
}

// requireExample checks that a text has an example of a path. The acceptance tests run it.
func requireExample(t *testing.T, text, path string) {
	t.Helper()
	require.Regexp(t, `(?m)^    vault (read|write|list|delete) .*clanmeeting/`+path, text)
}

// Writes run on the active node of the primary. Reads run on any node.
func TestForwarding(t *testing.T) {
	writes := []logical.Operation{logical.CreateOperation, logical.UpdateOperation, logical.DeleteOperation}
	for _, path := range newTestMount(t).inside.Paths {
		for op, handler := range path.Operations {
			readsOnly := slices.ContainsFunc([]string{"creds/", "check/", "verify"}, func(prefix string) bool { return strings.HasPrefix(path.Pattern, prefix) })
			want := slices.Contains(writes, op) && !readsOnly
			require.Equal(t, want, handler.Properties().ForwardPerformanceStandby, "%s: %s", path.Pattern, op)
			require.Equal(t, want, handler.Properties().ForwardPerformanceSecondary, "%s: %s", path.Pattern, op)
		}
	}
}

// Real answers match the response schemas strictly: every required field, and no other.
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
				continue // without a key: refused, or not found
			}
			require.False(t, resp.IsError(), "%s: %s", name, title)
			path := m.inside.Route(o.path)
			require.NotNil(t, path, "%s: %s", name, title)
			schema.ValidateResponse(t, schema.GetResponseSchema(t, path, o.op), resp, true)
		}
	}
}
