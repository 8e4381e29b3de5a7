// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// For trying: the application and the stand-ins, all at one address, so that a browser warns
// of the certificate only once. start.mjs runs it.

import { Hono } from 'hono';
import { app } from '../app.mjs';
import { listen } from '../listen.mjs';
import { logins } from './login-page.mjs';
import { meetings } from './meeting-server.mjs';

const { VAULT_ADDR, PUBLIC_KEY, PUBLIC_URL, MEETING_DOMAIN, CONSUMER_ID } = process.env;

const all = new Hono();
all.route('/', logins(VAULT_ADDR));
all.route('/', meetings({ publicKey: PUBLIC_KEY, consumer: CONSUMER_ID }));

// The browser would not find the meeting server by its name.
const here = (text) => text.replaceAll(MEETING_DOMAIN, new URL(PUBLIC_URL).host);
all.all('*', async (c) => {
  const response = await app.fetch(c.req.raw, c.env);
  const headers = new Headers([...response.headers].map(([name, value]) => [name, here(value)]));
  return new Response(response.body && here(await response.text()), { status: response.status, headers });
});

listen(all);
