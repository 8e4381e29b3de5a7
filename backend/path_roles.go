// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	fieldName                 = "name"
	fieldAllowedRooms         = "allowed_rooms"
	fieldAllowedRoomsTemplate = "allowed_rooms_template"
	fieldDefaultRoom          = "default_room"
	fieldAllowWildcardRoom    = "allow_wildcard_room"
	fieldTTL                  = "ttl"
	fieldMaxTTL               = "max_ttl"
	fieldNotBeforeDuration    = "not_before_duration"
	fieldMaxNotBefore         = "max_not_before"
	fieldValidFrom            = "valid_from"
	fieldValidUntil           = "valid_until"
	fieldGenerateLease        = "generate_lease"
)

func (b *backend) pathRoles() []*framework.Path {
	return []*framework.Path{b.pathRoleList(), b.pathRole()}
}

func (b *backend) pathRoleList() *framework.Path {
	return &framework.Path{
		Pattern: "roles/?$",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: b.pathRolesList,
				Summary:  "List the roles.",
				Responses: map[int][]framework.Response{
					http.StatusOK: {{Description: "OK", Fields: map[string]*framework.FieldSchema{
						"keys": {Type: framework.TypeStringSlice, Required: true, Description: "The names of the roles, sorted."},
					}}},
				},
			},
		},
		HelpSynopsis:    "List the roles of this mount.",
		HelpDescription: rolesHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "roles", Navigation: true, ItemType: "Role"},
	}
}

func (b *backend) pathRole() *framework.Path {
	write := &framework.PathOperation{
		Callback:                    b.pathRoleWrite,
		Summary:                     "Create or update a role.",
		Responses:                   writeResponses,
		ForwardPerformanceStandby:   true,
		ForwardPerformanceSecondary: true,
	}
	return &framework.Path{
		Pattern: rolePrefix + framework.GenericNameRegex(fieldName),
		Fields:  withName(roleFields()),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.CreateOperation: write,
			logical.UpdateOperation: write,
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.pathRoleRead,
				Summary:  "Read a role.",
				Responses: map[int][]framework.Response{
					http.StatusOK: {{Description: "OK", Fields: roleResponseFields()}},
				},
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback:                    b.pathRoleDelete,
				Summary:                     "Delete a role.",
				Responses:                   emptyResponses,
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
			},
		},
		ExistenceCheck:  b.pathRoleExists,
		HelpSynopsis:    roleHelpSynopsis,
		HelpDescription: roleHelpDescription,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "role", ItemType: "Role"},
	}
}

// withName adds the role's name, which comes with the path.
func withName(fields map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	fields[fieldName] = &framework.FieldSchema{
		Type:     framework.TypeString,
		Required: true,
		Description: `The name of the role: letters, digits, underscores, and inner hyphens
and dots. Part of the path.`,
	}
	return fields
}

func roleFields() map[string]*framework.FieldSchema {
	fields := roleRoomFields()
	maps.Copy(fields, roleTimeFields())
	maps.Copy(fields, roleWindowFields())
	return fields
}

func roleRoomFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldAllowedRooms: {
			Type: framework.TypeCommaStringSlice,
			Description: `The rooms that a token may be for, separated by commas: names, and globs
in which "*" stands for any part of a name, like support-*. "*" alone is
any named room. Each has 1 to 255 of a-z, 0-9, "_", "-" and "*"; upper
case becomes lower case. At most 2,000 entries, 128 KiB. Default: none.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Allowed rooms", Description: `Names of rooms, and globs in which "*" stands for any part of a name.`},
		},
		fieldAllowedRoomsTemplate: {
			Type:    framework.TypeBool,
			Default: false,
			Description: `Lets allowed_rooms and default_room hold identity templates, which stand
for values of the caller's entity, like {{identity.entity.id}} or
team-{{identity.entity.metadata.team}}-*. Default: false.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Allowed rooms are templates"},
		},
		fieldDefaultRoom: {
			Type: framework.TypeString,
			Description: `The room for a request that names none: one room name that the role
allows. Default: none; a request must then name a room. An empty value
removes it.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Default room"},
		},
		fieldAllowWildcardRoom: {
			Type:    framework.TypeBool,
			Default: false,
			Description: `Lets a request ask for room=*, a token that makes its holder the host of
every room of the consumer. Default: false.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Allow tokens for every room"},
		},
	}
}

func roleTimeFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldTTL: {
			Type:    framework.TypeDurationSecond,
			Default: int(defaultTTL.Seconds()),
			Description: `The life of a token if the request names none, in seconds or like 90s,
15m, 1h; at most max_ttl. Default: 15m, or max_ttl if that is less; 0
restores it.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "TTL"},
		},
		fieldMaxTTL: {
			Type:    framework.TypeDurationSecond,
			Default: int(defaultMaxTTL.Seconds()),
			Description: `The longest life that a request can get, in seconds or like 90s, 15m,
1h; at most 3650d. The mount's maximum applies, too. Default: 1h; 0
restores it.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Maximum TTL"},
		},
		fieldNotBeforeDuration: {
			Type:    framework.TypeDurationSecond,
			Default: int(defaultNotBeforeDuration.Seconds()),
			Description: `How far nbf is backdated on a token for use now, in case the meeting
server's clock is behind, in seconds or like 90s, 15m; at most 24h.
Default: 30s.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Not-before duration"},
		},
		fieldMaxNotBefore: {
			Type:    framework.TypeDurationSecond,
			Default: 0,
			Description: `How far ahead a request's not_before may be, in seconds or like 15m,
24h, 7d; at most 3650d. Default: 0, which refuses scheduling.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Maximum not-before"},
		},
		fieldGenerateLease: {
			Type:    framework.TypeBool,
			Default: false,
			Description: `Adds a lease that ends with the token, for clients that refresh by
lease. It costs a write to Vault's storage per token, and revoking it
does not end the token. Default: false.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Generate lease"},
		},
	}
}

// roleWindowFields are strings and not framework.TypeTime, because an empty value removes
// a time.
func roleWindowFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		fieldValidFrom: {
			Type: framework.TypeString,
			Description: `No token of this role is valid earlier, whatever a request asks for. An
earlier request gets a token that begins then. As RFC 3339, like
2030-01-31T09:00:00Z, or in seconds since the epoch. Default: none. An
empty value removes it.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Valid from"},
		},
		fieldValidUntil: {
			Type: framework.TypeString,
			Description: `No token of this role is valid later, and the role then gives no more.
As RFC 3339, like 2030-01-31T18:00:00Z, or in seconds since the epoch.
Default: none. An empty value removes it.`,
			DisplayAttrs: &framework.DisplayAttributes{Name: "Valid until"},
		},
	}
}

// roleResponseFields are the fields of a role as it is read: all of them, always.
func roleResponseFields() map[string]*framework.FieldSchema {
	fields := roleFields()
	for _, field := range fields {
		field.Required = true
		field.Default = nil
		if field.Type == framework.TypeDurationSecond {
			field.Type = framework.TypeInt64 // a duration reads back as seconds
		}
	}
	return fields
}

func (b *backend) pathRolesList(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := req.Storage.List(ctx, rolePrefix)
	if err != nil {
		return nil, fmt.Errorf("listing %q in storage: %w", rolePrefix, err)
	}
	slices.Sort(names)
	return logical.ListResponse(names), nil
}

func (b *backend) pathRoleExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	r, err := loadRole(ctx, req.Storage, d.Get(fieldName).(string))
	if errors.Is(err, errCorrupt) {
		return true, nil // there is one, and the handler says what is wrong with it
	}
	return r != nil, err
}

func (b *backend) pathRoleRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	r, err := loadRole(ctx, req.Storage, d.Get(fieldName).(string))
	if err != nil || r == nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		fieldAllowedRooms:         r.AllowedRooms,
		fieldAllowedRoomsTemplate: r.AllowedRoomsTemplate,
		fieldDefaultRoom:          r.DefaultRoom,
		fieldAllowWildcardRoom:    r.AllowWildcardRoom,
		fieldTTL:                  int64(r.ttl.Seconds()),
		fieldMaxTTL:               int64(r.MaxTTL.Seconds()),
		fieldNotBeforeDuration:    int64(r.NotBeforeDuration.Seconds()),
		fieldMaxNotBefore:         int64(r.MaxNotBefore.Seconds()),
		fieldValidFrom:            formatTime(r.ValidFrom),
		fieldValidUntil:           formatTime(r.ValidUntil),
		fieldGenerateLease:        r.GenerateLease,
	}}, nil
}

func (b *backend) pathRoleWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get(fieldName).(string)
	var r *role
	err := b.roles.change(name, func() (err error) {
		r, err = writeRole(ctx, req.Storage, name, d)
		return err
	})
	if err != nil {
		return refuse(err)
	}
	b.sendEvent(ctx, req, eventRoleWrite, true, fieldName, name)
	resp := &logical.Response{}
	for _, warning := range r.warnings(b.vault.MaxLeaseTTL(), b.now()) {
		resp.AddWarning(warning)
	}
	return resp, nil
}

// writeRole stores the role with the request's changes.
func writeRole(ctx context.Context, s logical.Storage, name string, d *framework.FieldData) (*role, error) {
	current, err := loadRole(ctx, s, name)
	if err != nil {
		return nil, err
	}
	changed := newRole()
	if current != nil {
		changed = current.storedRole
	}
	windowErr := changed.patchWindow(d)
	changed.patch(d)
	r, err := changed.compile()
	if err = errors.Join(windowErr, err); err != nil {
		return nil, err
	}
	return r, store(ctx, s, rolePath(name), r.storedRole)
}

