# The security team: decides who may be the host of which rooms. Can't reach the key.

path "clanmeeting/roles" {
  capabilities = ["list"]
}

path "clanmeeting/roles/*" {
  capabilities = ["create", "update", "read", "delete"]
}

# To try a role without getting a token.
path "clanmeeting/check/*" {
  capabilities = ["read"]
}
