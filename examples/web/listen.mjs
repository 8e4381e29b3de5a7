// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

import { serve } from '@hono/node-server';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { setting } from './setting.mjs';

/** Serves on PORT. Without TLS_CERT it speaks HTTP, for a proxy on the same machine that does TLS. */
export function listen(app) {
  const certificate = setting('TLS_CERT', '');
  const tls = certificate && {
    createServer,
    serverOptions: { cert: readFileSync(certificate), key: readFileSync(setting('TLS_KEY')) },
  };
  const address = { hostname: setting('LISTEN', '127.0.0.1'), port: Number(setting('PORT', '8443')) };
  serve({ fetch: app.fetch, ...address, ...tls }, () => console.log(`The application is at ${setting('PUBLIC_URL')}`));
}
