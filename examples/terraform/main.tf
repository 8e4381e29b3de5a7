terraform {
  required_version = ">= 1.3"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = "~> 5.0"
    }
  }
}

# Takes the address and the token from VAULT_ADDR and VAULT_TOKEN.
provider "vault" {}

# Registers a file that must already be in the plugin_directory of every Vault server.
resource "vault_plugin" "clanmeeting" {
  type    = "secret"
  name    = "vault-plugin-secrets-clanmeeting"
  version = var.plugin_version
  command = "vault-plugin-secrets-clanmeeting_${var.plugin_version}"
  sha256  = var.plugin_sha256

  # An upgrade registers the new version, tunes the mount to it, then removes the old one.
  lifecycle {
    create_before_destroy = true
  }
}

# The keys are in the mount and are deleted with it. In production, add prevent_destroy.
resource "vault_mount" "clanmeeting" {
  path           = "clanmeeting"
  type           = vault_plugin.clanmeeting.name
  plugin_version = vault_plugin.clanmeeting.version
  description    = "Host tokens for Clan Meeting"
}

# All settings except the keys, which the custodian manages: see README.md.
resource "vault_generic_endpoint" "config" {
  path = "${vault_mount.clanmeeting.path}/config"
  data_json = jsonencode({
    consumer_id = var.consumer_id
    audience    = "clanmeeting"
    issuer      = "production"
    domain      = var.domain

    delete_ended_roles_after = 0
  })

  # A read also returns which key is active, and its public half.
  ignore_absent_fields = true

  # Deleting the configuration would delete every key.
  disable_delete = true
}

locals {
  # Every field of a role. A write leaves a field that it does not name unchanged. So a field
  # that is only removed from a role below would stay in Vault, and no plan would show it.
  role_defaults = {
    allowed_rooms          = []
    allowed_rooms_template = false
    default_room           = ""
    allow_wildcard_room    = false
    ttl                    = 900
    max_ttl                = 3600
    not_before_duration    = 30
    max_not_before         = 0
    valid_from             = ""
    valid_until            = ""
    generate_lease         = false
  }

  roles = {
    support = {
      allowed_rooms = ["support-*"]
      ttl           = 300
      max_ttl       = 900
    }
    webinar = {
      allowed_rooms  = ["launch", "webinar-*"]
      default_room   = "launch"
      max_not_before = 86400
    }
    me = {
      allowed_rooms          = ["{{identity.entity.id}}"]
      allowed_rooms_template = true
      default_room           = "{{identity.entity.id}}"
    }
  }
}

resource "vault_generic_endpoint" "role" {
  for_each  = local.roles
  path      = "${vault_mount.clanmeeting.path}/roles/${each.key}"
  data_json = jsonencode(merge(local.role_defaults, each.value))
}

resource "vault_policy" "clanmeeting" {
  for_each = fileset("${path.module}/../policies", "*.hcl")
  name     = "clanmeeting-${trimsuffix(each.key, ".hcl")}"
  policy   = file("${path.module}/../policies/${each.key}")
}

resource "vault_auth_backend" "approle" {
  type = "approle"
}

# The support desk reads tokens of the role "support", and renews its own Vault token.
resource "vault_approle_auth_backend_role" "support_desk" {
  backend                 = vault_auth_backend.approle.path
  role_name               = "support-desk"
  token_policies          = [vault_policy.clanmeeting["app.hcl"].name]
  token_no_default_policy = true
  token_period            = 3600
}
