// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

/** A setting from the environment. Without a default, the application does not start. */
export function setting(name, byDefault) {
  const value = process.env[name] || byDefault;
  if (value === undefined) {
    console.error(`error: set ${name}; README.md says what it is`);
    process.exit(1);
  }
  return value;
}
