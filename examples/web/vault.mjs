// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

import { setting } from './setting.mjs';

const TIMEOUT = 5_000; // milliseconds

const base = `${setting('VAULT_ADDR').replace(/\/+$/, '')}/v1/`;
const mount = setting('VAULT_MOUNT', 'clanmeeting');
const appRole = { role_id: setting('VAULT_ROLE_ID'), secret_id: setting('VAULT_SECRET_ID') };

/**
 * Asks Vault whether the role may host the room now. "check" signs nothing, "creds" signs a
 * token. The result's state is one of:
 *   ready    with creds, data is Vault's answer, with token and meeting_url
 *   early    the role's window has not begun; opens is when it does
 *   ended    the role has ended
 *   refused  Vault says no, and would say no again
 *   away     Vault is sealed, changing leaders, or out of reach
 * @param {'check' | 'creds'} verb
 */
export async function askVault(verb, role, room) {
  try {
    const response = await read(`${mount}/${verb}/${encodeURIComponent(role)}?${new URLSearchParams({ room })}`);
    const { data, errors } = await response.json();
    const reason = response.ok ? data.reason : errors.join(' ').trim();
    if (reason) {
      console.warn(`Vault refuses the role ${role} for the room ${room}: ${reason}`);
      return { state: /\bthis role ended\b/.test(reason) ? 'ended' : 'refused' };
    }
    // A role with a window gives tokens for its beginning before it has begun. It is Vault's
    // clock that counts.
    const opens = new Date((data.claims?.nbf ?? data.not_before) * 1000);
    if (opens > new Date(response.headers.get('Date'))) return { state: 'early', opens };
    return { state: 'ready', data };
  } catch (error) {
    console.warn(`Vault gives no answer: ${error.cause?.message ?? error.message}`);
    return { state: 'away' };
  }
}

/** Reads with the application's Vault token. If Vault does not take it, it has expired: log in again. */
async function read(path) {
  const used = await vaultToken();
  const response = await call(path, { headers: { 'X-Vault-Token': used } });
  if (response.status !== 403) return response;
  return call(path, { headers: { 'X-Vault-Token': await vaultToken(used) } });
}

let loggingIn;
let current;

/** The application's Vault token; a new one instead of an expired one. All who wait share one login. */
async function vaultToken(expired) {
  if (current === expired) {
    loggingIn ??= logIn().finally(() => {
      loggingIn = undefined;
    });
    current = await loggingIn;
  }
  return current;
}

async function logIn() {
  const response = await call('auth/approle/login', { method: 'POST', body: JSON.stringify(appRole) });
  const { auth, errors } = await response.json();
  // For a user this is as if Vault were away. Whoever reads the log must do something.
  if (!response.ok) throw new Error(`the login with the AppRole was refused: ${errors.join(' ')}`);
  return auth.client_token;
}

async function call(path, options) {
  const response = await fetch(base + path, {
    ...options,
    redirect: 'manual', // a redirect would hand the token or the secret ID to another host
    signal: AbortSignal.timeout(TIMEOUT),
  });
  if (response.status === 429 || response.status >= 500 || response.status < 400 && !response.ok) {
    throw new Error(`it answers ${response.status}`);
  }
  return response;
}
