// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/helper/identitytpl"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// A caller gives templates the values of the identity behind a request. It asks Vault
// for the entity and its groups when a template first needs them. It is for one
// goroutine.
type caller struct {
	system   logical.SystemView
	entityID string
	maxTTL   time.Duration // of the mount

	entity *logical.Entity
	groups []*logical.Group
	asked  struct{ entity, groups bool }
}

// value is a room.Values. An error that is not a [*room.NoValueError] is a fault.
func (c *caller) value(directive string) (string, error) {
	if err := c.ask(directive); err != nil {
		return "", err
	}
	if c.entity == nil {
		return "", &room.NoValueError{Reason: "your token has no identity entity; log in with an auth method to get one"}
	}
	_, value, err := identitytpl.PopulateString(identitytpl.PopulateStringInput{
		Mode:   identitytpl.ACLTemplating,
		String: "{{" + groupInNamespace.ReplaceAllString(directive, "$1$2") + "}}",
		Entity: c.entity,
		Groups: c.groups,
	})
	if err != nil {
		return "", &room.NoValueError{Reason: "your identity has no value for it; ask for one to be set in Vault"}
	}
	return value, nil
}

// OpenBao appends a dot and the namespace's ID to the IDs of entities and groups. Room
// names have no dots, so values and rules use only the part before the dot.
var groupInNamespace = regexp.MustCompile(`^(identity\.groups\.ids\.[^.]+)\.[^.]+(\.(?:id|name|metadata\..+))$`)

func bareID(id string) string {
	before, _, _ := strings.Cut(id, ".")
	return before
}

// ask fetches what the directive needs from Vault, once.
func (c *caller) ask(directive string) error {
	if !c.asked.entity && c.entityID != "" {
		entity, err := c.system.EntityInfo(c.entityID)
		if err != nil {
			return fmt.Errorf("asking Vault for the caller's entity: %w", err)
		}
		if entity != nil {
			entity.ID = bareID(entity.ID)
		}
		c.entity = entity
	}
	c.asked.entity = true
	if !c.asked.groups && c.entity != nil && strings.HasPrefix(directive, "identity.groups.") {
		groups, err := c.system.GroupsForEntity(c.entityID)
		if err != nil {
			return fmt.Errorf("asking Vault for the caller's groups: %w", err)
		}
		for _, group := range groups {
			group.ID = bareID(group.ID)
		}
		c.groups, c.asked.groups = groups, true
	}
	return nil
}
