// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// The login with OpenID Connect, and the session in an encrypted cookie.

import { deleteCookie, getCookie, setCookie } from 'hono/cookie';
import { EncryptJWT, jwtDecrypt } from 'jose';
import { randomBytes } from 'node:crypto';
import * as oidc from 'openid-client';
import { setting } from './setting.mjs';

const publicURL = setting('PUBLIC_URL');
const sessionSeconds = 60 * setting('SESSION_MINUTES', '60');
// 32 bytes. Without it, a restart logs everybody out; several instances must share one.
const key = Buffer.from(setting('SESSION_KEY', randomBytes(32).toString('base64')), 'base64');

let provider;

/** What the provider says about itself, asked once. */
async function discovered() {
  provider ??= await oidc.discovery(new URL(setting('OIDC_ISSUER')), setting('OIDC_CLIENT_ID'), setting('OIDC_CLIENT_SECRET'));
  return provider;
}

/** Sends the user to the provider, and remembers in a cookie where to go afterwards. */
export async function beginLogin(c) {
  const code_verifier = oidc.randomPKCECodeVerifier();
  const login = { code_verifier, state: oidc.randomState(), nonce: oidc.randomNonce(), to: c.req.query('to') };
  const url = oidc.buildAuthorizationUrl(await discovered(), {
    redirect_uri: `${publicURL}/callback`,
    scope: setting('OIDC_SCOPE', 'openid profile'),
    code_challenge: await oidc.calculatePKCECodeChallenge(code_verifier),
    code_challenge_method: 'S256',
    state: login.state,
    nonce: login.nonce,
  });
  await seal(c, 'login', login, 600);
  return c.redirect(url);
}

/** The user comes back from the provider. Throws if anything about that is wrong. */
export async function endLogin(c) {
  const login = await unseal(c, 'login');
  // Else somebody could log this browser in with a code of their own.
  if (!login) throw new Error('this browser has begun no login');
  deleteCookie(c, 'login', { prefix: 'host' });
  const tokens = await oidc.authorizationCodeGrant(
    await discovered(),
    new URL(`/callback${new URL(c.req.url).search}`, publicURL),
    { pkceCodeVerifier: login.code_verifier, expectedState: login.state, expectedNonce: login.nonce, idTokenExpected: true },
  );
  const claims = tokens.claims();
  const user = {
    id: claims[setting('OIDC_USER_CLAIM', 'preferred_username')],
    team: claims[setting('OIDC_TEAM_CLAIM', 'team')],
    name: claims.name,
  };
  if (!user.id) throw new Error('the ID token does not name the user: set OIDC_USER_CLAIM');
  await seal(c, 'session', user, sessionSeconds);
  // Only a page of our own: the login must not lead to somebody else's.
  return c.redirect(/^\/meetings\/[\w-]+(\/embed)?$/.test(login.to) ? login.to : '/', 303);
}

/** @returns {Promise<{id: string, team?: string, name?: string} | undefined>} */
export function currentUser(c) {
  return unseal(c, 'session');
}

export function logOut(c) {
  deleteCookie(c, 'session', { prefix: 'host' });
  return c.redirect('/', 303);
}

// The cookies' names begin with __Host-: the browser takes them only over TLS, and from this
// host. Lax, because the user comes back from the provider, which is another site.
async function seal(c, name, content, seconds) {
  const sealed = await new EncryptJWT({ [name]: content })
    .setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
    .setExpirationTime(Math.floor(Date.now() / 1000) + seconds)
    .encrypt(key);
  setCookie(c, name, sealed, { prefix: 'host', httpOnly: true, sameSite: 'Lax', maxAge: seconds });
}

async function unseal(c, name) {
  const sealed = getCookie(c, name, 'host');
  if (!sealed) return undefined;
  try {
    return (await jwtDecrypt(sealed, key)).payload[name];
  } catch {
    return undefined; // expired, or sealed with another key
  }
}
