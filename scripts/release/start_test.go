// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	sdkplugin "github.com/hashicorp/vault/sdk/plugin"
	"github.com/stretchr/testify/require"
	grpcmetadata "google.golang.org/grpc/metadata"
)

// BenchmarkStart measures how long Vault waits when it starts a plugin: until go-plugin's
// handshake, with the checksum and the certificates that Vault asks for, and until the first
// answer. It alternates between builds with different linker flags.
func BenchmarkStart(b *testing.B) {
	type build struct {
		name, flags, binary string
		sum                 [sha256.Size]byte
		handshakes, answers []time.Duration
	}
	builds := []*build{{name: "whole"}, {name: "released", flags: "-w"}, {name: "stripped", flags: "-s -w"}}
	for _, v := range builds {
		v.binary = filepath.Join(b.TempDir(), plugin)
		_, err := command(b.Context(), "../..", []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", v.flags, "-o", v.binary, "./cmd/"+plugin)
		require.NoError(b, err)
		raw, err := os.ReadFile(v.binary)
		require.NoError(b, err)
		v.sum = sha256.Sum256(raw)
	}
	for b.Loop() {
		for _, v := range builds {
			handshake, answer := startPlugin(b, v.binary, v.sum[:])
			v.handshakes, v.answers = append(v.handshakes, handshake), append(v.answers, answer)
		}
	}
	b.ReportMetric(0, "ns/op") // it would be the sum of all three
	for _, v := range builds {
		for what, times := range map[string][]time.Duration{"handshake": v.handshakes, "answer": v.answers} {
			slices.Sort(times)
			b.ReportMetric(times[0].Seconds()*1e3, v.name+"-"+what+"-min-ms")
			b.ReportMetric(times[len(times)/2].Seconds()*1e3, v.name+"-"+what+"-median-ms")
		}
	}
}

func startPlugin(b *testing.B, binary string, sum []byte) (handshake, answer time.Duration) {
	b.Helper()
	start := time.Now()
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  sdkplugin.HandshakeConfig,
		VersionedPlugins: map[int]goplugin.PluginSet{5: {sdkplugin.BackendPluginName: &sdkplugin.GRPCBackendPlugin{}}},
		Cmd:              exec.Command(binary),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		SecureConfig:     &goplugin.SecureConfig{Checksum: sum, Hash: sha256.New()},
		AutoMTLS:         true,
		Logger:           hclog.NewNullLogger(),
	})
	defer client.Kill()
	_, err := client.Start()
	require.NoError(b, err)
	handshake = time.Since(start)

	wire, err := client.Client()
	require.NoError(b, err)
	raw, err := wire.Dispense(sdkplugin.BackendPluginName)
	require.NoError(b, err)
	backend := raw.(logical.Backend)
	storage := &logical.InmemStorage{}
	// Version 5 of the protocol multiplexes mounts, by an ID.
	ctx := grpcmetadata.AppendToOutgoingContext(b.Context(), pluginutil.MultiplexingCtxKey, "one")
	require.NoError(b, backend.Setup(ctx, &logical.BackendConfig{
		Logger: hclog.NewNullLogger(), System: &logical.StaticSystemView{}, StorageView: storage,
	}))
	_, err = backend.HandleRequest(ctx, &logical.Request{Operation: logical.ReadOperation, Path: "config", Storage: storage})
	require.NoError(b, err)
	return handshake, time.Since(start)
}
