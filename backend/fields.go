// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// A field is all that the engine knows of one field of an entry E: its name, its schema,
// and how a request reads and writes it.
type field[E any] struct {
	name   string
	schema framework.FieldSchema

	// read returns the value that a read of the entry answers. It is nil if no read does.
	read func(*E) any

	// write puts a value of the schema's type into the entry. It is nil if that takes more
	// than the entry. The error is the caller's mistake.
	write func(*E, any) error
}

// schemas are the fields of the path that writes the entry.
func schemas[E any](fields []field[E]) map[string]*framework.FieldSchema {
	all := map[string]*framework.FieldSchema{}
	for _, f := range fields {
		schema := f.schema
		all[f.name] = &schema
	}
	return all
}

// responseSchemas are the fields of the entry as it is read: all of them, always.
func responseSchemas[E any](fields []field[E]) map[string]*framework.FieldSchema {
	all := map[string]*framework.FieldSchema{}
	for _, f := range fields {
		if f.read == nil {
			continue
		}
		schema := framework.FieldSchema{Type: f.schema.Type, Description: f.schema.Description, Required: true}
		if schema.Type == framework.TypeDurationSecond {
			schema.Type = framework.TypeInt64 // a duration reads back as seconds
		}
		all[f.name] = &schema
	}
	return all
}

// readFields returns the values of the entry.
func readFields[E any](fields []field[E], entry *E) map[string]any {
	data := map[string]any{}
	for _, f := range fields {
		if f.read != nil {
			data[f.name] = f.read(entry)
		}
	}
	return data
}

// patchFields sets the fields of the entry that the request names. The error reports all
// problems at once.
func patchFields[E any](fields []field[E], entry *E, d *framework.FieldData) error {
	var problems []error
	for _, f := range fields {
		if v, ok := d.GetOk(f.name); ok && f.write != nil {
			problems = append(problems, f.write(entry, v))
		}
	}
	return errors.Join(problems...)
}

// required marks a field for the documentation of the path. The SDK does not enforce it.
func required[E any](f field[E]) field[E] {
	f.schema.Required = true
	return f
}

// The constructors below take the name that a form shows, the description of the path's
// help, and where the entry has the value.

// textField is a text. An empty one restores the default.
func textField[E any](name, title, byDefault, description string, at func(*E) *string) field[E] {
	schema := framework.FieldSchema{Type: framework.TypeString, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: title}}
	if byDefault != "" {
		schema.Default = byDefault
	}
	return field[E]{
		name:   name,
		schema: schema,
		read:   func(entry *E) any { return *at(entry) },
		write: func(entry *E, v any) error {
			*at(entry) = v.(string)
			if v == "" {
				*at(entry) = byDefault
			}
			return nil
		},
	}
}

// flagField is true or false; by default false.
func flagField[E any](name, title, description string, at func(*E) *bool) field[E] {
	return field[E]{
		name:   name,
		schema: framework.FieldSchema{Type: framework.TypeBool, Default: false, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: title}},
		read:   func(entry *E) any { return *at(entry) },
		write: func(entry *E, v any) error {
			*at(entry) = v.(bool)
			return nil
		},
	}
}

// durationField is a duration in whole seconds.
func durationField[E any](name, title string, byDefault time.Duration, description string, at func(*E) *time.Duration) field[E] {
	return field[E]{
		name: name,
		schema: framework.FieldSchema{
			Type: framework.TypeDurationSecond, Default: int(byDefault.Seconds()), Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: title},
		},
		read: func(entry *E) any { return int64(at(entry).Seconds()) },
		write: func(entry *E, v any) error {
			*at(entry) = time.Duration(v.(int)) * time.Second
			return nil
		},
	}
}

// dateField is a time that an empty text removes, which framework.TypeTime can't express.
func dateField[E any](name, title, description string, at func(*E) *time.Time) field[E] {
	return field[E]{
		name:   name,
		schema: framework.FieldSchema{Type: framework.TypeString, Description: description, DisplayAttrs: &framework.DisplayAttributes{Name: title}},
		read:   func(entry *E) any { return formatTime(*at(entry)) },
		write: func(entry *E, v any) error {
			seconds, err := takeTime(v)
			if err != nil {
				return invalid("%s %s; an empty value removes it", name, err)
			}
			*at(entry) = time.Time{}
			if seconds != nil {
				*at(entry) = time.Unix(seconds.(int64), 0).UTC()
			}
			return nil
		},
	}
}

// ok describes an answer with these fields.
func ok(fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusOK: {{Description: "OK", Fields: fields}}}
}

// noContent describes an operation that returns nothing.
var noContent = map[int][]framework.Response{
	http.StatusNoContent: {{Description: "No Content", Fields: map[string]*framework.FieldSchema{}}},
}

// onlyWarnings describes a write, which returns nothing but warnings.
var onlyWarnings = map[int][]framework.Response{
	http.StatusNoContent: {{Description: "No Content", Fields: map[string]*framework.FieldSchema{}}},
	http.StatusOK:        {{Description: "OK, with warnings", Fields: map[string]*framework.FieldSchema{}}},
}

// writing is an operation that changes storage, on the active node of the primary.
func writing(handler framework.OperationFunc, summary string, responses map[int][]framework.Response, display *framework.DisplayAttributes) *framework.PathOperation {
	return &framework.PathOperation{
		Callback:                    refusing(handler),
		Summary:                     summary,
		Responses:                   responses,
		DisplayAttrs:                display,
		ForwardPerformanceStandby:   true,
		ForwardPerformanceSecondary: true,
	}
}

// reading is an operation that any node can answer.
func reading(handler framework.OperationFunc, summary string, responses map[int][]framework.Response, display *framework.DisplayAttributes) *framework.PathOperation {
	return &framework.PathOperation{Callback: refusing(handler), Summary: summary, Responses: responses, DisplayAttrs: display}
}

// An operationMap has the operations of a path.
type operationMap = map[logical.Operation]framework.OperationHandler
