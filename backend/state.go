// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/semaphore"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/rsakey"
)

// This is the whole model of what is cached, what drops it, and what waits for what.
//
// # What is cached
//
// Storage has the configuration, the keys and the roles. Memory has, for each mount, the
// snapshot (the configuration with its active key, ready to sign), the keyring (the
// configuration and all key versions, whose private halves stay unparsed), and the roles that
// were used last. Each of them is immutable, and is replaced or dropped as a whole. The roles
// of all mounts share one cache of 16 MiB; rolecache.go loads and changes them.
//
// There is one lock for the configuration and the keys of a mount, and 256 for its roles, by
// a hash of their names. Whoever loads something into the cache holds its lock, and so does
// whoever changes it, from the first read to the last write. So nothing that was loaded
// before a change is kept after it. If another node changed the entry, Vault calls
// invalidate, which takes the same lock.
//
// A change that has begun runs to its end, even if its caller gives up ([finishing]).
// Otherwise the lock would be free while storage still commits the write, and a reader that
// came in between would cache the old entry for good. A change drops what it replaced
// before it is acknowledged. A write that changes nothing, or is refused, drops nothing.
//
// # What a request sees
//
// A request decides with one role and one snapshot. Before each signature it compares them
// with what is cached, and waits for nothing. So no signature begins after the change of a key, a
// setting or the role was acknowledged. If they differ, or are not cached any more, the
// request is decided again, a few times ([retryIfChanged]).
//
// # What waits
//
// Goroutines that compute share the processors by themselves. So each mount only limits its
// own work, and no mount waits in the line of another:
//
//   - line: single reads of creds and check, and verifications. As many run at once as there
//     are processors. A request is decided after the wait.
//   - batching: one batch at a time. Others wait, as long as they can still end before
//     Vault gives up. Beyond that, or if too many wait, they get a 503.
//   - generating: one key at a time. Nothing else waits for it.
//
// All mounts of the process share the slots in which batches compute, one less than Go's
// processors. So a batch always leaves one for new requests. It holds a slot for
// [slotTime] at most, and then queues again behind the batches of other mounts. In a slot
// nothing waits for storage or a lock. A template may ask Vault for the caller's identity,
// once for each batch.

// A process is what all mounts of the plugin's process share.
type process struct {
	mounts atomic.Int64 // how many there ever were
	roles  *roleCache
	slots  *semaphore.Weighted
}

func newProcess() *process {
	return &process{roles: newRoleCache(), slots: semaphore.NewWeighted(int64(processors()))}
}

// processors is the number of processors for requests that compute. The plugin's main raises
// GOMAXPROCS by one, and that one takes in new requests. While all compute, Go looks for new
// requests only every 10 ms.
func processors() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// state is what a mount has in memory.
type state struct {
	// mount is the number of the mount in the process.
	mount int64

	// keysLock is the lock of the configuration and the keys. The two pointers are set while
	// it is held; reading them needs no lock. They are nil when they must be loaded.
	keysLock lock
	snapshot atomic.Pointer[snapshot]
	keyring  atomic.Pointer[keyring]

	roleLocks [256]lock

	line       *semaphore.Weighted
	batching   lock
	waiting    *semaphore.Weighted // bytes of the batches that wait
	generating lock
}

func newState(mount int64) *state {
	s := &state{
		mount:      mount,
		keysLock:   newLock(),
		line:       semaphore.NewWeighted(int64(processors())),
		batching:   newLock(),
		waiting:    semaphore.NewWeighted(maxWaiting),
		generating: newLock(),
	}
	for i := range s.roleLocks {
		s.roleLocks[i] = newLock()
	}
	return s
}

// A lock is a mutex. Waiting for it ends with the context.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

// take waits for the lock. The error is the cause that ended the context.
func (l lock) take(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l lock) release() { <-l }

// roleLock returns the lock of a role.
func (s *state) roleLock(name string) lock { return s.roleLocks[locksutil.LockIndexForKey(name)] }

// A snapshot is the configuration and its active key at one moment. It does not change, so
// no token mixes two configurations.
type snapshot struct {
	settings
	key *rsakey.PrivateKey
}

// currentSnapshot returns the snapshot, which it loads if necessary. A mount that is not
// configured, or has no active key, is the caller's mistake, and the error names what to
// write to mountPath.
func (b *backend) currentSnapshot(ctx context.Context, s logical.Storage, mountPath string) (*snapshot, error) {
	return current(ctx, b.state.keysLock, &b.state.snapshot, func() (*snapshot, error) { return loadSnapshot(ctx, s, mountPath) })
}

func loadSnapshot(ctx context.Context, s logical.Storage, mountPath string) (*snapshot, error) {
	cfg, err := loadConfig(ctx, s)
	if err != nil {
		return nil, err
	}
	if !cfg.configured() {
		return nil, errNotConfigured(mountPath)
	}
	if cfg.ActiveKey == 0 {
		return nil, invalid("this mount has no active key; write %s to %sconfig, or %s to choose one that is stored", fieldPrivateKey, mountPath, fieldActiveKey)
	}
	k, err := loadKey(ctx, s, cfg.ActiveKey)
	if err != nil {
		return nil, err
	}
	if k == nil {
		if replaced, err := cfg.replaced(ctx, s); err != nil {
			return nil, err
		} else if replaced {
			return loadSnapshot(ctx, s, mountPath)
		}
		return nil, errKeyMissing(cfg.ActiveKey)
	}
	private, err := k.private()
	if err != nil {
		return nil, err
	}
	return &snapshot{cfg.settings, private}, nil
}

