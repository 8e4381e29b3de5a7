// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance

package acceptance

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// template is a long entry of allowed_rooms for which no caller has a value.
func template(characters int) string {
	const frame = "{{identity.entity.metadata.}}"
	return strings.Replace(frame, ".}}", "."+strings.Repeat("k", characters-len(frame))+"}}", 1)
}

// repeat is a JSON list of the same value.
func repeat(value string, count int) string {
	return "[" + strings.TrimSuffix(strings.Repeat(value+",", count), ",") + "]"
}

// Long texts are refused, and answers that repeat a part of one stay short.
func attackWithLongTexts(b *budget) {
	mount := b.mount()
	role := mount + "/roles/long"
	for text, value := range map[string]string{
		"entry 1 of allowed_rooms is longer than 1024":    `"` + template(900_000) + `"`,
		"entry 2 of allowed_rooms is longer than 1024":    `["a","` + template(1025) + `"]`,
		"entry 1 of allowed_rooms must be a room name":    `"` + strings.Repeat("a", 256) + `"`,
		"entry 1 of allowed_rooms is longer":              `"` + strings.Repeat("*", 500_000) + `"`,
		"entry 1 of allowed_rooms has a template":         `"{{` + strings.Repeat("k", 1022) + `"`,
		"allowed_rooms has 2001 entries; 2000":            repeat(`"a"`, 2001),
		"allowed_rooms has 140000 entries":                `"` + strings.TrimSuffix(strings.Repeat("*x*,", 140_000), ",") + `"`,
		"allowed_rooms has 131073 bytes in all; 131072":   `["b",` + repeat(`"`+strings.Repeat("*a", 512)+`"`, 128)[1:],
		"entry 1 of allowed_rooms must be a room name or": `["\n` + strings.Repeat("k", 900) + `"]`,
	} {
		b.send(http.MethodPost, role, asJSONBody, `{"allowed_rooms_template":true,"allowed_rooms":`+value+`}`).refused(b.t, text)
	}
	for _, value := range []string{template(900_000), template(1025), strings.Repeat("a", 900_000), strings.Repeat("{{", 400_000)} {
		b.send(http.MethodPost, role, asJSONBody, `{"allowed_rooms_template":true,"allowed_rooms":"x","default_room":"`+value+`"}`).refused(b.t, "default_room ")
	}
	b.write(role, map[string]any{"allowed_rooms_template": true, "allowed_rooms": []string{template(1024), template(1023)}, "default_room": template(1024)})

	long := strings.Repeat("a", 255)
	for _, item := range []string{`{}`, `{"room":"` + long + `"}`, `{"room":"` + strings.Repeat("a", 1500) + `"}`, `{"` + strings.Repeat("a", 1500) + `":1}`, `{"ttl":"` + strings.Repeat("9", 1000) + `","not_before":"` + strings.Repeat("9", 500) + `"}`} {
		b.send(http.MethodPost, mount+"/creds/long", asJSONBody, `{"batch_input":`+repeat(item, 1000)+`}`).refused(b.t, "and 980 other items are refused")
	}
	for _, path := range []string{"/creds/long", "/creds/support"} {
		for _, room := range []string{"", long, strings.Repeat("a", 256), strings.Repeat("\u00e9", 450_000)} {
			b.send(http.MethodPost, mount+path, asJSONBody, `{"room":"`+room+`"}`).refused(b.t, "room ")
			r := b.send(http.MethodPost, mount+strings.Replace(path, "creds", "check", 1), asJSONBody, `{"room":"`+room+`"}`)
			require.Less(b.t, len(r.raw), maxRefusal)
			require.Equal(b.t, false, r.answer.Data()["allowed"])
		}
	}
	// Vault itself takes half a minute for a path ten times as long, on any mount.
	name := strings.Repeat("n", 20_000)
	for _, path := range []string{"/creds/", "/check/"} {
		b.send(http.MethodGet, mount+path+name, "", "").refused(b.t, "not found")
		b.send(http.MethodPost, mount+path+name, asJSONBody, `{"batch_input":`+repeat(`{}`, 1000)+`}`).refused(b.t, "")
	}
	for field, value := range map[string]string{"consumer_id": long, "audience": long + "a", "issuer": strings.Repeat("\u00e9", 400_000), "domain": strings.Repeat("a.", 400_000), "private_key": strings.Repeat("A", 900_000), "active_key": strings.Repeat("9", 900_000)} {
		b.sendJSON(mount+"/config", field, `"`+value+`"`).refused(b.t, field+" ")
	}
	r := b.sendJSON(mount+"/verify", "token", `"`+strings.Repeat("eyJ", 300_000)+`"`)
	require.Less(b.t, len(r.raw), maxRefusal)
}

