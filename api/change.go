package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"connectrpc.com/connect"

	assentv1 "assent/api/assent/v1"
	"assent/cluster"
	"assent/protocol"
	"assent/protocol/membership"
)

// changePatience bounds the time in which the cluster must agree on a change of its state.
const changePatience = 20 * time.Second

// ChangeCluster has the cluster change its own state. What is asked for is kept there with the caller's name.
func (s *Server) ChangeCluster(ctx context.Context, req *assentv1.ChangeClusterRequest) (*assentv1.ChangeClusterResponse, error) {
	if err := s.agrees(); err != nil {
		return nil, err
	}
	c, err := s.changeOf(req)
	if err != nil {
		return nil, err
	}
	if len(s.opts.Tokens) > 0 {
		c.Operator += " (token " + callerOf(ctx).name + ")"
	}
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	var ready time.Time
	if c.Kind == membership.Leave {
		if ready, err = s.readyToLeave(ctx, c.Node); err != nil {
			return nil, err
		}
	}
	epoch, err := s.opts.Node.Change(ctx, c)
	if c.Kind == membership.Leave && errors.Is(err, cluster.ErrRefused) {
		s.stays(ctx, c.Node, ready)
	}
	log := s.opts.Logger.With("change", c.Kind, "node", c.Node, "key", c.Key, "by", c.Operator, "reason", c.Reason)
	switch {
	case err == nil:
		log.Info("the cluster was changed", "epoch", epoch)
		return &assentv1.ChangeClusterResponse{Epoch: epoch, Node: string(c.Node)}, nil
	case errors.Is(err, cluster.ErrRefused):
		log.Info("a change of the cluster was refused", "error", err)
		return nil, refusedChange(req.GetEpoch(), epoch, err)
	}
	log.Warn("it is not known whether the cluster was changed", "error", err)
	unsure := refuse(connect.CodeDeadlineExceeded, err.Error(),
		"it may be made yet; look with assent cluster get, history or status before you ask again")
	unsure.unsure = true
	return nil, unsure
}

// agrees returns why this node cannot ask the cluster for anything, or nil: it is cut off. Where only nobody leads
// at the moment, somebody soon will.
func (s *Server) agrees() error {
	if s.opts.Node == nil {
		return notInCluster()
	}
	status := s.opts.Node.Status()
	if _, enough := s.opts.Node.Decides(); status.Primary || enough {
		return nil
	}
	return refuse(connect.CodeUnavailable, fmt.Sprintf("node %s cannot ask the cluster: %s", s.opts.Node.Self(), status.Why),
		"ask another node of the cluster").anywhereElse()
}

func notInCluster() error {
	return refuse(connect.CodeFailedPrecondition, "this server is no node of a cluster", "give it a cluster section; docs/cluster.md")
}

// refusedChange tells why a change was refused, in the words of the state. was is the epoch that was asked for,
// is the one that was found.
func refusedChange(was, is uint64, err error) error {
	why := strings.TrimPrefix(err.Error(), cluster.ErrRefused.Error()+": ")
	if was != 0 && was != is {
		return refuse(connect.CodeAborted, why, "somebody has changed it since; read it again, and decide again")
	}
	return refuse(connect.CodeFailedPrecondition, why, "nothing was changed")
}

// changeOf reads the change that a request asks for.
func (s *Server) changeOf(req *assentv1.ChangeClusterRequest) (c membership.Change, err error) {
	c = membership.Change{Epoch: req.GetEpoch(), Operator: req.GetBy(), Reason: req.GetReason(), Time: time.Now().UnixMilli()}
	switch change := req.GetChange().(type) {
	case *assentv1.ChangeClusterRequest_Leave:
		c.Kind, c.Node = membership.Leave, protocol.NodeID(change.Leave.GetNode())
		if c.Node == "" {
			c.Node = s.opts.Node.Self()
		}
	case *assentv1.ChangeClusterRequest_Exclude:
		c.Kind, c.Node = membership.Exclude, protocol.NodeID(change.Exclude.GetNode())
	case *assentv1.ChangeClusterRequest_Weigh:
		c.Kind, c.Node = membership.Weigh, protocol.NodeID(change.Weigh.GetNode())
		c.Votes = int(min(change.Weigh.GetVotes(), math.MaxInt32))
	case *assentv1.ChangeClusterRequest_Set:
		c.Kind, c.Key, c.Value = membership.Set, change.Set.GetKey(), change.Set.GetValue()
	case *assentv1.ChangeClusterRequest_Unset:
		c.Kind, c.Key = membership.Unset, change.Unset.GetKey()
	case *assentv1.ChangeClusterRequest_Unregister:
		c.Kind, c.Key = membership.Unregister, change.Unregister.GetName()
	default:
		return c, refuse(connect.CodeInvalidArgument, "the request names no change", "")
	}
	switch {
	case c.Operator == "":
		return c, refuse(connect.CodeInvalidArgument, "the request does not say who asks", "by is kept as the audit trail")
	case c.Node == "" && c.Key == "":
		return c, refuse(connect.CodeInvalidArgument, fmt.Sprintf("the request does not say what to %v", c.Kind), "")
	case c.Epoch != 0 && c.Node != "":
		return c, refuse(connect.CodeInvalidArgument, fmt.Sprintf("to %v knows no epoch", c.Kind), "leave it out: changes of members are made one after the other")
	}
	return c, nil
}

// ClusterState returns what the cluster agrees on.
func (s *Server) ClusterState(ctx context.Context, req *assentv1.ClusterStateRequest) (*assentv1.ClusterStateResponse, error) {
	if s.opts.Node == nil {
		return nil, notInCluster()
	}
	state := s.opts.Node.State()
	if !req.GetKnown() {
		if err := s.agrees(); err != nil {
			return nil, err
		}
		patient, cancel := context.WithTimeout(ctx, changePatience)
		defer cancel()
		var err error
		if state, err = s.opts.Node.Barrier(patient); err != nil {
			return nil, refuse(connect.CodeUnavailable, fmt.Sprintf("node %s does not learn the cluster's state: %v", s.opts.Node.Self(), err),
				"ask another node; or say known, for what this one knows").anywhereElse()
		}
	}
	return stateOf(s.opts.Node.Self(), state), nil
}

// stateOf writes state as the contract's message.
func stateOf(self protocol.NodeID, state membership.State) *assentv1.ClusterStateResponse {
	response := &assentv1.ClusterStateResponse{Cluster: state.Cluster, Node: string(self), Epoch: state.Epoch, View: state.View.Number}
	for _, x := range state.Settings {
		response.Settings = append(response.Settings, &assentv1.Setting{Key: told(x.Key), Value: told(x.Value)})
	}
	for _, x := range state.Resources {
		response.Resources = append(response.Resources, &assentv1.ClusterResource{Name: told(x.Name), Kind: told(x.Kind), Identity: told(x.Settings)})
	}
	for _, x := range state.Trail {
		c := x.Change
		subject := string(c.Node)
		if subject == "" {
			subject = c.Key
		}
		response.Changes = append(response.Changes, &assentv1.ClusterChange{
			Epoch: x.Epoch, Kind: c.Kind.String(), Subject: told(subject), Votes: uint32(c.Votes), Value: told(c.Value),
			By: told(c.Operator), Reason: told(c.Reason), Time: stamp(time.UnixMilli(c.Time)), Node: string(c.By),
		})
	}
	return response
}
