package api

import (
	"bytes"
	"context"
	"strconv"

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
	statement := op.GetStatement()
	if statement == nil {
		return nil, wrongAction("postgres", "statement")
	}
	args, err := arguments(statement.GetArgs())
	if err != nil {
		return nil, err
	}
	tx, err := d.db.Join(ctx, t)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, statement.GetSql(), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	// The driver's package stays out of here: what it decodes is known by inference alone.
	result := &assentv1.Result{}
	types := rows.TypeMap()
	decode := func(column int, raw []byte) (*assentv1.Value, error) {
		field := rows.FieldDescriptions()[column]
		known, ok := types.TypeForOID(field.DataTypeOID)
		switch {
		case raw == nil:
			return null(), nil
		case field.DataTypeOID == oidJSON || field.DataTypeOID == oidJSONB:
			return textValue(string(bytes.TrimPrefix(raw, []byte{1}))), nil // decoding may round numbers
		case !ok && field.Format == textFormat:
			return textValue(string(raw)), nil
		case !ok:
			return bytesValue(bytes.Clone(raw)), nil
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
	for _, field := range rows.FieldDescriptions() {
		column := &assentv1.Column{Name: field.Name, Type: "oid " + strconv.FormatUint(uint64(field.DataTypeOID), 10)}
		if known, ok := types.TypeForOID(field.DataTypeOID); ok {
			column.Type = known.Name
		}
		result.Columns = append(result.Columns, column)
	}
	result.Command, result.RowsAffected = rows.CommandTag().String(), rows.CommandTag().RowsAffected()
	return result, nil
}
