package postgres

import (
	"fmt"
	"strconv"
	"strings"

	"assent/resource"
)

// evidence says which transaction of which cluster a branch is. Its text form is
// "pg1 system timeline xid": the vote's evidence.
type evidence struct {
	system   string // decimal
	timeline string // eight hexadecimal digits
	xid      uint64 // with its epoch (xid8); 0 is none
}

const evidenceVersion = "pg1"

func (e evidence) encode() []byte {
	if e.xid == 0 {
		return nil
	}
	return fmt.Appendf(nil, "%s %s %s %d", evidenceVersion, e.system, e.timeline, e.xid)
}

// decodeEvidence reads what encode makes and nothing else. No text is no evidence.
func decodeEvidence(text []byte) (evidence, error) {
	if len(text) == 0 {
		return evidence{}, nil
	}
	bad := func(why string) (evidence, error) {
		return evidence{}, fmt.Errorf("the evidence %.80q is not of this adapter: %s", text, why)
	}
	if len(text) > resource.MaxEvidence {
		return bad("it is too long")
	}
	parts := strings.Split(string(text), " ")
	if len(parts) != 4 || parts[0] != evidenceVersion {
		return bad("it does not have four parts and version " + evidenceVersion)
	}
	if n, err := strconv.ParseUint(parts[1], 10, 64); err != nil || strconv.FormatUint(n, 10) != parts[1] {
		return bad("the system identifier is no number")
	}
	if n, err := strconv.ParseUint(parts[2], 16, 32); err != nil || fmt.Sprintf("%08X", n) != parts[2] {
		return bad("the timeline is no number")
	}
	xid, err := strconv.ParseUint(parts[3], 10, 64)
	if err != nil || xid == 0 || strconv.FormatUint(xid, 10) != parts[3] {
		return bad("the transaction is no number")
	}
	return evidence{system: parts[1], timeline: parts[2], xid: xid}, nil
}

// fullXID gives a transaction number of 32 bits the epoch that puts it nearest to next, the number
// of the server's next transaction. Prepared transactions are never 2^31 away from it.
func fullXID(short uint32, next uint64) uint64 {
	return next + uint64(int64(int32(short-uint32(next))))
}

// quote makes text an SQL literal. Ids hold nothing that needs it; it is one less thing to rely on.
// It needs standard_conforming_strings, which every session here has on.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
