# An application that reads tokens of one role. For batches it also needs "update" on that
# path.

path "clanmeeting/creds/support" {
  capabilities = ["read"]
}

# Lets it renew its own Vault token without the policy named "default", which is slow because
# it has templates.
path "auth/token/renew-self" {
  capabilities = ["update"]
}
