# What the app may not do. Each command must fail with the right reason.
fail() { echo "error: $*" >&2; exit 1; }
refused() { # the reason, and the command
	printf '\n$ %s\n' "$2"
	if out=$(eval "$2" 2>&1); then fail "it was not refused"; fi
	echo "$out"
	case $out in *"$1"*) ;; *) fail "it was not refused with: $1" ;; esac
}
title "What the app may not do"
VAULT_TOKEN=$(cat app-token)
refused 'room "billing" is not allowed' 'vault read clanmeeting/creds/support room=billing'
refused 'room "*" is not allowed' "vault read clanmeeting/creds/support room='*'"
refused 'permission denied' 'vault read clanmeeting/config'
refused 'permission denied' 'vault write clanmeeting/roles/support allow_wildcard_room=true'

show 'vault read -field=expiration clanmeeting/creds/support room=support-4711 ttl=10h'
life=$((out - $(date +%s)))
[ "$life" -le 900 ] || fail "a token for ten hours was not cut to the role's 15 minutes"
echo "The token expires in $life s: ten hours were cut to the role's max_ttl."
echo
echo "Done: the app got a valid host token, and nothing that it may not have."
