# An application that reads tokens of one role.

path "clanmeeting/creds/support" {
  capabilities = ["read"]
}

# Renewing its own token, without the templated policy named "default".
path "auth/token/renew-self" {
  capabilities = ["update"]
}