// Many roles of the maximum size are more than the cache can hold.
func attackWithLargeRoles(b *budget) {
	mount := b.mount()
	directives := strings.Repeat("{{identity.entity.id}}", 46)
	for i := range 40 {
		rooms := slowRules()
		if i%2 == 1 {
			rooms = rooms[:0]
			for range 129 {
				rooms = append(rooms, directives)
			}
			rooms = append(rooms, "a*")
		}
		b.write(fmt.Sprintf("%s/roles/r%d", mount, i), map[string]any{"allowed_rooms_template": true, "allowed_rooms": rooms})
	}
	b.during("large roles", func() {
		var group errgroup.Group
		group.SetLimit(4)
		for i := range 80 {
			group.Go(func() error {
				path := fmt.Sprintf("%s/creds/r%d", mount, i%40)
				status, answer, err := b.vault.Call(b.t.Context(), b.token, http.MethodGet, path+"?room=abc", nil)
				if err == nil && (status == http.StatusOK) != (i%2 == 1) {
					err = fmt.Errorf("%s: %d %s", path, status, answer.Errors())
				}
				return err
			})
		}
		require.NoError(b.t, group.Wait())
	})
}

// Slow batches end when their callers give up.
func attackWithSlowRules(b *budget) {
	mount := b.mount()
	b.write(mount+"/roles/slow", map[string]any{"allowed_rooms": append(slowRules(), "a*")})
	batch, err := json.Marshal(map[string]any{"batch_input": slowItems(1000)})
	require.NoError(b.t, err)
	body := string(batch)
	b.during("slow rules", func() {
		b.abandon(time.Second, 20, func(int) (string, string, any) { return http.MethodPost, mount + "/creds/slow", body })
	})
	b.requireIdle("slow rules")
}

// A request that is too large is refused before it is decoded: over 2 MiB by the plugin,
// over 4 MiB by gRPC. Vault answers the latter with 500.
func attackWithLargeBodies(b *budget) {
	mount := b.mount()
	const mib = 1 << 20
	paths := []string{"/creds/support", "/check/support", "/config", "/roles/support", "/verify", "/keys/import"}
	b.during("large bodies", func() {
		for body, want := range map[string]string{
			`{"batch_input":` + repeat(repeat("1", 9000), 20) + `}`:                            "batch_input[0]: must be an object",
			`{"batch_input":` + repeat(`"`+strings.Repeat("x", 1000)+`"`, 3*1024) + `}`:        "the request is too large: the maximum is 2 MiB",
			`{"batch_input":` + repeat(repeat(`"`+strings.Repeat("x", 60)+`"`, 9000), 5) + `}`: "the request is too large: the maximum is 2 MiB",
			`{"allowed_rooms":` + repeat(`"`+strings.Repeat("x", 250)+`"`, 9000) + `}`:         "the request is too large: the maximum is 2 MiB",
			`{"batch_input":` + repeat(`{"room":"`+strings.Repeat("x", 8000)+`"}`, 1000) + `}`: "internal error",
			`{"batch_input":` + repeat(`"`+strings.Repeat("x", mib-10)+`"`, 8) + `}`:           "internal error",
			`{"batch_input":` + repeat(`"`+strings.Repeat("x", mib-10)+`"`, 30) + `}`:          "internal error",
		} {
			status := http.StatusBadRequest
			to := paths
			if b.vault.Kind == devvault.OpenBao && strings.Count(body, `"`)/2 > 20_000 {
				want = "exceeded maximum number of strings" // the limit of devvault's listener
			}
			switch {
			case len(body) > 4*mib:
				status = http.StatusInternalServerError
			case len(body) < 2*mib:
				to = paths[:1] // others don't know the field, and ignore it
			}
			var group errgroup.Group
			for _, path := range to {
				group.Go(func() error {
					got, answer, err := b.vault.Call(b.t.Context(), b.token, http.MethodPost, mount+path, body)
					// gRPC's message for a request that is too large depends on the call.
					if err == nil && (got != status || status == http.StatusBadRequest && !strings.Contains(answer.Errors(), want)) {
						err = fmt.Errorf("%s, %d bytes: %d %.300s", path, len(body), got, fmt.Sprint(answer))
					}
					return err
				})
			}
			require.NoError(b.t, group.Wait())
		}
	})
}

