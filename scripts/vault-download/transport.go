// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// unreachableError says that the site gave no file to verify: no connection, no answer, or
// an answer that refuses.
type unreachableError struct{ cause error }

func (e *unreachableError) Error() string {
	return "the release site can't be reached: " + e.cause.Error()
}
func (e *unreachableError) Unwrap() error { return e.cause }

// interruptedError says that an answer ended before its end.
type interruptedError struct{ cause error }

func (e *interruptedError) Error() string { return "the download broke off: " + e.cause.Error() }
func (e *interruptedError) Unwrap() error { return e.cause }

// transport remembers what went wrong on the network, because the errors of hc-install
// don't tell that from a wrong file. It serves one download, whose requests follow one
// another.
type transport struct {
	site site
	base http.RoundTripper
	err  error // the last one
}

func (s site) transport() *transport {
	base := http.DefaultTransport.(*http.Transport).Clone() // with the proxy of the environment
	base.DialContext = (&net.Dialer{Timeout: s.connect}).DialContext
	base.TLSHandshakeTimeout = s.connect
	base.ResponseHeaderTimeout = s.answer
	return &transport{site: s, base: base}
}

// client makes each request once: hc-install's own repeats one for half a minute, and
// without a network that is a wait for nothing.
func (t *transport) client() *http.Client { return &http.Client{Transport: t} }

// judge is what to report of an error of hc-install.
func (t *transport) judge(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("stopped: %w", ctx.Err())
	case t.err != nil:
		return t.err
	default:
		return err
	}
}

// RoundTrip gives answers whose body ends with an error if no data comes for too long.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		t.err = &unreachableError{err}
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		t.err = &unreachableError{fmt.Errorf("%s answers %s", req.URL, resp.Status)}
	}
	stalled := fmt.Errorf("no data for %s", t.site.stall)
	resp.Body = &body{
		ReadCloser: resp.Body, transport: t, ctx: ctx, cancel: cancel, size: resp.ContentLength,
		timer: time.AfterFunc(t.site.stall, func() { cancel(stalled) }),
	}
	return resp, nil
}

type body struct {
	io.ReadCloser

	transport *transport
	ctx       context.Context
	cancel    context.CancelCauseFunc
	timer     *time.Timer
	size      int64 // as announced; -1 if it was not
	read      int64
	shown     int64 // fifths
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.timer.Reset(b.transport.site.stall)
	b.show(n)
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
		b.transport.err = &interruptedError{err}
	}
	return n, err
}

// show reports every fifth of what is large.
func (b *body) show(n int) {
	const megabyte = 1_000_000
	b.read += int64(n)
	if b.size < 10*megabyte {
		return
	}
	if fifths := 5 * b.read / b.size; fifths > b.shown {
		b.shown = fifths
		fmt.Fprintf(b.transport.site.progress, "  %d of %d MB\n", b.read/megabyte, b.size/megabyte)
	}
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}
