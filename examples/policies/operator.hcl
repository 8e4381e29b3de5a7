# An operator: installs, upgrades and watches the engine, limits its rate, and backs up Vault.
# Can't read or change a setting, and can't get a token. Somebody who may also write the
# plugin's folder can run another program instead of the plugin, and get the key. So give
# these two permissions to different people.
#
# Vault 1.21 logs a warning about denied_parameters once: it now compares lists differently.
# The lists below are empty, which denies every value, so nothing changes for this policy.

# For "vault plugin list secret".
path "sys/plugins/catalog" {
  capabilities = ["read"]
}

path "sys/plugins/catalog/secret/vault-plugin-secrets-clanmeeting" {
  capabilities = ["create", "update", "read", "delete", "sudo"]
  # Only a file of the plugin's folder can run: no container image, and no added environment
  # variables.
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

# Whoever enables the engine can set the parameters that are denied below. So the key
# custodian checks the tuning before importing a key.
path "sys/mounts/clanmeeting" {
  capabilities = ["create", "update", "read"]
}

path "sys/mounts/clanmeeting/tune" {
  capabilities = ["update", "read"]
  # They would make the audit log write keys and tokens in clear.
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