// While batches are running, their key or role is deleted, replaced or restricted. After
// the change is acknowledged, nothing is signed with the old state. No batch is so far
// that it could be answered with the old state.
func changesDuringBatches(b *budget) {
	const batches, items = 8, 1000
	for name, test := range map[string]struct {
		change func(mount string)
		status int
		text   string // the refusal
	}{
		"config deleted": {func(mount string) { b.delete(mount + "/config") }, http.StatusBadRequest, "this mount is not configured"},
		"role deleted":   {func(mount string) { b.delete(mount + "/roles/support") }, http.StatusBadRequest, `role "support" not found`},
		"role narrowed": {func(mount string) {
			b.write(mount+"/roles/support", map[string]any{"allowed_rooms": "support-1"})
		}, http.StatusBadRequest, "is not allowed by this role"},
		"key replaced": {func(mount string) {
			_, private := newKey(b.t)
			b.write(mount+"/config", map[string]any{"private_key": private})
			b.delete(mount + "/keys/1")
		}, http.StatusOK, ""},
	} {
		mount := b.mount()
		rooms := make([]any, items)
		for i := range rooms {
			rooms[i] = map[string]any{"room": fmt.Sprintf("support-%d", i)}
		}
		before := b.work()
		var group errgroup.Group
		for range batches {
			group.Go(func() error {
				status, answer, err := b.vault.Call(b.t.Context(), b.token, http.MethodPost, mount+"/creds/support", map[string]any{"batch_input": rooms})
				if err == nil && (status != test.status || !strings.Contains(answer.Errors(), test.text)) {
					err = fmt.Errorf("%s: %d %.300s", name, status, answer.Errors())
				}
				results, _ := answer.Data()["batch_results"].([]any)
				for _, result := range results {
					if version := fmt.Sprint(result.(map[string]any)["key_version"]); err == nil && version != "2" {
						err = fmt.Errorf("%s: a token of key version %s", name, version)
					}
				}
				return err
			})
		}
		// 0.2 s of work are 100 to 900 of the 8,000 signatures.
		require.Eventually(b.t, func() bool { return b.work()-before > 200*time.Millisecond }, time.Minute, 10*time.Millisecond)
		test.change(mount)
		require.NoError(b.t, group.Wait())
	}
}

