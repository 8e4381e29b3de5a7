# Whoever is on call: what the incident sections of docs/operations.md need. It can't read a
# token, but it is as strong as the key custodian and the security team together, and it can
# make a login for an application. So hand it out for a night, not for good, and look in the
# audit log for what was done with it.

# What a token is for.
path "clanmeeting/verify" {
  capabilities = ["update"]
}

# Replace the key; repair a corrupt entry.
path "clanmeeting/config" {
  capabilities = ["create", "update", "read", "delete"]
}

path "clanmeeting/keys" {
  capabilities = ["list"]
}

path "clanmeeting/keys/*" {
  capabilities = ["update", "read", "delete"]
}

# Stop a role, and bring it back; shorten its tokens' lives.
path "clanmeeting/roles" {
  capabilities = ["list"]
}

path "clanmeeting/roles/*" {
  capabilities = ["create", "update", "read", "delete"]
}

# Search the log of the audit device "file" for a token.
path "sys/audit-hash/file" {
  capabilities = ["update"]
}

# Stop whoever asked for a token, and let them continue. Any other field of an entity could
# give somebody a policy.
path "identity/entity/id/*" {
  capabilities = ["update"]
  allowed_parameters = {
    "disabled" = []
  }
}

# A new secret ID for an application, and the end of the old ones. Repeat these two for each
# AppRole that reads tokens. Parameters of a secret ID could put values into its metadata,
# which templates of rooms may use.
path "auth/approle/role/support-app/secret-id" {
  capabilities = ["update", "list"]
  denied_parameters = {
    "*" = []
  }
}

path "auth/approle/role/support-app/secret-id-accessor/destroy" {
  capabilities = ["update"]
}

# End what AppRoles logged in with the old secret IDs.
path "sys/leases/revoke-prefix/auth/approle/login" {
  capabilities = ["update", "sudo"]
}

# Find and end a Vault token without an entity.
path "auth/token/accessors" {
  capabilities = ["list", "sudo"]
}

path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}
