# The security team: who may be the host of what, and nothing of the key.

path "clanmeeting/roles" {
  capabilities = ["list"]
}

path "clanmeeting/roles/*" {
  capabilities = ["create", "update", "read", "delete"]
}

# Trying a role without making a token.
path "clanmeeting/check/*" {
  capabilities = ["read"]
}
