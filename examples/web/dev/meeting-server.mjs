// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// For trying, and for the test: stands in for Clan Meeting's server. There are no meetings
// here. It checks the token of a link with the public key alone, as a meeting server does, and
// shows whether its holder would be the host.

import { Hono } from 'hono';
import { html } from 'hono/html';
import { createPublicKey, verify } from 'node:crypto';

/**
 * Throws with the reason, if the token does not make its holder a host of the room.
 * @param {{publicKey: string, consumer: string, room: string}} expected publicKey is a PEM
 */
export function checkToken(token, { publicKey, consumer, room }) {
  const [head, body, signature, ...more] = token.split('.');
  if (!signature || more.length) throw new Error('it is not a token');
  const signed = verify('RSA-SHA256', Buffer.from(`${head}.${body}`), createPublicKey(publicKey), Buffer.from(signature, 'base64url'));
  if (!signed) throw new Error('the signature is wrong');

  const header = JSON.parse(Buffer.from(head, 'base64url'));
  const claims = JSON.parse(Buffer.from(body, 'base64url'));
  const same = (name, is, wanted) => {
    if (is !== wanted) throw new Error(`${name} is ${JSON.stringify(is)}, not ${JSON.stringify(wanted)}`);
  };
  same('alg', header.alg, 'RS256');
  same('typ', header.typ, 'JWT');
  same('kid', header.kid, consumer);
  same('sub', claims.sub, consumer);
  same('aud', claims.aud, 'clanmeeting');
  same('iss', claims.iss, 'production');
  same('context', JSON.stringify(claims.context), '{}');
  same('the claims', Object.keys(claims).sort().join(), 'aud,context,exp,iss,nbf,room,sub');
  if (claims.room !== '*') same('room', claims.room, room);
  const now = Date.now() / 1000; // no leeway
  if (!Number.isInteger(claims.exp) || now >= claims.exp) throw new Error('it has expired');
  if (!Number.isInteger(claims.nbf) || now < claims.nbf) throw new Error('it is not valid yet');
  return claims;
}

/** @param {{publicKey: string, consumer: string}} options publicKey is a PEM */
export function meetings({ publicKey, consumer }) {
  const app = new Hono();

  app.get(`/${consumer}/:room`, (c) => {
    const room = c.req.param('room');
    const token = c.req.query('jwt');
    try {
      if (token) checkToken(token, { publicKey, consumer, room });
    } catch (error) {
      return c.html(page('You can’t come in', html`The token for <b>${room}</b> is refused: ${error.message}.`), 403);
    }
    return c.html(page(token ? 'You are the host' : 'You are a guest', html`The room is <b>${room}</b>.`));
  });

  // What the vendor's package loads: it opens the meeting in a frame.
  app.get('/external_api.js', (c) => c.body(externalAPI, 200, { 'Content-Type': 'text/javascript' }));

  return app;
}

const externalAPI = `
window.JitsiMeetExternalAPI = class extends EventTarget {
  constructor(domain, { roomName, jwt, parentNode }) {
    super();
    const frame = document.createElement('iframe');
    frame.src = 'https://' + domain + '/' + roomName + (jwt ? '?jwt=' + jwt : '');
    frame.title = 'The meeting';
    frame.style = 'width: 100%; height: 100%; border: 0';
    parentNode.append(frame);
  }
  once() {}
};
`;

const page = (title, text) => html`<!doctype html>
<html lang="en">
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>${title}</title>
  <style>
    body { display: grid; place-content: center; min-height: 90vh; padding: 1rem }
    body { text-align: center; background: Canvas; font: 1.125rem/1.5 system-ui, sans-serif }
  </style>
  <main>
  <h1>${title}</h1>
  <p>${text}</p>
  <p><small>This page stands in for the meeting server.</small></p>
  </main>
</html>`;
