// The real helm, which renders our chart.
package main

import (
	"errors"
	"os"

	"helm.sh/helm/v4/pkg/cmd"
)

func main() {
	root, err := cmd.NewRootCmd(os.Stdout, os.Args[1:], cmd.SetupLogging)
	if err == nil {
		err = root.Execute()
	}
	// Other errors were printed by the command.
	var code cmd.CommandError
	switch {
	case errors.As(err, &code):
		os.Exit(code.ExitCode)
	case err != nil:
		os.Exit(1)
	}
}
