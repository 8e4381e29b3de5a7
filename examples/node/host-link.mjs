// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Prints the link that opens a room as its host; with --keep, a new one each time
// before the last expires.
//
//   node host-link.mjs [--keep] ROOM

import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

const REQUEST_TIMEOUT = 10_000; // milliseconds
const NO_URL = "Vault's answer has no meeting_url: have domain written to the engine's config";
const RETRY_DELAYS = [500, 1_000, 2_000, 4_000, 8_000]; // milliseconds

/** Vault said no, and would again: the room, the policy or the login is wrong. */
export class Refused extends Error {}

/** Vault is sealed, changing leaders, overloaded or out of reach: worth another try. */
export class Unavailable extends Error {}

/** Host links from Vault. One object serves a whole application. */
export class HostLinks {
  #vaultToken = null;
  #links = new Map();

  /**
   * @param {{addr: string, roleId: string, secretId: string, credsPath: string}} options
   *   credsPath is the mount and the role, such as clanmeeting/creds/support.
   */
  constructor(options) {
    this.options = options;
  }

  /**
   * A link for the room, read from Vault if there is none with a third of its life left.
   * @returns {Promise<{url: string, renewAt: number}>} renewAt as performance.now()
   */
  async get(room) {
    let link = this.#links.get(room);
    if (!link || performance.now() >= link.renewAt) {
      link = await this.#retrying(() => this.#read(room));
      this.#links.set(room, link);
    }
    return link;
  }

  async #retrying(attempt) {
    for (const delay of RETRY_DELAYS) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof Unavailable)) throw error;
        console.error(`${error.message}; trying again`);
      }
      await sleep(delay * (0.5 + Math.random() / 2));
    }
    return attempt();
  }

  async #read(room) {
    const path = `${this.options.credsPath}?${new URLSearchParams({ room })}`;
    if (!this.#vaultToken) await this.#login();
    let response = await this.#call('GET', path);
    if (response.status === 403) {
      // The login may have expired. With a new one, 403 is the policy's last word.
      await this.#login();
      response = await this.#call('GET', path);
    }
    const { data } = await this.#answer(response);
    if (!data.meeting_url) throw new Refused(NO_URL);
    // ttl counts from Vault's clock, so this machine's own need not be right.
    return { url: data.meeting_url, renewAt: performance.now() + (data.ttl * 1000 * 2) / 3 };
  }

  async #login() {
    const { roleId: role_id, secretId: secret_id } = this.options;
    const response = await this.#call('POST', 'auth/approle/login', { role_id, secret_id });
    const { auth } = await this.#answer(response);
    this.#vaultToken = auth.client_token;
  }

  async #call(method, path, body) {
    const headers = this.#vaultToken ? { 'X-Vault-Token': this.#vaultToken } : {};
    try {
      return await fetch(`${this.options.addr}/v1/${path}`, {
        method,
        headers,
        body: body && JSON.stringify(body),
        signal: AbortSignal.timeout(REQUEST_TIMEOUT),
      });
    } catch (error) {
      throw new Unavailable(`Vault can't be reached: ${error.cause?.message ?? error.message}`);
    }
  }

  async #answer(response) {
    const body = await response.json().catch(() => ({}));
    if (response.ok) return body;
    const message = `Vault answered ${response.status}: ${body.errors?.join(', ') || response.statusText}`;
    throw response.status >= 500 || response.status === 429 ? new Unavailable(message) : new Refused(message);
  }
}

function fail(message) {
  console.error(message);
  process.exit(1);
}

function setting(name, fallback) {
  return process.env[name] ?? fallback ?? fail(`error: set ${name}`);
}

async function main(args) {
  const keep = args[0] === '--keep';
  const [room] = keep ? args.slice(1) : args;
  if (!room) fail('usage: node host-link.mjs [--keep] ROOM');
  const links = new HostLinks({
    addr: setting('VAULT_ADDR', 'https://127.0.0.1:8200'),
    roleId: setting('VAULT_ROLE_ID'),
    secretId: setting('VAULT_SECRET_ID'),
    credsPath: setting('CLANMEETING_CREDS', 'clanmeeting/creds/support'),
  });
  do {
    const link = await links.get(room);
    console.log(link.url);
    if (keep) await sleep(link.renewAt - performance.now());
  } while (keep);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  main(process.argv.slice(2)).catch((error) => {
    if (!(error instanceof Refused || error instanceof Unavailable)) throw error;
    fail(`error: ${error.message}`);
  });
}
