package api

import (
	"bytes"
	"context"
	"strconv"

	"connectrpc.com/connect"

	assentv1 "assent/api/assent/v1"
	"assent/resource"
	"assent/resource/postgres"
)

// sqlDatabase is the executor of a postgres resource.
type sqlDatabase struct{ db *postgres.Resource }

func (sqlDatabase) kind() string { return "postgres" }

// Of PostgreSQL's protocol and catalogue (pg_type.dat).
const (
	textFormat = 0
	oidJSON    = 114
	oidJSONB   = 3802
)

func (d sqlDatabase) execute(ctx context.Context, t resource.Transaction, op *assentv1.Operation, b *budget) (*assentv1.Result, error) {
	sql, args, err := statementOf(op)
	if err != nil {
		return nil, err
	}
	tx, err := d.db.Join(ctx, t)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	// The driver's package stays out of here: what it decodes is known by inference alone.
	result := &assentv1.Result{}
	types := rows.TypeMap()
	for _, field := range rows.FieldDescriptions() {
		name := "oid " + strconv.FormatUint(uint64(field.DataTypeOID), 10)
		if known, ok := types.TypeForOID(field.DataTypeOID); ok {
			name = known.Name
		}
		result.Columns = append(result.Columns, &assentv1.Column{Name: told(field.Name), Type: told(name)})
	}
	decode := func(column int, raw []byte) (*assentv1.Value, error) {
		field := rows.FieldDescriptions()[column]
		known, ok := types.TypeForOID(field.DataTypeOID)
		switch {
		case raw == nil:
			return null(), nil
		case field.DataTypeOID == oidJSON || field.DataTypeOID == oidJSONB:
			return textValue(string(bytes.TrimPrefix(raw, []byte{1}))), nil // decoding may round numbers
		case !ok:
			return undecoded(field.Format, raw), nil
		}
		x, err := known.Codec.DecodeValue(types, field.DataTypeOID, field.Format, raw)
		if err != nil {
			return nil, err
		}
		return valueOf(x, func(x any) (string, bool, error) {
			if field.Format == textFormat {
				return string(raw), true, nil
			}
			text, err := types.Encode(field.DataTypeOID, textFormat, x, nil)
			if err != nil {
				err = noTextForm(field.Name, known.Name)
			}
			return string(text), text != nil, err
		})
	}
	for rows.Next() {
		row := &assentv1.Row{}
		for i, raw := range rows.RawValues() {
			v, err := decode(i, raw)
			if err != nil {
				return nil, err
			}
			row.Values = append(row.Values, v)
		}
		if err := b.add(result, row); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	result.Command, result.RowsAffected = told(rows.CommandTag().String()), rows.CommandTag().RowsAffected()
	return result, nil
}

// undecoded is the value of a type that the driver does not know: an enum, a type of an extension.
func undecoded(format int16, raw []byte) *assentv1.Value {
	if format == textFormat {
		return textValue(string(raw))
	}
	return bytesValue(bytes.Clone(raw))
}

func noTextForm(column, typ string) error {
	return refuse(connect.CodeInvalidArgument, "the column "+column+" has the type "+typ+", which has no text form here",
		"let the database write it: cast it to text")
}

// statementOf returns an operation's statement and its arguments.
func statementOf(op *assentv1.Operation) (sql string, args []any, err error) {
	statement := op.GetStatement()
	if statement == nil {
		return "", nil, wrongAction("postgres", "statement")
	}
	args, err = arguments(statement.GetArgs())
	return statement.GetSql(), args, err
}
