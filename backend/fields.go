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

// A field is all that the engine knows about one field of an entry E: its name, its schema,
// and how a request reads and writes it.
type field[E any] struct {
	name   string
	schema framework.FieldSchema

	// read returns the value that a read of the entry answers. It is nil if no read does.
	read func(*E) any

	// write puts a value of the schema's type into the entry. It is nil if the path does that
	// itself, as config does with private_key. The error is the caller's mistake.
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

// responseSchemas are the fields that a read of the entry returns, each of them always.
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

// newField is a field whose value is in the entry as its type T has it. The title is the
// name that a form shows.
func newField[E, T any](name string, kind framework.FieldType, title string, byDefault any, at func(*E) *T, description string) field[E] {
	return field[E]{
		name:   name,
		schema: framework.FieldSchema{Type: kind, Default: byDefault, Description: description, DisplayAttrs: titled(title)},
		read:   func(entry *E) any { return *at(entry) },
		write: func(entry *E, v any) error {
			*at(entry) = v.(T)
			return nil
		},
	}
}

func titled(title string) *framework.DisplayAttributes {
	return &framework.DisplayAttributes{Name: title}
}

// durationField is a duration in whole seconds.
func durationField[E any](name, title string, byDefault time.Duration, at func(*E) *time.Duration, description string) field[E] {
	f := newField(name, framework.TypeDurationSecond, title, int(byDefault.Seconds()), at, description)
	f.read = func(entry *E) any { return int64(at(entry).Seconds()) }
	f.write = func(entry *E, v any) error {
		*at(entry) = time.Duration(v.(int)) * time.Second
		return nil
	}
	return f
}

// dateField is a time that an empty text removes, which framework.TypeTime can't express.
func dateField[E any](name, title string, at func(*E) *time.Time, description string) field[E] {
	f := newField(name, framework.TypeString, title, nil, at, description)
	f.read = func(entry *E) any { return formatTime(*at(entry)) }
	f.write = func(entry *E, v any) error {
		seconds, err := takeTime(v)
		if err != nil {
			return invalid("%s %s; an empty value removes it", name, err)
		}
		*at(entry) = time.Time{}
		if seconds != nil {
			*at(entry) = time.Unix(seconds.(int64), 0).UTC()
		}
		return nil
	}
	return f
}

// ok describes an answer with these fields.
func ok(fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusOK: {{Description: "OK", Fields: fields}}}
}

// nothing is an answer without data.
var nothing = map[string]*framework.FieldSchema{}

// noContent describes an operation that returns nothing.
var noContent = map[int][]framework.Response{http.StatusNoContent: {{Description: "No Content", Fields: nothing}}}

// onlyWarnings describes a write, which returns nothing but warnings.
var onlyWarnings = map[int][]framework.Response{
	http.StatusNoContent: {{Description: "No Content", Fields: nothing}},
	http.StatusOK:        {{Description: "OK, with warnings", Fields: nothing}},
}

// named is how the OpenAPI document names an operation.
func named(verb, suffix string) *framework.DisplayAttributes {
	return &framework.DisplayAttributes{OperationVerb: verb, OperationSuffix: suffix}
}

// onActiveNode is an operation that changes storage, on the active node of the primary.
func onActiveNode(handler framework.OperationFunc, summary string, responses map[int][]framework.Response, display *framework.DisplayAttributes) *framework.PathOperation {
	op := onAnyNode(handler, summary, responses, display)
	op.ForwardPerformanceStandby, op.ForwardPerformanceSecondary = true, true
	return op
}

// onAnyNode is an operation that any node can answer.
func onAnyNode(handler framework.OperationFunc, summary string, responses map[int][]framework.Response, display *framework.DisplayAttributes) *framework.PathOperation {
	return &framework.PathOperation{Callback: refusing(handler), Summary: summary, Responses: responses, DisplayAttrs: display}
}

// An operationMap has the operations of a path.
type operationMap = map[logical.Operation]framework.OperationHandler
