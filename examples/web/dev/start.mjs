// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// For trying: prepares the Vault of make dev, and runs the application until Ctrl-C.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setUp } from './setup.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const { VAULT_ADDR: addr, VAULT_TOKEN: token } = process.env;
if (!addr || !token) {
  console.error('error: run make dev in another shell, and paste the lines that it prints here');
  process.exit(1);
}

let site;
const dir = mkdtempSync(join(tmpdir(), 'clanmeeting-web-'));
process.on('exit', () => rmSync(dir, { recursive: true }));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => site?.kill());

const publicURL = `https://localhost:${process.env.PORT ?? 8443}`;
const now = Math.floor(Date.now() / 1000);
const env = setUp({
  vault: execFileSync(here('../../../scripts/vault.sh'), { encoding: 'utf8' }).trim(),
  addr,
  token,
  dir,
  publicURL,
  issuer: publicURL,
  launch: [now + 120, now + 7_200],
});
site = spawn(process.execPath, [here('site.mjs')], { env, stdio: 'inherit' });
site.on('exit', (code) => process.exit(code ?? 0));

console.log(`
Open ${publicURL} in a browser. It warns, because the certificate was made just now on
this machine: go on all the same. Then log in:

  name  password       team
  ann   ann-password   sales
  bob   bob-password   support
  cleo  cleo-password  none, always a guest

Ctrl-C stops it.
`);
