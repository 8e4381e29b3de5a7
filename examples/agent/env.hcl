# Runs a program with a valid token in its environment, and restarts it with each new one.
#
#   vault agent -config=env.hcl

auto_auth {
  method {
    type = "approle"
    config = {
      role_id_file_path                   = "role-id"
      secret_id_file_path                 = "secret-id"
      remove_secret_id_file_after_reading = false # a restarted agent needs it again
    }
  }
}

template_config {
  static_secret_render_interval = "40s"
}

env_template "CLANMEETING_TOKEN" {
  contents             = "{{ with secret \"clanmeeting/creds/desk\" }}{{ .Data.token }}{{ end }}"
  error_on_missing_key = true
}

exec {
  command                   = ["sh", "desk.sh"]
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM"
}