// Entries in the storage of a real Vault that can't be decoded: one can recover from each.
func corruptStorage(b *budget) {
	mount := b.mount()
	uuid := b.read("sys/mounts/" + mount)["uuid"].(string)
	corrupt := func(entry string) {
		b.write("sys/raw/logical/"+uuid+"/"+entry, map[string]any{"value": `{"format":1,"entry":{`})
		b.write("sys/plugins/reload/backend", map[string]any{"mounts": []string{mount + "/"}})
	}
	token := b.read(mount+"/creds/support", "room", "support-1")["token"]
	corrupt("keys/1")
	for _, path := range []string{"/creds/support?room=support-1", "/config", "/keys/1"} {
		status, _ := b.get(mount + path)
		require.Equal(b.t, http.StatusInternalServerError, status, path)
	}
	_, answer := b.post(mount+"/verify", map[string]any{"token": token})
	require.Contains(b.t, answer.Warnings(), "key version 1 can't be read from storage")
	_, private := newKey(b.t)
	b.write(mount+"/config", map[string]any{"private_key": private})
	require.Equal(b.t, json.Number("2"), b.read(mount+"/creds/support", "room", "support-1")["key_version"])
	b.delete(mount + "/keys/1")

	corrupt("config")
	status, _ := b.post(mount+"/config", map[string]any{"private_key": private})
	require.Equal(b.t, http.StatusInternalServerError, status)
	b.delete(mount + "/config")
	status, _ = b.get(mount + "/keys?list=true")
	require.Equal(b.t, http.StatusNotFound, status)
	b.write(mount+"/config", map[string]any{"consumer_id": "acme", "private_key": private})
	require.Equal(b.t, json.Number("3"), b.read(mount + "/config")["active_key"])

	corrupt("roles/support")
	status, _ = b.get(mount+"/creds/support", "room", "support-1")
	require.Equal(b.t, http.StatusInternalServerError, status)
	b.delete(mount + "/roles/support")
	b.write(mount+"/roles/support", map[string]any{"allowed_rooms": "support-*"})
	b.read(mount+"/creds/support", "room", "support-1")
}

// delete makes a deletion that must be answered by 204.
func (b *budget) delete(path string) {
	b.t.Helper()
	status, answer := b.call(http.MethodDelete, path, nil)
	require.Equal(b.t, http.StatusNoContent, status, "%s: %s", path, answer.Errors())
}

// manyKeys are different keys made from few primes, because finding primes takes longest.
func manyKeys(t testing.TB, count int) []string {
	t.Helper()
	primes := make([]*big.Int, 16)
	var group errgroup.Group
	for i := range primes {
		group.Go(func() (err error) {
			primes[i], err = rand.Prime(rand.Reader, 1024)
			return err
		})
	}
	require.NoError(t, group.Wait())
	var pems []string
	for i := range primes {
		for j := range i {
			one, p, q := big.NewInt(1), primes[i], primes[j]
			totient := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
			d := new(big.Int).ModInverse(big.NewInt(65537), totient)
			if d == nil || len(pems) == count {
				continue
			}
			key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: d, Primes: []*big.Int{p, q}}
			key.Precompute()
			pems = append(pems, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
		}
	}
	require.Len(t, pems, count)
	return pems
}

// A key is stored once. A mount stores at most 100 keys. Generating a key ends when its
// caller gives up.
func attackWithKeys(b *budget) {
	mount := b.mount()
	pems := manyKeys(b.t, 101)
	for range 5 {
		for _, path := range []string{"/keys/import", "/config"} {
			b.write(mount+path, map[string]any{"private_key": pems[0]})
		}
		require.Contains(b.t, b.write(mount+"/keys/import", map[string]any{"private_key": "\n" + strings.ReplaceAll(pems[0], "\n", "\r\n")}).Warnings(), "already the active one, version 2")
	}
	require.Equal(b.t, []any{"1", "2"}, b.read(mount + "/keys?list=true")["keys"])
	b.write(mount+"/config", map[string]any{"active_key": 1})
	require.Contains(b.t, b.write(mount+"/keys/import", map[string]any{"private_key": pems[0]}).Warnings(), "stored already, as version 2")
	answer := b.write(mount+"/config", map[string]any{"private_key": pems[0]})
	require.Contains(b.t, answer.Warnings(), "as version 2, which is the active one now; version 1 was active before")
	require.Equal(b.t, json.Number("2"), b.read(mount + "/config")["active_key"])

	var group errgroup.Group
	group.SetLimit(4)
	for _, private := range pems[1:99] {
		group.Go(func() error {
			status, answer, err := b.vault.Call(b.t.Context(), b.token, http.MethodPost, mount+"/keys/import", map[string]any{"private_key": private})
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("%d %s", status, answer.Errors())
			}
			return err
		})
	}
	require.NoError(b.t, group.Wait())
	require.Len(b.t, b.read(mount + "/keys?list=true")["keys"], 100)
	const full = "100 key versions are stored, and no more are possible; delete one that is not used any more, such as keys/1"
	for path, body := range map[string]map[string]any{"/keys/import": {"private_key": pems[100]}, "/config": {"private_key": pems[100]}, "/keys/generate": {}} {
		status, answer := b.post(mount+path, body)
		require.Equal(b.t, http.StatusBadRequest, status, path)
		require.Equal(b.t, full, answer.Errors(), path)
	}
	require.Contains(b.t, b.write(mount+"/keys/import", map[string]any{"private_key": pems[7]}).Warnings(), "stored already", "what is there needs no room")
	attackVerify(b, mount)
	b.call(http.MethodDelete, mount+"/keys/1", nil)
	b.write(mount+"/keys/import", map[string]any{"private_key": pems[100]})

	empty := b.mount()
	b.during("making keys", func() {
		b.abandon(time.Second, 8, func(int) (string, string, any) {
			return http.MethodPost, empty + "/keys/generate", map[string]any{"key_bits": 4096}
		})
	})
	b.requireIdle("making keys")
}

