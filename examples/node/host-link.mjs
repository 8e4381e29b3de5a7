// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Prints the link that opens a room as its host. With --keep, prints a new one
// before the last expires.
//
//   node host-link.mjs [--keep] ROOM

import { setTimeout as sleep } from 'node:timers/promises';
import { HostLinks, Refused, Unavailable } from './hostlinks.mjs';

function fail(message) {
  console.error(message);
  process.exit(1);
}

function setting(name) {
  return process.env[name] ?? fail(`error: set ${name}`);
}

const keep = process.argv[2] === '--keep';
const room = process.argv[keep ? 3 : 2] ?? fail('usage: node host-link.mjs [--keep] ROOM');
try {
  const links = new HostLinks({
    addr: setting('VAULT_ADDR'),
    namespace: process.env.VAULT_NAMESPACE,
    roleId: setting('VAULT_ROLE_ID'),
    secretId: setting('VAULT_SECRET_ID'),
    credsPath: process.env.CLANMEETING_CREDS ?? 'clanmeeting/creds/support',
  });
  do {
    const { url, ttl } = await links.get(room);
    console.log(url);
    if (keep) await sleep((ttl * 1000 * 2) / 3);
  } while (keep);
} catch (error) {
  if (!(error instanceof Refused || error instanceof Unavailable)) throw error;
  fail(`error: ${error.message}`);
}
