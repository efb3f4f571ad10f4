//go:build tools

// Package docker29 names the command that ../docker29.sh builds.
package docker29

import (
	_ "github.com/moby/moby/v2/cmd/dockerd"
)
