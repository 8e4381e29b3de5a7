// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// invalidError is a mistake of the caller's, told in a sentence that says what
// would be right. Every other error is a fault of the engine or its storage.
type invalidError struct{ message string }

func (e *invalidError) Error() string { return e.message }

func invalid(format string, args ...any) error {
	return &invalidError{fmt.Sprintf(format, args...)}
}

// refuse turns an error into an answer: a caller's mistake is a 400 that tells
// it, a fault stays an error, which Vault answers with 500.
func refuse(err error) (*logical.Response, error) {
	var mistake *invalidError
	if errors.As(err, &mistake) {
		return logical.ErrorResponse(oneLine(err)), nil
	}
	return nil, err
}

// oneLine is the text of an error, that of several joined ones in one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
