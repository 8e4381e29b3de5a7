# An operator: installs, upgrades and watches the engine, limits its rate, and backs Vault
# up. Reaches no setting, and makes no token. Who may write the plugin's folder besides can
# have another program run in the plugin's place, and so the key: let those be two people.

path "sys/plugins/catalog/secret/vault-plugin-secrets-clanmeeting" {
  capabilities = ["create", "update", "read", "delete", "sudo"]
  # What runs is a file of the plugin's folder: no image of somebody's choice, and nothing
  # in its environment.
  denied_parameters = {
    "env"       = []
    "oci_image" = []
    "runtime"   = []
  }
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

path "sys/mounts" {
  capabilities = ["read"]
}

# Whoever enables the engine can set what is denied below: the custodian looks before a key
# comes in.
path "sys/mounts/clanmeeting" {
  capabilities = ["create", "update", "read"]
}

path "sys/mounts/clanmeeting/tune" {
  capabilities = ["update", "read"]
  # They would have the audit log write keys and tokens as they are.
  denied_parameters = {
    "audit_non_hmac_request_keys"  = []
    "audit_non_hmac_response_keys" = []
  }
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
