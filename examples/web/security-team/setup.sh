#!/bin/sh
# What the application may do in Vault, and nothing else: roles for two teams and for two
# events, a policy, and an AppRole. It can run again: it writes the same again.
#
#   setup.sh LAUNCH_BEGINS LAUNCH_ENDS    (RFC 3339, or seconds since the epoch)
set -eu
launch_begins=${1:?usage: setup.sh LAUNCH_BEGINS LAUNCH_ENDS}
launch_ends=${2:?usage: setup.sh LAUNCH_BEGINS LAUNCH_ENDS}

# A role for each team, with the team's name: it opens the team's rooms, and no others.
vault write clanmeeting/roles/sales allowed_rooms='sales-*' ttl=5m max_ttl=5m
vault write clanmeeting/roles/support allowed_rooms='support-*' ttl=5m max_ttl=5m

# A role for each event, with its team's name before its own. It opens one room, and only in
# its window. The room has no team's prefix: else the team's role would open it at any time.
vault write clanmeeting/roles/sales-launch allowed_rooms=event-launch-7h2k ttl=5m max_ttl=5m \
	valid_from="$launch_begins" valid_until="$launch_ends"
vault write clanmeeting/roles/sales-review allowed_rooms=event-review-m3xq ttl=5m max_ttl=5m \
	valid_from=2026-09-01T08:00:00Z valid_until=2026-09-01T10:00:00Z

vault policy write web "$(dirname "$0")/web.hcl"
vault auth list | grep -q '^approle/' || vault auth enable approle
vault write auth/approle/role/web token_policies=web token_no_default_policy=true token_ttl=20m token_max_ttl=4h
