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
	"google.golang.org/grpc"
)

// protocol is the version of Vault's plugin protocol in which all mounts share one
// process. Every supported server speaks it.
const protocol = 5

const (
	// maxRequest is the maximum size of a request's JSON: three times a batch of 1,000
	// rooms with long references.
	maxRequest = 2 << 20
	// maxMessage is the size at which gRPC stops reading a message, and Vault answers with
	// 500. Vault itself accepts 32 MiB.
	maxMessage = 2 * maxRequest
)

// serve runs the plugin until Vault ends it. It does what the SDK's ServeMultiplex does,
// and limits the memory that requests can take. The SDK lets gRPC read and decode messages
// of any size.
func serve(factory logical.Factory, logger hclog.Logger) error {
	if err := pluginutil.OptionallyEnableMlock(); err != nil {
		return fmt.Errorf("locking the memory: %w", err)
	}
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
				grpc.ChainUnaryInterceptor(refuseLarge),
			)
			return goplugin.DefaultGRPCServer(opts)
		},
	})
	return nil
}

// refuseLarge is a gRPC interceptor. It refuses requests that are too large before they are
// decoded, with an answer that Vault turns into a 400.
func refuseLarge(ctx context.Context, args any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	switch call := args.(type) {
	case *pb.HandleRequestArgs:
		if len(call.GetRequest().GetData()) > maxRequest {
			text := fmt.Sprintf("the request is too large: the maximum is %d MiB of JSON; send fewer items in a batch", maxRequest>>20)
			resp, err := pb.LogicalResponseToProtoResponse(logical.ErrorResponse(text))
			return &pb.HandleRequestReply{Response: resp}, err
		}
	case *pb.HandleExistenceCheckArgs:
		if len(call.GetRequest().GetData()) > maxRequest {
			// Vault asks this before a write. The write is then refused.
			return &pb.HandleExistenceCheckReply{CheckFound: true, Exists: true}, nil
		}
	}
	return handler(ctx, args)
}
