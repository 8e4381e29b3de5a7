// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

import { setTimeout as sleep } from 'node:timers/promises';

const REQUEST_TIMEOUT = 5_000; // milliseconds
const RETRY_FOR = 25_000; // milliseconds; a failover of Vault takes 15 seconds

/** Vault refused, and would refuse again: the room, the policy or the login is wrong. */
export class Refused extends Error {}

/** Vault is sealed, changing leaders, overloaded or out of reach. */
export class Unavailable extends Error {}

/** Host links from Vault. Use one object for the whole application. */
export class HostLinks {
  #base;
  #options;
  #vaultToken;
  #loggingIn;

  /**
   * @param {{addr: string, namespace?: string, roleId: string, secretId: string, credsPath: string}} options
   *   namespace is for OpenBao, Vault Enterprise and HCP.
   *   credsPath is the mount and the role, such as clanmeeting/creds/support.
   */
  constructor(options) {
    if (!/^https?:\/\//.test(options.addr)) {
      throw new Refused(`${options.addr} is not the address of a Vault: it must begin with https:// or http://`);
    }
    this.#base = `${options.addr.replace(/\/+$/, '')}/v1/`;
    this.#options = options;
  }

  /**
   * A new link. Whoever opens it is the host of the room.
   * @returns {Promise<{url: string, ttl: number}>} ttl in seconds from now
   */
  async get(room) {
    const deadline = performance.now() + RETRY_FOR;
    for (let delay = 500; ; delay = Math.min(delay * 2, 4_000)) {
      try {
        return await this.#read(room);
      } catch (error) {
        if (!(error instanceof Unavailable) || performance.now() + delay > deadline) throw error;
        console.warn(`${error.message}; trying again`);
      }
      await sleep(delay * (0.5 + Math.random()));
    }
  }

  async #read(room) {
    const path = `${this.#options.credsPath}?${new URLSearchParams({ room })}`;
    const token = await this.#login();
    let response = await this.#call('GET', path, { token });
    if (response.status === 403) {
      // The login may have expired. If a new login gets 403 too, the policy refuses.
      response = await this.#call('GET', path, { token: await this.#login(token) });
    }
    const data = answer(response, this.#options.credsPath, 'data');
    if (!data.meeting_url) {
      throw new Refused("Vault's answer has no meeting_url: the engine's config needs a domain, and room * has no link");
    }
    return { url: data.meeting_url, ttl: data.ttl };
  }

  /** The Vault token, or a new one if this one has expired. All callers that wait share one login. */
  async #login(expired) {
    if (this.#vaultToken === expired) {
      this.#loggingIn ??= this.#newToken().finally(() => {
        this.#loggingIn = undefined;
      });
      this.#vaultToken = await this.#loggingIn;
    }
    return this.#vaultToken;
  }

  async #newToken() {
    const { roleId: role_id, secretId: secret_id } = this.#options;
    const path = 'auth/approle/login';
    return answer(await this.#call('POST', path, { body: { role_id, secret_id } }), path, 'auth').client_token;
  }

  async #call(method, path, { token, body }) {
    const { namespace } = this.#options;
    try {
      const response = await fetch(this.#base + path, {
        method,
        headers: {
          ...(namespace && { 'X-Vault-Namespace': namespace }),
          ...(token && { 'X-Vault-Token': token }),
          ...(body && { 'Content-Type': 'application/json' }),
        },
        body: body && JSON.stringify(body),
        redirect: 'manual', // a redirect would hand the token or the secret ID to another host
        signal: AbortSignal.timeout(REQUEST_TIMEOUT),
      });
      return { status: response.status, text: await response.text() };
    } catch (error) {
      throw new Unavailable(`Vault can't be reached at ${this.#base}: ${error.cause?.message ?? error.message}`, { cause: error });
    }
  }
}

/** One part of the answer to a request of the path. */
function answer({ status, text }, path, part) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy in front of Vault may answer with HTML.
  }
  if (status === 200 && body?.[part]) return body[part];
  const message = Array.isArray(body?.errors)
    ? `Vault answered ${status} to ${path}: ${body.errors.join(', ').replace(/\s+/g, ' ').trim()}`
    : `the answer to ${path} (${status}) is not from Vault`;
  throw status < 400 || status === 429 || status >= 500 ? new Unavailable(message) : new Refused(message);
}
