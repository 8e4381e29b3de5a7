// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// The meeting inside a page of ours, with the vendor's package. VideoMeeting follows the
// package's README; a click comes before it.

import React, { useEffect, useState } from 'react';
import { clanMeeting } from 'react-clan-meeting';
import { render } from 'react-dom';

function VideoMeeting({ domain, consumerId, optionalProperties }) {
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    const script = document.createElement('script');
    script.src = `https://${domain}/external_api.js`;
    script.onload = () => new clanMeeting(domain, consumerId, optionalProperties).start();
    script.onerror = () => setFailed(true);
    document.body.appendChild(script);
  }, []);
  return <p role="status">{failed ? 'The meeting server does not answer. Try again in a moment.' : 'The meeting opens …'}</p>;
}

function Embedded({ id, host, name, domain, consumer, room }) {
  const [meeting, setMeeting] = useState();

  async function startAsHost() {
    const click = { method: 'POST', headers: { Accept: 'application/json' } };
    const response = await fetch(`/meetings/${id}/start`, click).catch(() => undefined);
    if (response?.ok) setMeeting(await response.json());
    else location.assign(`/meetings/${id}`); // it says what is wrong
  }

  function joinAsGuest() {
    setMeeting({ domain, consumer_id: consumer, room });
  }

  if (meeting) {
    const properties = { roomName: meeting.room, displayName: name, jwt: meeting.token };
    return <VideoMeeting domain={meeting.domain} consumerId={meeting.consumer_id} optionalProperties={properties} />;
  }
  const text = host
    ? 'You are the host. Guests can join once you have started the meeting.'
    : 'You can join once a host has started the meeting.';
  return (
    <section className="card">
      <p>{text}</p>
      <p className="actions">
        <button onClick={host ? startAsHost : joinAsGuest}>{host ? 'Start the meeting here' : 'Join here'}</button>
      </p>
    </section>
  );
}

const root = document.getElementById('embed');
render(<Embedded {...root.dataset} host={Boolean(root.dataset.host)} />, root);