// attackVerify tries many tokens with 100 keys, for callers who give up.
func attackVerify(b *budget, mount string) {
	b.t.Helper()
	token := b.read(mount+"/creds/support", "room", "support-1")["token"].(string)
	forged := token[:len(token)-4] + "AAAA"
	large := keyFiles(b.t, "accepted", 10)["rsa8192.pem"]
	b.during("verifying", func() {
		b.abandon(time.Second, 300, func(i int) (string, string, any) {
			if i%10 == 0 {
				return http.MethodPost, mount + "/keys/import", map[string]any{"private_key": large}
			}
			return http.MethodPost, mount + "/verify", map[string]any{"token": forged}
		})
	})
	b.requireIdle("verifying")
}

// Requests that are cancelled at any moment are not faults of the engine.
func attackWithCancelledRequests(b *budget) {
	mount := b.mount()
	_, private := newKey(b.t)
	_, answer := b.get(mount+"/creds/support", "room", "support-1")
	begin := len(b.vault.Log())
	requests := []struct {
		method, path string
		body         any
	}{
		{http.MethodPost, "/verify", map[string]any{"token": answer.Data()["token"]}},
		{http.MethodGet, "/creds/support?room=support-1", nil},
		{http.MethodGet, "/check/support?room=support-1", nil},
		{http.MethodPost, "/creds/support", map[string]any{"batch_input": []any{map[string]any{"room": "support-1"}, map[string]any{"room": "support-2"}}}},
		{http.MethodPost, "/roles/support", map[string]any{"allowed_rooms": "support-*"}},
		{http.MethodGet, "/roles/support", nil},
		{"LIST", "/roles", nil},
		{"LIST", "/keys", nil},
		{http.MethodGet, "/keys/1", nil},
		{http.MethodGet, "/config", nil},
		{http.MethodPost, "/config", map[string]any{"issuer": "production"}},
		{http.MethodPost, "/config", map[string]any{"private_key": private}},
		{http.MethodPost, "/keys/generate", map[string]any{"key_bits": 2048}},
		{http.MethodPost, "/keys/import", map[string]any{"private_key": private}},
		{http.MethodDelete, "/keys/7", nil},
		{http.MethodDelete, "/roles/none", nil},
	}
	var givenUp atomic.Int64
	b.during("cancelled requests", func() {
		var wg sync.WaitGroup
		for client := range 8 {
			wg.Go(func() {
				for i := range 5 * len(requests) {
					r := requests[(client*5+i)%len(requests)]
					after := time.Duration(mathrand.IntN(20_000)) * time.Microsecond //nolint:gosec // G404: moments, not secrets
					givenUp.Add(b.abandon(after, 1, func(int) (string, string, any) { return r.method, mount + r.path, r.body }))
				}
			})
		}
		wg.Wait()
	})
	log := b.vault.Log()[begin:]
	for _, text := range []string{"request failed", "existence check failed", "panicked"} {
		require.NotContains(b.t, log, text)
	}
	require.NotZero(b.t, givenUp.Load())
	b.t.Logf("%d requests were given up", givenUp.Load())
	require.Equal(b.t, http.StatusOK, b.send(http.MethodGet, mount+"/creds/support?room=support-1", "", "").status)
}
