# Keeps the file host-token with a valid token, by the clock: for a role without leases.
#
#   vault agent -config=unleased.hcl

auto_auth {
  method {
    type = "approle"
    config = {
      role_id_file_path                   = "role-id"
      secret_id_file_path                 = "secret-id"
      remove_secret_id_file_after_reading = false # lest a restart find none
    }
  }
}

template_config {
  # The agent reads again after 85 to 95 % of this. Without it, it would after some
  # 4.5 minutes, whenever the token expires. The role's ttl is a minute.
  static_secret_render_interval = "40s"
}

template {
  contents             = "{{ with secret \"clanmeeting/creds/desk\" }}{{ .Data.token }}{{ end }}"
  destination          = "host-token"
  perms                = "0600"
  error_on_missing_key = true
}
