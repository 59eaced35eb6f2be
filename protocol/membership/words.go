package membership

import (
	"fmt"
	"slices"
)

// named sets v to the place of the text among names.
func named[T ~uint8](names []string, text []byte, v *T) error {
	i := slices.Index(names, string(text))
	if i < 0 {
		return fmt.Errorf("%q is none of %q", text, names)
	}
	*v = T(i)
	return nil
}
