package main

// Looks into answers: each hundredth message is decoded whole and must be a flow as a client wants it, one that the request
// asked for by Hubble's own filters.

import (
	"context"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	v1 "github.com/cilium/cilium/pkg/hubble/api/v1"
	"github.com/cilium/cilium/pkg/hubble/filters"
)

const checkEvery = 100

// checker belongs to one stream.
type checker struct {
	wanted                 filters.FilterFuncs
	seen, checked, matched uint64
	every                  uint64
	wrong                  string
}

func newChecker(wanted []*flowpb.FlowFilter, every uint64) *checker {
	return &checker{wanted: must(filters.BuildFilterList(context.Background(), wanted, filters.DefaultFilters(nop))), every: every}
}

func (c *checker) look(message []byte) {
	c.seen++
	if c.seen%c.every != 0 {
		return
	}
	var answer observerpb.GetFlowsResponse
	if err := proto.Unmarshal(message, &answer); err != nil {
		c.wrong = err.Error()
		return
	}
	flow := answer.GetFlow()
	if flow == nil {
		return
	}
	c.checked++
	if c.wanted.MatchOne(&v1.Event{Event: flow}) {
		c.matched++
	} else if c.every == checkEvery {
		c.wrong = "a flow that was not asked for: " + flow.String()
	}
	if why := fault(&answer, flow); why != "" {
		c.wrong = why + ": " + flow.String()
	}
}

func fault(answer *observerpb.GetFlowsResponse, flow *flowpb.Flow) string {
	ends := func(e *flowpb.Endpoint) bool { return e != nil && len(e.Labels) > 0 }
	source, err1 := netip.ParseAddr(flow.GetIP().GetSource())
	destination, err2 := netip.ParseAddr(flow.GetIP().GetDestination())
	switch {
	case err1 != nil || err2 != nil || source.Is4() != destination.Is4():
		return "no addresses"
	case flow.GetTime() == nil || flow.GetTime().AsTime().Unix() != answer.GetTime().AsTime().Unix():
		return "no time"
	case flow.GetUuid() == "" || flow.GetNodeName() == "" || flow.GetNodeName() != answer.GetNodeName():
		return "no uuid or node"
	case flow.GetVerdict() == flowpb.Verdict_VERDICT_UNKNOWN || flow.GetEventType() == nil || flow.GetType() != flowpb.FlowType_L3_L4:
		return "no verdict or type"
	case flow.GetL4().GetProtocol() == nil || flow.GetSummary() == "":
		return "no protocol or summary"
	case !ends(flow.GetSource()) && !ends(flow.GetDestination()):
		return "no labels"
	}
	pods := netip.MustParsePrefix("10.244.0.0/16")
	for ip, end := range map[netip.Addr]*flowpb.Endpoint{source: flow.GetSource(), destination: flow.GetDestination()} {
		if pods.Contains(ip) && (end.GetPodName() == "" || end.GetNamespace() == "" || !ends(end)) {
			return fmt.Sprintf("%s has no name", ip)
		}
	}
	return ""
}
