# Copyright (c) The vault-plugin-secrets-clanmeeting authors
# SPDX-License-Identifier: MPL-2.0

"""Prints the link that opens a room as its host; with --keep, a new one each time
before the last expires."""

import argparse
import os
import random
import sys
import time
from dataclasses import dataclass

import hvac
import requests
from hvac import exceptions

REQUEST_TIMEOUT = 10  # seconds
RETRY_DELAYS = (0.5, 1, 2, 4, 8)  # seconds

# Vault is sealed, changing leaders, overloaded or out of reach: worth another try.
UNAVAILABLE = (
    exceptions.VaultDown,
    exceptions.InternalServerError,
    exceptions.BadGateway,
    exceptions.UnexpectedError,
    exceptions.RateLimitExceeded,
    requests.RequestException,
)


class NoMeetingURL(Exception):
    """The engine does not know where the meetings are."""

    def __str__(self):
        return "Vault's answer has no meeting_url: have domain written to the engine's config"


@dataclass
class Link:
    url: str
    renew_at: float  # as time.monotonic()


class HostLinks:
    """Host links from Vault. One object serves a whole application.

    What hvac raises comes through: InvalidRequest and Forbidden for what Vault refuses,
    and would refuse again; one of UNAVAILABLE once the retries are used up. Otherwise
    NoMeetingURL.
    """

    def __init__(self, addr, role_id, secret_id, creds_path):
        """creds_path is the mount and the role, such as clanmeeting/creds/support."""
        self._client = hvac.Client(url=addr, timeout=REQUEST_TIMEOUT)
        # hvac takes VAULT_TOKEN and ~/.vault-token by itself; the application logs in.
        self._client.token = None
        self._role_id = role_id
        self._secret_id = secret_id
        self._creds_path = creds_path
        self._links = {}

    def get(self, room):
        """A link for the room, read from Vault if there is none with a third of its
        life left."""
        link = self._links.get(room)
        if link is None or time.monotonic() >= link.renew_at:
            link = self._retrying(lambda: self._read(room))
            self._links[room] = link
        return link

    @staticmethod
    def _retrying(attempt):
        for delay in RETRY_DELAYS:
            try:
                return attempt()
            except UNAVAILABLE as error:
                print(f"{error}; trying again", file=sys.stderr)
            time.sleep(delay * random.uniform(0.5, 1))
        return attempt()

    def _read(self, room):
        if not self._client.token:
            self._login()
        try:
            answer = self._creds(room)
        except exceptions.Forbidden:
            # The login may have expired. With a new one, this is the policy's last word.
            self._login()
            answer = self._creds(room)
        data = answer["data"]
        if "meeting_url" not in data:
            raise NoMeetingURL
        # ttl counts from Vault's clock, so this machine's own need not be right.
        return Link(data["meeting_url"], time.monotonic() + data["ttl"] * 2 / 3)

    def _login(self):
        self._client.auth.approle.login(self._role_id, self._secret_id)

    def _creds(self, room):
        return self._client.adapter.get(f"/v1/{self._creds_path}", params={"room": room})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="print a new link before the last expires")
    parser.add_argument("room")
    args = parser.parse_args()
    try:
        links = HostLinks(
            addr=os.environ.get("VAULT_ADDR", "https://127.0.0.1:8200"),
            role_id=os.environ["VAULT_ROLE_ID"],
            secret_id=os.environ["VAULT_SECRET_ID"],
            creds_path=os.environ.get("CLANMEETING_CREDS", "clanmeeting/creds/support"),
        )
    except KeyError as error:
        sys.exit(f"error: set {error.args[0]}")
    while True:
        try:
            link = links.get(args.room)
        except (exceptions.VaultError, requests.RequestException, NoMeetingURL) as error:
            sys.exit(f"error: {error}")
        print(link.url, flush=True)
        if not args.keep:
            return
        time.sleep(max(0, link.renew_at - time.monotonic()))


if __name__ == "__main__":
    main()
