package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"assent"
	"assent/api"
	assentv1 "assent/api/assent/v1"
	"assent/resource"
)

func (p *program) doctorCommand() *cobra.Command {
	var (
		t      = target{p: p}
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "examine the resources before they are trusted",
		Long: `Examine the resources: whether they can prepare, whether this user may finish branches, and what
would hurt later. A finding of failure, and a resource that cannot be examined, make exit code 7.

With -c, --data-dir or --resource it examines them from here, finishes nothing and needs no
server; stores that a server has open it cannot examine.`,
		Example: `  assent doctor
  assent doctor --resource orders=postgres://app@db/orders
  assent doctor --json | jq '.diagnoses[].findings[] | select(.severity != "SEVERITY_OK")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), t.timeout)
			defer cancel()
			response, err := t.examine(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(p.out, response)
			} else {
				err = p.writeDiagnoses(response)
			}
			if err == nil && unsound(response) {
				return silence{exitUnsound}
			}
			return err
		},
	}
	t.flags(cmd)
	cmd.Flags().StringArrayVar(&t.resources, "resource", nil, "examine this resource: `NAME=SOURCE`, where SOURCE is postgres://… or kv:PATH")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the contract's DoctorResponse as JSON")
	return cmd
}

// examine asks the server or, offline, the resources themselves.
func (t *target) examine(ctx context.Context) (*assentv1.DoctorResponse, error) {
	if !t.offline() {
		r, err := t.dial()
		if err != nil {
			return nil, err
		}
		return r.operator.Doctor(ctx, &assentv1.DoctorRequest{})
	}
	cfg, err := t.load()
	if err != nil {
		return nil, err
	}
	if err := cfg.refuseFile(); err != nil {
		return nil, err
	}
	absent := cfg.setAside()
	s := &site{cfg: cfg, resources: map[string]resource.Resource{}}
	defer func() { s.close(quiet(), t.timeout) }()
	if len(cfg.Resources) > 0 {
		if err := t.p.openResources(ctx, s, quiet()); err != nil {
			return nil, err
		}
	}
	found := absent
	for name, r := range s.resources {
		if doctor, ok := r.(resource.Doctor); ok {
			found = append(found, cfg.diagnose(ctx, name, doctor))
		}
	}
	slices.SortFunc(found, func(a, b assent.Diagnosis) int { return strings.Compare(a.Resource, b.Resource) })
	response := &assentv1.DoctorResponse{}
	if cfg.shared() {
		response.Diagnoses = append(response.Diagnoses, api.Diagnosis(t.p.examineLog(cfg)))
	}
	for _, d := range found {
		response.Diagnoses = append(response.Diagnoses, api.Diagnosis(d))
	}
	return response, nil
}

// setAside takes out of the configuration the embedded stores that are not there, for whoever opens one
// makes it, and returns what there is to say of them.
func (c *config) setAside() (absent []assent.Diagnosis) {
	there := map[string]*resourceConfig{}
	for name, r := range c.served() {
		path := c.storePath(name, r)
		if files, err := os.ReadDir(path); r.Type == "kv" && (errors.Is(err, fs.ErrNotExist) || err == nil && len(files) == 0) {
			absent = append(absent, assent.Diagnosis{Resource: name, Findings: []resource.Finding{{
				Check: "store", Severity: resource.Failure, Detail: "there is no store in " + path,
				Hint: "see that the path is right; assent serve makes the store when it first starts",
			}}})
			continue
		}
		there[name] = r
	}
	c.Resources = there
	return absent
}

// diagnose examines a resource. One that cannot be reached is told with its address and with where in the
// configuration it is named.
func (c *config) diagnose(ctx context.Context, name string, doctor resource.Doctor) assent.Diagnosis {
	d := assent.Diagnosis{Resource: name}
	var err error
	if d.Findings, err = doctor.Doctor(ctx); err == nil {
		return d
	}
	var (
		unknown *net.DNSError
		op      *net.OpError
	)
	at := "--resource " + name
	if line := lineOf(c.root, []string{"resources", name}); c.name != "" && line > 0 {
		at = fmt.Sprintf("resources.%s in %s:%d", name, c.name, line)
	}
	finding := resource.Finding{Check: "connection", Severity: resource.Failure, Hint: "see that " + at + " names the right host and port, and that the database is up"}
	switch {
	case errors.As(err, &unknown):
		finding.Detail = reason(err)
	case errors.As(err, &op) && op.Addr != nil:
		finding.Detail = fmt.Sprintf("no database answers at %s: %s", op.Addr, reason(err))
	default:
		d.Err = err.Error()
		return d
	}
	d.Findings = append(d.Findings, finding)
	return d
}

func unsound(response *assentv1.DoctorResponse) bool {
	for _, d := range response.GetDiagnoses() {
		if d.GetError() != "" {
			return true
		}
		for _, f := range d.GetFindings() {
			if f.GetSeverity() == assentv1.Severity_SEVERITY_FAILURE {
				return true
			}
		}
	}
	return false
}

func (p *program) writeDiagnoses(response *assentv1.DoctorResponse) error {
	out := table{palette: palette(p.out, p.getenv)}
	out.add(plain("RESOURCE", "RESULT", "CHECK", "DETAIL", "HINT")...)
	for _, d := range response.GetDiagnoses() {
		if d.GetError() != "" {
			out.add(cell{text: d.GetResource()}, cell{"failure", out.palette.bad}, cell{text: "examination"}, cell{text: strings.Join(strings.Fields(d.GetError()), " ")})
		}
		for _, f := range d.GetFindings() {
			severity, colour := enumName(f.GetSeverity().String(), "SEVERITY_"), ""
			switch f.GetSeverity() {
			case assentv1.Severity_SEVERITY_OK:
				colour = out.palette.good
			case assentv1.Severity_SEVERITY_WARNING:
				colour = out.palette.warn
			case assentv1.Severity_SEVERITY_FAILURE:
				colour = out.palette.bad
			}
			out.add(cell{text: d.GetResource()}, cell{severity, colour}, cell{text: f.GetCheck()}, cell{text: f.GetDetail()}, cell{text: f.GetHint()})
		}
	}
	return out.write(p.out)
}
