// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package partition cuts the nodes of a cluster off from each other, suspends them, and
// checks what their clients saw. "make partition-test" runs it; it needs Linux.
//
// Three servers run on this machine. Every connection between two of them goes through a
// proxy that can drop what one sends to the other. Meanwhile clients read tokens through
// every node and writers change a role, the issuer and the active key, and delete the old
// key. The start and the end of every request are recorded. When the cluster is whole
// again, the history must be linearizable: one register each for role, issuer and key.
//
// # A deposed leader
//
// A leader may still answer for a moment after another node was elected, because it does not
// know that yet. No engine can prevent that: everything that an engine can ask comes from
// its own server. The test reports such answers, and does not fail. It fails on everything
// else.
//
// Raft's terms show which answers these are. Every answer names the node that made it (the
// header X-Vault-Raft-Node-ID), and every node's log says which terms it won. An answer
// comes from a deposed leader if, before its request was sent, a node that led in a later
// term had completed a request. Only these answers may be left out of the history. The rest
// must be linearizable: an old answer from the node that led last is a fault of the engine,
// or a lost write.
//
// # A suspension
//
// If the plugin was suspended with its server, the engine notices it and gives no tokens
// until the server has stepped down. So then no token may be signed with a key after the
// deletion of that key was acknowledged, by the token's own times. A token that was signed
// before the suspension and answered after it is counted in the report.
package partition
