// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const fieldName = "name"

func (b *backend) pathRoles() []*framework.Path {
	names := map[string]*framework.FieldSchema{
		"keys": {Type: framework.TypeStringSlice, Required: true, Description: "The names of the roles, sorted."},
	}
	write := onActiveNode(b.pathRoleWrite, "Create or update a role.", onlyWarnings, nil)
	return []*framework.Path{{
		Pattern:         "roles/?$",
		Operations:      operationMap{logical.ListOperation: onAnyNode(b.pathRolesList, "List the roles.", ok(names), nil)},
		HelpSynopsis:    "List the roles of this mount.",
		HelpDescription: rolesHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "roles", Navigation: true, ItemType: "Role"},
	}, {
		Pattern: rolePrefix + framework.GenericNameRegex(fieldName),
		Fields:  withName(schemas(roleFields)),
		Operations: operationMap{
			logical.CreateOperation: write,
			logical.UpdateOperation: write,
			logical.ReadOperation:   onAnyNode(b.pathRoleRead, "Read a role.", ok(responseSchemas(roleFields)), nil),
			logical.DeleteOperation: onActiveNode(b.pathRoleDelete, "Delete a role.", noContent, nil),
		},
		ExistenceCheck:  b.pathRoleExists,
		HelpSynopsis:    "Manage a role, which says what tokens may be for and how long they live.",
		HelpDescription: roleHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "role", ItemType: "Role"},
	}}
}

// withName adds the role's name, which comes with the path. HandleRequest has checked how
// long it is.
func withName(fields map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	fields[fieldName] = &framework.FieldSchema{
		Type:     framework.TypeString,
		Required: true,
		Description: `The name of the role: 1 to 255 letters, digits, underscores, and inner
hyphens and dots. Part of the path.`,
	}
	return fields
}

func (b *backend) pathRolesList(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := listRoles(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(names), nil
}

// listRoles returns the names of the roles, sorted.
func listRoles(ctx context.Context, s logical.Storage) ([]string, error) {
	names, err := s.List(ctx, rolePrefix)
	if err != nil {
		return nil, fmt.Errorf("listing %q in storage: %w", rolePrefix, err)
	}
	slices.Sort(names)
	return names, nil
}

func (b *backend) pathRoleExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	r, err := loadRole(ctx, req.Storage, d.Get(fieldName).(string))
	return r != nil, err
}

func (b *backend) pathRoleRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	r, err := loadRole(ctx, req.Storage, d.Get(fieldName).(string))
	if err != nil || r == nil {
		return nil, err
	}
	return &logical.Response{Data: readFields(roleFields, &r.storedRole)}, nil
}

func (b *backend) pathRoleWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get(fieldName).(string)
	var unchanged bool
	r, err := b.changeRole(ctx, name, func(ctx context.Context) (r *role, err error) {
		r, unchanged, err = writeRole(ctx, req.Storage, name, d)
		return r, err
	})
	if err != nil {
		return nil, err
	}
	b.sendEvents(ctx, req, []event{{operation: eventRoleWrite, unchanged: unchanged, metadata: []string{fieldName, name}}})
	resp := &logical.Response{}
	for _, warning := range r.warnings(b.system.SystemView.MaxLeaseTTL(), b.now()) {
		resp.AddWarning(warning)
	}
	return resp, nil
}

// writeRole stores the role with the request's changes, unless it has them already.
func writeRole(ctx context.Context, s logical.Storage, name string, d *framework.FieldData) (r *role, unchanged bool, err error) {
	current, err := loadRole(ctx, s, name)
	if err != nil {
		return nil, false, err
	}
	changed := newRole()
	if current != nil {
		changed = current.storedRole
	}
	patchErr := patchFields(roleFields, &changed, d)
	if changed.MaxTTL == 0 {
		changed.MaxTTL = defaultMaxTTL
	}
	r, err = changed.compile()
	if err = errors.Join(patchErr, err); err != nil {
		return nil, false, err
	}
	if current.same(r) {
		return r, true, nil
	}
	return r, false, store(ctx, s, rolePath(name), r.storedRole)
}

