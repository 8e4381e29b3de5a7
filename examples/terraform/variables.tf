variable "consumer_id" {
  description = "The consumer ID that Clan Meeting gave you."
  type        = string
}

variable "domain" {
  description = "The host name of the meetings. With it, creds also returns the meeting's URL."
  type        = string
  default     = ""
}

variable "plugin_version" {
  description = "The version of the plugin, as it was built."
  type        = string
  default     = "v0.1.0"
}

variable "plugin_sha256" {
  description = "The SHA-256 of the plugin's file."
  type        = string
}
