// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
)

// emptyResponses describes an operation that returns nothing.
var emptyResponses = map[int][]framework.Response{
	http.StatusNoContent: {{Description: "No Content", Fields: map[string]*framework.FieldSchema{}}},
}

// writeResponses describes a write, which returns nothing but warnings.
var writeResponses = map[int][]framework.Response{
	http.StatusNoContent: {{Description: "No Content", Fields: map[string]*framework.FieldSchema{}}},
	http.StatusOK:        {{Description: "OK, with warnings", Fields: map[string]*framework.FieldSchema{}}},
}
