package postgres

import (
	"context"

	"assent/resource"
)

// Doctor examines the server.
func (r *Resource) Doctor(ctx context.Context) ([]resource.Finding, error) {
	return nil, nil
}
