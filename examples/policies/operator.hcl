# An operator: installs, upgrades and watches the engine, limits its rate, and backs Vault
# up. Reaches no setting, and makes no token.

path "sys/plugins/catalog/secret/vault-plugin-secrets-clanmeeting" {
  capabilities = ["create", "update", "read", "delete", "sudo"]
}

path "sys/plugins/pins/secret/vault-plugin-secrets-clanmeeting" {
  capabilities = ["create", "update", "read", "delete"]
}

path "sys/plugins/reload/backend" {
  capabilities = ["update"]
}

path "sys/plugins/reload/unknown/vault-plugin-secrets-clanmeeting" {
  capabilities = ["update"]
}

path "sys/mounts/clanmeeting" {
  capabilities = ["create", "update", "read"]
}

path "sys/mounts/clanmeeting/tune" {
  capabilities = ["update", "read"]
}

path "sys/quotas/rate-limit/clanmeeting" {
  capabilities = ["create", "update", "read", "delete"]
}

path "sys/metrics" {
  capabilities = ["read"]
}

path "sys/storage/raft/snapshot" {
  capabilities = ["read"]
}
