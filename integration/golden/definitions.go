package main

import "github.com/moby/buildkit/solver/pb"

const (
	hello = "0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0"
	shell = "5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5"
)

// definitions has one entry per shape of op that Pontoon emits, and one per kind of mount.
var definitions = map[string]func() *pb.Definition{
	"plain": func() *pb.Definition {
		e := exec(
			[]string{"/.pontoon/agent", "agent", "build", "/nix/store/" + hello + ".drv"},
			[]string{"PONTOON_STORE_ID=5f0c", "PONTOON_NONCE=00000000000000000000000000000000"},
			scratch("/", 0),
			cache("/.pontoon/agent", "pontoon/agent/0123abcd", true),
			cache("/.pontoon/store", "", false),
			cache("/nix/store", "pontoon/slots/3/store", false),
			cache("/nix/store/"+shell, "store/"+shell, true),
			tmpfs("/build", 4<<30),
			tmpfs("/tmp", 1<<30),
			tmpfs("/dev/shm", 64<<20),
			ssh("/.pontoon/tunnel", "tunnel-7"),
		)
		e.Meta.Hostname = "localhost"
		e.Network = pb.NetMode_NONE
		d := &definition{}
		return d.end(d.add(op(e), metadata("hello",
			"exec.meta.base", "exec.meta.network", "exec.mount.cache", "exec.mount.cache.sharing",
			"exec.mount.selector", "exec.mount.ssh", "exec.mount.tmpfs", "exec.mount.tmpfs.size")))
	},
	"strong": func() *pb.Definition {
		e := exec(
			[]string{"/nix/pontoon/agent/0123abcd", "agent", "jobs"},
			[]string{"PONTOON_NONCE=00000000000000000000000000000001"},
			scratch("/", 0),
			tmpfs("/tmp", 1<<30),
			ssh("/.pontoon/tunnel", "tunnel-8"),
		)
		e.Meta.User = "0:0"
		e.Security = pb.SecurityMode_INSECURE
		e.CdiDevices = []*pb.CDIDevice{{Name: "pontoon.dev/store=main"}}
		d := &definition{}
		return d.end(d.add(op(e), metadata("jobs",
			"exec.meta.base", "exec.meta.cdi", "exec.meta.security", "exec.mount.ssh",
			"exec.mount.tmpfs", "exec.mount.tmpfs.size")))
	},
	"effect": func() *pb.Definition {
		e := exec(
			[]string{"/.pontoon/agent", "agent", "effect", "deploy"},
			[]string{"PONTOON_NONCE=ffffffffffffffffffffffffffffffff", "EMPTY=", "NOTE=a=b"},
			scratch("/", 0),
			cache("/.pontoon/store", "", false),
			cache("/nix/store/"+hello, "store/"+hello, true),
			secret("/run/secrets/token", "deploy.token", 1000, 100, false),
			secret("/run/secrets/extra", "deploy.extra", 1000, 100, true),
			ssh("/.pontoon/tunnel", "tunnel-9"),
		)
		d := &definition{}
		return d.end(d.add(op(e), metadata("deploy",
			"exec.meta.base", "exec.mount.cache", "exec.mount.cache.sharing", "exec.mount.secret",
			"exec.mount.selector", "exec.mount.ssh")))
	},
	"ssh": func() *pb.Definition {
		d := &definition{}
		e := exec([]string{"true"}, nil, scratch("/", 0),
			&pb.Mount{
				Input: -1, Dest: "/agent", Output: -1, MountType: pb.MountType_SSH,
				SSHOpt: &pb.SSHOpt{ID: "default", Uid: 7, Gid: 8, Mode: 0o666, Optional: true},
			})
		return d.end(d.add(op(e), metadata("", "exec.meta.base", "exec.mount.ssh")))
	},
	"tmpfs": func() *pb.Definition {
		d := &definition{}
		e := exec([]string{"true"}, nil, scratch("/", 0), tmpfs("/a", 0), tmpfs("/b", 4096))
		return d.end(d.add(op(e), metadata("",
			"exec.meta.base", "exec.mount.tmpfs", "exec.mount.tmpfs.size")))
	},
	"secret": func() *pb.Definition {
		d := &definition{}
		e := exec([]string{"true"}, nil, scratch("/", 0), secret("/s", "key", 0, 0, false))
		return d.end(d.add(op(e), metadata("", "exec.meta.base", "exec.mount.secret")))
	},
	"cdi": func() *pb.Definition {
		d := &definition{}
		e := exec([]string{"true"}, nil, scratch("/", 0))
		e.CdiDevices = []*pb.CDIDevice{{Name: "a.example/b=c"}, {Name: "a.example/b=d"}}
		return d.end(d.add(op(e), metadata("", "exec.meta.base", "exec.meta.cdi")))
	},
	"insecure": func() *pb.Definition {
		d := &definition{}
		e := exec([]string{"true"}, nil, scratch("/", 0))
		e.Security = pb.SecurityMode_INSECURE
		e.Network = pb.NetMode_HOST
		return d.end(d.add(op(e), metadata("",
			"exec.meta.base", "exec.meta.network", "exec.meta.security")))
	},
	"sharing": func() *pb.Definition {
		d := &definition{}
		private, locked := cache("/private", "", false), cache("/locked", "", false)
		private.CacheOpt.Sharing = pb.CacheSharingOpt_PRIVATE
		locked.CacheOpt = &pb.CacheOpt{ID: "other", Sharing: pb.CacheSharingOpt_LOCKED}
		e := exec([]string{"true"}, nil, scratch("/", 0), private, locked)
		return d.end(d.add(op(e), metadata("",
			"exec.meta.base", "exec.mount.cache", "exec.mount.cache.sharing")))
	},
	// A root from an image, files from the client, a second output.
	"source": func() *pb.Definition {
		d := &definition{}
		image := d.add(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{
			Identifier: "oci-layout://pontoon/root@sha256:" +
				"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
			Attrs: map[string]string{"oci.store": "pontoon"},
		}}}, metadata("root", "source.ocilayout"))
		local := d.add(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{
			Identifier: "local://agent",
			Attrs: map[string]string{
				"local.sharedkeyhint":  "pontoon-agent",
				"local.includepattern": `["agent"]`,
			},
		}}}, metadata("", "source.local", "source.local.includepatterns",
			"source.local.sharedkeyhint"))
		agent := bind("/agent", 1)
		agent.Selector = "/agent"
		e := exec([]string{"/agent"}, []string{"LANG=C", "NAME=größe ✓"},
			bind("/", 0), agent, scratch("/out", 0), scratch("/log", 1))
		first := d.add(op(e, &pb.Input{Digest: image}, &pb.Input{Digest: local}),
			metadata("", "exec.meta.base", "exec.mount.bind", "exec.mount.selector"))
		writable := &pb.Mount{Input: 0, Dest: "/", Output: 0}
		second := d.add(op(exec([]string{"true"}, nil, writable),
			&pb.Input{Digest: first, Index: 1}), metadata("", "exec.meta.base", "exec.mount.bind"))
		return d.end(second)
	},
	// A diamond of ops that no data flows between; the last one may not be answered by a cache.
	"ordering": func() *pb.Definition {
		d := &definition{}
		step := func(name string, md *pb.OpMetadata, inputs ...string) string {
			in := []*pb.Input{}
			for _, dgst := range inputs {
				in = append(in, &pb.Input{Digest: dgst})
			}
			return d.add(op(exec([]string{"step", name}, nil, scratch("/", 0)), in...), md)
		}
		md := func() *pb.OpMetadata { return metadata("", "exec.meta.base") }
		a := step("a", md())
		b := step("b", md(), a)
		c := step("c", md(), a)
		last := metadata("last", "exec.meta.base", "meta.ignorecache")
		last.IgnoreCache = true
		return d.end(step("d", last, b, c))
	},
}
