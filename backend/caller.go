// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/vault/sdk/helper/identitytpl"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/backend/internal/room"
)

// callerValues gives templates the values of the identity behind a request. It asks Vault
// for the entity and its groups when a template first needs them, and only once.
func callerValues(vault logical.SystemView, entityID string) room.Values {
	askEntity := sync.OnceValues(func() (*logical.Entity, error) { return entityOf(vault, entityID) })
	askGroups := sync.OnceValues(func() (map[string]*logical.Group, error) { return groupsOf(vault, entityID) })
	return func(directive string) (string, error) {
		entity, err := askEntity()
		if err != nil {
			return "", err
		}
		if entity == nil {
			return "", &room.NoValueError{Reason: "your token has no identity entity; log in with an auth method to get one"}
		}
		input := identitytpl.PopulateStringInput{Mode: identitytpl.ACLTemplating, Entity: entity, String: "{{" + directive + "}}"}
		if selector, ok := strings.CutPrefix(directive, "identity.groups."); ok {
			groups, err := askGroups()
			if err != nil {
				return "", err
			}
			input.String = "{{" + withoutNamespace(directive) + "}}"
			// The library searches all groups that it gets, so it gets the one.
			kind, rest, _ := strings.Cut(selector, ".")
			name, _, _ := strings.Cut(rest, ".")
			if group := groups[kind+"."+name]; group != nil {
				input.Groups = []*logical.Group{group}
			}
		}
		_, value, err := identitytpl.PopulateString(input)
		if err != nil {
			return "", &room.NoValueError{Reason: "your identity has no value for it; ask for one to be set in Vault"}
		}
		return value, nil
	}
}

// entityOf returns nil if there is no entity.
func entityOf(vault logical.SystemView, id string) (*logical.Entity, error) {
	if id == "" {
		return nil, nil
	}
	entity, err := vault.EntityInfo(id)
	if err != nil {
		return nil, fmt.Errorf("asking Vault for the caller's entity: %w", err)
	}
	if entity != nil {
		entity.ID = bareID(entity.ID)
	}
	return entity, nil
}

// groupsOf returns the groups by ids.<id> and by names.<name>, as directives name them. A
// caller may have thousands of them, and a role thousands of directives.
func groupsOf(vault logical.SystemView, entityID string) (map[string]*logical.Group, error) {
	all, err := vault.GroupsForEntity(entityID)
	if err != nil {
		return nil, fmt.Errorf("asking Vault for the caller's groups: %w", err)
	}
	groups := map[string]*logical.Group{}
	for _, group := range slices.Backward(all) { // of two with one name the first counts, as in Vault
		group.ID = bareID(group.ID)
		groups["ids."+group.ID], groups["names."+group.Name] = group, group
	}
	return groups, nil
}

// bareID returns the ID of an entity or a group without the namespace's. OpenBao appends a
// dot and that. Room names have no dots, so values and rules use only the part before it.
func bareID(id string) string {
	before, _, _ := strings.Cut(id, ".")
	return before
}

// groupDirective matches a directive with the ID of a group and something between that and
// what is asked of the group.
var groupDirective = regexp.MustCompile(`^(identity\.groups\.ids\.[^.]+)\.([^.]+)(\.(id|name|metadata\..+))$`)

// withoutNamespace takes the namespace's ID from a group's in a directive.
func withoutNamespace(directive string) string {
	parts := groupDirective.FindStringSubmatch(directive)
	if parts == nil || parts[2] == "metadata" { // of the group, with the key id or name
		return directive
	}
	return parts[1] + parts[3]
}
