# An application that manages events: for each event it writes a role, named event-…, with a
# valid_from and a valid_until. Can't reach other roles, tokens or the key.
#
# Whoever may write a role decides which rooms its readers may host. So let only the
# application that hands out the links read creds/event-*. Let no other role's name begin
# with event-.

path "clanmeeting/roles/event-*" {
  capabilities = ["create", "update", "read", "delete"]
}

# To try a role without getting a token.
path "clanmeeting/check/event-*" {
  capabilities = ["read"]
}