func (b *backend) pathRoleDelete(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get(fieldName).(string)
	// Not read first, so that a role that can't be decoded is deleted, too.
	_, err := b.changeRole(ctx, name, func(ctx context.Context) (*role, error) {
		return nil, remove(ctx, req.Storage, rolePath(name))
	})
	if err != nil {
		return nil, err
	}
	b.sendEvents(ctx, req, []event{{operation: eventRoleDelete, metadata: []string{fieldName, name}}})
	return &logical.Response{}, nil
}

// warnings are what a security team should know about the role that it wrote.
func (r *role) warnings(mountMax time.Duration, now time.Time) []string {
	var warnings []string
	if r.AllowWildcardRoom {
		warnings = append(warnings, fieldAllowWildcardRoom+` lets this role issue tokens for room "*", which make their holder the host of every room of the consumer`)
	}
	if r.MaxTTL > longMaxTTL {
		warnings = append(warnings, fmt.Sprintf("%s of %s is over %s: a token can't be revoked and works until it expires", fieldMaxTTL, r.MaxTTL, longMaxTTL))
	}
	switch {
	case mountMax == 0:
		warnings = append(warnings, "Vault did not say what the mount's maximum TTL is, so "+fieldMaxTTL+" was not compared with it")
	case r.MaxTTL > mountMax:
		warnings = append(warnings, fmt.Sprintf("%s of %s is over the mount's maximum of %s, so tokens get at most that", fieldMaxTTL, r.MaxTTL, mountMax))
	}
	if r.ended(now) {
		warnings = append(warnings, fmt.Sprintf("%s, %s, is in the past: this role gives no tokens", fieldValidUntil, formatTime(r.ValidUntil)))
	}
	if r.MaxNotBefore > longMaxNotBefore {
		warnings = append(warnings, fmt.Sprintf("%s of %s is over %s: a scheduled token stops working when its key is replaced", fieldMaxNotBefore, r.MaxNotBefore, inDays(longMaxNotBefore)))
	}
	if r.ValidFrom.After(now.Add(longMaxNotBefore)) {
		warnings = append(warnings, fmt.Sprintf("%s is more than %s ahead: a token for that time stops working when its key is replaced", fieldValidFrom, inDays(longMaxNotBefore)))
	}
	return warnings
}

const rolesHelpDescription = `
Lists the names of the roles, sorted. If there is none, the CLI says "No value
found".

    vault list clanmeeting/roles
`

const roleHelpDescription = `
A role limits the rooms and the life of the tokens that are read from
creds/<name>. A write creates the role if it does not exist. Otherwise it
changes only the fields that it names.

The whole name of a room must match one entry of allowed_rooms: "support-*"
allows support-4711, not my-support-4711, and "*" alone allows any named room. A
token for every room, room=*, needs allow_wildcard_room, whatever allowed_rooms
says.

With allowed_rooms_template, entries and default_room may contain the identity
templates of Vault's policies. A value stands for one literal part of a name, in
lower case. An entry matches nothing if the caller has no entity or no such
value, or if the value has anything but a-z, 0-9, "_" and "-" in it.

With valid_from and valid_until, the role itself keeps a host from starting
early, and ends with its event. A token that would outlive valid_until is cut,
with a warning. If both are set, a request may name any not_before between them.

Refused: a role that allows nothing, a ttl over max_ttl, a default_room that the
role does not allow, a valid_until that is not after valid_from, a fraction of a
second. A write warns about what is allowed but risky: allow_wildcard_room, a
max_ttl over 24h or the mount's maximum, a max_not_before over 90d, a valid_from
more than 90d ahead, and a valid_until in the past.

    vault write clanmeeting/roles/support allowed_rooms='support-*' ttl=5m
    vault write clanmeeting/roles/support max_ttl=15m
    vault write clanmeeting/roles/webinar allowed_rooms=launch max_not_before=7d
    vault write clanmeeting/roles/event-7 allowed_rooms=launch \
      valid_from=2030-01-31T09:00:00Z valid_until=2030-01-31T11:00:00Z
    vault write clanmeeting/roles/me allowed_rooms_template=true \
      allowed_rooms='{{identity.entity.id}}' \
      default_room='{{identity.entity.id}}'
    vault read clanmeeting/roles/support
`
