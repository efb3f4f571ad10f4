//go:build tools

// Package daemons names the commands that build.sh builds.
package daemons

import (
	_ "github.com/moby/buildkit/cmd/buildctl"
	_ "github.com/moby/buildkit/cmd/buildkitd"
)
