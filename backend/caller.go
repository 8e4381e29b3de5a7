// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/helper/identitytpl"
	"github.com/hashicorp/vault/sdk/logical"
)

// A caller is who a request comes from, as far as templates ask. Vault is asked
// for the entity and its groups when a template first needs them.
type caller struct {
	system   logical.SystemView
	entityID string
	maxTTL   time.Duration // of the mount

	entity *logical.Entity
	groups []*logical.Group
	asked  struct{ entity, groups bool }
}

// value is what a directive stands for, in lower case, if that is part of a room's
// name. Where it is not, or the caller has no such value, the error is the
// caller's mistake, and tells nothing of the value.
func (c *caller) value(directive string) (string, error) {
	if err := c.ask(directive); err != nil {
		return "", err
	}
	if c.entity == nil {
		return "", invalid("your token has no identity entity; log in by an auth method to have one")
	}
	_, value, err := identitytpl.PopulateString(identitytpl.PopulateStringInput{
		Mode:   identitytpl.ACLTemplating,
		String: "{{" + directive + "}}",
		Entity: c.entity,
		Groups: c.groups,
	})
	if err != nil {
		return "", invalid("your identity has no value for it; have one set in Vault")
	}
	if !roomPattern.MatchString(value) {
		return "", invalid("your identity's value for it is not of a room's alphabet, %s", roomSyntax)
	}
	return strings.ToLower(value), nil
}

// ask has Vault tell what the directive needs, once.
func (c *caller) ask(directive string) error {
	var err error
	if !c.asked.entity && c.entityID != "" {
		if c.entity, err = c.system.EntityInfo(c.entityID); err != nil {
			return fmt.Errorf("asking Vault for the caller's entity: %w", err)
		}
	}
	c.asked.entity = true
	if !c.asked.groups && c.entity != nil && strings.HasPrefix(directive, "identity.groups.") {
		if c.groups, err = c.system.GroupsForEntity(c.entityID); err != nil {
			return fmt.Errorf("asking Vault for the caller's groups: %w", err)
		}
		c.asked.groups = true
	}
	return nil
}
