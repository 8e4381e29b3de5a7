// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// For trying, and for the test: prepares a Vault in which the engine is mounted at
// clanmeeting/.

import { execFileSync } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));

/**
 * @param {{vault: string, addr: string, token: string, dir: string, publicURL: string,
 *   issuer: string, launch: [number, number]}} options
 *   vault is the server's binary; token one of the security team's; dir an empty folder for
 *   files; issuer scheme, host and port of the identity provider; launch when that event
 *   begins and ends, in seconds since the epoch
 * @returns {object} the application's environment, with PUBLIC_KEY for the stand-in of the
 *   meeting server
 */
export function setUp({ vault: binary, addr, token, dir, publicURL, issuer, launch }) {
  symlinkSync(binary, join(dir, 'vault')); // under the name that the scripts call
  const vaults = { VAULT_ADDR: addr, VAULT_TOKEN: token, BAO_ADDR: addr, BAO_TOKEN: token };
  const env = { ...process.env, ...vaults, PATH: `${dir}:${process.env.PATH}` };
  const run = (file, ...args) => execFileSync(file, args, { encoding: 'utf8', env, stdio: 'pipe' }).trim();
  const vault = (...args) => run(join(dir, 'vault'), ...args);

  const [cert, key] = [join(dir, 'cert.pem'), join(dir, 'key.pem')];
  run('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '30', '-keyout', key, '-out', cert,
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,DNS:meet.example.com');

  vault('write', 'clanmeeting/config', 'consumer_id=acme', 'domain=meet.example.com');
  const version = vault('write', '-field=version', 'clanmeeting/keys/generate', 'key_bits=2048');
  vault('write', 'clanmeeting/config', `active_key=${version}`);
  run(join(here, '../security-team/setup.sh'), ...launch);
  run(join(here, 'people.sh'), publicURL, issuer);

  return {
    PATH: process.env.PATH,
    NODE_EXTRA_CA_CERTS: cert,
    TLS_CERT: cert,
    TLS_KEY: key,
    PORT: new URL(publicURL).port,
    PUBLIC_URL: publicURL,
    PUBLIC_KEY: vault('read', '-field=public_key', 'clanmeeting/config'),
    OIDC_ISSUER: `${issuer}/v1/identity/oidc/provider/web`,
    OIDC_CLIENT_ID: vault('read', '-field=client_id', 'identity/oidc/client/web'),
    OIDC_CLIENT_SECRET: vault('read', '-field=client_secret', 'identity/oidc/client/web'),
    VAULT_ADDR: addr,
    VAULT_ROLE_ID: vault('read', '-field=role_id', 'auth/approle/role/web/role-id'),
    VAULT_SECRET_ID: vault('write', '-force', '-field=secret_id', 'auth/approle/role/web/secret-id'),
    MEETING_DOMAIN: 'meet.example.com',
    CONSUMER_ID: 'acme',
  };
}
