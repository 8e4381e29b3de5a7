// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"strings"

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

	asked  bool
	entity *logical.Entity
	groups *callerGroups
}

// callerGroups are the groups of a caller. A caller may have thousands of them, and a role
// thousands of directives.
type callerGroups struct{ byID, byName map[string]*logical.Group }

// value is a room.Values. An error that is not a [*room.NoValueError] is a fault.
func (c *caller) value(directive string) (string, error) {
	entity, err := c.askEntity()
	if err != nil {
		return "", err
	}
	if entity == nil {
		return "", &room.NoValueError{Reason: "your token has no identity entity; log in with an auth method to get one"}
	}
	input := identitytpl.PopulateStringInput{Mode: identitytpl.ACLTemplating, Entity: entity, String: "{{" + directive + "}}"}
	if selector, ok := strings.CutPrefix(directive, "identity.groups."); ok {
		groups, err := c.askGroups()
		if err != nil {
			return "", err
		}
		group, accessor := groups.find(selector)
		if group != nil {
			// The library searches all groups that it gets, so it gets the one.
			input.Groups = []*logical.Group{group}
			input.String = "{{identity.groups.ids." + group.ID + "." + accessor + "}}"
		}
	}
	_, value, err := identitytpl.PopulateString(input)
	if err != nil {
		return "", &room.NoValueError{Reason: "your identity has no value for it; ask for one to be set in Vault"}
	}
	return value, nil
}

func (c *caller) askEntity() (*logical.Entity, error) {
	if c.asked || c.entityID == "" {
		return c.entity, nil
	}
	entity, err := c.system.EntityInfo(c.entityID)
	if err != nil {
		return nil, fmt.Errorf("asking Vault for the caller's entity: %w", err)
	}
	if entity != nil {
		entity.ID = bareID(entity.ID)
	}
	c.entity, c.asked = entity, true
	return entity, nil
}

func (c *caller) askGroups() (*callerGroups, error) {
	if c.groups != nil {
		return c.groups, nil
	}
	all, err := c.system.GroupsForEntity(c.entityID)
	if err != nil {
		return nil, fmt.Errorf("asking Vault for the caller's groups: %w", err)
	}
	c.groups = &callerGroups{byID: map[string]*logical.Group{}, byName: map[string]*logical.Group{}}
	for _, group := range all {
		group.ID = bareID(group.ID)
		c.groups.byID[group.ID] = group
		if c.groups.byName[group.Name] == nil { // the first one, as in Vault
			c.groups.byName[group.Name] = group
		}
	}
	return c.groups, nil
}

// find returns the group that a selector names, such as ids.<id>.name or
// names.<name>.metadata.<key>, and what it asks of the group. It is nil if the caller is
// not in that group.
func (g *callerGroups) find(selector string) (group *logical.Group, accessor string) {
	kind, rest, _ := strings.Cut(selector, ".")
	which, accessor, _ := strings.Cut(rest, ".")
	if kind == "names" {
		return g.byName[which], accessor
	}
	// In OpenBao, a namespace's ID may stand between the group's and the accessor.
	if first, further, more := strings.Cut(accessor, "."); more && first != "metadata" {
		accessor = further
	}
	return g.byID[which], accessor
}

// bareID returns the ID of an entity or a group without the namespace's. OpenBao appends a
// dot and that. Room names have no dots, so values and rules use only the part before it.
func bareID(id string) string {
	before, _, _ := strings.Cut(id, ".")
	return before
}
