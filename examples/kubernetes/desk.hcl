# For the front desk's pods: they read tokens of the role "desk".

path "clanmeeting/creds/desk" {
  # "update" only for external-secrets-room.yaml and the params of Vault Secrets Operator:
  # they name a room in the request's body, which makes it a write.
  capabilities = ["read", "update"]
}
