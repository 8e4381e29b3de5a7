// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// An invalidError is a mistake of the caller. Its text is one sentence that says
// what would be right. Every other error is a fault of the engine or its storage.
type invalidError struct{ message string }

func (e *invalidError) Error() string { return e.message }

func invalid(format string, args ...any) error {
	return &invalidError{fmt.Sprintf(format, args...)}
}

// isInvalid reports whether err is a mistake of the caller.
func isInvalid(err error) bool {
	var mistake *invalidError
	return errors.As(err, &mistake)
}

// refuse turns an error into an answer. A caller's mistake becomes a 400 with its
// text. A fault stays an error, which Vault answers with 500.
func refuse(err error) (*logical.Response, error) {
	if isInvalid(err) {
		return logical.ErrorResponse(oneLine(err)), nil
	}
	return nil, err
}

// oneLine is the text of an error, with joined errors on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// isFault reports whether err is a fault. These are not: the path does not exist, another
// node must answer or may have to, the caller gave up.
func isFault(err error) bool {
	return err != nil &&
		!errors.Is(err, logical.ErrUnsupportedPath) &&
		!errors.Is(err, logical.ErrUnsupportedOperation) &&
		!errors.Is(err, logical.ErrReadOnly) &&
		!errors.Is(err, errSuspended) &&
		!isGivenUp(err)
}

// detail returns what the log says about a fault beside its text, as a name and a value.
func detail(err error) []any {
	if fault := new(rsakey.SignError); errors.As(err, &fault) {
		return []any{"detail", fault.Detail}
	}
	return nil
}

// isGivenUp reports whether err means that the caller gave up. A call to Vault may then
// return a gRPC status, or only the text of the error, because the plugin protocol drops
// the type.
func isGivenUp(err error) bool {
	return errors.Is(err, context.Canceled) ||
		status.Code(err) == codes.Canceled ||
		strings.HasSuffix(err.Error(), context.Canceled.Error())
}
