// The real `hubble-relay`.
package main

import (
	"os"

	"github.com/cilium/cilium/hubble-relay/cmd"
)

func main() {
	if cmd.New().Execute() != nil {
		os.Exit(1)
	}
}
