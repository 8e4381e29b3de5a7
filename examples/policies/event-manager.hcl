# An application that manages events: for each event it writes a role, named event-…, with a
# valid_from and a valid_until. Can't reach other roles, tokens or the key.
#
# Whoever may write a role decides which rooms its readers may host. So give nobody's tokens a
# policy for creds/event-* but the application's that hands out the links, and no other role a
# name that begins with event-.

path "clanmeeting/roles/event-*" {
  capabilities = ["create", "update", "read", "delete"]
}

# Trying a role without getting a token.
path "clanmeeting/check/event-*" {
  capabilities = ["read"]
}
