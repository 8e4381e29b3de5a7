# Copyright (c) The vault-plugin-secrets-clanmeeting authors
# SPDX-License-Identifier: MPL-2.0

"""Prints the link that opens a room as its host. With --keep, prints a new one
before the last expires."""

import argparse
import logging
import os
import random
import sys
import time
from dataclasses import dataclass

import hvac
import requests
from hvac import exceptions

REQUEST_TIMEOUT = 5  # seconds
RETRY_FOR = 25  # seconds; a failover of Vault takes 15

log = logging.getLogger(__name__)


class Refused(Exception):
    """Vault refused, and would refuse again: the room, the policy or the login is wrong."""


class Unavailable(Exception):
    """Vault is sealed, changing leaders, overloaded or out of reach."""


@dataclass
class Link:
    url: str
    ttl: int  # seconds from now


class HostLinks:
    """Host links from Vault. Use one object per thread: the library requests, which hvac
    uses, does not promise that threads can share it."""

    def __init__(self, addr, role_id, secret_id, creds_path, namespace=None):
        """creds_path is the mount and the role, such as clanmeeting/creds/support.
        namespace is for OpenBao, Vault Enterprise and HCP."""
        if not addr.startswith(("https://", "http://")):
            raise Refused(f"{addr} is not the address of a Vault: it must begin with https:// or http://")
        # A redirect would hand the token, or the secret ID, to another host.
        self._client = hvac.Client(url=addr, timeout=REQUEST_TIMEOUT, allow_redirects=False, namespace=namespace)
        # hvac would use VAULT_TOKEN or ~/.vault-token by itself; the application logs in instead.
        self._client.token = None
        self._role_id = role_id
        self._secret_id = secret_id
        self._creds_path = creds_path

    def get(self, room):
        """A new link. Whoever opens it is the host of the room.

        Raises Refused, and Unavailable once the retries are used up."""
        deadline = time.monotonic() + RETRY_FOR
        delay = 0.5
        while True:
            try:
                return self._read(room)
            except Unavailable as error:
                if time.monotonic() + delay > deadline:
                    raise
                log.warning("%s; trying again", error)
            time.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, 4)

    def _read(self, room):
        try:
            data = self._creds(room)["data"]
            url = data.get("meeting_url")
        except (exceptions.InvalidRequest, exceptions.Forbidden, exceptions.InvalidPath) as error:
            raise Refused(f"Vault refused: {' '.join(str(error).split())}") from error
        except exceptions.VaultError as error:
            raise Unavailable(f"Vault answered: {' '.join(str(error).split())}") from error
        except requests.RequestException as error:
            raise Unavailable(f"Vault can't be reached: {error}") from error
        except (AttributeError, KeyError, TypeError) as error:
            # A redirect, or a proxy's page: hvac returns answers that are not Vault's.
            raise Unavailable("the answer is not from Vault") from error
        if not url:
            raise Refused("Vault's answer has no meeting_url: the engine's config needs a domain, and room * has no link")
        return Link(url, data["ttl"])

    def _creds(self, room):
        if not self._client.token:
            self._login()
        try:
            return self._get(room)
        except exceptions.Forbidden:
            # The login may have expired. If a new login gets this too, the policy refuses.
            self._login()
            return self._get(room)

    def _login(self):
        self._client.auth.approle.login(self._role_id, self._secret_id)

    def _get(self, room):
        return self._client.adapter.get(f"/v1/{self._creds_path}", params={"room": room})


def setting(name):
    return os.environ.get(name) or sys.exit(f"error: set {name}")


def main():
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="print a new link before the last expires")
    parser.add_argument("room")
    args = parser.parse_args()
    try:
        links = HostLinks(
            addr=setting("VAULT_ADDR"),
            role_id=setting("VAULT_ROLE_ID"),
            secret_id=setting("VAULT_SECRET_ID"),
            creds_path=os.environ.get("CLANMEETING_CREDS", "clanmeeting/creds/support"),
            namespace=os.environ.get("VAULT_NAMESPACE"),
        )
        while True:
            link = links.get(args.room)
            print(link.url, flush=True)
            if not args.keep:
                return
            time.sleep(link.ttl * 2 / 3)
    except (Refused, Unavailable) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
