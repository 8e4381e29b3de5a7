// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// For trying: plays the part of Vault's web page for logins, which a Vault that was built
// without it lacks. The rest it passes on to Vault. It stands where the provider's
// discovery says that page is, so the application does not know the difference.

import { Hono } from 'hono';
import { html } from 'hono/html';
import { proxy } from 'hono/proxy';

/** @param {string} addr Vault's address */
export function logins(addr) {
  const app = new Hono();
  const page = '/ui/vault/identity/oidc/provider/:name/authorize';

  app.get(page, (c) => c.html(form()));

  app.post(page, async (c) => {
    const { user, password } = await c.req.parseBody();
    const login = await vault(`auth/userpass/login/${encodeURIComponent(user)}`, { method: 'POST', body: JSON.stringify({ password }) });
    if (!login.auth) return c.html(form('This name and password are not known.'), 401);

    const { search, searchParams } = new URL(c.req.url);
    const answer = await vault(`identity/oidc/provider/${c.req.param('name')}/authorize${search}`, {
      headers: { 'X-Vault-Token': login.auth.client_token },
    });
    if (!answer.code) return c.html(form(answer.error_description), 403);
    const back = new URL(searchParams.get('redirect_uri')); // Vault has checked it
    back.search = new URLSearchParams({ code: answer.code, state: answer.state });
    return c.redirect(back, 303);
  });

  app.all('/v1/*', (c) => {
    const { pathname, search } = new URL(c.req.url);
    return proxy(addr + pathname + search, c.req);
  });

  async function vault(path, options) {
    return (await fetch(`${addr}/v1/${path}`, options)).json();
  }
  return app;
}

function form(problem) {
  return html`<!doctype html>
<html lang="en">
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Log in</title>
  <style>
    body { max-width: 22rem; margin: 10vh auto; padding: 0 1.25rem; font: 1.0625rem/1.55 system-ui, sans-serif }
    label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit }
    input, button { min-height: 2.75rem; margin: 0.25rem 0 1rem; padding: 0.5rem 0.75rem }
  </style>
  <main>
  <h1>Log in</h1>
  <p>This page stands in for Vault’s own.</p>
  ${problem ? html`<p role="alert"><strong>${problem}</strong></p>` : ''}
  <form method="post">
    <label>Name <input name="user" autocomplete="username" required autofocus></label>
    <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
    <button>Log in</button>
  </form>
  </main>
</html>`;
}
