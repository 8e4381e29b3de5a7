// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package devvault

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// ports below those of outgoing connections, so that they are still free when a server is
// restarted.
const lowestPort, highestPort = 20_000, 32_000

// nextPort is where to look. No port is given twice, because nobody may listen on it yet.
// Each process begins elsewhere.
var (
	portMutex sync.Mutex
	nextPort  = lowestPort + os.Getpid()%(highestPort-lowestPort)
)

// FreeAddrs returns addresses on 127.0.0.1 on which nobody listened a moment ago. The port
// behind each of them is left out: a Vault in dev mode takes that, too.
func FreeAddrs(n int) ([]string, error) {
	portMutex.Lock()
	defer portMutex.Unlock()
	addrs := make([]string, 0, n)
	for range highestPort - lowestPort {
		if len(addrs) == n {
			return addrs, nil
		}
		if nextPort += 2; nextPort >= highestPort {
			nextPort = lowestPort
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort))
		if err != nil {
			continue // in use
		}
		addrs = append(addrs, l.Addr().String())
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
	}
	return nil, errors.New("there are not enough free ports")
}
