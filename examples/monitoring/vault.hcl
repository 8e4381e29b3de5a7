# For Vault's configuration, on every node.

telemetry {
  prometheus_retention_time = "1h"
  disable_hostname          = true # otherwise the host name is part of some metrics' names
}

# A listener only for Prometheus. It answers sys/metrics without a token, and each node
# answers for itself: on the usual listener, a standby redirects Prometheus to the active
# node. Every other path needs a token here, too. Beyond loopback, set tls_cert_file and
# tls_key_file instead of tls_disable.
listener "tcp" {
  address     = "127.0.0.1:8202"
  tls_disable = true
  telemetry {
    unauthenticated_metrics_access = true
  }
}
