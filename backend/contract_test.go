// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// Every path has a complete description, for vault path-help, the OpenAPI document and
// Vault's UI. Writes of what is stored run on the active node of the primary, all else on any.
func TestPathTable(t *testing.T) {
	reference, err := os.ReadFile("../docs/reference.md")
	require.NoError(t, err)
	const (
		example = `(?m)^    vault (read|write|list|delete) .*clanmeeting/`
		// path-help breaks no lines. It indents the description of a field, and each synopsis
		// in the list of paths.
		tooWide, tooWideIndented = `(?m)^.{81}`, `(?m)^.{73}`
	)
	stores := regexp.MustCompile(`^(config|keys|roles)`)
	b := newTestMount(t).inside
	require.Regexp(t, example+"creds/", b.Help)
	require.NotRegexp(t, tooWide, b.Help)
	for _, path := range b.Paths {
		require.Regexp(t, `^[A-Z][^.\n]+\.$`, path.HelpSynopsis, "one sentence")
		require.NotRegexp(t, tooWideIndented, path.HelpSynopsis)
		prefix, _ := regexp.MustCompile(path.Pattern).LiteralPrefix()
		require.Regexp(t, example+prefix, path.HelpDescription)
		require.NotRegexp(t, tooWide, path.HelpDescription)
		require.Equal(t, operationPrefix, path.DisplayAttrs.OperationPrefix, path.Pattern)
		for _, field := range path.Fields {
			require.NotRegexp(t, tooWideIndented, field.Description)
		}
		described := []map[string]*framework.FieldSchema{path.Fields}
		for op, handler := range path.Operations {
			what := fmt.Sprintf("%s: %s", path.Pattern, op)
			properties := handler.Properties()
			require.NotEmpty(t, properties.Summary, what)
			require.NotEmpty(t, properties.Responses, what)
			for _, response := range properties.Responses[http.StatusOK] {
				described = append(described, response.Fields)
			}
			forwarded := stores.MatchString(path.Pattern) && op != logical.ReadOperation && op != logical.ListOperation
			require.Equal(t, forwarded, properties.ForwardPerformanceStandby, what)
			require.Equal(t, forwarded, properties.ForwardPerformanceSecondary, what)
		}
		for _, fields := range described {
			for name, field := range fields {
				require.NotEmpty(t, field.Description, "%s: %s", path.Pattern, name)
				require.True(t, strings.Contains(string(reference), "`"+name+"`"), "%s: the reference lacks %s", path.Pattern, name)
			}
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
			if name == "no key" && title != "config read" {
				continue
			}
			m := configured(t)
			prepare(m)
			resp := m.must(m.do(o))
			schema.ValidateResponse(t, schema.GetResponseSchema(t, m.inside.Route(o.path), o.op), resp, true)
		}
	}
}
