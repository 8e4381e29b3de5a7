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

// unreachableError means that the site sent no file: no connection, no answer, or a refusal.
type unreachableError struct{ cause error }

func (e *unreachableError) Error() string {
	return "the release site can't be reached: " + e.cause.Error()
}
func (e *unreachableError) Unwrap() error { return e.cause }

// interruptedError means that an answer ended too early.
type interruptedError struct{ cause error }

func (e *interruptedError) Error() string { return "the download was interrupted: " + e.cause.Error() }
func (e *interruptedError) Unwrap() error { return e.cause }

// transport remembers what went wrong on the network, because hc-install's errors don't
// distinguish that from a wrong file. It is for the requests of one download, one after the
// other.
type transport struct {
	site site
	base http.RoundTripper
	err  error // the last one
}

func (s site) transport() *transport {
	base := http.DefaultTransport.(*http.Transport).Clone() // uses the environment's proxy
	base.DialContext = (&net.Dialer{Timeout: s.connect}).DialContext
	base.TLSHandshakeTimeout = s.connect
	base.ResponseHeaderTimeout = s.answer
	return &transport{site: s, base: base}
}

// client makes each request once. hc-install's own client would retry for half a minute,
// which is useless without a network.
func (t *transport) client() *http.Client { return &http.Client{Transport: t} }

// judge returns the error to report for an error of hc-install.
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

// RoundTrip returns answers whose body fails if no data arrives for too long.
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
	size      int64 // as announced; -1 if unknown
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

// show reports the progress of a large download, every fifth of it.
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
