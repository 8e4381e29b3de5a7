// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
	"github.com/hashicorp/vault/sdk/plugin/pb"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
)

// protocol is the version of Vault's plugin protocol that multiplexes all mounts into
// one process. Every supported server speaks it.
const protocol = 5

const (
	// maxRequest is the most bytes of JSON that a request may carry: three times a batch
	// of 1,000 rooms with long references.
	maxRequest = 2 << 20
	// maxMessage is where gRPC stops reading a message, and Vault answers with 500. Vault
	// itself takes 32 MiB.
	maxMessage = 2 * maxRequest
	// maxDecoding is how many bytes of JSON are decoded and worked on at once, by all
	// requests that are not small. Decoded, [[],[],…] takes thirty times its length.
	maxDecoding = 2 * maxRequest
	// smallRequest is the size up to which a request is not counted.
	smallRequest = 4 << 10
)

// serve runs the plugin until Vault ends it. It does what the SDK's ServeMultiplex
// does, and bounds the memory that requests can take: the SDK lets gRPC read and decode
// messages of any size.
func serve(factory logical.Factory, logger hclog.Logger) error {
	if err := pluginutil.OptionallyEnableMlock(); err != nil {
		return fmt.Errorf("locking the memory: %w", err)
	}
	gate := newRequestGate()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig,
		VersionedPlugins: map[int]goplugin.PluginSet{
			protocol: {
				plugin.BackendPluginName: &plugin.GRPCBackendPlugin{Factory: factory, MultiplexingSupport: true, Logger: logger},
			},
		},
		Logger: logger,
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			opts = append(opts,
				grpc.MaxRecvMsgSize(maxMessage),
				grpc.ChainUnaryInterceptor(gate.intercept),
			)
			return goplugin.DefaultGRPCServer(opts)
		},
	})
	return nil
}

// A requestGate refuses requests that are too large before they are decoded, and lets
// large ones wait while others are worked on.
type requestGate struct{ decoding *semaphore.Weighted }

func newRequestGate() *requestGate { return &requestGate{semaphore.NewWeighted(maxDecoding)} }

// intercept is the gRPC interceptor.
func (g *requestGate) intercept(ctx context.Context, args any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	var size int64
	switch call := args.(type) {
	case *pb.HandleRequestArgs:
		if size = int64(len(call.GetRequest().GetData())); size > maxRequest {
			return refuseLarge()
		}
	case *pb.HandleExistenceCheckArgs:
		if size = int64(len(call.GetRequest().GetData())); size > maxRequest {
			// Vault asks this before a write, which is then refused.
			return &pb.HandleExistenceCheckReply{CheckFound: true, Exists: true}, nil
		}
	}
	if size > smallRequest {
		if err := g.decoding.Acquire(ctx, size); err != nil {
			return nil, err
		}
		defer g.decoding.Release(size)
	}
	return handler(ctx, args)
}

// refuseLarge is an answer that Vault turns into a 400.
func refuseLarge() (*pb.HandleRequestReply, error) {
	text := fmt.Sprintf("the request is too large: %d MiB of JSON is the most; send fewer items in a batch", maxRequest>>20)
	resp, err := pb.LogicalResponseToProtoResponse(logical.ErrorResponse(text))
	return &pb.HandleRequestReply{Response: resp}, err
}