func errNotConfigured(mountPath string) error {
	return invalid("this mount is not configured; write %s and %s to %sconfig", fieldConsumerID, fieldPrivateKey, mountPath)
}

// currentKeyring returns the configuration and all key versions, which it loads if
// necessary.
func (b *backend) currentKeyring(ctx context.Context, s logical.Storage) (*keyring, error) {
	return current(ctx, b.state.keysLock, &b.state.keyring, func() (*keyring, error) { return loadKeyring(ctx, s) })
}

// lockedKeyring is currentKeyring for a caller that holds the lock.
func (b *backend) lockedKeyring(ctx context.Context, s logical.Storage) (*keyring, error) {
	return lockedCurrent(&b.state.keyring, func() (*keyring, error) { return loadKeyring(ctx, s) })
}

// current returns what is cached. If that is nothing, it takes the lock and fills the cache.
func current[T any](ctx context.Context, l lock, cache *atomic.Pointer[T], load func() (*T, error)) (*T, error) {
	if cached := cache.Load(); cached != nil {
		return cached, nil
	}
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	defer l.release()
	return lockedCurrent(cache, load)
}

// lockedCurrent is current for a caller that holds the lock.
func lockedCurrent[T any](cache *atomic.Pointer[T], load func() (*T, error)) (*T, error) {
	if cached := cache.Load(); cached != nil {
		return cached, nil
	}
	loaded, err := load()
	if err != nil {
		return nil, err
	}
	cache.Store(loaded)
	return loaded, nil
}

// A change is what a write did to the configuration and the keys. It is nil if the write
// failed.
type change struct {
	settings settings // as they are now
	resp     *logical.Response
	events   []event
}

// changeKeys changes the configuration or the keys. It then drops what has been replaced,
// even if the change failed: storage may have done a part of it.
func (b *backend) changeKeys(ctx context.Context, req *logical.Request, write func(context.Context) (*change, error)) (*logical.Response, error) {
	done, err := b.changeUnderLock(ctx, write)
	if err != nil {
		return nil, err
	}
	b.sendEvents(ctx, req, done.events)
	return done.resp, nil
}

func (b *backend) changeUnderLock(ctx context.Context, write func(context.Context) (*change, error)) (done *change, err error) {
	if err := b.state.keysLock.take(ctx); err != nil {
		return nil, err
	}
	defer b.state.keysLock.release()
	ctx, cancel := finishing(ctx)
	defer cancel()
	defer func() {
		if isInvalid(err) {
			return // refused before anything was stored
		}
		b.state.keyring.Store(nil)
		if s := b.state.snapshot.Load(); s != nil && (done == nil || s.settings != done.settings) {
			b.state.snapshot.Store(nil)
		}
	}()
	return write(ctx)
}

// changeTimeout is how long a change may take. It is more than the 90 s of a request in
// Vault. Only storage that does not answer at all takes longer.
const changeTimeout = 2 * time.Minute

// finishing returns the context of a change that begins now. It does not end with the
// caller.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
}

// invalidate is called when another node has changed a storage entry; key is the path of
// the entry in the mount.
func (b *backend) invalidate(ctx context.Context, key string) {
	ctx = context.WithoutCancel(ctx) // or the entry would stay, so take can't fail
	if name, ok := strings.CutPrefix(key, rolePrefix); ok {
		_ = b.state.roleLock(name).take(ctx)
		defer b.state.roleLock(name).release()
		b.process.roles.drop(b.roleKey(name))
		return
	}
	_ = b.state.keysLock.take(ctx)
	defer b.state.keysLock.release()
	b.state.keyring.Store(nil)
	s := b.state.snapshot.Load()
	if s != nil && (key == configStoragePath || key == keyPath(s.ActiveKey)) {
		b.state.snapshot.Store(nil)
	}
}

// compute makes an answer that takes a processor for a moment, in the mount's line.
func (b *backend) compute(ctx context.Context, answer func() (*logical.Response, error)) (*logical.Response, error) {
	if err := b.state.line.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer b.state.line.Release(1)
	return answer()
}

// errChanged means that the configuration, the key or the role changed after the request
// had read them.
var errChanged = errors.New("the configuration or the role changed meanwhile")

// attempts is how often a request is decided.
const attempts = 4

// retryIfChanged answers again if a change has overtaken the request. It is then decided with
// what is stored now.
func retryIfChanged(answer func() (*logical.Response, error)) (*logical.Response, error) {
	for range attempts {
		resp, err := answer()
		if !errors.Is(err, errChanged) {
			return resp, err
		}
	}
	return nil, unavailable(fmt.Sprintf("the configuration, the key or the role changed %d times while this request was being answered; send it again", attempts))
}
