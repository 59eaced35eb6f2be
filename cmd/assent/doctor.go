package main

import (
	"context"
	"maps"
	"slices"

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
	s := &site{cfg: cfg, resources: map[string]resource.Resource{}}
	defer func() { s.close(quiet(), t.timeout) }()
	if err := t.p.openResources(ctx, s, quiet()); err != nil {
		return nil, err
	}
	response := &assentv1.DoctorResponse{}
	for _, name := range slices.Sorted(maps.Keys(s.resources)) {
		doctor, ok := s.resources[name].(resource.Doctor)
		if !ok {
			continue
		}
		d := assent.Diagnosis{Resource: name}
		if d.Findings, err = doctor.Doctor(ctx); err != nil {
			d.Err = err.Error()
		}
		response.Diagnoses = append(response.Diagnoses, api.Diagnosis(d))
	}
	return response, nil
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
			out.add(cell{text: d.GetResource()}, cell{"failure", out.palette.bad}, cell{text: "examination"}, cell{text: d.GetError()})
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
