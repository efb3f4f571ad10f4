// Command golden writes build definitions with BuildKit's own Go package, for the Rust encoder to
// be compared with.
//
// Most definitions are written message by message with solver/pb, so that every field is chosen
// here. "client" is written by client/llb instead: what an ordinary client of BuildKit sends.
//
//	golden DIR              writes DIR/NAME.pb and DIR/NAME.json
//	golden -remarshal FILE  exits 1 unless each op of FILE is what BuildKit would write for it
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
)

var deterministic = proto.MarshalOptions{Deterministic: true}

// definition collects ops; what add returns is their digest.
type definition struct {
	pb.Definition
}

func (d *definition) add(op *pb.Op, metadata *pb.OpMetadata) string {
	dt, err := deterministic.Marshal(op)
	must(err)
	dgst := digest.FromBytes(dt).String()
	d.Def = append(d.Def, dt)
	if metadata != nil {
		if d.Metadata == nil {
			d.Metadata = map[string]*pb.OpMetadata{}
		}
		d.Metadata[dgst] = metadata
	}
	return dgst
}

func (d *definition) end(dgst string) *pb.Definition {
	d.add(&pb.Op{Inputs: []*pb.Input{{Digest: dgst}}}, nil)
	return &d.Definition
}

func metadata(name string, caps ...string) *pb.OpMetadata {
	m := &pb.OpMetadata{Caps: map[string]bool{}}
	if name != "" {
		m.Description = map[string]string{"llb.customname": name}
		m.ProgressGroup = &pb.ProgressGroup{Id: "node-" + name, Name: name}
	}
	for _, c := range caps {
		m.Caps[c] = true
	}
	return m
}

func exec(args []string, env []string, mounts ...*pb.Mount) *pb.ExecOp {
	return &pb.ExecOp{
		Meta:   &pb.Meta{Args: args, Env: env, Cwd: "/", RemoveMountStubsRecursive: true},
		Mounts: mounts,
	}
}

func op(e *pb.ExecOp, inputs ...*pb.Input) *pb.Op {
	return &pb.Op{Inputs: inputs, Op: &pb.Op_Exec{Exec: e}}
}

func scratch(dest string, output int64) *pb.Mount {
	return &pb.Mount{Input: -1, Dest: dest, Output: output}
}

func bind(dest string, input int64) *pb.Mount {
	return &pb.Mount{Input: input, Dest: dest, Output: -1, Readonly: true}
}

func cache(dest, selector string, readonly bool) *pb.Mount {
	return &pb.Mount{
		Input: -1, Selector: selector, Dest: dest, Output: -1, Readonly: readonly,
		MountType: pb.MountType_CACHE,
		CacheOpt:  &pb.CacheOpt{ID: "pontoon-store", Sharing: pb.CacheSharingOpt_SHARED},
	}
}

func tmpfs(dest string, size int64) *pb.Mount {
	return &pb.Mount{
		Input: -1, Dest: dest, Output: -1,
		MountType: pb.MountType_TMPFS, TmpfsOpt: &pb.TmpfsOpt{Size: size},
	}
}

func ssh(dest, id string) *pb.Mount {
	return &pb.Mount{
		Input: -1, Dest: dest, Output: -1,
		MountType: pb.MountType_SSH, SSHOpt: &pb.SSHOpt{ID: id, Mode: 0o600},
	}
}

func secret(dest, id string, uid, gid uint32, optional bool) *pb.Mount {
	return &pb.Mount{
		Input: -1, Dest: dest, Output: -1, MountType: pb.MountType_SECRET,
		SecretOpt: &pb.SecretOpt{ID: id, Uid: uid, Gid: gid, Mode: 0o400, Optional: optional},
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "golden:", err)
		os.Exit(1)
	}
}

func write(dir, name string, def *pb.Definition) {
	dt, err := deterministic.Marshal(def)
	must(err)
	digests := []string{}
	for _, op := range def.Def {
		digests = append(digests, digest.FromBytes(op).String())
	}
	text, err := json.MarshalIndent(map[string]any{"ops": digests}, "", "  ")
	must(err)
	must(os.WriteFile(filepath.Join(dir, name+".pb"), dt, 0o644))
	must(os.WriteFile(filepath.Join(dir, name+".json"), append(text, '\n'), 0o644))
}

// client is what client/llb makes of a cache, a secret, a socket and a memory mount.
func client() *pb.Definition {
	run := llb.Scratch().Run(
		llb.Args([]string{"/bin/true"}),
		llb.Dir("/"),
		llb.AddEnv("A", "1"),
		llb.Network(llb.NetModeNone),
		llb.AddMount("/cache", llb.Scratch(), llb.AsPersistentCacheDir("id", llb.CacheMountLocked)),
		llb.AddMount("/memory", llb.Scratch(), llb.Tmpfs(llb.TmpfsSize(1<<20))),
		llb.AddSecret("/run/secret", llb.SecretID("token"), llb.SecretFileOpt(1, 2, 0o440)),
		llb.AddSSHSocket(llb.SSHID("agent"), llb.SSHSocketTarget("/run/agent"), llb.SSHSocketOpt("/run/agent", 1, 2, 0o600)),
		llb.WithCustomName("by the client"),
	)
	def, err := run.Root().Marshal(context.Background(), llb.LinuxAmd64)
	must(err)
	// Source maps hold paths of this machine's checkout.
	def.Source = nil
	return def.ToPB()
}

func remarshal(file string) {
	dt, err := os.ReadFile(file)
	must(err)
	var def pb.Definition
	must(proto.Unmarshal(dt, &def))
	for i, dt := range def.Def {
		var op pb.Op
		must(proto.Unmarshal(dt, &op))
		again, err := deterministic.Marshal(&op)
		must(err)
		if !bytes.Equal(dt, again) {
			must(fmt.Errorf("%s: op %d differs:\n%x\n%x", file, i, dt, again))
		}
	}
}

func main() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "-remarshal":
		remarshal(os.Args[2])
	case len(os.Args) == 2:
		for name, make := range definitions {
			write(os.Args[1], name, make())
		}
		write(os.Args[1], "client", client())
	default:
		must(fmt.Errorf("usage: golden DIR | golden -remarshal FILE"))
	}
}
