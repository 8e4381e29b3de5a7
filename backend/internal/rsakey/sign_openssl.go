// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build openssl

package rsakey

/*
#cgo LDFLAGS: -lcrypto

#define _GNU_SOURCE
#include <pthread.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

// The machine's openssl.cnf is not read: it could name libraries to load.
static int start(void) {
	return OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
}

#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error OpenSSL 3 is needed
#endif

// Vault may make the plugin lock its memory, and then the whole stack of every thread is in
// memory: by default 8 MB for each. Go's and OpenSSL's code needs less than 512 KiB.
__attribute__((constructor)) static void limit_stacks(void) {
	pthread_attr_t attr;
	if (pthread_attr_init(&attr) == 0) {
		pthread_attr_setstacksize(&attr, 512 << 10);
		pthread_setattr_default_np(&attr);
		pthread_attr_destroy(&attr);
	}
}

// OpenSSL keeps errors by thread, and a goroutine may change threads between two calls
// into C. So each function below takes its own error off the thread's list and returns
// it; 0 is none.
static unsigned long take_error(void) {
	unsigned long error = ERR_peek_last_error();
	ERR_clear_error();
	return error != 0 ? error : ERR_R_INTERNAL_ERROR;
}

// load makes a context from which all signatures of the key start.
static unsigned long load(EVP_PKEY_CTX **ctx, const unsigned char *der, long length) {
	EVP_PKEY *key = d2i_PrivateKey(EVP_PKEY_RSA, NULL, &der, length);
	*ctx = key != NULL ? EVP_PKEY_CTX_new(key, NULL) : NULL;
	EVP_PKEY_free(key); // the context has a reference of its own
	if (*ctx != NULL &&
			EVP_PKEY_sign_init(*ctx) > 0 &&
			EVP_PKEY_CTX_set_rsa_padding(*ctx, RSA_PKCS1_PADDING) > 0 &&
			EVP_PKEY_CTX_set_signature_md(*ctx, EVP_sha256()) > 0)
		return 0;
	unsigned long error = take_error();
	EVP_PKEY_CTX_free(*ctx);
	return error;
}

// sign copies the context, because one context serves one thread at a time. To copy it
// takes 0.1 us, to make one 3.5 us.
static unsigned long sign(const EVP_PKEY_CTX *loaded, const unsigned char *digest, size_t digest_length,
		unsigned char *signature, size_t *length) {
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_dup(loaded);
	int ok = ctx != NULL && EVP_PKEY_sign(ctx, signature, length, digest, digest_length) > 0;
	unsigned long error = ok ? 0 : take_error();
	EVP_PKEY_CTX_free(ctx);
	return error;
}
*/
import "C"

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"runtime"
	"sync"
)

// Library names what signs, with its version.
func Library() string { return C.GoString(C.OpenSSL_version(C.OPENSSL_VERSION)) }

// started is called before any other function of OpenSSL.
var started = sync.OnceValue(func() error {
	if C.start() != 1 {
		return errors.New("OpenSSL does not start")
	}
	return nil
})

// threads keeps the process alive if thousands of calls are in OpenSSL at once: Go starts
// another thread for each call into C that takes long, and ends the process at 10,000. It
// is far above the number of cores, so a call waits here only in a flood, and no mount
// waits for another. 64 stacks of 512 KiB are 32 MiB.
var threads = make(chan struct{}, 64)

// opensslError returns an error of OpenSSL's as a Go error; nil for 0.
func opensslError(code C.ulong) error {
	if code == 0 {
		return nil
	}
	var text [256]C.char
	C.ERR_error_string_n(code, &text[0], C.size_t(len(text)))
	return errors.New(C.GoString(&text[0]))
}

// maxPrimes is the maximum that OpenSSL supports. Go has none, so Go signs with a key that
// has more.
const maxPrimes = 5

// An opensslKey has the key in memory that OpenSSL allocated.
type opensslKey struct {
	ctx  *C.EVP_PKEY_CTX
	size int // bytes of a signature
}

// newSignFunc loads a key into OpenSSL, and makes sure that it signs the sample as Go did.
// An RS256 signature has no random part: there is one for each message and key.
func newSignFunc(key *rsa.PrivateKey, sampleSignature []byte) (signFunc, error) {
	if err := started(); err != nil {
		return nil, err
	}
	if len(key.Primes) > maxPrimes {
		return signInGo(key), nil
	}
	k := &opensslKey{size: key.Size()}
	if err := k.load(key); err != nil {
		return nil, err
	}
	signature, err := k.sign(sample)
	if err == nil && !bytes.Equal(signature, sampleSignature) {
		err = errors.New("its signature is not the one that Go makes")
	}
	return k.sign, err
}

func (k *opensslKey) load(key *rsa.PrivateKey) error {
	der := x509.MarshalPKCS1PrivateKey(key)
	defer clear(der)
	if err := opensslError(C.load(&k.ctx, (*C.uchar)(&der[0]), C.long(len(der)))); err != nil {
		return err
	}
	runtime.AddCleanup(k, func(ctx *C.EVP_PKEY_CTX) { C.EVP_PKEY_CTX_free(ctx) }, k.ctx)
	return nil
}

func (k *opensslKey) sign(digest [sha256.Size]byte) ([]byte, error) {
	threads <- struct{}{}
	defer func() { <-threads }()
	signature := make([]byte, k.size)
	length := C.size_t(len(signature))
	err := opensslError(C.sign(k.ctx, (*C.uchar)(&digest[0]), sha256.Size, (*C.uchar)(&signature[0]), &length))
	runtime.KeepAlive(k) // or its memory could be freed during the call
	if err != nil {
		return nil, err
	}
	return signature[:length], nil
}
