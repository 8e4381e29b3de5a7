variable "consumer_id" {
  description = "The consumer ID that Clan Meeting gave you."
  type        = string
}

variable "domain" {
  description = "The host name of the meetings. If it is set, creds also returns domain and meeting_url."
  type        = string
  default     = ""
}

variable "plugin_version" {
  description = "The version with which the plugin was built."
  type        = string
  default     = "v0.1.0"
}

variable "plugin_sha256" {
  description = "The SHA-256 of the plugin's file."
  type        = string
}