func (b *backend) pathRoleDelete(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get(fieldName).(string)
	// Not read first, so that a role that can't be decoded is deleted, too.
	err := b.roles.change(name, func() error { return remove(ctx, req.Storage, rolePath(name)) })
	if err != nil {
		return nil, err
	}
	b.sendEvent(ctx, req, eventRoleDelete, true, fieldName, name)
	return &logical.Response{}, nil
}

// patch sets the fields that the request names.
func (s *storedRole) patch(d *framework.FieldData) {
	if v, ok := d.GetOk(fieldAllowedRooms); ok {
		s.AllowedRooms = v.([]string)
	}
	if v, ok := d.GetOk(fieldAllowedRoomsTemplate); ok {
		s.AllowedRoomsTemplate = v.(bool)
	}
	if v, ok := d.GetOk(fieldDefaultRoom); ok {
		s.DefaultRoom = v.(string)
	}
	if v, ok := d.GetOk(fieldAllowWildcardRoom); ok {
		s.AllowWildcardRoom = v.(bool)
	}
	if v, ok := d.GetOk(fieldGenerateLease); ok {
		s.GenerateLease = v.(bool)
	}
	for name, target := range map[string]*time.Duration{
		fieldTTL:               &s.TTL,
		fieldMaxTTL:            &s.MaxTTL,
		fieldNotBeforeDuration: &s.NotBeforeDuration,
		fieldMaxNotBefore:      &s.MaxNotBefore,
	} {
		if v, ok := secondsField(d, name); ok {
			*target = v
		}
	}
	if s.MaxTTL == 0 {
		s.MaxTTL = defaultMaxTTL
	}
}

// patchWindow sets the ends of the window that the request names.
func (s *storedRole) patchWindow(d *framework.FieldData) error {
	var problems []error
	for _, end := range []struct {
		name   string
		target *time.Time
	}{{fieldValidFrom, &s.ValidFrom}, {fieldValidUntil, &s.ValidUntil}} {
		text, ok := d.GetOk(end.name)
		if !ok {
			continue
		}
		t, err := parseDate(text.(string))
		if err != nil {
			problems = append(problems, invalid("%s must be %s; an empty value removes it", end.name, accepted(framework.TypeTime)))
			continue
		}
		*end.target = t
	}
	return errors.Join(problems...)
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
	if r.MaxTTL > mountMax {
		warnings = append(warnings, fmt.Sprintf("%s of %s is over the mount's maximum of %s, which applies", fieldMaxTTL, r.MaxTTL, mountMax))
	}
	if r.ended(now) {
		warnings = append(warnings, fmt.Sprintf("%s, %s, is in the past: this role gives no tokens", fieldValidUntil, formatTime(r.ValidUntil)))
	}
	if r.MaxNotBefore > longMaxNotBefore {
		warnings = append(warnings, fmt.Sprintf("%s of %s is over %s: a scheduled token stops working when its key is replaced", fieldMaxNotBefore, r.MaxNotBefore, inDays(longMaxNotBefore)))
	}
	return warnings
}

const rolesHelpDescription = `
Lists the names of the roles, sorted. If there is none, the CLI says "No value
found".

    vault list clanmeeting/roles
`

const roleHelpSynopsis = `Manage a role, which says what tokens may be for and how long they live.`

const roleHelpDescription = `
A role limits the rooms and the life of the tokens that are read from
creds/<name>. A write creates the role if it does not exist. Otherwise it
changes only the fields that it names.

The whole name of a room must match one entry of allowed_rooms: "support-*"
allows support-4711, not my-support-4711, and "*" alone allows any named room. A
token for every room, room=*, needs allow_wildcard_room, whatever allowed_rooms
says.

With allowed_rooms_template, entries and default_room may hold the identity
templates of Vault's policies. A value stands for one literal part of a name, in
lower case. An entry matches nothing if the caller has no entity or no such
value, or if the value has anything but a-z, 0-9, "_" and "-" in it.

With valid_from and valid_until, the role itself keeps a host from starting
early, and ends with its event. A request before valid_from gets a token that
begins then. A token that would outlive valid_until is cut, with a warning. If
both are set, a request may name any not_before between them.

Refused: a role that allows nothing, a ttl over max_ttl, a default_room that the
role does not allow, a valid_until that is not after valid_from, a fraction of a
second. A write warns about what is allowed but risky: allow_wildcard_room, a
max_ttl over 24h or the mount's maximum, a max_not_before over 90d, and a
valid_until in the past.

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
