// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// An invalidError is a mistake of the caller, and the text of the 400 that refuses it. It is
// one sentence that says what would be right. Every other error is a fault of the engine or
// its storage.
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

// unavailable is an error that Vault answers with 503. It must not be wrapped: Vault asks
// the error itself for its status.
func unavailable(text string) error { return logical.CodedError(http.StatusServiceUnavailable, text) }

func isUnavailable(err error) bool {
	var coded logical.HTTPCodedError
	return errors.As(err, &coded) && coded.Code() == http.StatusServiceUnavailable
}

// refusing makes the handler of an operation: a mistake of the caller, in the values of
// the request or found by next, becomes a 400 with its text. A fault stays an error, which
// Vault answers with 500.
func refusing(next framework.OperationFunc) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		if err := mistakeIn(ctx); err != nil {
			return refusal(err), nil
		}
		resp, err := next(ctx, req, d)
		if isInvalid(err) {
			return refusal(err), nil
		}
		return resp, err
	}
}

func refusal(mistake error) *logical.Response { return logical.ErrorResponse(oneLine(mistake)) }

// oneLine is the text of an error, with joined errors on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// mistakeKey is the context key of a mistake in the values of a request.
type mistakeKey struct{}

func mistakeIn(ctx context.Context) error {
	mistake, _ := ctx.Value(mistakeKey{}).(error)
	return mistake
}

// logFault logs err if it is a fault. These are not: the path does not exist, another node
// must answer, the engine is too busy, the caller gave up.
func (b *backend) logFault(ctx context.Context, what string, err error, pairs ...any) {
	switch {
	case err == nil,
		errors.Is(err, logical.ErrUnsupportedPath),
		errors.Is(err, logical.ErrUnsupportedOperation),
		isReadOnly(err),
		isUnavailable(err),
		isGivenUp(ctx, err):
		return
	}
	pairs = append(pairs, "error", err)
	if fault := new(rsakey.SignError); errors.As(err, &fault) {
		pairs = append(pairs, "detail", fault.Detail)
	}
	b.Logger().Error(what, pairs...)
}

// isReadOnly reports whether storage refused a write because another node must do it. The
// plugin protocol keeps only the text of that error.
func isReadOnly(err error) bool { return strings.Contains(err.Error(), logical.ErrReadOnly.Error()) }

// isGivenUp reports whether the request failed because its caller gave up. If the context
// of the request goes on, or its time is over, Vault or its storage is to blame. The error
// of a call to Vault may be a gRPC status, or only text.
func isGivenUp(ctx context.Context, err error) bool {
	return errors.Is(ctx.Err(), context.Canceled) && (errors.Is(err, context.Canceled) ||
		status.Code(err) == codes.Canceled ||
		strings.HasSuffix(err.Error(), context.Canceled.Error()))
}

// recovered turns a panic of a request into a fault of that request. Use it as
// "defer recovered(logger, &err)".
//
// All mounts share one process. Without this, an input that makes one request panic
// could be used to end the process for all of them, again and again. It is safe to
// continue after a panic: deferred calls release locks, and what requests share is
// immutable or replaced as a whole. The value of a panic is logged only if it comes from
// Go's runtime, because others may contain input.
func recovered(logger hclog.Logger, err *error) {
	p := recover()
	if p == nil {
		return
	}
	text := fmt.Sprintf("panic: %T", p)
	if fault, ok := p.(runtime.Error); ok {
		text = "panic: " + fault.Error()
	}
	logger.Error("a request panicked; please report this", "panic", text, "stack", string(debug.Stack()))
	*err = errors.New(text)
}
